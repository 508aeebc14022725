"""What is measured of a detector's explanations, topic by topic, as rows of one tidy table.

Every topic is a function of a `Subject` that returns a table with the columns of `COLUMNS`: a value and
its 95 % interval over groups of people for each topic, model, method, subset and measure. What a measure
means stands in `GLOSSARY`.
"""

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from fwstudy.crops.cropset import CropSet
from fwstudy.evaluation.metrics import Measure, balanced_threshold, group_interval, mean_interval
from fwstudy.interpretability import (
    calibration,
    concept_metrics,
    faithfulness,
    leakage,
    localization,
    sanity,
    slices,
)
from fwstudy.interpretability.calibration import (
    Calibration,
    calibrate,
    calibration_table,
    reliability_curve,
)
from fwstudy.interpretability.decomposition import Decomposition, concept_share, decompose
from fwstudy.interpretability.leakage import identity_leakage
from fwstudy.interpretability.model import (
    BATCH_NORM,
    CONCEPT_AXES,
    LEARNED_IMAGES,
    NORMALIZED_IMAGES,
    PURITY_IMAGES,
    WHITENED,
    Subject,
    axes_explainer,
    best_axes,
    concept_activations,
    concept_maps,
    evenly,
    maps_of,
    normalized_features,
    originals_of,
    part_evidence,
    tensor_of,
    truth_of,
)
from fwstudy.interpretability.slices import gap_table, slice_table
from fwstudy.labels import FORGED_PARTS, ORIGINAL
from fwstudy.training.concept_sets import CONCEPT_SETS, forged_part_concepts
from fwstudy.training.runs import Detector
from fwstudy.training.trainer import predict
from fwstudy.training.variants import pooled_activations
from fwstudy.whitening.concepts import Concept
from fwstudy.whitening.covariance import as_rows
from fwstudy.whitening.statistics import whiteness_by_mode

WHITENESS_REPEATS = 200  # of the bootstrap: each takes the eigenvalues of a covariance
COLUMNS = ["topic", "model", "method", "subset", "measure", "value", "low", "high", "num_images"]
GLOSSARY: dict[str, Measure] = {
    "mean_correlation": Measure(
        "mean |correlation| of two axes over positions", "ours", "lower", None
    ),
    "mean_variance": Measure(
        "mean variance of an axis over positions; white: 1", "ours", "-", None
    ),
    "effective_rank": Measure(
        "exponential of the entropy of the covariance's eigenvalues; white: the number of axes",
        "Roy and Vetterli 2007",
        "higher",
    ),
    "purity": Measure(
        "one-vs-rest AUC of axis j for concept j, mean over concepts, unseen people",
        "Chen, Bei and Rudin 2020",
        "higher",
        0.5,
    ),
    "purity_paired": Measure(
        "the same of what each image adds to the axis beyond its untouched original",
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
    **calibration.MEASURES,
    **slices.MEASURES,
    **leakage.MEASURES,
}
CHECKED = [(BATCH_NORM, "Grad-CAM"), (WHITENED, "Grad-CAM"), (WHITENED, CONCEPT_AXES)]


def row(topic: str, model: str, method: str, subset: str, measure: str, *values: float) -> dict:
    """One row of `COLUMNS`; values are value, low, high and num_images, as far as known."""
    return dict(zip(COLUMNS, (topic, model, method, subset, measure, *values), strict=False))


def mean_rows(
    topic: str,
    model: str,
    method: str,
    table: pd.DataFrame,
    measures: list[str],
    by: str = "variant",
) -> Iterator[dict]:
    """Means of per-image columns with their intervals: for all images, and for each value of ``by``.

    Args:
        table: columns group, ``by`` and the measures; undefined values are NaN.
    """
    subsets = {"all": table, **dict(iter(table.groupby(by, sort=False)))}
    for subset, part in subsets.items():
        for measure in measures:
            values = part[measure].to_numpy(np.float64)
            defined = np.isfinite(values)
            value = values[defined].mean() if defined.any() else np.nan
            interval = mean_interval(values, part["group"].to_numpy())
            yield row(
                topic, model, method, str(subset), measure, value, *interval, int(defined.sum())
            )


def statistic_row(
    topic: str,
    model: str,
    method: str,
    subset: str,
    measure: str,
    table: pd.DataFrame,
    statistic: Callable[[pd.DataFrame], float],
) -> dict:
    """A statistic that is no mean, with its interval over groups of people."""
    value = statistic(table)
    interval = group_interval(table, statistic) if np.isfinite(value) else (np.nan, np.nan)
    return row(topic, model, method, subset, measure, value, *interval, len(table))


def whiteness_interval(
    features: torch.Tensor, groups: np.ndarray, seed: int = 0
) -> dict[str, tuple[float, float, float]]:
    """Value and interval over groups of people of three keys of `whiteness`.

    Args:
        features: (N, C, H, W), from `normalized_features`.
        groups: (N,) of people.
    """
    names, index = np.unique(groups, return_inverse=True)
    moments = []
    for number in range(len(names)):
        rows = as_rows(features[torch.from_numpy(index == number)]).double()
        moments.append((len(rows), rows.sum(dim=0), rows.mT @ rows))
    counts, sums, products = (
        torch.stack([torch.as_tensor(m[i]) for m in moments]) for i in range(3)
    )

    def measured(weights: torch.Tensor) -> list[float]:
        count = (weights * counts).sum()
        mean = weights @ sums / count
        matrix = torch.einsum("g,gij->ij", weights, products) / count - torch.outer(mean, mean)
        scale = matrix.diagonal().clamp(min=1e-12).sqrt()
        correlation = (matrix / (scale * scale[:, None])).abs()
        others = (correlation.sum() - correlation.trace()) / (len(scale) * (len(scale) - 1))
        values = torch.linalg.eigvalsh(matrix).clamp(min=0)
        rank = torch.special.entr(values / values.sum()).sum().exp()
        return [others.item(), matrix.diagonal().mean().item(), rank.item()]

    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(names), [1 / len(names)] * len(names), WHITENESS_REPEATS)
    draws = np.array([measured(torch.from_numpy(weights).double()) for weights in drawn])
    value = measured(torch.ones(len(names), dtype=torch.float64))
    low, high = np.quantile(draws, [0.025, 0.975], axis=0)
    keys = ("mean_correlation", "mean_variance", "effective_rank")
    return {key: (value[i], low[i], high[i]) for i, key in enumerate(keys)}


