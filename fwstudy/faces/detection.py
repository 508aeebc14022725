"""Find faces in photographs, and place 68 landmarks on them.

Boxes and five points come from MTCNN (Zhang et al., "Joint Face Detection and Alignment Using
Multitask Cascaded Convolutional Networks", 2016) as in facenet-pytorch, whose wheel carries the
weights: nothing is downloaded. The 68 landmarks are a mean face fitted to the five points, and not
detected: good to a few percent of the interocular distance at the eyes, nose and corners of the
mouth; brows, lips and jaw follow the mean face, so that an open mouth or a raised brow is missed.
"""

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
import torch
from scipy.interpolate import RBFInterpolator
from scipy.ndimage import binary_fill_holes

from fwstudy.faces.forging.warp import (
    PART_LANDMARKS,
    face_outline,
    feather_inside,
    feather_outside,
    hull_mask,
    interocular,
    similarity,
    transform,
)
from fwstudy.labels import PARTS

DETECTION_SIDE = 640  # px; larger photographs are searched at this length of their longer side
MIN_FACE = 20  # px at that size
MIN_PROBABILITY = 0.9
BROW_THICKNESS = 0.08  # share of the interocular distance
RIM = 0.35  # width of the rim of a face in which hair and background are looked for
PART_RIM = 0.12  # width of the rim of brows, eyes and mouth that counts as skin
SKIN_LIMIT = 4.0  # Mahalanobis distance beyond which a color is not skin
REACH = 0.8  # how far a landmark's displacement is felt, in interocular distances

TEMPLATE = np.array(
    [
        [-1.092, 0.033], [-1.017, 0.378], [-0.978, 0.663], [-0.891, 0.935],
        [-0.809, 1.229], [-0.700, 1.465], [-0.510, 1.665], [-0.270, 1.757],
        [0.000, 1.776], [0.270, 1.757], [0.510, 1.665], [0.700, 1.465],
        [0.809, 1.229], [0.891, 0.935], [0.978, 0.663], [1.017, 0.378],
        [1.092, 0.033], [-0.871, -0.248], [-0.741, -0.328], [-0.548, -0.350],
        [-0.341, -0.314], [-0.210, -0.255], [0.210, -0.255], [0.341, -0.314],
        [0.548, -0.350], [0.741, -0.328], [0.871, -0.248], [0.000, -0.015],
        [0.000, 0.230], [0.000, 0.406], [0.000, 0.645], [-0.217, 0.705],
        [-0.117, 0.738], [0.000, 0.786], [0.117, 0.738], [0.217, 0.705],
        [-0.693, -0.011], [-0.580, -0.076], [-0.426, -0.075], [-0.281, 0.022],
        [-0.435, 0.071], [-0.585, 0.070], [0.281, 0.022], [0.426, -0.075],
        [0.580, -0.076], [0.693, -0.011], [0.585, 0.070], [0.435, 0.071],
        [-0.384, 1.083], [-0.253, 1.051], [-0.114, 1.016], [0.000, 1.007],
        [0.114, 1.016], [0.253, 1.051], [0.384, 1.083], [0.258, 1.242],
        [0.159, 1.296], [0.000, 1.316], [-0.159, 1.296], [-0.258, 1.242],
        [-0.386, 1.068], [-0.178, 1.060], [0.000, 1.073], [0.178, 1.060],
        [0.386, 1.068], [0.178, 1.095], [0.000, 1.106], [-0.178, 1.095],
    ]
)  # fmt: skip
"""(68, 2) mean frontal face: origin between the eyes, unit the interocular distance, y downwards.

The landmarks of 16 rendered heads, averaged and made symmetric; their jaws, wider than those of the
photographs it was tried on, were narrowed by 6 to 11 %.
"""


@dataclass(frozen=True)
class Face:
    """One detected face.

    Args:
        box: (4,) float32, left, top, right, bottom in pixels.
        points: (5, 2) float32, (x, y) of the subject's right eye, left eye, the tip of the nose,
            the right and left corner of the mouth.
        probability: confidence of the detector, 0..1.
    """

    box: np.ndarray
    points: np.ndarray
    probability: float


@cache
def _detector(device: str):
    from facenet_pytorch import MTCNN

    return MTCNN(keep_all=True, min_face_size=MIN_FACE, device=device)


