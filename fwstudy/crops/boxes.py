"""The square around a face, and what it cuts out of a picture."""

import cv2
import numpy as np


def face_box(landmarks: np.ndarray, scale: float) -> np.ndarray:
    """The square around a face: the landmarks' bounding box, enlarged, about its center.

    FaceForensics++ (Roessler et al. 2019) enlarges the detected box by 1.3.

    Args:
        landmarks: (K, 2), pixel coordinates (x, y).
        scale: side of the square ÷ longer side of the bounding box.

    Returns:
        (4,) int: left, top, right, bottom; may reach outside the image.
    """
    low, high = landmarks.min(axis=0), landmarks.max(axis=0)
    center, side = (low + high) / 2, (high - low).max() * scale
    corner = np.round(center - side / 2).astype(int)
    return np.concatenate([corner, corner + max(2, round(side))])


def crop(image: np.ndarray, box: np.ndarray, size: int, interpolation: int) -> np.ndarray:
    """Cut a square box and resize it; what lies outside the image is mirrored.

    Args:
        image: (H, W) or (H, W, 3) uint8.
        box: (4,) int as from `face_box`.
        size: side of the result, pixels.
        interpolation: an OpenCV flag, e.g. ``cv2.INTER_AREA``; ``cv2.INTER_NEAREST_EXACT`` for labels.

    Returns:
        (size, size) or (size, size, 3) uint8.
    """
    left, top, right, bottom = box
    height, width = image.shape[:2]
    margin = max(0, -left, -top, right - width, bottom - height)
    if margin:
        image = cv2.copyMakeBorder(image, *[margin] * 4, cv2.BORDER_REFLECT_101)
    cut = image[top + margin : bottom + margin, left + margin : right + margin]
    return cv2.resize(cut, (size, size), interpolation=interpolation)