def whitening_topic(subject: Subject) -> pd.DataFrame:
    """How white the layer's output is, by running statistics and (whitened model) by the batch's."""
    rows = []
    for model, detector in subject.models.items():
        whole = subject.faces("test", kind="whole")
        kinds = {
            "all": whole,
            **{v: whole.select(variant=v) for v in whole.manifest["variant"].unique()},
        }
        for subset, crops in kinds.items():
            crops = evenly(crops, NORMALIZED_IMAGES)
            features = normalized_features(detector, crops)
            for key, values in whiteness_interval(
                features, crops.manifest["group"].to_numpy()
            ).items():
                rows.append(row("whitening", model, "eval", subset, key, *values, len(crops)))
    detector, few = subject.whitened, subject.faces("test", 128, kind="whole")
    found = whiteness_by_mode(detector.model, detector.layer, tensor_of(few, detector))
    for key in ("mean_correlation", "mean_variance", "effective_rank"):
        value = found[f"train_{key}"]
        rows.append(
            row("whitening", WHITENED, "train", "all", key, value, np.nan, np.nan, len(few))
        )
    return pd.DataFrame(rows, columns=COLUMNS)


def purity_row(
    model: str, method: str, subset: str, measure: str, table: pd.DataFrame, axes: list[int]
) -> dict:
    """Mean purity of some axes, one a concept; ``table`` as from `concept_activations`."""

    def statistic(part: pd.DataFrame) -> float:
        purity = concept_metrics.concept_purity(part[axes].to_numpy(), part["concept"].to_numpy())
        return float(np.nanmean(purity))

    return statistic_row("concepts", model, method, subset, measure, table, statistic)


