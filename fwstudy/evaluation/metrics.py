"""Detection and interpretability metrics, with intervals that respect who is in the picture.

Frames of one person are not independent, nor are two people who lend each other their faces, so every
interval resamples whole groups of such people. Other draws of them: `paired_tests`, and in
`fwstudy.interpretability` the modules `agreement`, `slices` and `measures`.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    roc_auc_score,
    roc_curve,
)

from fwstudy.evaluation.wins import weighted_auc, won_pairs

REPEATS = 400
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Measure:
    """What a number means, told beside every table of it.

    Args:
        definition: one sentence.
        source: paper, or "ours".
        better: ``higher``, ``lower``, or ``-`` where neither is better in itself.
        chance: the value that says nothing, where there is one.
    """

    definition: str
    source: str
    better: str
    chance: float | None = None


def equal_error_rate(labels: np.ndarray, scores: np.ndarray) -> float:
    """The error where false positive and false negative rate meet, between ROC points linearly."""
    false_positive, true_positive, _ = roc_curve(labels, scores)
    gap = false_positive - (1 - true_positive)
    return float(np.interp(0, gap, false_positive))


def balanced_threshold(labels: np.ndarray, scores: np.ndarray) -> float:
    """The score from which on to say *forged*: best balanced accuracy on the given (validation) set."""
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


def percentiles(draws: np.ndarray) -> tuple[float, float]:
    """Low and high end of the 95 % interval of bootstrap draws: (repeats,)."""
    low, high = np.nanquantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


Statistic = Callable[[Mapping], float]
"""Of columns by name: a table, or arrays, which a bootstrap draws from ten times faster."""


def group_interval(
    table: pd.DataFrame, statistic: Statistic, seed: int = 0, repeats: int = REPEATS
) -> tuple[float, float]:
    """Percentile bootstrap interval of a statistic over groups of people.

    Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, section 13.3.

    Args:
        table: rows with a column ``group``; all rows of a drawn group come along.
        statistic: of the table's columns of numbers and truth values, as arrays.

    Returns:
        low and high end of the 95 % interval, over the draws of which the statistic is not NaN; NaN
        with fewer than two groups.
    """
    groups = list(table.groupby("group", sort=True).indices.values())
    if len(groups) < 2:
        return float("nan"), float("nan")
    columns = dict(table.select_dtypes(["number", "bool"]).items())
    columns = {name: column.to_numpy() for name, column in columns.items()}
    drawn = np.random.default_rng(seed).integers(len(groups), size=(repeats, len(groups)))
    chosen = (np.concatenate([groups[number] for number in each]) for each in drawn)
    draws = [statistic({name: values[rows] for name, values in columns.items()}) for rows in chosen]
    return percentiles(np.array(draws))


def mean_interval(
    values: np.ndarray, groups: np.ndarray, seed: int = 0, repeats: int = REPEATS
) -> tuple[float, float]:
    """`group_interval` of a mean, from the sums of each group: a hundred times faster.

    Args:
        values: (N,); NaN is undefined and takes no part.
        groups: (N,) of people.

    Returns:
        low and high end of the 95 % interval; NaN with fewer than two groups of defined values.
    """
    defined = ~np.isnan(values)
    _, index = np.unique(np.asarray(groups)[defined], return_inverse=True)
    if not len(index) or index.max() < 1:
        return float("nan"), float("nan")
    sums, counts = np.bincount(index, values[defined]), np.bincount(index)
    drawn = np.random.default_rng(seed).integers(len(counts), size=(repeats, len(counts)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    return percentiles(means)


def rank_auc(positive: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """AUC of each column of scores, by the Mann-Whitney statistic.

    It equals scikit-learn's, which takes one column at a time and is ten times slower. This counts
    in a bootstrap, over a thousand channels, and over the pixels of a hundred maps.

    Args:
        positive: (N,) or (N, C) bool.
        scores: (N,) or (N, C).

    Returns:
        () or (C,) float64; NaN where one class is missing.
    """
    positive = np.asarray(positive, np.float64)
    count = positive.sum(axis=0)
    pairs = count * (len(positive) - count)
    total = np.einsum("n...,n...->...", positive, stats.rankdata(scores, axis=0))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(pairs > 0, (total - count * (count + 1) / 2) / pairs, np.nan)


def score_auc(table: Mapping) -> float:
    """AUC of a table with columns ``label`` and ``score``, as `rank_auc`, faster.

    NaN where a class is missing or a score is NaN.
    """
    positive, scores = np.asarray(table["label"]) == 1, np.asarray(table["score"])
    forged, pristine = scores[positive], np.sort(scores[~positive])
    if not len(forged) or not len(pristine) or np.isnan(scores).any():
        return float("nan")
    lower = np.searchsorted(pristine, forged), np.searchsorted(pristine, forged, side="right")
    return float(np.sum(lower) / 2 / (len(forged) * len(pristine)))


def mean_auc(
    positive: np.ndarray, scores: np.ndarray, groups: np.ndarray, seed: int, repeats: int
) -> tuple[float, float, float]:
    """Mean of `rank_auc` over columns, and its `group_interval` from the pairs won: ten times faster.

    Args:
        positive, scores: (N, C).
        groups: (N,) of people.
    """
    index = pd.factorize(groups, sort=True)[0]
    counts = [won_pairs(*column, index) for column in zip(positive.T, scores.T, strict=True)]
    count = index.max() + 1
    drawn = np.random.default_rng(seed).integers(count, size=(repeats, count))
    weights = np.stack([np.ones(count), *(np.bincount(d, minlength=count) for d in drawn)])
    with warnings.catch_warnings():  # a draw may lack a class in every column
        warnings.simplefilter("ignore", RuntimeWarning)
        draws = np.nanmean([weighted_auc(*each, weights) for each in counts], axis=0)
    known = count > 1 and np.isfinite(draws[0])
    return float(draws[0]), *(percentiles(draws[1:]) if known else (np.nan, np.nan))


def auc_interval(table: pd.DataFrame) -> dict[str, float]:
    """`score_auc` of a table and its `group_interval`, as auc, auc_low and auc_high.

    Args:
        table: columns group, label, score.
    """
    label, score, groups = (table[name].to_numpy() for name in ("label", "score", "group"))
    values = mean_auc(label[:, None] == 1, score[:, None], groups, 0, REPEATS)
    return dict(zip(("auc", "auc_low", "auc_high"), values, strict=True))


def measured(
    table: pd.DataFrame, statistic: Statistic, seed: int = 0, repeats: int = REPEATS
) -> tuple[float, float, float]:
    """A statistic of a table and its `group_interval`; no interval where the value is undefined."""
    value = statistic(table)
    if not np.isfinite(value):
        return value, np.nan, np.nan
    return value, *group_interval(table, statistic, seed, repeats)


def with_interval(name: str, table: pd.DataFrame, statistic: Statistic) -> dict[str, float]:
    """`measured` as ``name``, ``name_low`` and ``name_high``."""
    return dict(zip((name, f"{name}_low", f"{name}_high"), measured(table, statistic), strict=True))


def by_video(table: pd.DataFrame) -> pd.DataFrame:
    """One row a clip variant, or a video where the table tells videos: the mean score of its frames."""
    keys = ["group", "identity", "clip", "variant", "quality", "label", *({"video"} & set(table))]
    return table.groupby(keys, as_index=False)["score"].mean()


def detection_table(predictions: pd.DataFrame, threshold: float | None = None) -> pd.DataFrame:
    """Metrics at frame and video level, for each quality, overall and for each forgery family.

    Args:
        predictions: columns split, group, identity, clip, variant, quality, label, score. The split
            ``test`` is measured.
        threshold: of the accuracy; None: the one that is best on the split ``validation``.

    Returns:
        columns level, quality, family (``all`` or one), auc, auc_low, auc_high, ap, eer, accuracy,
        num_images, num_identities, threshold.
    """
    if threshold is None:
        held_out = predictions[predictions["split"] == "validation"]
        threshold = balanced_threshold(held_out["label"], held_out["score"])
    test, rows = predictions[predictions["split"] == "test"], []
    levels = {"frame": test, "video": by_video(test)}
    for level, everything in levels.items():
        for quality, table in everything.groupby("quality", sort=False):
            families = [name for name in table["variant"].unique() if name != "original"]
            for family in ["all", *families]:
                part = table[table["variant"].isin(["original", family]) | (family == "all")]
                row = {"level": level, "quality": quality, "family": family, **auc_interval(part)}
                row |= detection_metrics(part["label"], part["score"], threshold)
                row |= {"num_images": len(part), "num_identities": part["identity"].nunique()}
                rows.append(row | {"threshold": threshold})
    return pd.DataFrame(rows)
