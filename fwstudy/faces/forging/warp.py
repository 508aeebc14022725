"""Landmark geometry: hulls, soft masks, similarity and piecewise affine warps. Pure functions.

Landmarks are (68, 2) pixel coordinates (x, y) in the iBUG-68 order (Sagonas et al., "300 Faces
In-the-Wild Challenge", 2013). Left and right are the subject's. Lengths that depend on the size of
the face are given as a share of the interocular distance, so that any frame size works.
"""

import cv2
import numpy as np
from scipy.spatial import Delaunay

from fwstudy.clips import Portrait
from fwstudy.labels import FORGED_PARTS, PARTS

PART_LANDMARKS = {
    "right_brow": range(17, 22),
    "left_brow": range(22, 27),
    "nose": range(27, 36),
    "right_eye": range(36, 42),
    "left_eye": range(42, 48),
    "mouth": range(48, 68),
}
PART_MARGINS = {  # how far the soft mask of a part reaches, share of the interocular distance
    "nose": 0.22,
    "right_eye": 0.20,
    "left_eye": 0.20,
    "mouth": 0.26,
}
FOREHEAD = 0.25  # how far a face reaches above its brows, share of that distance
SPARED = 0.05  # how far a mask keeps from other parts and hair, share of that distance
STABLE = range(60)  # landmarks to warp by; the inner lips fold when one mouth is open, one shut
ANCHORS = 12  # points on a wide circle that carry the similarity to the rest of the frame
ANCHOR_RADIUS = 4.0  # radius of that circle, in radii of the landmarks


def interocular(landmarks: np.ndarray) -> float:
    """Distance between the centers of the two eyes in pixels."""
    return float(np.linalg.norm(landmarks[42:48].mean(0) - landmarks[36:42].mean(0)))


def smoothstep(values: np.ndarray) -> np.ndarray:
    """0 below 0, 1 above 1, the cubic 3t² - 2t³ between."""
    clipped = np.clip(values, 0, 1)
    return (clipped * clipped * (3 - 2 * clipped)).astype(np.float32)


def hull_mask(points: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Pixels of which a convex hull covers more than half.

    Args:
        points: (N, 2) pixel coordinates (x, y), N >= 1.
        shape: height and width of the mask.

    Returns:
        (H, W) bool.
    """
    coverage = np.zeros(shape, np.uint8)
    hull = cv2.convexHull(np.round(np.asarray(points) * 16).astype(np.int32))
    return cv2.fillConvexPoly(coverage, hull, 255, cv2.LINE_AA, 4) > 127


def face_outline(landmarks: np.ndarray) -> np.ndarray:
    """The landmarks and, `FOREHEAD` above each brow point, one more: (78, 2)."""
    across = landmarks[42:48].mean(0) - landmarks[36:42].mean(0)
    up = np.array([across[1], -across[0]], landmarks.dtype)
    return np.concatenate([landmarks, landmarks[17:27] + FOREHEAD * up])


def feather_inside(support: np.ndarray, width: float) -> np.ndarray:
    """Soft mask that rises from 0 at the border of a (H, W) bool support to 1 at `width` px inside.

    It is exactly 0 outside the support. Returns (H, W) float32 in 0..1.
    """
    distance = cv2.distanceTransform(support.astype(np.uint8), cv2.DIST_L2, 5)
    return smoothstep(distance / max(width, 1e-3))


def feather_outside(core: np.ndarray, width: float) -> np.ndarray:
    """Soft mask that is 1 on a (H, W) bool core and falls to exactly 0 at `width` px from it."""
    distance = cv2.distanceTransform((~core).astype(np.uint8), cv2.DIST_L2, 5)
    return smoothstep(1 - distance / max(width, 1e-3)) if core.any() else core.astype(np.float32)


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Least-squares rotation, scale and shift from `source` to `target`, both (N, 2), N >= 2.

    With points as complex numbers this is the linear regression of the target on the source.

    Returns:
        (2, 3) float64, to be used by `transform` or ``cv2.warpAffine``.

    Raises:
        ValueError: all source points coincide.
    """
    source_plane, target_plane = (
        np.asarray(points, np.float64) @ (1, 1j) for points in (source, target)
    )
    centered = source_plane - source_plane.mean()
    spread = np.vdot(centered, centered).real
    if spread == 0:
        raise ValueError("a similarity needs at least two different source points")
    turn = np.vdot(centered, target_plane) / spread
    shift = target_plane.mean() - turn * source_plane.mean()
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])


