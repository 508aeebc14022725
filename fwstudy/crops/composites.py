"""One part of a face taken from its forgery, the rest left as it was: a forged part from a forged face."""

import cv2
import numpy as np

from fwstudy.labels import FORGED_PART_OF, FORGED_PARTS

SEAM = 0.012  # width of a transplant's soft edge, share of the crop's side
MIN_CHANGED = 0.5  # share of a part that a forgery must have changed to be worth transplanting
NUMBERS = np.arange(len(FORGED_PARTS))[:, None, None]


def transplant(
    original: np.ndarray, forged: np.ndarray, parts: np.ndarray, numbers: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Take some parts of a face from its forgery and leave the rest as it was.

    Args:
        original, forged: (S, S, 3) uint8, the same frame.
        parts: (S, S) uint8, indices into PARTS, of the original.
        numbers: the parts to take, indices into FORGED_PARTS.

    Returns:
        image (S, S, 3) uint8, and where it may differ from the original, (S, S) bool.

    Example:
        >>> black, white = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 255, np.uint8)
        >>> transplant(black, white, np.zeros((8, 8), np.uint8), [3])[1].any()
        np.False_
    """
    edge = max(1, round(len(parts) * SEAM))
    taken = np.isin(FORGED_PART_OF[parts], numbers).astype(np.float32)
    weight = cv2.dilate(taken, np.ones((2 * edge + 1,) * 2, np.uint8))
    weight = cv2.GaussianBlur(weight, (0, 0), edge)
    weight[weight < 1 / 16] = 0  # less than what the codec leaves visible
    image = original + weight[..., None] * (forged.astype(np.float32) - original)
    return image.round().astype(np.uint8), weight > 0


def forged_parts(changed: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """Which of FORGED_PARTS a forgery changed for the most part: (S, S) masks to (k,) bool."""
    inside = FORGED_PART_OF[parts] == NUMBERS
    area = inside.sum(axis=(1, 2))
    return (inside & changed).sum(axis=(1, 2)) > area * MIN_CHANGED
