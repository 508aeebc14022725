"""Models compared in pairs, on the same test people and from the same training seeds."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from fwstudy.evaluation.metrics import detection_table, mean_interval, percentiles
from fwstudy.evaluation.models import MAIN, short
from fwstudy.evaluation.paired_tests import (
    auc_by_seed,
    exchange_p_value,
    hierarchical_bootstrap,
    holm,
    minimum_detectable,
    pair,
)
from fwstudy.labels import ONLY_EMPTY, ORIGINAL
from fwstudy.params import Whitening

TEXT = {"group": str, "identity": str, "clip": str, "video": str}
DIFFERENCE = ["auc", "auc_low", "auc_high", "difference", "difference_low", "difference_high",
    "difference_least", "difference_most", "p_value", "detectable",
    "num_seeds", "num_images", "num_identities"]  # fmt: skip


WORTH = {
    "purity": ("concepts", "concept axes", "purity"),
    "best_purity": ("concepts", "best axes", "purity"),
    "concept_share": ("verdict", "concept axes", "concept_share"),
    "relevance_mass": ("localization", "concept axes", "relevance_mass"),
    "part_top1": ("parts", "concept axes", "part_top1"),
    "restoration_correlation": ("faithfulness", "concept axes", "restoration_correlation"),
    "mean_correlation": ("whitening", "eval", "mean_correlation"),
    "mean_variance": ("whitening", "eval", "mean_variance"),
}
"""The numbers by which models are compared: topic, method and measure of the tables of measures."""


def read_predictions(folder: Path, name: str, seeds: list[int]) -> pd.DataFrame:
    """The test predictions of one model from several seeds, with a column ``seed``.

    Args:
        folder: ``data/predictions``.
        name: of the model's file, as in `fwstudy.evaluation.models`.
    """
    held_out = read_seeds(folder, name, seeds)
    return held_out[held_out["split"] == "test"].drop(columns="split").reset_index(drop=True)


def read_seeds(folder: Path, name: str, seeds: list[int]) -> pd.DataFrame:
    """One table of ``data/predictions`` or ``data/measures`` from several seeds, with a column seed."""
    paths = [folder / f"seed{seed}" / f"{name}.csv" for seed in seeds]
    tables = [pd.read_csv(path, dtype=TEXT, **ONLY_EMPTY) for path in paths]
    return pd.concat(
        [t.assign(seed=s) for t, s in zip(tables, seeds, strict=True)], ignore_index=True
    )


def read_all(folder: Path, models: dict[str, list[int]]) -> dict[str, pd.DataFrame]:
    """`read_predictions` of all models, by their short names."""
    return {short(name): read_predictions(folder, name, seeds) for name, seeds in models.items()}


def training_cost(folder: Path, models: dict[str, list[int]]) -> pd.DataFrame:
    """What each training cost: columns model, minutes, core_seconds, peak_memory_gb.

    Args:
        folder: ``data/results/cost``; the main models of a seed stand in one file.
        models: from `fwstudy.evaluation.models.trained_models`.
    """
    names = [
        f"seed{seed}" if name in MAIN else f"{short(name)}_seed{seed}"
        for name, seeds in models.items()
        for seed in seeds
    ]
    tables = [pd.read_csv(folder / f"{name}.csv") for name in dict.fromkeys(names)]
    return pd.concat(tables, ignore_index=True)


def detection_by_seed(folder: Path, models: dict[str, list[int]]) -> pd.DataFrame:
    """`detection_table` of every model and seed.

    Args:
        folder: ``data/predictions``.
        models: from `fwstudy.evaluation.models.trained_models`.

    Returns:
        columns of `detection_table`, model (the last part of the name) and seed.
    """
    tables = [
        detection_table(read_seeds(folder, name, [seed])).assign(model=short(name), seed=seed)
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
        the keys `DIFFERENCE`: auc and difference are means over seeds, difference_least and
        difference_most the range of the seeds, detectable the least difference found with 80 % power.

    Raises:
        ValueError: the two were scored on other images.
    """
    both = pair(model, reference)
    by_seed, draws = auc_by_seed(both), hierarchical_bootstrap(both)
    gaps, spread = by_seed[0] - by_seed[1], draws[:, 0] - draws[:, 1]
    values = [by_seed[0].mean(), *percentiles(draws[:, 0]), gaps.mean(), *percentiles(spread)]
    values += [gaps.min(), gaps.max(), exchange_p_value(both), minimum_detectable(spread)]
    values += [len(gaps), len(both.labels), model["identity"].nunique()]
    return dict(zip(DIFFERENCE, values, strict=True))


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
    seen: dict[str, pd.DataFrame], unseen: dict[str, dict[str, pd.DataFrame]], quality: str
) -> pd.DataFrame:
    """What models make of forgery families that were left out of their training.

    Args:
        seen: model name to test predictions (see `compare`), trained with all families.
        unseen: family to the same, trained without it.
        quality: codec quality to compare at.

    Returns:
        columns family, model, training, and those of `difference`, to the model that has seen the
        family; its forgeries and all originals are looked at.
    """
    rows = []
    for family, models in unseen.items():
        for name, predictions in models.items():
            pair = {"all families": seen[name], "without it": predictions}
            pair = {key: of_family(table, family, quality) for key, table in pair.items()}
            for training, table in pair.items():
                row = {"family": family, "model": name, "training": training}
                rows.append(row | difference(table, pair["all families"]))
    return pd.DataFrame(rows, columns=["family", "model", "training", *DIFFERENCE]).drop(
        columns="p_value"
    )


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