def paired_purity(
    subject: Subject, detector: Detector, concepts: list[Concept], axes: list[int]
) -> dict:
    """`purity_paired` of some axes, one a concept."""
    tables = []
    for number, concept in enumerate(concepts):
        shown = concept_activations(detector, [concept])
        absent = concept_activations(
            detector, [Concept(concept.name, concept.absent, None, concept.groups)]
        )
        gain = shown[axes] - absent[axes]
        tables.append(gain.assign(concept=number, group=concept.groups))
    model = WHITENED if detector is subject.whitened else BATCH_NORM
    method = CONCEPT_AXES if detector is subject.whitened else "best axes"
    table = pd.concat(tables, ignore_index=True)
    return purity_row(model, method, "all", "purity_paired", table, axes)


def concept_topic(subject: Subject) -> pd.DataFrame:
    """What the axes mean: named ones of the whitened model, the best there are of BatchNorm.

    Subset ``transplants``: the same parts, taken from forgeries of whole faces and so as subtle as these.
    """
    settings, seed = subject.settings, subject.seed
    make = CONCEPT_SETS[settings.concepts].images
    test, training = subject.faces("test"), subject.faces("train")
    concepts = make(test, PURITY_IMAGES, seed, settings.grid_size)
    learned = make(training, LEARNED_IMAGES, seed, settings.grid_size)
    count, rows = len(concepts), []
    chosen = best_axes(concept_activations(subject.batch_norm, learned), count)
    compared = [
        (WHITENED, CONCEPT_AXES, subject.whitened, list(range(count))),
        (BATCH_NORM, "best axes", subject.batch_norm, chosen),
    ]
    for model, method, detector, axes in compared:
        table = concept_activations(detector, concepts)
        summary = concept_metrics.concept_summary(table, count, axes, seed)
        for _, found in summary.iterrows():
            values = found[["value", "low", "high"]]
            rows.append(
                row("concepts", model, method, "all", found["measure"], *values, len(table))
            )
        single = concept_metrics.concept_purity(table[axes].to_numpy(), table["concept"].to_numpy())
        for concept, value in zip(concepts, single, strict=True):
            rows.append(
                row(
                    "concepts",
                    model,
                    method,
                    concept.name,
                    "purity",
                    value,
                    np.nan,
                    np.nan,
                    len(table),
                )
            )
        if settings.concepts == "forged_parts":
            rows.append(paired_purity(subject, detector, concepts, axes))
            whole = test.select(kind="whole")
            subtle = forged_part_concepts(whole, PURITY_IMAGES, seed, settings.grid_size)
            table = concept_activations(detector, subtle)
            rows.append(purity_row(model, method, "transplants", "purity", table, axes))
    return pd.DataFrame(rows, columns=COLUMNS)


def verdict_topic(subject: Subject) -> pd.DataFrame:
    """Does the verdict flow through the concept axes, and do they lie at their parts?"""
    whole = subject.faces("test", kind="whole")
    detector, count = subject.whitened, len(subject.names)
    parts = decompose(detector.model, detector.layer, whole)
    evidence, groups = parts.evidence, whole.manifest["group"].to_numpy()
    table = pd.DataFrame({"group": groups, "row": np.arange(len(groups))})

    def share(part: pd.DataFrame) -> float:
        drawn = part["row"].to_numpy()
        return concept_share(
            Decomposition(
                parts.bias, evidence[drawn], parts.activations[drawn], parts.logits[drawn]
            ),
            count,
        )

    rows = [statistic_row("verdict", WHITENED, CONCEPT_AXES, "all", "concept_share", table, share)]
    labels = whole.manifest["label"].to_numpy()
    found = concept_metrics.importance_table(
        evidence, labels, groups, subject.names, seed=subject.seed
    )
    for axes, *values in found.itertuples(index=False):
        rows.append(
            row("verdict", WHITENED, axes, "all", "permutation_importance", *values, len(whole))
        )
    if subject.settings.concepts != "grid":
        faces = evenly(whole, subject.num_images)
        maps = concept_maps(subject, faces)
        shares, areas = concept_metrics.part_share(maps, truth_of(faces)[1])
        about = faces.manifest[["group", "variant"]]
        for measure, values in (("part_share", shares), ("part_area", areas)):
            for name, column in zip(
                [*subject.names, "mean"], [*values.T, np.nanmean(values, axis=1)], strict=True
            ):
                rows += list(
                    mean_rows(
                        "verdict", WHITENED, name, about.assign(**{measure: column}), [measure]
                    )
                )[:1]
    return pd.DataFrame(rows, columns=COLUMNS)


