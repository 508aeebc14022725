"""Is the detector fair? Differences between kinds of people, and whether chance explains them."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from fwstudy.evaluation.metrics import Measure, Statistic, score_auc, with_interval
from fwstudy.evaluation.paired_tests import holm
from fwstudy.labels import SKIN_TONES

MEASURES = {
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
        "how often a gap as large arises when the attribute is permuted among groups of people",
        "Phipson and Smyth 2010",
        "-",
    ),
    "p_holm": Measure("p_value, corrected for the number of attributes", "Holm 1979", "-"),
}

PERMUTATIONS = 999
UNKNOWN = "unknown"
AGE_BANDS = {"under 30": 30, "30 to 49": 50, "50 and over": np.inf}
"""Upper end of each band in years, not included."""
ATTRIBUTES = {"skin_tone": [*SKIN_TONES], "sex": [], "ethnicity": [], "age_band": [*AGE_BANDS]}
"""What people are told apart by, and the order of values that have one."""


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


def _sliced(
    predictions: pd.DataFrame, threshold: float, evidence: Sequence[str]
) -> tuple[pd.DataFrame, list[str], dict[str, tuple[str, Statistic]]]:
    """The predictions with the attributes; their names; for each measure its column (NaN where it
    is undefined) and its statistic."""
    people = attribute_slices(predictions.drop_duplicates("identity").set_index("identity"))
    kinds = people.loc[predictions["identity"]].set_axis(predictions.index)
    called_forged = (predictions["score"] >= threshold).astype(float)
    table = predictions[["group", "identity", "label", "score", *evidence]].assign(
        false_positive_rate=called_forged.where(predictions["label"] == 0), **dict(kinds.items())
    )
    means = {
        name: (name, lambda part, name=name: float(np.mean(part[name])))
        for name in ("false_positive_rate", *evidence)
    }
    return table, list(kinds), {"auc": ("score", score_auc), **means}


def slice_table(
    predictions: pd.DataFrame, threshold: float, evidence: Sequence[str] = ()
) -> pd.DataFrame:
    """Detection, false alarms and quality of evidence for each kind of people.

    The kind is that of the person seen, also where another lent the face.

    Args:
        predictions: columns group, identity, label, score and those of ``evidence``, of one quality;
            attributes of the person, see `attribute_slices`.
        threshold: chosen on validation.
        evidence: columns to average, such as relevance mass; NaN where undefined, as on originals.

    Returns:
        a row for each attribute and value: attribute, value; auc, false_positive_rate and each of
        ``evidence`` with _low and _high, NaN with fewer than two groups of people; num_images,
        num_identities.
    """
    table, attributes, measures = _sliced(predictions, threshold, evidence)
    rows = []
    for attribute in attributes:
        for value, part in table.groupby(attribute, observed=True):
            row = {"attribute": attribute, "value": value}
            for name, (column, statistic) in measures.items():
                row |= with_interval(name, part.dropna(subset=column), statistic)
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

    It is permuted among groups of people with as many members, and the values of a group stay
    together: people of a group are alike and lend each other faces, so that a permutation of single
    persons would find gaps where there are none.

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
    threshold: float,
    evidence: Sequence[str] = (),
    seed: int = 0,
    repeats: int = PERMUTATIONS,
) -> pd.DataFrame:
    """How far apart the kinds of people of each attribute are, and whether chance explains it.

    Among few people a gap always arises, and its interval never reaches below zero: only the
    p-value tells. ``unknown`` is no kind of people and takes no part.

    Args:
        predictions, threshold, evidence: as in `slice_table`.
        seed, repeats: of the permutations.

    Returns:
        a row for each attribute and measure: attribute, measure, gap, gap_low, gap_high, p_value,
        p_holm (over attributes), num_slices, num_identities, num_unknown (identities without the
        attribute or the measure). Gap and p-value are NaN with fewer than two slices.
    """
    table, attributes, measures = _sliced(predictions, threshold, evidence)
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
                row |= with_interval(
                    "gap",
                    part,
                    lambda drawn, of=statistic: largest_gap(drawn, np.asarray(drawn["kind"]), of),
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
