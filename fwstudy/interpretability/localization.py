"""Does relevance lie on the changed pixels? Measures of a relevance map against an exact mask.

All take signed relevance for *forged*, (N, H, W) float, and the mask of the changed pixels, (N, H, W)
bool; a ValueError tells where shapes differ, the mask is not bool, or relevance is not finite. Two kinds
of question are asked. `relevance_mass` and `pointing_game` ask where the evidence *for* a forgery
lies: a map without positive relevance names no pixel and earns 0. `relevance_rank` and `pixel_auc`
compare pixels with each other: they read the order of the values alone, below zero too, and a
constant map earns what chance earns. The intersection over union of the mask and as many of the most
relevant pixels is r / (2 - r) of the relevance rank r, and is not listed beside it. Pixels of equal relevance are never put
in an order: each measure is its expectation over all orders. No threshold is chosen anywhere.

No value is given (NaN) where the mask is empty: nothing was changed, so nothing can be found.
"""

from collections.abc import Callable

import cv2
import numpy as np
import pandas as pd

from fwstudy.evaluation.metrics import Measure, rank_auc
from fwstudy.labels import FORGED_PART_OF, FORGED_PARTS

MARGIN = 0.03  # of the image's width: how far a part reaches beyond its pixels


def relevance_mass(relevance: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Share of the positive relevance that lies inside the mask, per image.

    Arras, Osman, Samek, Information Fusion 2022, "relevance mass accuracy". Departure from Quantus,
    which sums signed relevance: negative relevance is set to zero first.

    Returns:
        (N,) float64 in [0, 1]; 0 where no relevance is positive, NaN where the mask is empty.
    """
    relevance, mask = _flatten(relevance, mask)
    positive = np.clip(relevance, 0, None)
    total = positive.sum(axis=1, dtype=np.float64)
    inside = positive.sum(axis=1, dtype=np.float64, where=mask)
    share = np.divide(inside, total, out=np.zeros(len(total)), where=total > 0)
    return np.where(mask.any(axis=1), share, np.nan)


def relevance_rank(relevance: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Share of the K most relevant pixels that lie inside the mask of K pixels, per image.

    Arras, Osman, Samek, Information Fusion 2022, "relevance rank accuracy". Departure: where
    pixels tie for the last places, the expectation over who gets them; a constant map earns
    ``mask.mean()``.

    Returns:
        (N,) float64 in [0, 1]; NaN where the mask is empty.
    """
    relevance, mask = _flatten(relevance, mask)
    size = mask.sum(axis=1)
    last = relevance.shape[1] - np.maximum(size, 1)  # where the K-th largest value stands
    threshold = np.take_along_axis(np.sort(relevance, axis=1), last[:, None], axis=1)
    above, tied = relevance > threshold, relevance == threshold
    places = size - above.sum(axis=1)
    hits = (above & mask).sum(axis=1) + places * (tied & mask).sum(axis=1) / tied.sum(axis=1)
    return np.divide(hits, size, out=np.full(len(size), np.nan), where=size > 0)


def pointing_game(relevance: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Whether the most relevant pixel lies inside the mask, per image.

    Zhang et al., IJCV 2018. Departures: no tolerance (15 pixels there) around the mask, which is
    exact here; where several pixels are the most relevant, the share of them inside; 0 where no
    relevance is positive, since such a map points at nothing.

    Returns:
        (N,) float64 in [0, 1]; NaN where the mask is empty.
    """
    relevance, mask = _flatten(relevance, mask)
    highest = relevance.max(axis=1)
    maxima = relevance == highest[:, None]
    share = (maxima & mask).sum(axis=1) / maxima.sum(axis=1)
    return np.where(mask.any(axis=1), np.where(highest > 0, share, 0), np.nan)


def pixel_auc(relevance: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """AUC of relevance as a score that tells pixels inside the mask from those outside, per image.

    Mann-Whitney statistic, equal to scikit-learn's `roc_auc_score`.

    Returns:
        (N,) float64 in [0, 1], 0.5 for a constant map; NaN where the mask is empty or full.
    """
    relevance, mask = _flatten(relevance, mask)
    return rank_auc(mask.T, relevance.T)


def part_regions(parts: np.ndarray, margin: float = MARGIN) -> np.ndarray:
    """The region of each of `FORGED_PARTS`: its pixels and a rim around them, per image.

    A forgery of a thin part is blended around it; the rim takes that in. Pixels of the other named
    parts are left out, so that relevance on an eye is never credited to the nose beside it; where two
    rims meet on the skin, both have the pixel. Ours.

    Args:
        parts: (N, H, W) uint8, indices into `PARTS`.
        margin: width of the rim, as a share of W.

    Returns:
        (N, k, H, W) bool; ``[:, j]`` is a mask for the measures above, empty for a part not seen.

    Raises:
        ValueError: parts is not (N, H, W), or margin is negative.
    """
    parts = np.asarray(parts)
    if parts.ndim != 3 or margin < 0:
        raise ValueError(
            f"parts must be (N, H, W) and margin 0 or more, not {parts.shape} and {margin}"
        )
    radius = round(margin * parts.shape[2])
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    numbers = np.arange(len(FORGED_PARTS))[:, None, None]
    regions = np.empty((len(parts), len(numbers), *parts.shape[1:]), bool)
    for labels, region in zip(FORGED_PART_OF[parts], regions, strict=True):
        seen = (labels == numbers).astype(np.uint8)
        free = seen | ~seen.any(axis=0)
        region[:] = free & [cv2.dilate(part, disc) for part in seen]
    return regions


def part_relevance(relevance: np.ndarray, parts: np.ndarray, margin: float = MARGIN) -> np.ndarray:
    """Positive relevance in the region of each of `FORGED_PARTS`, per image. Ours.

    Args:
        relevance: (N, H, W) float, signed.
        parts: (N, H, W) uint8, indices into `PARTS`.
        margin: of `part_regions`.

    Returns:
        (N, k) float64, non-negative; 0 for a part that is not seen.

    Raises:
        ValueError: as `part_regions`; shapes differ or relevance is not finite.
    """
    regions = part_regions(parts, margin)
    values, _ = _flatten(relevance, regions.any(axis=1))
    positive = np.clip(values, 0, None).astype(np.float64)
    flat = regions.reshape(*regions.shape[:2], positive.shape[1])
    sums = [region @ value for region, value in zip(flat, positive, strict=True)]
    return np.array(sums).reshape(regions.shape[:2])


def part_top1(part_evidence: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Whether the part with most evidence is the one that was forged, per image.

    Ours. Chance is 1/k: where several parts have most evidence, the expected hit of a guess among
    them, so no evidence at all is worth a guess too.

    Args:
        part_evidence: (N, k) float.
        part: (N,) int, index of the forged part.

    Returns:
        (N,) float64, 1 for a hit and 0 for a miss.

    Raises:
        ValueError: evidence is not finite, or a part is not in 0 ... k - 1.
    """
    part_evidence, part = np.asarray(part_evidence), np.asarray(part)
    if part_evidence.ndim != 2 or part.shape != part_evidence.shape[:1]:
        raise ValueError(
            "part_evidence must be (N, k) and part (N,), "
            f"not {part_evidence.shape} and {part.shape}"
        )
    if not np.isfinite(part_evidence).all():
        raise ValueError("part_evidence must be finite; it holds NaN or infinity")
    number = part_evidence.shape[1]
    if len(part) and not (0 <= part.min() and part.max() < number):
        raise ValueError(f"part must be in 0 ... {number - 1}, not {part.min()} ... {part.max()}")
    maxima = part_evidence == part_evidence.max(axis=1, keepdims=True)
    return maxima[np.arange(len(part)), part] / maxima.sum(axis=1)


SCORES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "relevance_mass": relevance_mass,
    "relevance_rank": relevance_rank,
    "pointing_game": pointing_game,
    "pixel_auc": pixel_auc,
}

ARRAS = "Arras, Osman, Samek, Information Fusion 2022"
MEASURES: dict[str, Measure] = {
    "relevance_mass": Measure(
        "Share of the positive relevance that lies on changed pixels; "
        "chance is their share of the image.",
        ARRAS,
        "higher",
    ),
    "relevance_rank": Measure(
        "Share of the K most relevant pixels that are changed, K the number of changed pixels; "
        "chance is their share of the image.",
        ARRAS,
        "higher",
    ),
    "pointing_game": Measure(
        "Whether the most relevant pixel is changed; chance is the share of changed pixels.",
        "Zhang et al., IJCV 2018",
        "higher",
    ),
    "pixel_auc": Measure(
        "Probability that a changed pixel is more relevant than an unchanged one.",
        "Hanley and McNeil, Radiology 1982",
        "higher",
        0.5,
    ),
    "part_top1": Measure(
        "Whether the part with most evidence is the one that was forged.",
        "ours",
        "higher",
        1 / len(FORGED_PARTS),
    ),
}
"""What each column means. Chance depends on the mask, and is then told in words."""


def localization_scores(relevance: np.ndarray, mask: np.ndarray) -> pd.DataFrame:
    """All measures of `SCORES`, one row an image in the given order, one column a measure."""
    return pd.DataFrame({name: score(relevance, mask) for name, score in SCORES.items()})


def _flatten(relevance: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as (N, H W), checked."""
    relevance, mask = np.asarray(relevance), np.asarray(mask)
    if relevance.ndim != 3 or relevance.shape != mask.shape:
        raise ValueError(
            "relevance and its truth must both be (N, H, W), "
            f"not {relevance.shape} and {mask.shape}"
        )
    if mask.dtype != bool:
        raise ValueError(f"mask must be bool, not {mask.dtype}")
    if not np.isfinite(relevance).all():
        raise ValueError("relevance must be finite; it holds NaN or infinity")
    count, height, width = relevance.shape
    return relevance.reshape(count, height * width), mask.reshape(count, height * width)
