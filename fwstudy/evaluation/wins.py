"""AUC under resampling: won pairs are counted once between units, and weighted anew in each draw."""

import numpy as np


def won_pairs(
    positive: np.ndarray, scores: np.ndarray, units: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of a positive and a negative, counted between the units they come from.

    Args:
        positive: (N,) bool.
        scores: (N,).
        units: (N,) int from 0, of what is resampled: people, clips.

    Returns:
        won and pairs, each (U, U) float64, a row for the unit of the positive: pairs in the right order,
        where equal scores count half, and all pairs.

    Example:
        >>> won_pairs(np.array([True, False, False]), np.array([2.0, 1.0, 3.0]), np.array([0, 0, 1]))[0]
        array([[1., 0.],
               [0., 0.]])
    """
    positive = np.asarray(positive, bool)
    count = int(np.max(units)) + 1
    forged, own = np.asarray(scores)[positive], np.asarray(units)[positive]
    won = np.zeros((count, count))
    for unit in range(count):
        others = np.sort(np.asarray(scores)[~positive & (units == unit)])
        beaten = np.searchsorted(others, forged, "left") + np.searchsorted(others, forged, "right")
        won[:, unit] = np.bincount(own, beaten / 2, minlength=count)
    positives, negatives = (
        np.bincount(np.asarray(units)[chosen], minlength=count) for chosen in (positive, ~positive)
    )
    return won, np.outer(positives, negatives).astype(np.float64)


def weighted_auc(won: np.ndarray, pairs: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """AUC of samples in which units occur so many times: the Mann-Whitney statistic, exactly.

    Args:
        won, pairs: from `won_pairs`.
        weights: (..., U), how often each unit occurs.

    Returns:
        (...) float64; NaN where one class is missing.
    """
    weights = np.asarray(weights, np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return ((weights @ won) * weights).sum(-1) / ((weights @ pairs) * weights).sum(-1)