def operating_point(curve: pd.DataFrame, share: float = 0.8, cost: float = 0.01) -> str:
    """Where to operate on the accuracy-interpretability curve, in words.

    The purest of the points that have a concept share and lose no more than a cost in AUC; where there
    is none, the least costly.

    Args:
        curve: columns variant, bottleneck, difference with its _low and _high, concept_share, purity,
            part_top1.
    """
    near = curve[(curve["difference"] >= -cost) & (curve["concept_share"] >= share)]
    found = near.sort_values("purity") if len(near) else curve.sort_values("difference")
    chosen = found.iloc[-1]
    why = (
        f"the purest of the points with a concept share of {share} and a loss of at most {cost} in AUC"
        if len(near)
        else f"the least costly, as no point has a concept share of {share} within {cost} of AUC"
    )
    return (
        f"Where to operate: at bottleneck {chosen['bottleneck']:g} ({chosen['variant']}), {why}: "
        f"{chosen['difference']:+.3f} ({chosen['difference_low']:+.3f} to "
        f"{chosen['difference_high']:+.3f}), concept share {chosen['concept_share']:.2f}, "
        f"purity {chosen['purity']:.2f}, forged part found {chosen['part_top1']:.0%}"
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


def worth(rows: pd.DataFrame) -> pd.DataFrame:
    """The numbers `WORTH` of every model and seed side by side.

    Args:
        rows: columns of `fwstudy.interpretability.measures.COLUMNS` and seed.

    Returns:
        columns variant, seed, each of `WORTH` with its _low and _high; NaN where a model lacks one.
    """
    names = {key: name for name, key in WORTH.items()}
    keys = pd.Series(zip(rows["topic"], rows["method"], rows["measure"], strict=True), rows.index)
    chosen = rows.assign(name=keys.map(names))[(rows["subset"] == "all") & keys.isin(names)]
    wide = chosen.pivot(index=["model", "seed"], columns="name", values=["value", "low", "high"])
    ends = {"value": "", "low": "_low", "high": "_high"}
    wide.columns = [name + ends[end] for end, name in wide.columns]
    columns = [name + end for name in WORTH for end in ends.values()]
    found = wide.reindex(columns=columns).astype(float)
    return found.reset_index().rename(columns={"model": "variant"})


def measures_over_seeds(folder: Path, seeds: list[int]) -> pd.DataFrame:
    """`mean_over_seeds` of the values of ``measures.csv``: topic, model, method, subset, measure."""
    ends = {"low": "value_low", "high": "value_high"}
    table = read_seeds(folder, "measures", seeds).rename(columns=ends)
    return mean_over_seeds(table, ["topic", "model", "method", "subset", "measure"], ["value"])


def detection_summary(detection: pd.DataFrame, quality: str) -> dict[str, dict[str, float]]:
    """The numbers of ``detection.json``: each model's, at the study's quality and over all others.

    Args:
        detection: from `mean_over_seeds`, columns model, level, quality, family, auc, ap, eer, accuracy.
    """
    overall = ["auc", "ap", "eer", "accuracy"]
    values: dict[str, dict[str, float]] = {}
    for row in detection.to_dict("records"):
        own = row["quality"] == quality
        of_all, frame = row["family"] == "all", row["level"] == "frame"
        found = {}
        if own and of_all:
            found = {("" if frame else "video_") + key: row[key] for key in overall}
        elif frame and (own or of_all):
            found = {f"auc_{row['family'] if own else row['quality']}": row["auc"]}
        rounded = {name: round(float(value), 6) for name, value in found.items()}
        values.setdefault(row["model"], {}).update(rounded)
    return values
