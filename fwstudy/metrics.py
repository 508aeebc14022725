"""Detection and interpretability metrics, with intervals that respect who is in the picture.

Frames of one person are not independent, nor are two people who lend each other their faces, so every
interval resamples whole groups of such people.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    roc_auc_score,
    roc_curve,
)

REPEATS = 400
CONFIDENCE = 0.95


def equal_error_rate(labels: np.ndarray, scores: np.ndarray) -> float:
    """The error where false positive and false negative rate meet, between ROC points linearly."""
    false_positive, true_positive, _ = roc_curve(labels, scores)
    gap = false_positive - (1 - true_positive)
    return float(np.interp(0, gap, false_positive))


def balanced_threshold(labels: np.ndarray, scores: np.ndarray) -> float:
    """The score above which to say *forged*: best balanced accuracy on the given (validation) set."""
    false_positive, true_positive, thresholds = roc_curve(labels, scores)
    return float(thresholds[1:][np.argmax((true_positive - false_positive)[1:])])


def detection_metrics(labels: np.ndarray, scores: np.ndarray, threshold: float) -> dict[str, float]:
    """AUC, average precision, equal error rate and balanced accuracy of one set of images.

    Args:
        labels: (N,) 0 for pristine, 1 for forged; both must occur.
        scores: (N,) the higher, the more likely forged.
        threshold: for the accuracy; choose it on validation.
    """
    return {
        "auc": float(roc_auc_score(labels, scores)),
        "ap": float(average_precision_score(labels, scores)),
        "eer": equal_error_rate(labels, scores),
        "accuracy": float(balanced_accuracy_score(labels, scores >= threshold)),
    }


def group_interval(
    table: pd.DataFrame,
    statistic: Callable[[pd.DataFrame], float],
    seed: int = 0,
    repeats: int = REPEATS,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a statistic over groups of people.

    Args:
        table: rows with a column ``group``; all rows of a drawn group come along.
        statistic: of a table of the same columns.

    Returns:
        low and high end of the 95 % interval; NaN with fewer than two groups.
    """
    groups = list(table.groupby("group", sort=True).indices.values())
    if len(groups) < 2:
        return float("nan"), float("nan")

    def resampled(chosen: np.ndarray) -> float:
        return statistic(table.iloc[np.concatenate([groups[index] for index in chosen])])

    result = stats.bootstrap(
        (np.arange(len(groups)),),
        resampled,
        vectorized=False,
        n_resamples=repeats,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def rank_auc(positive: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """AUC of each column of scores, by the Mann-Whitney statistic.

    Equal to scikit-learn's (tested), which takes one column at a time and is ten times slower; that
    counts in a bootstrap and over a thousand channels.

    Args:
        positive: (N,) bool.
        scores: (N,) or (N, C).

    Returns:
        () or (C,) float64; NaN if one class is missing.
    """
    count, others = positive.sum(), (~positive).sum()
    if not count or not others:
        return np.full(scores.shape[1:], np.nan)
    ranks = stats.rankdata(scores, axis=0)
    return (ranks[positive].sum(axis=0) - count * (count + 1) / 2) / (count * others)


def score_auc(table: pd.DataFrame) -> float:
    """AUC of a table with columns ``label`` and ``score``."""
    return float(rank_auc(table["label"].to_numpy() == 1, table["score"].to_numpy()))


def by_video(table: pd.DataFrame) -> pd.DataFrame:
    """One row a clip variant: the mean score of its frames."""
    keys = ["group", "identity", "clip", "variant", "quality", "label"]
    return table.groupby(keys, as_index=False)["score"].mean()


def detection_table(predictions: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """Metrics at frame and video level, for each quality, overall and for each forgery family.

    Args:
        predictions: columns group, identity, clip, variant, quality, label, score; one split.
        threshold: chosen on validation.

    Returns:
        columns level, quality, family (``all`` or one), auc, auc_low, auc_high, ap, eer, accuracy,
        num_images, num_identities.
    """
    rows = []
    levels = {"frame": predictions, "video": by_video(predictions)}
    for level, everything in levels.items():
        for quality, table in everything.groupby("quality", sort=False):
            families = [name for name in table["variant"].unique() if name != "original"]
            for family in ["all", *families]:
                wanted = table["variant"].isin(["original", family]) | (family == "all")
                part = table[wanted]
                low, high = group_interval(part, score_auc)
                values = detection_metrics(part["label"], part["score"], threshold)
                rows.append(
                    {
                        "level": level,
                        "quality": quality,
                        "family": family,
                        "auc": values.pop("auc"),
                        "auc_low": low,
                        "auc_high": high,
                        **values,
                        "num_images": len(part),
                        "num_identities": part["identity"].nunique(),
                    }
                )
    return pd.DataFrame(rows)


def relevance_mass(relevance: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Share of the positive relevance that lies inside the mask (Arras et al. 2022), per image.

    Departure from Quantus, which sums signed relevance: negative relevance is set to zero first.

    Args:
        relevance: (N, H, W).
        mask: (N, H, W) bool.

    Returns:
        (N,) in [0, 1]; 0 where no relevance is positive, NaN where the mask is empty.
    """
    positive = np.clip(relevance, 0, None)
    total = positive.sum(axis=(1, 2))
    inside = (positive * mask).sum(axis=(1, 2))
    share = np.divide(inside, total, out=np.zeros(len(total)), where=total > 0)
    return np.where(mask.any(axis=(1, 2)), share, np.nan)


def concept_purity(activations: np.ndarray, concepts: np.ndarray) -> np.ndarray:
    """How well axis j alone tells images of concept j from those of the others: one-vs-rest AUC.

    Chen, Bei and Rudin 2020, section "concept purity".

    Args:
        activations: (N, k), of the k named axes.
        concepts: (N,) int, the concept of each image.

    Returns:
        (k,) AUC, 0.5 is chance; NaN for a concept without images.
    """
    numbers = range(activations.shape[1])
    return np.array([float(rank_auc(concepts == j, activations[:, j])) for j in numbers])