def detect_faces(image: np.ndarray, device: str = "cpu") -> list[Face]:
    """All faces in a photograph, the largest first.

    Args:
        image: (H, W, 3) uint8, RGB.
        device: where PyTorch runs the detector.

    Returns:
        One `Face` for each detection of at least `MIN_PROBABILITY`; an empty list if there is none.
    """
    scale = min(1.0, DETECTION_SIDE / max(image.shape[:2]))
    if min(image.shape[:2]) * scale < MIN_FACE:
        return []
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # these small networks are slower with more where cores are shared
    try:
        boxes, probabilities, points = _detector(device).detect(small, landmarks=True)
    finally:
        torch.set_num_threads(threads)
    if boxes is None:
        return []
    faces = [
        Face(np.float32(box) / scale, np.float32(five) / scale, float(probability))
        for box, five, probability in zip(boxes, points, probabilities, strict=True)
        if probability >= MIN_PROBABILITY
    ]
    return sorted(faces, key=lambda face: -np.prod(face.box[2:] - face.box[:2]))


def five_points(landmarks: np.ndarray) -> np.ndarray:
    """The five points of a detector among 68 landmarks, (5, 2): see `Face`."""
    eyes = [landmarks[36:42].mean(0), landmarks[42:48].mean(0)]
    return np.array([*eyes, *landmarks[[30, 48, 54]]])


def landmarks_from_points(points: np.ndarray, template: np.ndarray = TEMPLATE) -> np.ndarray:
    """Fit a mean face to five points: a similarity, then displacements that fade with distance.

    The displacements are interpolated by Gaussian functions, so that brows and jaw, beyond the five
    points, mostly follow the similarity; a thin-plate spline would widen the jaw of who smiles.

    Args:
        points: (5, 2) pixel coordinates, in the order of `Face`.
        template: (68, 2) mean face, in any unit.

    Returns:
        (68, 2) float32, pixel coordinates in the iBUG-68 order.
    """
    anchors = five_points(template)
    matrix = similarity(anchors, points)
    placed, goals = transform(template, matrix), np.asarray(points, np.float64)
    reached = transform(anchors, matrix)
    displacement = RBFInterpolator(
        reached,
        goals - reached,
        kernel="gaussian",
        epsilon=1 / (REACH * interocular(placed)),
        degree=-1,
    )
    return (placed + displacement(placed)).astype(np.float32)


def looks_like_skin(image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """(H, W) bool: colors that the middle of the face has too, by their distance in CIELAB."""
    colors = cv2.cvtColor(cv2.GaussianBlur(image, (0, 0), 1.0), cv2.COLOR_RGB2LAB).astype(float)
    middle = hull_mask(landmarks[[*range(31, 36), 36, 39, 42, 45, 48, 54]], image.shape[:2]) > 0.5
    for name, points in PART_LANDMARKS.items():
        if name != "nose":
            middle &= hull_mask(landmarks[list(points)], image.shape[:2]) < 0.5
    samples = colors[middle]
    if len(samples) < 10:
        return np.ones(image.shape[:2], bool)
    spread = np.cov(samples.T) + np.diag([60.0, 8.0, 8.0])  # shadows change the lightness most
    away = colors - np.median(samples, axis=0)
    return np.einsum("hwi,ij,hwj->hw", away, np.linalg.inv(spread), away) < SKIN_LIMIT**2


def parts_from_landmarks(
    landmarks: np.ndarray, shape: tuple[int, int], image: np.ndarray | None = None
) -> np.ndarray:
    """Part map drawn from landmarks: the face as skin, and on it brows, eyes, nose and mouth.

    Args:
        landmarks: (68, 2) pixel coordinates.
        shape: height and width.
        image: (H, W, 3) uint8, RGB; if given, the rim of the face is skin only where it looks so.

    Returns:
        (H, W) uint8, indices into `PARTS`; hair, clothes and neck are not told from background.
    """
    across = landmarks[42:48].mean(0) - landmarks[36:42].mean(0)
    down = BROW_THICKNESS * np.array([-across[1], across[0]])
    drawn = np.zeros(shape, np.uint8)
    for name, points in PART_LANDMARKS.items():
        outline = landmarks[list(points)]
        if name.endswith("brow"):  # iBUG-68 marks the upper edge only
            outline = np.concatenate([outline, outline + down])
        drawn[hull_mask(outline, shape) > 0.5] = PARTS.index(name)
    face = hull_mask(face_outline(landmarks), shape) > 0.5
    if image is not None:
        rim = feather_inside(face, RIM * interocular(landmarks)) < 1
        sure = ~rim | (feather_outside(drawn > 0, PART_RIM * interocular(landmarks)) > 0)
        kept = (face & (sure | looks_like_skin(image, landmarks))).astype(np.uint8)
        brush = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
        face = binary_fill_holes(cv2.morphologyEx(kept, cv2.MORPH_OPEN, brush))
    return np.where(drawn > 0, drawn, face * np.uint8(PARTS.index("skin")))
