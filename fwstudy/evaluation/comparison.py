"""Models compared in pairs, on the same test people and from the same training seeds."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from fwstudy.evaluation.metrics import detection_table, mean_interval
from fwstudy.evaluation.paired_tests import (
    auc_by_seed,
    exchange_p_value,
    hierarchical_bootstrap,
    holm,
    minimum_detectable,
    pair,
    percentiles,
)
from fwstudy.labels import ORIGINAL
from fwstudy.params import Whitening

TEXT = {"group": str, "identity": str, "clip": str}
DIFFERENCE = ["auc", "auc_low", "auc_high", "difference", "difference_low", "difference_high",
    "difference_least", "difference_most", "p_value", "detectable",
    "num_seeds", "num_images", "num_identities"]  # fmt: skip


def read_predictions(folder: Path, name: str, seeds: list[int]) -> pd.DataFrame:
    """The test predictions of one model from several seeds, with a column ``seed``.

    Args:
        folder: ``data/predictions``.
        name: of the model, as in `fwstudy.training.runs.predictions_path`.
    """
    held_out = held_out_predictions(folder, name, seeds)
    return held_out[held_out["split"] == "test"].drop(columns="split").reset_index(drop=True)


def held_out_predictions(folder: Path, name: str, seeds: list[int]) -> pd.DataFrame:
    """As `read_predictions`, with the validation split; column split tells them apart."""
    tables = [pd.read_csv(folder / f"seed{seed}" / f"{name}.csv", dtype=TEXT) for seed in seeds]
    return pd.concat(
        [t.assign(seed=s) for t, s in zip(tables, seeds, strict=True)], ignore_index=True
    )


def detection_by_seed(folder: Path, models: dict[str, list[int]]) -> pd.DataFrame:
    """`detection_table` of every model and seed.

    Args:
        folder: ``data/predictions``.
        models: name of the model (as in its file's path) to the seeds it was trained from.

    Returns:
        columns of `detection_table`, model (the last part of the name) and seed.
    """
    tables = [
        detection_table(held_out_predictions(folder, name, [seed])).assign(
            model=name.rpartition("/")[2], seed=seed
        )
        for name, seeds in tqdm(models.items(), "detection")
        for seed in seeds
    ]
    return pd.concat(tables, ignore_index=True)


def difference(model: pd.DataFrame, reference: pd.DataFrame) -> dict[str, float]:
    """Frame-level AUC of a model, and its paired difference to a reference on the same seeds.

    Intervals and tests: see `fwstudy.evaluation.paired_tests`.

    Args:
        model, reference: as from `fwstudy.training.runs.score` with a column ``seed``; one quality.

    Returns:
        auc, difference (means over seeds) and their _low and _high; difference_least and
        difference_most of the seeds; p_value; detectable (the least difference found with 80 % power);
        num_seeds, num_images, num_identities.

    Raises:
        ValueError: the two were scored on other images.
    """
    both = pair(model, reference)
    by_seed = auc_by_seed(both)
    draws = hierarchical_bootstrap(both)
    gaps, spread = by_seed[0] - by_seed[1], draws[:, 0] - draws[:, 1]
    ends = {"auc": percentiles(draws[:, 0]), "difference": percentiles(spread)}
    found = {"auc": by_seed[0].mean(), "difference": gaps.mean()}
    found |= {f"{name}_low": low for name, (low, _) in ends.items()}
    found |= {f"{name}_high": high for name, (_, high) in ends.items()}
    return found | {
        "difference_least": gaps.min(),
        "difference_most": gaps.max(),
        "p_value": exchange_p_value(both),
        "detectable": minimum_detectable(spread),
        "num_seeds": len(gaps),
        "num_images": len(both.labels),
        "num_identities": model["identity"].nunique(),
    }


def compare(predictions: dict[str, pd.DataFrame], reference: str, quality: str) -> pd.DataFrame:
    """Every model beside a reference model, each on the seeds that it was trained from.

    Args:
        predictions: model name to table as from `fwstudy.training.runs.score` with a column ``seed``.
        reference: one of the names.
        quality: codec quality to compare at.

    Returns:
        columns variant, those of `difference`, and p_holm (corrected for the number of models); best
        model first. The reference has no p-value.

    Raises:
        ValueError: a model was scored on other images than the reference (named).
    """
    pairs = {name: (name, reference) for name in predictions}
    found = contrasts(pairs, predictions, quality).drop(columns=["question", "reference"])
    found = found.sort_values("auc", ascending=False, ignore_index=True)
    found.loc[found["variant"] == reference, "p_value"] = np.nan
    return found.assign(p_holm=holm(found["p_value"].to_numpy()))


def contrasts(
    questions: dict[str, tuple[str, str]], predictions: dict[str, pd.DataFrame], quality: str
) -> pd.DataFrame:
    """The difference in AUC of the two models that each question is about.

    Args:
        questions: question to the names of a model and of what it is compared with; those with a model
            that was not run are left out.
        predictions, quality: as in `compare`.

    Returns:
        columns question, variant, reference, those of `difference`, and p_holm.

    Raises:
        ValueError: two models were not scored on the same images (named).
    """
    at_quality = {name: t[t["quality"] == quality] for name, t in predictions.items()}
    asked = {q: names for q, names in questions.items() if set(names) <= set(predictions)}
    rows = []
    for question, (name, reference) in tqdm(asked.items(), "comparisons"):
        try:
            found = difference(at_quality[name], at_quality[reference])
        except ValueError as error:
            raise ValueError(f"{name} and {reference}: {error}") from error
        rows.append({"question": question, "variant": name, "reference": reference, **found})
    columns = ["question", "variant", "reference", *DIFFERENCE]
    found = pd.DataFrame(rows, columns=columns).replace(-0.0, 0.0)
    return found.assign(p_holm=holm(found["p_value"].to_numpy()))


def of_family(predictions: pd.DataFrame, family: str, quality: str) -> pd.DataFrame:
    """The rows of one forgery family and of all originals, at one codec quality."""
    shown = predictions["variant"].isin([ORIGINAL, family])
    return predictions[shown & (predictions["quality"] == quality)]


def leave_one_out_table(
    seen: dict[str, pd.DataFrame], unseen: dict[str, pd.DataFrame], family: str, quality: str
) -> pd.DataFrame:
    """What models make of a forgery family that was left out of their training, beside those that saw it.

    Args:
        seen, unseen: model name to test predictions (see `compare`), trained with and without it.
        family: its forgeries and all originals are looked at.
        quality: codec quality to compare at.

    Returns:
        columns family, model, training, and those of `difference`, to the model that has seen it.
    """
    rows = []
    for name, predictions in unseen.items():
        tables = {"all families": seen[name], "without it": predictions}
        tables = {key: of_family(table, family, quality) for key, table in tables.items()}
        rows += [
            {"family": family, "model": name, "training": training}
            | difference(table, tables["all families"])
            for training, table in tables.items()
        ]
    return pd.DataFrame(rows).drop(columns="p_value")


def sentence(answer: dict) -> str:
    """One row of `contrasts` in words: the question, the number, its interval, how sure that is.

    Told from 0 is what the interval leaves out *and* the corrected test finds at 5 %.
    """
    low, high = answer["difference_low"], answer["difference_high"]
    unsure = low <= 0 <= high or not answer["p_holm"] < 0.05
    verdict = "not told from 0" if unsure else ("lower" if high < 0 else "higher")
    return (
        f"{answer['question']} {answer['variant']} less {answer['reference']}: "
        f"{answer['difference']:+.3f} AUC ({low:+.3f} to {high:+.3f}), {verdict}; "
        f"p = {answer['p_value']:.3f}, corrected {answer['p_holm']:.3f}; {answer['num_seeds']} seed(s), "
        f"detectable from {answer['detectable']:.3f} on."
    )


def varied(settings: dict[str, Whitening], base: Whitening, keys: Sequence[str]) -> pd.DataFrame:
    """The variants that differ from a base in nothing but some settings, and their values of these.

    Args:
        settings: variant name to its settings.
        base: the settings that all others are equal to.
        keys: names of the settings that may differ.

    Returns:
        columns variant and ``keys``.
    """
    fixed = base.model_dump(exclude=set(keys))
    chosen = {n: s for n, s in settings.items() if s.model_dump(exclude=set(keys)) == fixed}
    rows = [[name, *(getattr(one, key) for key in keys)] for name, one in chosen.items()]
    return pd.DataFrame(rows, columns=["variant", *keys])


def image_difference(
    images: pd.DataFrame, measure: str, variant: str, reference: str
) -> dict[str, float]:
    """Mean difference of a measure that is told image by image, with its interval over people.

    Args:
        images: columns variant, seed, measure, row, group, value.

    Returns:
        value, low, high, over the seeds that both variants have; NaN where one has none.
    """
    chosen = images[(images["measure"] == measure) & images["variant"].isin([variant, reference])]
    wide = chosen.pivot_table(index=["row", "group", "seed"], columns="variant", values="value")
    wide = wide.reindex(columns=[variant, reference]).dropna()
    gaps = (wide[variant] - wide[reference]).groupby(["row", "group"]).mean()
    if gaps.empty:
        return dict.fromkeys(["value", "low", "high"], np.nan)
    low, high = mean_interval(gaps.to_numpy(), gaps.index.get_level_values("group").to_numpy())
    return {"value": float(gaps.mean()), "low": low, "high": high}


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