def transform(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Apply a (2, 3) affine matrix to (N, 2) points."""
    return points @ matrix[:, :2].T + matrix[:, 2]


def piecewise_affine_map(
    source: np.ndarray, target: np.ndarray, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Where each pixel of a warped image comes from: affine on each Delaunay triangle.

    The triangulation is that of the target points together with a wide circle of anchors, which
    the similarity between the two sets carries along; so the map is defined on the whole frame.

    Args:
        source: (N, 2) pixel coordinates in the image to be warped, N >= 3.
        target: (N, 2) where these points shall lie.
        shape: height and width of the result.

    Returns:
        Two (H, W) float32 arrays, x and y, for ``cv2.remap``.
    """
    target = np.asarray(target, np.float64)
    radius = ANCHOR_RADIUS * max(np.ptp(target, axis=0).max() / 2, max(shape) / 3)
    angles = np.linspace(0, 2 * np.pi, ANCHORS, endpoint=False)
    anchors = target.mean(0) + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    source = np.vstack([source, transform(anchors, similarity(target, source))])
    target = np.vstack([target, anchors])

    triangles = Delaunay(target).simplices
    corners = np.concatenate([target[triangles], np.ones((len(triangles), 3, 1))], axis=2)
    solid = np.abs(np.linalg.det(corners)) > 1e-3
    triangles, corners = triangles[solid], corners[solid]
    affine = np.linalg.solve(corners, source[triangles])  # (T, 3, 2)

    index = np.zeros(shape, np.int32)
    for number, corner in enumerate(np.round(target[triangles] * 16).astype(np.int32)):
        cv2.fillConvexPoly(index, corner, number, cv2.LINE_8, 4)
    rows, columns = np.indices(shape, dtype=np.float32)
    coefficients = affine.astype(np.float32)[index]  # (H, W, 3, 2)
    mapped = (
        coefficients[..., 0, :] * columns[..., None]
        + coefficients[..., 1, :] * rows[..., None]
        + coefficients[..., 2, :]
    )
    return np.ascontiguousarray(mapped[..., 0]), np.ascontiguousarray(mapped[..., 1])


def warp_portrait(portrait: Portrait, target: Portrait, interpolation: int) -> Portrait:
    """The portrait bent so that its landmarks of `STABLE` come to lie on the target's, in its frame.

    The other landmarks follow the similarity. `interpolation` of the image is a flag of OpenCV.
    """
    points = list(STABLE)
    source, goal = portrait.landmarks[points], target.landmarks[points]
    columns, rows = piecewise_affine_map(source, goal, target.parsing.shape)
    landmarks = transform(portrait.landmarks, similarity(source, goal))
    landmarks[points] = goal
    return Portrait(
        image=cv2.remap(
            portrait.image, columns, rows, interpolation, borderMode=cv2.BORDER_REFLECT_101
        ),
        landmarks=landmarks.astype(np.float32),
        parsing=cv2.remap(portrait.parsing, columns, rows, cv2.INTER_NEAREST),
    )


def align_portrait(
    portrait: Portrait, matrix: np.ndarray, shape: tuple[int, int], interpolation: int
) -> Portrait:
    """The portrait under a (2, 3) affine matrix, in a frame of height and width `shape`."""
    size = shape[::-1]
    return Portrait(
        image=cv2.warpAffine(
            portrait.image, matrix, size, flags=interpolation, borderMode=cv2.BORDER_REFLECT_101
        ),
        landmarks=transform(portrait.landmarks, matrix).astype(np.float32),
        parsing=cv2.warpAffine(portrait.parsing, matrix, size, flags=cv2.INTER_NEAREST),
    )


def is_part(parts: np.ndarray, *names: str) -> np.ndarray:
    """(H, W) bool: where a part map shows one of the named `PARTS`."""
    return np.isin(parts, [PARTS.index(name) for name in names])


def part_core(portrait: Portrait, part: str) -> np.ndarray:
    """(H, W) bool: the part itself, by its landmarks' hull and, near it, by the part map."""
    labels = FORGED_PARTS[part]
    points = [number for label in labels for number in PART_LANDMARKS[label]]
    hull = hull_mask(portrait.landmarks[points], portrait.parsing.shape)
    near = feather_outside(hull, PART_MARGINS[part] * interocular(portrait.landmarks)) > 0
    return hull | (near & is_part(portrait.parsing, *labels))


def part_mask(target: Portrait, part: str) -> np.ndarray:
    """Soft mask that covers one part of a face and spares the others, and hair.

    Args:
        target: the face.
        part: one of `FORGED_PARTS`.

    Returns:
        (H, W) float32 in 0..1: 1 on the part, falling to 0 within its margin of `PART_MARGINS`;
        lower within `SPARED` of what is spared.

    Raises:
        ValueError: unknown part; the message names the known ones.
    """
    if part not in FORGED_PARTS:
        raise ValueError(f"unknown part {part!r}; known: {', '.join(FORGED_PARTS)}")
    unit = interocular(target.landmarks)
    own, spared = part_core(target, part), is_part(target.parsing, "hair", "clothes")
    for other in FORGED_PARTS:
        spared |= part_core(target, other)
    weight = 1 - feather_outside(spared & ~own, SPARED * unit)
    return weight * feather_outside(own, PART_MARGINS[part] * unit)
