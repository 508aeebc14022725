"""May one trust the detector: is its probability right, is it fair, does it give people away?

Calibration of the logit; differences between kinds of people, and whether chance explains them; how
well a linear probe names the person.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fwstudy.faces.identity import SKIN_TONES
from fwstudy.inference import holm
from fwstudy.metrics import Measure, group_interval, rank_auc

BINS = 10
PERMUTATIONS = 999
UNKNOWN = "unknown"
AGE_BANDS = {"under 30": 30, "30 to 49": 50, "50 and over": np.inf}
"""Upper end of each band in years, not included."""
ATTRIBUTES = {"skin_tone": [*SKIN_TONES], "sex": [], "ethnicity": [], "age_band": [*AGE_BANDS]}
"""What people are told apart by, and the order of values that have one."""
Statistic = Callable[[Mapping], float]
"""Of a table, or of a dict of its columns: arrays, which are ten times faster in permutations."""
MEASURES = {
    "ece": Measure(
        "mean distance of the probability of a forgery from the share of forgeries, over bins of "
        "equal width, classes weighing alike; a constant 0.5 earns 0 too, so read it beside brier",
        "Guo et al. 2017",
        "lower",
    ),
    "brier": Measure(
        "mean squared distance of the probability of a forgery from the label, classes weighing "
        "alike; chance is a constant 0.5",
        "Brier 1950",
        "lower",
        0.25,
    ),
    "auc": Measure(
        "how often a forgery scores above an original, both of people of one kind",
        "Mann and Whitney 1947",
        "higher",
        0.5,
    ),
    "false_positive_rate": Measure(
        "share of originals called forged at the threshold chosen on validation", "ours", "lower"
    ),
    "gap": Measure("largest minus smallest value among kinds of people", "ours", "lower"),
    "p_value": Measure(
        "how often a gap as large arises when the attribute is dealt anew among groups of people",
        "Phipson and Smyth 2010",
        "-",
    ),
    "p_holm": Measure("p_value, corrected for the number of attributes", "Holm 1979", "-"),
    "identity_accuracy": Measure(
        "share of images whose person is named by a linear probe fitted to the person's other "
        "clips; chance is 1 / number of people",
        "Alain and Bengio 2016",
        "lower",
    ),
}


@dataclass(frozen=True)
class Calibration:
    """P(forged) = sigmoid(slope · logit + intercept), where originals and forgeries are as frequent.

    `dataclasses.asdict` makes a plain dict of it, and ``Calibration(**values)`` reads that back.
    """

    slope: float = 1.0
    intercept: float = 0.0

    def probability(self, logits: np.ndarray) -> np.ndarray:
        """Probability of a forgery: (N,) logits to (N,) float64 in [0, 1]."""
        return expit(self.slope * np.asarray(logits, np.float64) + self.intercept)


def balanced_weights(labels: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Weights under which each class counts one half, as if there were as many of either.

    Args:
        labels: (N,) 0 for pristine, 1 for forged.
        weights: (N,) of the images within their class; all alike by default.

    Returns:
        (N,) float64, sum 1.

    Raises:
        ValueError: there is one class only.
    """
    labels = np.asarray(labels)
    weights = np.ones(len(labels)) if weights is None else np.asarray(weights, np.float64)
    totals = np.bincount(labels, weights, minlength=2)
    if not totals.all():
        raise ValueError("a calibration needs originals and forgeries; one class is missing")
    return weights / (2 * totals[labels])


