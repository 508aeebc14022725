"""Where forged crops were changed: by their masks, by the difference to their originals, or by the face."""

from collections.abc import Sequence

import cv2
import numpy as np

from fwstudy.faces.videos.pairing import highest

DIFFERENCE = 12.0  # gray levels, smoothed, by which a forged pixel differs from its original
ALL = 0.5  # share of a crop that differs at least where a mask that marks all of it is right
MUCH = 0.05  # share of a crop outside its mask that compression alone does not change
SMOOTHING = 2.0  # px of the crop: the difference is blurred before it is compared


def differing(images: np.ndarray, originals: np.ndarray) -> np.ndarray:
    """Where forged crops differ from their originals by more than compression explains: (F, S, S) bool."""
    away = [
        highest(cv2.absdiff(*pair)).astype(np.float32)
        for pair in zip(images, originals, strict=True)
    ]
    return np.stack([cv2.GaussianBlur(one, (0, 0), SMOOTHING) > DIFFERENCE for one in away])


def changed_region(
    images: np.ndarray,
    originals: np.ndarray | None,
    masks: Sequence[np.ndarray | None],
    parts: np.ndarray,
) -> tuple[np.ndarray, str, str]:
    """Where forged crops were changed: their masks, else the difference to the original, else the face.

    Args:
        images: (F, S, S, 3) uint8.
        originals: of the same shape, or None.
        masks: (S, S) uint8 of each frame, or None. Masks are used if all frames have one, they mark
            something, and the difference does not contradict them. Where there is no difference, they
            must not mark more of what is around the face than twice what they mark of the face; that
            a mask of the mouth alone is inverted cannot be seen then.
        parts: (F, S, S) uint8, see `PARTS`.

    Returns:
        (F, S, S) uint8, 0 or more, above 127 is changed; how it is known (`MASK_SOURCES`); what is to
        be said of the masks, and why they were not used, or empty.
    """
    away = differing(images, originals) if originals is not None else None
    there, why = [mask for mask in masks if mask is not None], ""
    if there:
        given = np.stack(there)
        inside = given > 127
        if len(there) < len(images):
            why = f"only {len(there)} of {len(images)} frames have a mask: not used"
        elif not inside.any():
            why = "nothing is marked in it where the face is: not used"
        elif inside.all() and away is None:
            return given, "given", "all is marked in it where the face is"
        elif inside.all() and away.mean() < ALL:
            why = "all is marked in it where the face is, less differs: not used"
        elif away is not None and _contradicts(inside, away):
            why = "it marks what is as in the original (inverted?): not used"
        elif away is None and _surrounds(inside, parts > 0):
            why = "it marks what is around the face (inverted?): not used"
        else:
            return given, "given", ""
    if away is not None:
        return np.uint8(255) * away, "difference", why
    return np.uint8(255) * (parts > 0), "face", why


def _contradicts(inside: np.ndarray, away: np.ndarray) -> bool:
    """Whether much differs outside a mask, and hardly anything inside."""
    outside = 0.0 if inside.all() else away[~inside].mean()
    return bool(outside > MUCH and away[inside].mean() < outside / 2)


def _surrounds(inside: np.ndarray, face: np.ndarray) -> bool:
    """Whether most of what is around the face is marked, and less than half as much of the face."""
    if face.all() or not face.any():
        return False
    around = inside[~face].mean()
    return bool(around > 0.5 and inside[face].mean() < around / 2)
