"""Models compared in pairs, on the same test people and from the same training seeds."""

from pathlib import Path

import numpy as np
import pandas as pd

from fwstudy.metrics import group_interval, score_auc

KEYS = ["seed", "group", "identity", "clip", "frame", "variant", "quality", "label"]
TEXT = {"group": str, "identity": str, "clip": str}


def read_predictions(folder: Path, name: str, seeds: list[int]) -> pd.DataFrame:
    """The test predictions of one model from several seeds, with a column ``seed``.

    Args:
        folder: ``data/predictions``.
        name: of the model, as in `fwstudy.study.predictions_path`.
    """
    tables = [pd.read_csv(folder / f"seed{seed}" / f"{name}.csv", dtype=TEXT) for seed in seeds]
    return pd.concat(
        [t.assign(seed=s) for t, s in zip(tables, seeds, strict=True)], ignore_index=True
    )


def mean_auc(table: pd.DataFrame) -> float:
    """AUC of column ``score``, mean over seeds."""
    return float(np.mean([score_auc(part) for _, part in table.groupby("seed")]))


def mean_auc_difference(table: pd.DataFrame) -> float:
    """AUC of column ``score`` less that of ``reference``, mean over seeds."""
    reference = table[["seed", "label", "reference"]].rename(columns={"reference": "score"})
    return mean_auc(table) - mean_auc(reference)


def compare(predictions: dict[str, pd.DataFrame], reference: str, quality: str) -> pd.DataFrame:
    """Frame-level test AUC of every model and its paired difference to a reference model.

    Each model is compared on the seeds that it was trained from.

    Args:
        predictions: model name to table as from `fwstudy.study.evaluate` with a column ``seed``.
        reference: one of the names.
        quality: codec quality to compare at.

    Returns:
        columns variant, auc, auc_low, auc_high, difference, difference_low, difference_high (means over
        seeds, intervals by group), difference_least and difference_most of the seeds, num_seeds,
        num_images, num_identities.

    Raises:
        ValueError: a model was scored on other images than the reference (named).
    """
    base = predictions[reference].rename(columns={"score": "reference"})[[*KEYS, "reference"]]
    base = base[base["quality"] == quality]
    rows = []
    for name, table in predictions.items():
        table = table[table["quality"] == quality]
        expected = base[base["seed"].isin(table["seed"].unique())]
        both = table.merge(expected, on=KEYS, validate="one_to_one")
        if len(both) != len(expected) or len(both) != len(table):
            raise ValueError(f"{name} and {reference} were not scored on the same images")
        by_seed = [mean_auc_difference(part) for _, part in both.groupby("seed")]
        low, high = group_interval(both, mean_auc)
        row = {"variant": name, "auc": mean_auc(both), "auc_low": low, "auc_high": high}
        low, high = group_interval(both, mean_auc_difference)
        rows.append(
            row
            | {
                "difference": mean_auc_difference(both),
                "difference_low": low,
                "difference_high": high,
                "difference_least": min(by_seed),
                "difference_most": max(by_seed),
                "num_seeds": len(by_seed),
                "num_images": len(both) // len(by_seed),
                "num_identities": both["identity"].nunique(),
            }
        )
    return (
        pd.DataFrame(rows).sort_values("auc", ascending=False, ignore_index=True).replace(-0.0, 0.0)
    )


def mean_over_seeds(table: pd.DataFrame, by: list[str], values: list[str]) -> pd.DataFrame:
    """Mean over seeds of values and of the ends of their intervals, with the range of the seeds.

    Args:
        table: columns seed, ``by``, and for each value also its ``_low`` and ``_high``, if any.

    Returns:
        ``by``, then for each value its mean, those of its _low and _high, and _least and _most of the
        seeds; num_seeds.
    """
    rows = []
    for key, part in table.groupby(by, sort=False, dropna=False):
        found = dict(zip(by, key, strict=True))
        for value in values:
            ends = [f"{value}{end}" for end in ("", "_low", "_high") if f"{value}{end}" in part]
            found |= part[ends].mean().to_dict()
            found |= {f"{value}_least": part[value].min(), f"{value}_most": part[value].max()}
        rows.append(found | {"num_seeds": part["seed"].nunique()})
    return pd.DataFrame(rows)


def detection_summary(detection: pd.DataFrame, quality: str) -> dict[str, dict[str, float]]:
    """The numbers of ``detection.json``: each model's, at the study's quality and over all others.

    Args:
        detection: from `mean_over_seeds`, columns model, level, quality, family, auc, ap, eer, accuracy.
    """
    prefix = {"frame": "", "video": "video_"}
    values: dict[str, dict[str, float]] = {}
    for row in detection.to_dict("records"):
        own = row["quality"] == quality
        if row["family"] == "all" and own:
            found = {
                prefix[row["level"]] + key: row[key] for key in ("auc", "ap", "eer", "accuracy")
            }
        elif row["level"] == "frame" and (own or row["family"] == "all"):
            found = {f"auc_{row['family'] if own else row['quality']}": row["auc"]}
        else:
            found = {}
        rounded = {name: round(float(value), 6) for name, value in found.items()}
        values.setdefault(row["model"], {}).update(rounded)
    return values
