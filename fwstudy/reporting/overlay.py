"""A face under its heat map."""

import numpy as np

FOR, AGAINST = (230, 97, 1), (94, 60, 153)  # orange and violet, told apart by color-blind eyes too


def overlay(image: np.ndarray, relevance: np.ndarray, limit: float) -> np.ndarray:
    """A face under its signed relevance: orange speaks for a forgery, violet against.

    Args:
        image: (H, W, 3) uint8.
        relevance: (H, W).
        limit: relevance that is drawn at full strength.

    Returns:
        (H, W, 3) uint8.
    """
    strength = np.clip(np.abs(relevance) / max(limit, 1e-12), 0, 1)[..., None] * 0.85
    tint = np.where(relevance[..., None] > 0, FOR, AGAINST)
    gray = image.mean(axis=-1, keepdims=True)
    return (gray * (1 - strength) + tint * strength).round().astype(np.uint8)
