"""What is measured of one model's explanations, topic by topic, as rows of one tidy table.

Every topic is a function of a `Subject` that yields rows with the columns of `COLUMNS`: a value and its
95 % interval over groups of people. `explain_model` collects them. A quantity has one name and one
sample, whichever notebook asks for it. What a measure means stands in `GLOSSARY`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from fwstudy.crops.composites import forged_parts
from fwstudy.crops.cropset import CropSet
from fwstudy.evaluation.metrics import Measure, balanced_threshold, mean_interval, measured
from fwstudy.interpretability import (
    adversarial,
    agreement,
    calibration,
    concept_metrics,
    faithfulness,
    interventions,
    leakage,
    localization,
    sanity,
    slices,
)
from fwstudy.interpretability.decomposition import concept_share, decompose
from fwstudy.interpretability.model import (
    CONCEPT_AXES,
    NORMALIZED_IMAGES,
    PURITY_IMAGES,
    Method,
    Subject,
    axes_explainer,
    concept_activations,
    concept_maps,
    normalized_features,
    originals_of,
    truth_of,
)
from fwstudy.labels import FORGED_PARTS, ONLY_EMPTY, ORIGINAL
from fwstudy.params import Params
from fwstudy.runtime import partial_folder, project_root
from fwstudy.training.concept_sets import forged_part_concepts
from fwstudy.training.runs import BASELINE, Run, all_runs, array_stamps, load
from fwstudy.training.trainer import predict
from fwstudy.training.variants import NORMS, pooled_activations
from fwstudy.whitening.covariance import as_rows
from fwstudy.whitening.statistics import whiteness, whiteness_by_mode

ROOMS = ("crops", "evaluation", "interpretability", "labels.py", "training", "whitening")
WHITENESS_REPEATS = 1000  # of the bootstrap
WHITENESS = ("mean_correlation", "mean_variance", "effective_rank")
CHECKED_IMAGES = 64
COLUMNS = ["topic", "model", "method", "subset", "measure", "value", "low", "high", "num_images"]
GLOSSARY: dict[str, Measure] = {
    "mean_correlation": Measure("mean |correlation| of two axes over positions", "ours", "lower"),
    "mean_variance": Measure("mean variance of an axis over positions; white: 1", "ours", "-"),
    "effective_rank": Measure(
        "exponential of the entropy of the covariance's eigenvalues; white: the number of axes",
        "Roy and Vetterli 2007",
        "higher",
    ),
    "purity_paired": Measure(
        "purity of what each image adds to the axis beyond its untouched original",
        "ours",
        "higher",
        0.5,
    ),
    "concept_share": Measure(
        "share of the logit's variance over images that flows through concept axes",
        "ours",
        "higher",
    ),
    **concept_metrics.MEASURES,
    **localization.MEASURES,
    **faithfulness.MEASURES,
    **sanity.MEASURES,
    **interventions.MEASURES,
    **calibration.MEASURES,
    **slices.MEASURES,
    **leakage.MEASURES,
    **adversarial.MEASURES,
    **agreement.MEASURES,
    "forward_passes": Measure(
        "images that the model sees to explain one, measured", "ours", "lower"
    ),
    "core_seconds": Measure(
        "processor time of the explanation of one image, on the machine of the run",
        "ours",
        "lower",
    ),
}
Rows = Iterator[dict]


def row(topic: str, key: Method, subset: str, measure: str, *values: float) -> dict:
    """One row of `COLUMNS`; values are value, low, high and num_images, as far as known."""
    return dict(zip(COLUMNS, (topic, *key, str(subset), measure, *values), strict=False))


def mean_row(topic: str, key: Method, subset: str, measure: str, table: pd.DataFrame) -> dict:
    """The mean of a column and its interval; undefined values (NaN) take no part.

    Args:
        table: columns group and ``measure``.
    """
    values = table[measure].to_numpy(np.float64)
    count = int(np.isfinite(values).sum())
    value = np.nanmean(values) if count else np.nan
    low, high = mean_interval(values, table["group"].to_numpy())
    return row(topic, key, subset, measure, value, low, high, count)


def mean_rows(topic: str, key: Method, table: pd.DataFrame, measures: Iterable[str]) -> Rows:
    """`mean_row` of each measure, for all images and for each value of the column variant."""
    subsets = {"all": table, **dict(iter(table.groupby("variant", sort=False)))}
    for subset, part in subsets.items():
        for measure in measures:
            yield mean_row(topic, key, subset, measure, part)


def about(crops: CropSet, *columns: pd.DataFrame, **values: np.ndarray) -> pd.DataFrame:
    """Row, group and variant of crops beside what was found of each, in their order."""
    table = crops.manifest[["row", "group", "variant"]].reset_index(drop=True)
    return table.join(list(columns)).assign(**values)


def whiteness_interval(
    features: torch.Tensor, groups: np.ndarray, seed: int = 0
) -> dict[str, tuple[float, float, float]]:
    """Value and interval over groups of people of the measures `WHITENESS`; of one group no interval.

    A bootstrap to first order in the weights of the groups (the infinitesimal jackknife; Efron, "The
    Jackknife, the Bootstrap and Other Resampling Plans", 1982): the eigenvalues of 2048 channels are
    computed once, not once a draw.

    Args:
        features: (N, C, H, W), from `normalized_features`.
        groups: (N,) of people.
    """
    names, index = np.unique(groups, return_inverse=True)
    value = whiteness(features)
    if len(names) < 2:
        return {name: (value[name], np.nan, np.nan) for name in WHITENESS}
    parts = [as_rows(features[torch.from_numpy(index == i)]).double() for i in range(len(names))]
    counts = parts[0].new_tensor([len(rows) for rows in parts])
    sums = torch.stack([rows.sum(dim=0) for rows in parts])
    products = torch.stack([rows.mT @ rows for rows in parts])

    def of_weights(weights: torch.Tensor) -> torch.Tensor:
        count = (weights * counts).sum()
        mean = weights @ sums / count
        matrix = torch.einsum("g,gij->ij", weights, products) / count - torch.outer(mean, mean)
        scale = matrix.diagonal().clamp(min=1e-12).sqrt()
        correlation = (matrix / (scale * scale[:, None])).abs()
        others = (correlation.sum() - correlation.trace()) / (len(scale) * (len(scale) - 1))
        return torch.stack([others, matrix.diagonal().mean(), effective_rank(matrix)])

    slopes = torch.autograd.functional.jacobian(of_weights, torch.ones_like(counts)).cpu().numpy()
    rng, shares = np.random.default_rng(seed), [1 / len(names)] * len(names)
    draws = (rng.multinomial(len(names), shares, WHITENESS_REPEATS) - 1) @ slopes.T
    low, high = np.quantile(draws, [0.025, 0.975], axis=0)
    return {
        name: (value[name], value[name] + low[i], value[name] + high[i])
        for i, name in enumerate(WHITENESS)
    }


def effective_rank(matrix: torch.Tensor) -> torch.Tensor:
    """exp of the entropy of a covariance's normalized eigenvalues, differentiable: ()."""
    values = torch.linalg.eigvalsh(matrix)
    values = values.clamp(min=values[-1].item() * torch.finfo(values.dtype).eps)
    return torch.special.entr(values / values.sum()).sum().exp()


def whiteness_rows(subject: Subject, subset: str, crops: CropSet) -> Rows:
    """How white the layer's output is, by its running statistics."""
    crops = crops.evenly(NORMALIZED_IMAGES)
    features, groups = normalized_features(subject, crops), crops.manifest["group"].to_numpy()
    for measure, values in whiteness_interval(features, groups).items():
        yield row("whitening", (subject.name, "eval"), subset, measure, *values, len(crops))


def whitening_topic(subject: Subject) -> Rows:
    """How white is the layer's output on test people?"""
    return whiteness_rows(subject, "all", subject.faces("test", kind="whole"))


def whitening_detail_topic(subject: Subject) -> Rows:
    """The same for originals and each family, and by the statistics of the batch."""
    whole = subject.faces("test", kind="whole")
    for variant in whole.manifest["variant"].unique():
        yield from whiteness_rows(subject, variant, whole.select(variant=variant))
    if subject.settings.norm in NORMS:
        few, key = whole.evenly(128), (subject.name, "train")
        found = whiteness_by_mode(subject.model, subject.layer, few.tensor(subject.device))
        for measure in WHITENESS:
            value = found[f"train_{measure}"]
            yield row("whitening", key, "all", measure, value, np.nan, np.nan, len(few))


def concept_topic(subject: Subject) -> Rows:
    """What do the axes mean: concept axes, and the best there are for each concept?"""
    table = concept_activations(subject, subject.concepts("test", PURITY_IMAGES))
    concepts = table["concept"].to_numpy()
    for method, axes in subject.axes.items():
        key = subject.name, method
        summary = concept_metrics.concept_summary(table, axes, subject.seed)
        for measure, values in summary.items():
            yield row("concepts", key, "all", measure, *values, len(table))
        single = concept_metrics.concept_purity(table[axes].to_numpy(), concepts)
        for name, value in zip(subject.names, single, strict=True):
            yield row("concepts", key, name, "purity", value, np.nan, np.nan, len(table))


def concept_detail_topic(subject: Subject) -> Rows:
    """Purity where it is harder or purer: parts of subtle forgeries, and beyond the original.

    Subset ``transplants``: the same parts, taken from forgeries of whole faces and as subtle as these.
    """
    if subject.settings.concepts != "forged_parts":
        return
    concepts = subject.concepts("test", PURITY_IMAGES)
    shown = concept_activations(subject, concepts)
    values = shown.drop(columns=["concept", "group"])
    gain = values - concept_activations(subject, concepts, absent=True)[values.columns]
    whole = subject.faces("test", kind="whole")
    subtle = forged_part_concepts(whole, PURITY_IMAGES, subject.seed, subject.settings.grid_size)
    harder = concept_activations(subject, subtle)
    gain = gain.join(shown[["concept", "group"]])
    for method, axes in subject.axes.items():
        key = subject.name, method
        tables = ("all", "purity_paired", gain), ("transplants", "purity", harder)
        for subset, measure, table in tables:
            known = (table[name].to_numpy() for name in (axes, "concept", "group"))
            values = concept_metrics.purity_interval(*known)
            yield row("concepts", key, subset, measure, *values, len(table))


def verdict_topic(subject: Subject) -> Rows:
    """How much of the verdict flows through the concept axes?"""
    if not subject.has_evidence:
        return
    whole = subject.faces("test", kind="whole")
    verdicts, count = subject.decomposed(whole), len(subject.names)
    values = concept_metrics.measured_rows(
        lambda rows: concept_share(verdicts.take(rows), count), whole.manifest["group"].to_numpy()
    )
    key = subject.name, CONCEPT_AXES
    yield row("verdict", key, "all", "concept_share", *values, len(whole))


def verdict_detail_topic(subject: Subject) -> Rows:
    """Does the verdict need the concept axes, and are they active at their parts?"""
    if not subject.has_evidence:
        return
    whole = subject.faces("test", kind="whole")
    labels, groups = (whole.manifest[name].to_numpy() for name in ("label", "group"))
    evidence = subject.decomposed(whole).evidence
    found = concept_metrics.importance_table(
        evidence, labels, groups, subject.names, seed=subject.seed
    )
    for axes, values in found.items():
        key = subject.name, axes
        yield row("verdict", key, "all", "permutation_importance", *values, len(whole))
    if subject.settings.concepts != "grid":
        faces = whole.evenly(subject.num_images)
        maps, parts = concept_maps(subject, faces), truth_of(faces)[1]
        found = concept_metrics.part_share(maps, parts)
        for measure, values in zip(("part_share", "part_area"), found, strict=True):
            columns = dict(zip(subject.names, values.T, strict=True))
            for name, column in (columns | {"mean": np.nanmean(values, axis=1)}).items():
                table = about(faces, **{measure: column})
                yield mean_row("verdict", (subject.name, name), "all", measure, table)


def intervention_topic(subject: Subject) -> Rows:
    """Does the verdict improve when the truth about the forged parts replaces what axes say?"""
    if not subject.has_evidence or subject.settings.concepts != "forged_parts":
        return
    count = len(subject.names)
    held_out, whole = (subject.faces(split, kind="whole") for split in ("validation", "test"))
    known, tested = decompose(subject.model, subject.layer, held_out), subject.decomposed(whole)
    masks, parts = truth_of(whole)
    curve = interventions.correction_curve(
        tested.logits,
        tested.evidence[:, :count],
        np.array([forged_parts(*pair) for pair in zip(masks, parts, strict=True)]),
        np.quantile(known.evidence[:, :count], interventions.QUANTILES, axis=0),
        whole.manifest,
        balanced_threshold(held_out.manifest["label"], known.logits),
    )
    for found in curve.to_dict("records"):
        subset, values = f"{found['corrected']} corrected", list(found.values())[1:]
        yield row(
            "interventions", (subject.name, CONCEPT_AXES), subset, "corrected_accuracy", *values
        )


def map_scores(subject: Subject, key: Method, kind: str) -> pd.DataFrame:
    """How well a method's maps lie on the changed pixels, image by image: `localization.SCORES`."""
    crops, maps = subject.explained(kind), subject.explained_maps(key, kind)
    return about(crops, localization.localization_scores(maps, truth_of(crops)[0]))


def part_hits(subject: Subject, key: Method) -> pd.DataFrame:
    """Whether a method gives the forged part most evidence, image by image: `part_top1`.

    Concept axes tell the evidence of each part without a map and answer for all test faces with
    one part forged; other methods for those that are explained.
    """
    every = subject.evidence_is_by_part(key)
    crops = subject.faces("test", kind="part") if every else subject.explained("part")
    given = subject.concept_evidence(crops) if every else subject.part_evidence(key, "part")
    part = np.array([list(FORGED_PARTS).index(name) for name in crops.manifest["variant"]], int)
    return about(crops, part_top1=localization.part_top1(given, part))


def localization_topic(subject: Subject) -> Rows:
    """Do the maps lie on the changed pixels of faces forged as a whole?"""
    for key in subject.methods:
        table = map_scores(subject, key, "whole")
        yield from mean_rows("localization", key, table, localization.SCORES)


def part_topic(subject: Subject) -> Rows:
    """Do they lie on the one part that was forged, and which part do they say it was?"""
    for key in subject.methods:
        yield from mean_rows("parts", key, part_hits(subject, key), ["part_top1"])
        yield from mean_rows("parts", key, map_scores(subject, key, "part"), localization.SCORES)


def restoration_topic(subject: Subject) -> Rows:
    """Does the logit fall as the explanation says when a part gets its original's pixels back?"""
    crops, device = subject.explained("whole"), subject.device
    pairs = crops.tensor(device), originals_of(crops, device)
    falls = faithfulness.restoration(subject.model, *pairs, truth_of(crops)[1])
    for key in subject.methods:
        given = subject.part_evidence(key, "whole")
        table = faithfulness.restoration_table(crops.manifest, falls, given)
        for measure, statistic in faithfulness.STATISTICS.items():
            yield row("faithfulness", key, "all", measure, *measured(table, statistic), len(crops))


def deletion_topic(subject: Subject) -> Rows:
    """Does the verdict follow the most relevant pixels?"""
    crops, device = subject.explained("whole"), subject.device
    few = crops.evenly(subject.num_images // 2)
    places = pd.Index(crops.manifest["row"]).get_indexer(few.manifest["row"])
    images, originals = few.tensor(device), originals_of(few, device)
    for key in tqdm(subject.methods, "deletion", leave=False):
        maps = subject.explained_maps(key, "whole")[places]
        curves = faithfulness.deletion_insertion(
            subject.model, images, maps, originals, seed=subject.seed
        )
        yield from mean_rows("faithfulness", key, about(few, curves), ["deletion", "insertion"])


def randomization_topic(subject: Subject) -> Rows:
    """Do maps change with the parameters?"""
    faces = subject.faces("test", CHECKED_IMAGES, kind="whole", label=1)
    for key, explain in checked(subject).items():
        # what is typical of the trained model must not make a randomized one look like it
        raw = axes_explainer(slice(0, len(subject.names))) if key[1] == CONCEPT_AXES else explain
        images, name = faces.tensor(subject.device), subject.detector.layer_name
        table = sanity.randomization_table(raw, subject.model, name, images, subject.seed)
        for stage, part in table.groupby("stage", sort=False):
            measure = "randomized_absolute_rank"
            yield mean_row("randomization", key, stage, measure, about(faces, part))


def stability_topic(subject: Subject) -> Rows:
    """Do maps stay with what leaves the face as it is?"""
    faces = subject.faces("test", CHECKED_IMAGES, kind="whole", label=1)
    pixels = faces.images[faces.manifest["row"].to_numpy()]
    for key, explain in checked(subject).items():
        table = sanity.stability(explain, subject.model, subject.layer, pixels, seed=subject.seed)
        for name, part in table.groupby("perturbation", sort=False):
            for measure in ("stability_rank", "verdict_flips"):
                yield mean_row("stability", key, name, measure, about(faces, part))


def checked(subject: Subject) -> dict:
    """Those of a subject's methods whose sanity is measured."""
    return {key: explain for key, explain in subject.methods.items() if key[1] in subject.checked}


def codec_topic(subject: Subject, other: CropSet, quality: str) -> Rows:
    """How alike are the maps after a stronger codec, on the same frames?

    Args:
        other: the test split at the other quality.
    """
    keys = ["clip", "frame", "variant", *({"video"} & set(other.manifest))]
    faces = subject.faces("test", CHECKED_IMAGES, kind="whole", label=1)
    again = other.select(kind="whole")
    places = pd.MultiIndex.from_frame(again.manifest[keys]).get_indexer(
        pd.MultiIndex.from_frame(faces.manifest[keys])
    )
    there = places >= 0  # of videos, a face may not have been found at the other quality
    faces, again = faces.take(there), again.take(places[there])
    for key in checked(subject):
        if not len(faces):  # a detector handed back no map at this quality
            yield row("stability", key, quality, "stability_rank", np.nan, np.nan, np.nan, 0)
            continue
        rank = sanity.rank_similarity(subject.maps(key, faces), subject.maps(key, again))
        table = about(faces, stability_rank=rank)
        yield mean_row("stability", key, quality, "stability_rank", table)


TOPICS: dict[str, Callable[[Subject], Rows]] = {
    "whitening": whitening_topic,
    "whitening in detail": whitening_detail_topic,
    "concepts": concept_topic,
    "concepts in detail": concept_detail_topic,
    "verdict": verdict_topic,
    "verdict in detail": verdict_detail_topic,
    "interventions": intervention_topic,
    "localization": localization_topic,
    "parts": part_topic,
    "restoration": restoration_topic,
    "deletion": deletion_topic,
    "randomization": randomization_topic,
    "stability": stability_topic,
}
ESSENTIAL = ("whitening", "concepts", "verdict", "localization", "parts", "restoration")
"""The topics by which all variants of the study are compared."""


def explain_model(subject: Subject, topics: Iterable[str] = tuple(TOPICS)) -> pd.DataFrame:
    """All that the topics measure of one model: rows with the columns of `COLUMNS`."""
    named = tqdm(topics, subject.name)
    return pd.DataFrame([r for name in named for r in TOPICS[name](subject)], columns=COLUMNS)


def explain_models(subjects: dict[str, Subject], topics: Iterable[str]) -> pd.DataFrame:
    """`explain_model` of several models, one after the other."""
    return pd.concat([explain_model(s, topics) for s in subjects.values()], ignore_index=True)


def codec_rows(subjects: dict[str, Subject], other: CropSet, quality: str) -> pd.DataFrame:
    """`codec_topic` of several models, one after the other."""
    rows = [found for s in subjects.values() for found in codec_topic(s, other, quality)]
    return pd.DataFrame(rows, columns=COLUMNS)


def trust_of_models(subjects: dict[str, Subject]) -> dict[str, pd.DataFrame]:
    """`trust_tables` of several models, one below the other."""
    tables = [trust_tables(subject) for subject in subjects.values()]
    return {name: pd.concat([t[name] for t in tables], ignore_index=True) for name in tables[0]}


def _of_variant(subject: Subject) -> list[pd.DataFrame]:
    """The two tables of `explain_variants` for one model."""
    images = [pd.DataFrame(columns=["measure", "row", "group", "value"])]
    for key in subject.methods:
        scores = {"relevance_mass": map_scores(subject, key, "whole")}
        scores["part_top1"] = part_hits(subject, key)
        images += [
            table[["row", "group"]].assign(measure=measure, value=table[measure])
            for measure, table in scores.items()
        ]
    none, *found = images  # an empty table has no types, and would take them from the others
    return [explain_model(subject, ESSENTIAL), pd.concat(found or [none], ignore_index=True)]


def _kept(run: Run, num_images: int, measure: Callable[[], list[pd.DataFrame]]) -> list:
    """The tables that ``measure`` makes of a model, read again if it was measured before.

    They are kept by the model's weights, its logits, the arrays of the crops (masks, which logits do
    not tell), and the code.
    """
    inputs = [run.weights, run.predictions]
    if not all(path.exists() for path in inputs):
        return measure()
    what = {"settings": run.settings.model_dump(), "seed": run.seed, "num_images": num_images}
    what |= {"arrays": array_stamps([project_root() / "data" / "crops"])}
    folder = partial_folder(f"measured/{run.name}", what, inputs, rooms=ROOMS)
    return read_or_made(folder, ("rows", "images"), measure)


def read_or_made(
    folder: Path, names: Sequence[str], make: Callable[[], Iterable[pd.DataFrame]]
) -> list[pd.DataFrame]:
    """The tables that ``make`` gives, read again where they were made before."""
    paths = [folder / f"{name}.csv" for name in names]
    if not paths[-1].exists():
        for table, path in zip(make(), paths, strict=True):
            table.to_csv(path.with_suffix(".new"), index=False)
            path.with_suffix(".new").replace(path)
    types = {"group": str, "subset": str, "method": str}
    return [pd.read_csv(path, dtype=types, **ONLY_EMPTY) for path in paths]


def explain_variants(params: Params, crops: CropSet) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The `ESSENTIAL` topics of all fine-tuned models, with every seed: of their concept axes alone.

    A model that was measured before is not measured again.

    Args:
        crops: all splits; those at the study's quality that have their originals are taken.

    Returns:
        rows with the columns of `COLUMNS` and seed; and image by image, columns variant, seed,
        measure, row, group, value, of the measures relevance_mass and part_top1.
    """
    chosen = crops.select(quality=params.preprocess.quality).paired()
    fine_tuned = [run for run in all_runs(params) if run.name != BASELINE]
    num_images, tables, images = params.interpretability.num_images, [], []
    for run in tqdm(fine_tuned, "variants"):
        about_it = run.name, load(run, params), run.settings, chosen, run.seed, num_images
        subject = Subject(*about_it, shown=(CONCEPT_AXES,))
        rows, by_image = _kept(run, num_images, partial(_of_variant, subject))
        tables.append(rows.assign(seed=run.seed))
        images.append(by_image.assign(variant=run.name, seed=run.seed))
    some = [table for table in images if len(table)] or images
    return pd.concat(tables, ignore_index=True), pd.concat(some, ignore_index=True)


def trust_tables(subject: Subject) -> dict[str, pd.DataFrame]:
    """Calibration, kinds of people and leakage of identity of one model.

    Returns:
        calibration, reliability, slices, gaps, leakage, each with a column model: see
        `fwstudy.interpretability.calibration`, `slices` and `leakage`.
    """
    whole, held_out = (subject.faces(split, kind="whole") for split in ("test", "validation"))
    labels, logits = held_out.manifest["label"].to_numpy(), predict(subject.model, held_out)
    scored = whole.manifest.assign(score=predict(subject.model, whole).astype(np.float64))
    evidence = []
    if subject.has_evidence:
        forged, evidence = subject.faces("test", kind="whole", label=1), ["relevance_mass"]
        maps = subject.maps((subject.name, CONCEPT_AXES), forged)
        mass = localization.relevance_mass(maps, truth_of(forged)[0])
        quality = pd.Series(mass, forged.manifest["row"]).reindex(scored["row"])
        scored = scored.assign(relevance_mass=quality.to_numpy())
    known = calibration.calibrate(labels, logits)
    fitted = {"as trained": calibration.Calibration(), "calibrated": known}
    threshold = balanced_threshold(labels, logits)
    curves = [
        calibration.reliability_curve(
            scored["label"].to_numpy(),
            chosen.probability(scored["score"].to_numpy()),
            scored["group"].to_numpy(),
        ).assign(calibration=name)
        for name, chosen in fitted.items()
    ]
    originals = whole.select(variant=ORIGINAL)
    activations = pooled_activations(subject.model, originals).numpy()
    count, kinds = len(subject.names), {}
    if subject.has_evidence:
        kinds["concept axes"] = activations[:, :count]
        kinds["as many residual axes"] = activations[:, count : 2 * count]
    kinds[f"{subject.name}, all axes"] = activations
    tables = {
        "calibration": calibration.calibration_table(scored, fitted),
        "reliability": pd.concat(curves, ignore_index=True),
        "slices": slices.slice_table(scored, threshold, evidence),
        "gaps": slices.gap_table(scored, threshold, evidence, seed=subject.seed),
        "leakage": leakage.identity_leakage(kinds, originals.manifest),
    }
    return {name: table.assign(model=subject.name) for name, table in tables.items()}
