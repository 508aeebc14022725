"""How do measures of explanations rank the methods, and do two of them rank alike?"""

import warnings
from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from fwstudy.evaluation.metrics import CONFIDENCE, REPEATS, Measure
from fwstudy.interpretability.faithfulness import rank_correlation

MEASURES = {
    "explainer_rank": Measure(
        "rank of an explainer among all, 1 the best, mean over detectors and measures; chance is the "
        "middle rank",
        "ours",
        "lower",
    ),
    "rank_agreement": Measure(
        "rank correlation (Spearman), over explainers, of the means of two measures",
        "ours",
        "higher",
        0.0,
    ),
}


def mean_ranks(table: pd.DataFrame, better: Mapping[str, str], seed: int = 0) -> pd.DataFrame:
    """The mean rank of each method, 1 the best, and its interval over groups of people.

    In each detector and by each measure, methods are ranked by their means over images, equals alike.
    One draw of groups is the same for all detectors, methods and measures.

    Args:
        table: columns model (the detector), method, group, measure, value; NaN takes no part.
        better: ``higher`` or ``lower``, by measure.
        seed: of the resampling of groups.

    Returns:
        columns measure, method, value, low, high: for each measure the mean over detectors, and as
        measure ``all`` the mean over measures as well. The interval is NaN with fewer than two groups.

    Raises:
        KeyError: a measure that ``better`` does not name.
    """
    names = {key: list(dict.fromkeys(table[key])) for key in ("measure", "model", "method")}
    cells = table.groupby([*names, "group"])["value"]
    every = pd.MultiIndex.from_product(names.values())
    sums, counts = (of.unstack(fill_value=0).reindex(every) for of in (cells.sum(), cells.count()))
    groups = sums.shape[1]
    drawn = np.random.default_rng(seed).multinomial(groups, [1 / groups] * groups, REPEATS)
    weights = np.vstack([np.ones(groups), drawn]).T
    with np.errstate(invalid="ignore"):  # a draw may lack a measure of few images: NaN
        means = (sums.to_numpy() @ weights) / (counts.to_numpy() @ weights)
    means = means.reshape(*map(len, names.values()), -1)
    sign = np.array([{"higher": -1, "lower": 1}[better[name]] for name in names["measure"]])
    means = np.round(means * sign[:, None, None, None], 9)  # equals up to rounding are equals
    with warnings.catch_warnings():  # what is NaN for all is NaN in the mean
        warnings.simplefilter("ignore", RuntimeWarning)
        ranks = np.nanmean(rankdata(means, axis=2, nan_policy="omit"), axis=1)
        ranks = np.concatenate([np.nanmean(ranks, axis=0, keepdims=True), ranks])
        draws = ranks[..., 1:] if groups > 1 else np.full_like(ranks, np.nan)
        ends = np.nanquantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=-1)
    tables = []
    for measure, value, low, high in zip(
        ["all", *names["measure"]], ranks[..., 0], *ends, strict=True
    ):
        columns = {"method": names["method"], "value": value, "low": low, "high": high}
        tables.append(pd.DataFrame({"measure": measure, **columns}))
    return pd.concat(tables, ignore_index=True)


def rank_agreement(
    table: pd.DataFrame, one: str, other: str, seed: int = 0
) -> tuple[float, float, float]:
    """Spearman's correlation, over methods, of the means of two measures over images.

    With few methods few values are possible: 24 orders of four. The interval tells how the choice of
    people moves it, not that of methods.

    Args:
        table: a row for each image and method, with columns group, method, and the two measures; NaN
            takes no part, so that tables of different images can be put below each other. Turn the
            sign of a measure of which less is better.
        one, other: columns of the two measures.
        seed: of the resampling of groups.

    Returns:
        the correlation, and the low and high end of its 95 % interval over groups of people; NaN with
        fewer than two methods that have both measures, or where one is the same for all; the interval
        is over the draws that have a correlation, and NaN with fewer than two groups.

    Raises:
        ValueError: the table lacks a column.
    """
    missing = sorted({"group", "method", one, other} - {*table.columns})
    if missing:
        raise ValueError(f"the table of two measures has no column {', '.join(missing)}")
    cells = table.groupby(["group", "method"])[[one, other]]
    sums, counts = (of.unstack(fill_value=0) for of in (cells.sum(), cells.count()))
    known = counts.sum().unstack(0).gt(0).all(axis=1)
    shape = len(sums), 2, len(known)
    sums, counts = (of.to_numpy(np.float64).reshape(shape)[..., known] for of in (sums, counts))

    def correlated(drawn: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):  # a draw may lack a method: NaN
            means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
        return rank_correlation(means[:, 0], means[:, 1])

    (value,) = correlated(np.arange(len(sums))[None])
    rng = np.random.default_rng(seed)
    draws = correlated(rng.integers(len(sums), size=(REPEATS, len(sums))))
    draws = draws[np.isfinite(draws)]
    if len(sums) < 2 or not len(draws) or np.isnan(value):
        return float(value), float("nan"), float("nan")
    low, high = np.quantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(value), float(low), float(high)
