"""Do two measures of explanations rank the methods alike?"""

import numpy as np
import pandas as pd

from fwstudy.evaluation.metrics import CONFIDENCE, REPEATS
from fwstudy.interpretability.faithfulness import rank_correlation


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