def calibrate(
    labels: np.ndarray, logits: np.ndarray, weights: np.ndarray | None = None
) -> Calibration:
    """Fit the probability of a forgery to logits of the validation set.

    Platt 1999, with the softened targets (N₊ + 1) / (N₊ + 2) and 1 / (N₋ + 2), which keep the slope
    finite where the classes are told apart without error. Departure: classes weigh alike, whatever
    their numbers. Where a share π is forged, add log(π / (1 − π)) to the intercept.

    Args:
        labels, weights: as in `balanced_weights`; both classes must occur.
        logits: (N,), finite.
    """
    labels, logits = np.asarray(labels), np.asarray(logits, np.float64)[:, None]
    weights = balanced_weights(labels, weights) * len(labels)
    pristine, forged = np.bincount(labels, minlength=2)
    target = np.where(labels == 1, (forged + 1) / (forged + 2), 1 / (pristine + 2))
    scaler = StandardScaler().fit(logits)
    scaled = scaler.transform(logits)
    # Each image stands in both classes, weighted by its target: cross entropy with soft targets.
    fitted = LogisticRegression(C=np.inf, tol=1e-8, max_iter=1000).fit(
        np.concatenate([scaled, scaled]),
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

    def mean(part: pd.DataFrame, column: str = "label") -> float:
        return float(np.average(part[column], weights=part["weight"]))

    return pd.DataFrame(
        {
            "probability": mean(part, "probability"),
            **_with_interval("forged", part, mean),
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
        weights = balanced_weights(labels)
        return float(brier_score_loss(labels, probability, sample_weight=weights))

    def of(measure: Callable, part: pd.DataFrame) -> float:
        """Undefined for a draw of people that holds one class alone."""
        labels, probability = part["label"].to_numpy(), part["probability"].to_numpy()
        return measure(labels, probability) if np.ptp(labels) or part is table else float("nan")

    measures = {"ece": expected_calibration_error, "brier": brier}
    rows = []
    for name, calibration in calibrations.items():
        table = predictions.assign(probability=calibration.probability(predictions["score"]))
        row = {"calibration": name}
        for measure, value in measures.items():
            row |= _with_interval(measure, table, partial(of, value))
        rows.append(row | {"num_images": len(table)})
    return pd.DataFrame(rows)


def _with_interval(name: str, table: pd.DataFrame, statistic: Statistic) -> dict[str, float]:
    """A statistic of a table as ``name``, ``name_low`` and ``name_high``."""
    value = statistic(table)
    low, high = group_interval(table, statistic) if np.isfinite(value) else (np.nan, np.nan)
    return {name: value, f"{name}_low": low, f"{name}_high": high}


def attribute_slices(manifest: pd.DataFrame) -> pd.DataFrame:
    """What kind of person each row shows.

    Args:
        manifest: with any of the columns skin_tone, sex, ethnicity, age_years.

    Returns:
        on the same index those of `ATTRIBUTES` that can be had: ordered categories, the last of
        them ``unknown``. Where there are none, one column ``people``, all of them unknown.
    """
    columns = dict(manifest.items())
    if "age_years" in columns:
        years = pd.to_numeric(columns["age_years"], errors="coerce")
        columns["age_band"] = pd.cut(
            years, [0, *AGE_BANDS.values()], right=False, labels=list(AGE_BANDS)
        )
    slices = pd.DataFrame(index=manifest.index)
    for name, order in ATTRIBUTES.items():
        if name in columns:
            values = columns[name].astype(object).fillna(UNKNOWN)
            kinds = [*order, *sorted(set(values) - {*order, UNKNOWN}), UNKNOWN]
            slices[name] = pd.Categorical(values, kinds, ordered=True)
    if slices.columns.empty:
        slices["people"] = pd.Categorical([UNKNOWN] * len(slices), [UNKNOWN], ordered=True)
    return slices


def _auc(part: Mapping) -> float:
    return float(rank_auc(np.asarray(part["label"]) == 1, np.asarray(part["score"])))


def _sliced(
    predictions: pd.DataFrame, manifest: pd.DataFrame, threshold: float, evidence: Sequence[str]
) -> tuple[pd.DataFrame, list[str], dict[str, tuple[str, Statistic]]]:
    """The predictions with the attributes; their names; for each measure its column (NaN where it
    is undefined) and its statistic."""
    people = attribute_slices(manifest.drop_duplicates("identity").set_index("identity"))
    kinds = people.loc[predictions["identity"]].set_axis(predictions.index)
    called_forged = (predictions["score"] >= threshold).astype(float)
    table = predictions[["group", "identity", "label", "score", *evidence]].assign(
        false_positive_rate=called_forged.where(predictions["label"] == 0), **dict(kinds.items())
    )
    means = {
        name: (name, lambda part, name=name: float(np.mean(part[name])))
        for name in ("false_positive_rate", *evidence)
    }
    return table, list(kinds), {"auc": ("score", _auc), **means}


def slice_table(
    predictions: pd.DataFrame,
    manifest: pd.DataFrame,
    threshold: float,
    evidence: Sequence[str] = (),
) -> pd.DataFrame:
    """Detection, false alarms and quality of evidence for each kind of people.

    The kind is that of the person seen, also where another lent the face.

    Args:
        predictions: columns group, identity, label, score and those of ``evidence``, of one quality.
        manifest: see `attribute_slices`, and ``identity``: attributes are the person's.
        threshold: chosen on validation.
        evidence: columns to average, such as relevance mass; NaN where undefined, as on originals.

    Returns:
        a row for each attribute and value: attribute, value; auc, false_positive_rate and each of
        ``evidence`` with _low and _high, NaN with fewer than two groups of people; num_images,
        num_identities.

    Raises:
        KeyError: a person is not in the manifest.
    """
    table, attributes, measures = _sliced(predictions, manifest, threshold, evidence)
    rows = []
    for attribute in attributes:
        for value, part in table.groupby(attribute, observed=True):
            row = {"attribute": attribute, "value": value}
            for name, (column, statistic) in measures.items():
                row |= _with_interval(name, part.dropna(subset=column), statistic)
            counts = {"num_images": len(part), "num_identities": part["identity"].nunique()}
            rows.append(row | counts)
    return pd.DataFrame(rows)


def largest_gap(table: Mapping, kinds: np.ndarray, statistic: Statistic) -> float:
    """Largest minus smallest value of a statistic among the kinds of rows that occur.

    Args:
        table: columns of N rows, as a table or as a dict of arrays.
        kinds: (N,) int.
        statistic: of the rows of one kind; where it is NaN the kind does not count.

    Returns:
        0 if one kind counts, NaN if none.
    """
    columns = {name: np.asarray(table[name]) for name in table}
    values = [
        statistic({name: column[kinds == kind] for name, column in columns.items()})
        for kind in np.unique(kinds)
    ]
    defined = np.array(values)[np.isfinite(values)]
    return float(np.ptp(defined)) if len(defined) else np.nan


def permutation_p_value(
    table: pd.DataFrame, statistic: Statistic, seed: int, repeats: int = PERMUTATIONS
) -> float:
    """How often a gap as large as that of an attribute arises where the attribute means nothing.

    It is dealt anew among groups of people with as many members, the values of a group staying
    together: people of a group are alike and lend each other faces, so that dealing it to one
    person at a time would find gaps where there are none.

    Args:
        table: columns group, identity, kind (int, of the identity) and what the statistic takes.
        statistic: of the rows of one kind of people.

    Returns:
        (1 + count) / (1 + repeats), Phipson and Smyth 2010; 1 where nothing can be exchanged.
    """
    people = table.drop_duplicates("identity").sort_values(["group", "identity"])
    kinds = people["kind"].to_numpy()
    person = pd.Index(people["identity"]).get_indexer(table["identity"])
    sizes = people.groupby("group")["identity"].transform("size").to_numpy()
    blocks = [np.flatnonzero(sizes == size).reshape(-1, size) for size in np.unique(sizes)]
    table = table.drop(columns=["group", "identity", "kind"])
    columns = {name: table[name].to_numpy() for name in table}
    observed = largest_gap(columns, kinds[person], statistic)
    rng, count = np.random.default_rng(seed), 0
    for _ in range(repeats):
        dealt = kinds.copy()
        for block in blocks:
            dealt[block] = kinds[rng.permutation(block)]
        count += largest_gap(columns, dealt[person], statistic) >= observed - 1e-12
    return (1 + count) / (1 + repeats)


def gap_table(
    predictions: pd.DataFrame,
    manifest: pd.DataFrame,
    threshold: float,
    evidence: Sequence[str] = (),
    seed: int = 0,
    repeats: int = PERMUTATIONS,
) -> pd.DataFrame:
    """How far apart the kinds of people of each attribute are, and whether chance explains it.

    Among few people a gap always arises, and its interval never reaches below zero: only the
    p-value tells. ``unknown`` is no kind of people and takes no part.

    Args:
        predictions, manifest, threshold, evidence: as in `slice_table`.
        seed, repeats: of the permutations.

    Returns:
        a row for each attribute and measure: attribute, measure, gap, gap_low, gap_high, p_value,
        p_holm (over attributes), num_slices, num_identities, num_unknown (identities without the
        attribute or the measure). Gap and p-value are NaN with fewer than two slices.
    """
    table, attributes, measures = _sliced(predictions, manifest, threshold, evidence)
    rows = []
    for attribute in attributes:
        known = table[table[attribute] != UNKNOWN]
        known = known.assign(kind=known[attribute].cat.codes)
        for name, (column, statistic) in measures.items():
            part = known[["group", "identity", "kind", "label", column]].dropna()
            row = {"attribute": attribute, "measure": name}
            row |= dict.fromkeys(["gap", "gap_low", "gap_high", "p_value"], np.nan)
            defined = [np.isfinite(statistic(rows)) for _, rows in part.groupby("kind")]
            if sum(defined) > 1:
                columns = ["label", column]
                row |= _with_interval(
                    "gap",
                    part,
                    lambda drawn, columns=columns, statistic=statistic: largest_gap(
                        drawn[columns], drawn["kind"].to_numpy(), statistic
                    ),
                )
                row["p_value"] = permutation_p_value(part, statistic, seed, repeats)
            num_identities = part["identity"].nunique()
            row |= {
                "num_slices": sum(defined),
                "num_identities": num_identities,
                "num_unknown": table["identity"].nunique() - num_identities,
            }
            rows.append(row)
    columns = ["attribute", "measure", "gap", "gap_low", "gap_high", "p_value", "num_slices"]
    gaps = pd.DataFrame(rows, columns=[*columns, "num_identities", "num_unknown"])
    adjusted = gaps.groupby("measure")["p_value"].transform(holm) if rows else np.nan
    gaps.insert(6, "p_holm", adjusted)
    return gaps


def identity_probe(activations: np.ndarray, manifest: pd.DataFrame) -> pd.DataFrame:
    """Whether a linear probe names the person on each image, having seen other clips of them.

    Alain and Bengio 2016: logistic regression on standardised activations. Each clip is left out
    once, the first ones of all people together, then the second ones: none is on both sides. Two
    photographs of a person are two clips. Anything in a crop may give a person away, also hair.

    Args:
        activations: (N, C), pooled.
        manifest: N rows, columns row, group, identity, clip. Pass originals: in a forgery the face
            may be another's.

    Returns:
        columns row, group, identity, clip, correct (0 or 1). It is NaN for people with one clip,
        who are no candidates either, and for all where fewer than two people have several.
    """
    clips = manifest.groupby("identity")["clip"]
    several = (clips.transform("nunique") > 1).to_numpy()
    number = clips.transform(lambda names: pd.factorize(names, sort=True)[0]).to_numpy()
    people = manifest["identity"].to_numpy(dtype=object)
    correct = np.full(len(manifest), np.nan)
    if len(set(people[several])) > 1:
        probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        named = cross_val_predict(
            probe, activations[several], people[several], cv=PredefinedSplit(number[several])
        )
        correct[several] = named == people[several]
    return manifest[["row", "group", "identity", "clip"]].assign(correct=correct)


def identity_leakage(activations: dict[str, np.ndarray], manifest: pd.DataFrame) -> pd.DataFrame:
    """How well people are named from each kind of activations; more axes name more.

    Args:
        activations: name to (N, C): of the named axes, as many others, all axes, the baseline.
        manifest: see `identity_probe`.

    Returns:
        a row for each: features, num_axes, identity_accuracy, identity_accuracy_low and _high (over
        groups of people), chance, num_images, num_identities, num_undefined (images of people with
        one clip).
    """
    rows = []
    for name, values in activations.items():
        table = identity_probe(values, manifest)
        probed = table.dropna(subset="correct")
        num_identities = probed["identity"].nunique()
        rows.append(
            {
                "features": name,
                "num_axes": values.shape[1],
                **_with_interval("identity_accuracy", probed, lambda part: part["correct"].mean()),
                "chance": 1 / num_identities if num_identities else np.nan,
                "num_images": len(probed),
                "num_identities": num_identities,
                "num_undefined": len(table) - len(probed),
            }
        )
    return pd.DataFrame(rows)
