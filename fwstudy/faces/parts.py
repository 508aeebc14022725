"""The shape of a face, 68 landmarks and the outlines of its parts, and the part map drawn from it."""

from dataclasses import dataclass

import cv2
import numpy as np

from fwstudy.faces.forging.warp import (
    PART_LANDMARKS,
    face_outline,
    feather_inside,
    feather_outside,
    hull_mask,
    interocular,
    transform,
)
from fwstudy.labels import PARTS

BROW_THICKNESS = 0.08  # share of the interocular distance
RIM = 0.35  # width of the rim of a face in which hair and background are looked for
PART_RIM = 0.12  # width of the rim of brows, eyes and mouth that counts as skin
SKIN_LIMIT = 4.0  # Mahalanobis distance beyond which a color is not skin


@dataclass(frozen=True)
class FaceShape:
    """Where a face and its parts are.

    Args:
        landmarks: (68, 2) float32, pixel coordinates in the iBUG-68 order.
        outlines: names of `PARTS`, "skin" for the whole face, to (N, 2) float32, whose convex hull is
            the part.
    """

    landmarks: np.ndarray
    outlines: dict[str, np.ndarray]

    def moved(self, matrix: np.ndarray) -> "FaceShape":
        """The shape under a (2, 3) affine matrix."""
        outlines = {
            name: transform(points, matrix).astype(np.float32)
            for name, points in self.outlines.items()
        }
        return FaceShape(transform(self.landmarks, matrix).astype(np.float32), outlines)


def shape_from_landmarks(landmarks: np.ndarray) -> FaceShape:
    """The shape of a face of which 68 landmarks, (68, 2), are all that is known.

    They mark the upper edge of the brows alone, and no forehead: see `BROW_THICKNESS`, `face_outline`.
    """
    across = landmarks[42:48].mean(0) - landmarks[36:42].mean(0)
    down = BROW_THICKNESS * np.array([-across[1], across[0]])
    outlines = {name: landmarks[list(points)] for name, points in PART_LANDMARKS.items()}
    for name in ("right_brow", "left_brow"):
        outlines[name] = np.concatenate([outlines[name], outlines[name] + down])
    return FaceShape(landmarks, {"skin": face_outline(landmarks)} | outlines)


def looks_like_skin(image: np.ndarray, face: FaceShape, where: np.ndarray) -> np.ndarray:
    """Which pixels have colors that the middle of the face has too, by their distance in CIELAB.

    Args:
        image: (H, W, 3) uint8, RGB.
        face: in its pixels.
        where: (H, W) bool, the pixels that are asked for.

    Returns:
        (H, W) bool, False elsewhere.
    """
    colors = cv2.cvtColor(cv2.GaussianBlur(image, (0, 0), 1.0), cv2.COLOR_RGB2LAB)
    middle = face.landmarks[[*range(31, 36), 36, 39, 42, 45, 48, 54]]
    middle = hull_mask(middle, image.shape[:2])
    for name, outline in face.outlines.items():
        if name not in ("nose", "skin"):
            middle &= ~hull_mask(outline, image.shape[:2])
    samples = colors[middle].astype(float)
    if len(samples) < 10:
        return where
    spread = np.cov(samples.T) + np.diag([60.0, 8.0, 8.0])  # shadows change the lightness most
    away = colors[where] - np.median(samples, axis=0)
    found = where.copy()
    found[where] = ((away @ np.linalg.inv(spread)) * away).sum(1) < SKIN_LIMIT**2
    return found


def without_holes(region: np.ndarray) -> np.ndarray:
    """(H, W) bool: a region, (H, W) uint8 of 0 and 1, and all that it encloses."""
    around = cv2.copyMakeBorder(region, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    cv2.floodFill(around, None, (0, 0), 2)
    return around[1:-1, 1:-1] != 2


def draw_parts(
    face: FaceShape, shape: tuple[int, int], image: np.ndarray | None = None
) -> np.ndarray:
    """Part map: the face as skin, and on it brows, eyes, nose and mouth.

    Args:
        face: in pixel coordinates.
        shape: height and width.
        image: (H, W, 3) uint8, RGB; if given, the rim of the face is skin only where it looks so.

    Returns:
        (H, W) uint8, indices into `PARTS`; hair, clothes and neck are not told from background.
    """
    drawn = np.zeros(shape, np.uint8)
    for name in PART_LANDMARKS:
        drawn[hull_mask(face.outlines[name], shape)] = PARTS.index(name)
    skin = hull_mask(face.outlines["skin"], shape)
    if image is not None:
        unit = interocular(face.landmarks)
        rim = feather_inside(skin, RIM * unit) < 1
        sure = ~rim | (feather_outside(drawn > 0, PART_RIM * unit) > 0)
        unsure = skin & ~sure
        kept = (skin & sure | looks_like_skin(image, face, unsure)).astype(np.uint8)
        brush = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
        skin = without_holes(cv2.morphologyEx(kept, cv2.MORPH_OPEN, brush))
    return np.where(drawn > 0, drawn, skin * np.uint8(PARTS.index("skin")))
