"""The verdict when the evidence of some axes is set, scaled or taken away: exact, because it is a sum.

With the last norm layer before the pooling, the logit is the sum of the axes' evidence and the bias, see
`fwstudy.interpretability.decomposition`. To change the activation of an axis in the network therefore
changes the logit by the change of its evidence, and no forward pass is needed.

Koh et al., "Concept Bottleneck Models", ICML 2020, section 5: a person corrects concepts at test time,
and the verdict should improve.
"""

from collections.abc import Mapping
from itertools import combinations

import numpy as np
import pandas as pd

from fwstudy.evaluation.metrics import Measure, group_interval

QUANTILES = (0.05, 0.95)  # of the evidence: what a concept that is absent, or present, is set to
REPEATS = 200  # of the bootstrap

MEASURES = {
    "corrected_accuracy": Measure(
        "balanced accuracy where the truth about some concepts replaces what their axes say; the subset "
        "tells how many, and the mean is over which",
        "after Koh et al. 2020",
        "higher",
        0.5,
    )
}


def correction_curve(
    verdict: np.ndarray,
    evidence: np.ndarray,
    truth: np.ndarray,
    values: np.ndarray,
    manifest: pd.DataFrame,
    threshold: float,
) -> pd.DataFrame:
    """Accuracy while 0, 1, … k concepts are corrected by the truth.

    Koh et al. 2020, section 5. A concept's evidence becomes what it is where the concept is clearly
    present, or clearly absent. Departures: balanced accuracy, as there are more forgeries than originals;
    the mean over all choices of j concepts in place of one order; and the value is one of the evidence,
    whose sum is the verdict.

    Args:
        verdict: (N,) logits.
        evidence: (N, k) of the concept axes.
        truth: (N, k) bool, whether the concept is present.
        values: (2, k) evidence of an absent and of a present concept, from people not tested.
        manifest: of the N images, with the columns group and label.
        threshold: of the logit, from which on the verdict is *forged*.

    Returns:
        corrected (how many), value, low, high, num_images; k + 1 rows.

    Raises:
        ValueError: shapes do not fit.
    """
    count = evidence.shape[1]
    if truth.shape != evidence.shape or np.shape(values) != (2, count):
        raise ValueError(
            f"evidence {evidence.shape} and truth {truth.shape} must be (images, concepts), and values "
            f"(2, concepts), not {np.shape(values)}"
        )
    labels, rows = manifest["label"].to_numpy() == 1, []
    absent, present = values
    gained = np.where(truth, present, absent) - evidence.astype(np.float64)
    for number in range(count + 1):
        told = [
            verdict + gained[:, axes].sum(axis=1) >= threshold
            for axes in map(list, combinations(range(count), number))
        ]
        right = np.mean(np.equal(told, labels), axis=0)
        table = manifest[["group"]].assign(right=right, label=labels)
        low, high = group_interval(table, balanced, repeats=REPEATS)
        found = {"value": balanced(table), "low": low, "high": high, "num_images": len(table)}
        rows.append({"corrected": number, **found})
    return pd.DataFrame(rows)


def balanced(table: Mapping) -> float:
    """Mean over both classes of the mean of ``right``; NaN where a class is missing."""
    right, label = np.asarray(table["right"]), np.asarray(table["label"])
    if label.all() or not label.any():
        return float("nan")
    return float((right[label].mean() + right[~label].mean()) / 2)