def localization_topic(subject: Subject) -> pd.DataFrame:
    """Do the maps lie on the changed pixels, and which part do they say was forged?"""
    whole = subject.faces("test", subject.num_images, kind="whole", label=1)
    single = subject.faces("test", subject.num_images, kind="part")
    rows, measures = [], list(localization.SCORES)
    forged = np.array([list(FORGED_PARTS).index(name) for name in single.manifest["variant"]])
    for key in tqdm(subject.methods, "localization"):
        for topic, crops in (("localization", whole), ("parts", single)):
            maps = maps_of(subject, key, crops)
            table = localization.localization_scores(maps, truth_of(crops)[0])
            table = crops.manifest[["group", "variant"]].reset_index(drop=True).join(table)
            columns = measures
            if topic == "parts":
                given = part_evidence(subject, key, maps, crops)
                table["part_top1"] = localization.part_top1(given, forged)
                columns = [*measures, "part_top1"]
            rows += mean_rows(topic, *key, table, columns)
    return pd.DataFrame(rows, columns=COLUMNS)


def faithfulness_topic(subject: Subject) -> pd.DataFrame:
    """Does the logit fall as the explanation says when pixels or parts are put back?"""
    crops = subject.faces("test", subject.num_images, kind="whole", label=1)
    few = evenly(crops, subject.num_images // 2)
    rows, falls = [], {}
    for key, (detector, _) in tqdm(subject.methods.items(), "faithfulness"):
        images, originals = tensor_of(few, detector), originals_of(few, detector)
        maps = maps_of(subject, key, crops)
        places = few.manifest["row"].map(
            dict(zip(crops.manifest["row"], range(len(crops)), strict=True))
        )
        curves = faithfulness.deletion_insertion(
            detector.model, images, maps[places.to_numpy()], originals, seed=subject.seed
        )
        table = few.manifest[["group", "variant"]].reset_index(drop=True).join(curves)
        rows += mean_rows("faithfulness", *key, table, ["deletion", "insertion"])
        if key[0] not in falls:
            falls[key[0]] = faithfulness.restoration(
                detector.model,
                tensor_of(crops, detector),
                originals_of(crops, detector),
                truth_of(crops)[1],
            )
        table = faithfulness.restoration_table(
            crops.manifest, falls[key[0]], part_evidence(subject, key, maps, crops)
        )
        for measure in ("restoration_correlation", "restoration_rank_correlation"):
            statistic = getattr(faithfulness, measure)
            rows.append(statistic_row("faithfulness", *key, "all", measure, table, statistic))
    return pd.DataFrame(rows, columns=COLUMNS)


def sanity_topic(subject: Subject) -> pd.DataFrame:
    """Do maps change with the parameters, and stay with what leaves the face as it is?"""
    faces = subject.faces("test", 64, kind="whole", label=1)
    about, rows = faces.manifest[["group", "variant"]].reset_index(drop=True), []
    pixels = faces.images[faces.manifest["row"].to_numpy()]
    for key in tqdm(CHECKED, "sanity"):
        detector, explain = subject.methods[key]
        model, layer = detector.model, detector.layer
        # what is typical of the trained model must not make a randomized one look like it
        raw = axes_explainer(slice(0, len(subject.names))) if key[1] == CONCEPT_AXES else explain
        table = sanity.randomization_table(
            raw, model, detector.layer_name, tensor_of(faces, detector), subject.seed
        )
        for stage, part in table.groupby("stage", sort=False):
            part = about.join(part)
            found = next(mean_rows("randomization", *key, part, ["randomized_absolute_rank"]))
            rows.append(found | {"subset": stage})
        for name, perturbation in sanity.PERTURBATIONS.items():
            table = sanity.stability(explain, model, layer, pixels, perturbation, subject.seed)
            table = about.join(table.assign(verdict_flips=table["verdict_flips"].astype(float)))
            for found in mean_rows("stability", *key, table, ["stability_rank", "verdict_flips"]):
                if found["subset"] == "all":
                    rows.append(found | {"subset": name})
    return pd.DataFrame(rows, columns=COLUMNS)


def codec_topic(subject: Subject, other: CropSet, quality: str) -> pd.DataFrame:
    """How alike the maps are after a stronger codec, on the same frames.

    Args:
        other: the test split at the other quality.
    """
    keys = ["clip", "frame", "variant", *({"video"} & set(other.manifest))]
    faces = subject.faces("test", 64, kind="whole", label=1)
    found = other.select(kind="whole").manifest.set_index(keys)["row"]
    # Of videos, a face may not have been found at the other quality.
    there = pd.MultiIndex.from_frame(faces.manifest[keys]).isin(found.index)
    faces = CropSet(faces.manifest[there], faces.images, faces.mask, faces.parsing)
    rows_other = found.loc[pd.MultiIndex.from_frame(faces.manifest[keys])].to_numpy()
    again = other.select(row=rows_other.tolist())
    again = CropSet(
        again.manifest.set_index("row").loc[rows_other].reset_index(),
        other.images,
        other.mask,
        other.parsing,
    )
    rows = []
    for key in CHECKED:
        table = sanity.map_similarity(
            maps_of(subject, key, faces), maps_of(subject, key, again), "stability_"
        )
        table = faces.manifest[["group", "variant"]].reset_index(drop=True).join(table)
        rows.append(
            next(mean_rows("stability", *key, table, ["stability_rank"])) | {"subset": quality}
        )
    return pd.DataFrame(rows, columns=COLUMNS)


TOPICS: dict[str, Callable[[Subject], pd.DataFrame]] = {
    "whitening": whitening_topic,
    "concepts": concept_topic,
    "verdict": verdict_topic,
    "localization": localization_topic,
    "faithfulness": faithfulness_topic,
    "sanity": sanity_topic,
}


def trust_tables(subject: Subject) -> dict[str, pd.DataFrame]:
    """Calibration, kinds of people and leakage of identity, of both models where it applies.

    Returns:
        calibration, reliability (of the whitened model), slices, gaps, leakage: see `fwstudy.interpretability.calibration`, `slices` and `leakage`.
    """
    whole, held_out = (subject.faces(split, kind="whole") for split in ("test", "validation"))
    labels = held_out.manifest["label"].to_numpy()
    forged = subject.faces("test", kind="whole", label=1)
    mass = localization.relevance_mass(
        maps_of(subject, (WHITENED, CONCEPT_AXES), forged), truth_of(forged)[0]
    )
    quality = pd.Series(mass, forged.manifest["row"]).reindex(whole.manifest["row"]).to_numpy()
    tables: dict[str, list[pd.DataFrame]] = {}
    for model, detector in subject.models.items():
        logits = predict(detector.model, held_out)
        scored = whole.manifest.assign(score=predict(detector.model, whole).astype(np.float64))
        fitted = {"as trained": Calibration(), "calibrated": calibrate(labels, logits)}
        threshold = balanced_threshold(labels, logits)
        evidence = ["relevance_mass"] if detector is subject.whitened else []
        scored = scored.assign(**dict.fromkeys(evidence, quality))
        found = {
            "calibration": calibration_table(scored, fitted),
            "slices": slice_table(scored, scored, threshold, evidence),
            "gaps": gap_table(scored, scored, threshold, evidence, seed=subject.seed),
            "reliability": pd.concat(
                reliability_curve(
                    scored["label"].to_numpy(),
                    calibration.probability(scored["score"].to_numpy()),
                    scored["group"].to_numpy(),
                ).assign(calibration=name)
                for name, calibration in fitted.items()
            ),
        }
        for name, table in found.items():
            tables.setdefault(name, []).append(table.assign(model=model))
    originals = whole.select(variant=ORIGINAL)
    count = len(subject.names)
    white, plain = (
        pooled_activations(detector.model, originals).numpy()
        for detector in (subject.whitened, subject.batch_norm)
    )
    kinds = {
        "concept axes": white[:, :count],
        "as many residual axes": white[:, count : 2 * count],
        "all axes": white,
        "BatchNorm, all channels": plain,
    }
    tables["leakage"] = [identity_leakage(kinds, originals.manifest)]
    return {name: pd.concat(found, ignore_index=True) for name, found in tables.items()}
