"""Is the probability right? Calibration of the logit and its measures."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from fwstudy.evaluation.metrics import Measure, with_interval

MEASURES = {
    "ece": Measure(
        "mean distance of the probability of a forgery from the share of forgeries, over bins of "
        "equal width, both classes with the same weight; a constant 0.5 earns 0 too, so read it beside brier",
        "Guo et al. 2017",
        "lower",
    ),
    "brier": Measure(
        "mean squared distance of the probability of a forgery from the label, both classes "
        "with the same weight; chance is a constant 0.5",
        "Brier 1950",
        "lower",
        0.25,
    ),
}

BINS = 10


@dataclass(frozen=True)
class Calibration:
    """P(forged) = sigmoid(slope · logit + intercept), where originals and forgeries are as frequent."""

    slope: float = 1.0
    intercept: float = 0.0

    def probability(self, logits: np.ndarray) -> np.ndarray:
        """Probability of a forgery: (N,) logits to (N,) float64 in [0, 1]."""
        return expit(self.slope * np.asarray(logits, np.float64) + self.intercept)


def balanced_weights(labels: np.ndarray) -> np.ndarray:
    """Weights under which each class counts one half, as if there were as many of either.

    Args:
        labels: (N,) 0 for pristine, 1 for forged.

    Returns:
        (N,) float64, sum 1.

    Raises:
        ValueError: there is one class only.
    """
    totals = np.bincount(labels, minlength=2)
    if not totals.all():
        raise ValueError("a calibration needs originals and forgeries; one class is missing")
    return 1 / (2 * totals[np.asarray(labels)])


def calibrate(labels: np.ndarray, logits: np.ndarray) -> Calibration:
    """Fit the probability of a forgery to logits of the validation set.

    Platt 1999, with the softened targets (N₊ + 1) / (N₊ + 2) and 1 / (N₋ + 2), which keep the slope
    finite where the classes are told apart without error. Departure: classes have the same weight,
    whatever their numbers. Where a share π is forged, add log(π / (1 − π)) to the intercept.

    Args:
        labels: (N,) 0 or 1; both must occur.
        logits: (N,), finite.
    """
    labels, logits = np.asarray(labels), np.asarray(logits, np.float64)[:, None]
    weights = balanced_weights(labels) * len(labels)
    pristine, forged = np.bincount(labels, minlength=2)
    target = np.where(labels == 1, (forged + 1) / (forged + 2), 1 / (pristine + 2))
    scaler = StandardScaler().fit(logits)
    # Each image stands in both classes, weighted by its target: cross entropy with soft targets.
    fitted = LogisticRegression(C=np.inf, tol=1e-8, max_iter=1000).fit(
        np.tile(scaler.transform(logits), (2, 1)),
        np.repeat([1, 0], len(labels)),
        sample_weight=np.concatenate([weights * target, weights * (1 - target)]),
    )
    slope = fitted.coef_[0, 0] / scaler.scale_[0]
    return Calibration(float(slope), float(fitted.intercept_[0] - slope * scaler.mean_[0]))


def _bins(probability: np.ndarray, bins: int) -> np.ndarray:
    """Which of the bins of equal width each probability falls into."""
    probability = np.asarray(probability)
    if not ((probability >= 0) & (probability <= 1)).all():
        raise ValueError("probabilities must lie in [0, 1]")
    return np.minimum(probability * bins, bins - 1).astype(int)


def expected_calibration_error(
    labels: np.ndarray, probability: np.ndarray, bins: int = BINS
) -> float:
    """Mean distance of probability and share of forgeries, over bins of equal width.

    Guo et al. 2017, eq. 3. Departures: of the probability of a forgery, not of the confidence in
    the class chosen, where errors of one class hide those of the other; and classes weigh alike.
    With few images in a bin it comes out too large, and more so in a bootstrap.

    Args:
        labels: (N,) 0 or 1; both must occur.
        probability: (N,) in [0, 1].
    """
    excess = balanced_weights(labels) * (np.asarray(labels) - np.asarray(probability))
    return float(np.abs(np.bincount(_bins(probability, bins), excess)).sum())


def reliability_curve(
    labels: np.ndarray, probability: np.ndarray, groups: np.ndarray | None = None, bins: int = BINS
) -> pd.DataFrame:
    """Share of forgeries in each bin of probability: scikit-learn's has no weights for the classes.

    Args:
        labels, probability: as in `expected_calibration_error`.
        groups: (N,) of people, for the intervals; they are NaN without.

    Returns:
        a row for each bin that is not empty: probability (mean), forged, forged_low, forged_high,
        share (of the weight of all images), num_images.
    """
    table = pd.DataFrame({"label": labels, "probability": probability, "group": groups})
    table["weight"] = balanced_weights(labels)

    def mean(part: Mapping, column: str = "label") -> float:
        return float(np.average(part[column], weights=part["weight"]))

    return pd.DataFrame(
        {
            "probability": mean(part, "probability"),
            **with_interval("forged", part, mean),
            "share": part["weight"].sum(),
            "num_images": len(part),
        }
        for _, part in table.groupby(_bins(probability, bins))
    )


def calibration_table(
    predictions: pd.DataFrame, calibrations: dict[str, Calibration]
) -> pd.DataFrame:
    """Calibration error and Brier score of test images.

    Args:
        predictions: columns group, label, score.
        calibrations: by name; ``Calibration()`` takes the logit as it is.

    Returns:
        columns calibration, ece, ece_low, ece_high, brier, brier_low, brier_high, num_images.
    """

    def brier(labels: np.ndarray, probability: np.ndarray) -> float:
        return float(np.average((probability - labels) ** 2, weights=balanced_weights(labels)))

    def of(measure: Callable, part: Mapping) -> float:
        """Undefined for a draw of people that holds one class alone."""
        labels, probability = (np.asarray(part[name]) for name in ("label", "probability"))
        return measure(labels, probability) if np.ptp(labels) or part is table else float("nan")

    rows = []
    for name, calibration in calibrations.items():
        table = predictions.assign(probability=calibration.probability(predictions["score"]))
        row = {"calibration": name}
        row |= with_interval("ece", table, partial(of, expected_calibration_error))
        row |= with_interval("brier", table, partial(of, brier))
        rows.append(row | {"num_images": len(table)})
    return pd.DataFrame(rows)
