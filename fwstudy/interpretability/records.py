"""The few numbers by which all variants of the study are compared."""

import numpy as np
import pandas as pd
from tqdm import tqdm

from fwstudy.crops.cropset import CropSet
from fwstudy.evaluation.metrics import group_interval, mean_interval
from fwstudy.interpretability import concept_metrics, faithfulness, localization
from fwstudy.interpretability.decomposition import concept_share, decompose
from fwstudy.interpretability.model import (
    CONCEPT_AXES,
    LEARNED_IMAGES,
    NORMALIZED_IMAGES,
    PURITY_IMAGES,
    WHITENED,
    Subject,
    best_axes,
    concept_activations,
    maps_of,
    normalized_features,
    originals_of,
    tensor_of,
    truth_of,
)
from fwstudy.labels import FORGED_PARTS
from fwstudy.params import Params
from fwstudy.training.concept_sets import CONCEPT_SETS
from fwstudy.training.runs import control, load_variant
from fwstudy.whitening.statistics import whiteness
from fwstudy.whitening.surgery import last_norm


def purity_with_interval(table: pd.DataFrame, axes: list[int], name: str) -> dict[str, float]:
    """Mean purity of some axes, one a concept, and its interval over groups of people.

    Args:
        table: from `concept_activations`.
        name: of the measure, also of its keys ``<name>_low`` and ``<name>_high``.
    """

    def statistic(part: pd.DataFrame) -> float:
        purity = concept_metrics.concept_purity(part[axes].to_numpy(), part["concept"].to_numpy())
        return float(np.nanmean(purity))

    chosen = table[list(dict.fromkeys([*axes, "concept", "group"]))]
    low, high = group_interval(chosen, statistic)
    return {name: statistic(chosen), f"{name}_low": low, f"{name}_high": high}


def image_table(measure: str, crops: CropSet, values: np.ndarray) -> pd.DataFrame:
    """One measure image by image: columns measure, row, group, value."""
    about = crops.manifest[["row", "group"]].reset_index(drop=True)
    return about.assign(measure=measure, value=np.asarray(values, np.float64))


def explanation_metrics(subject: Subject) -> tuple[dict, pd.DataFrame]:
    """The few numbers that every ablation variant is judged by, on test people.

    ``batch_norm`` of the subject is not looked at. What only concept axes have is missing (None) where
    there are none, or where the layer does not feed the pooling.

    Returns:
        the numbers, means with ``_low`` and ``_high``; and those that are told image by image,
        columns measure, row, group, value.
    """
    detector, settings = subject.whitened, subject.settings
    make = CONCEPT_SETS[settings.concepts].images
    count = len(subject.names)
    concepts = make(subject.faces("test"), PURITY_IMAGES, subject.seed, settings.grid_size)
    table = concept_activations(detector, concepts)
    learned = make(subject.faces("train"), LEARNED_IMAGES, subject.seed, settings.grid_size)
    chosen = best_axes(concept_activations(detector, learned), count)
    whole = subject.faces("test", NORMALIZED_IMAGES, kind="whole")
    values = purity_with_interval(table, chosen, "best_purity")
    values |= whiteness(normalized_features(detector, whole))
    missing = dict.fromkeys(
        ["concept_share", "relevance_mass", "part_top1", "restoration_correlation"]
    )
    images = pd.DataFrame(columns=["measure", "row", "group", "value"])
    if not settings.named:
        return values | {"purity": None} | missing, images
    values |= purity_with_interval(table, list(range(count)), "purity")
    if detector.layer_name != last_norm(detector.model):
        return values | missing, images
    everything = subject.faces("test", kind="whole")
    share = concept_share(decompose(detector.model, detector.layer, everything), count)
    values |= missing | {"concept_share": share}
    forged = subject.faces("test", subject.num_images, kind="whole", label=1)
    maps = maps_of(subject, (WHITENED, CONCEPT_AXES), forged)
    changed, parts = truth_of(forged)
    found = [image_table("relevance_mass", forged, localization.relevance_mass(maps, changed))]
    if settings.concepts == "forged_parts":
        fall = faithfulness.restoration(
            detector.model, tensor_of(forged, detector), originals_of(forged, detector), parts
        )
        pairs = faithfulness.restoration_table(
            forged.manifest, fall, subject.concept_evidence(forged)
        )
        values["restoration_correlation"] = faithfulness.restoration_correlation(pairs)
        single = subject.faces("test", kind="part")
        part = np.array([list(FORGED_PARTS).index(name) for name in single.manifest["variant"]])
        hits = localization.part_top1(subject.concept_evidence(single), part)
        found.append(image_table("part_top1", single, hits))
    for table in found:
        name, numbers = table["measure"].iloc[0], table["value"].to_numpy()
        low, high = mean_interval(numbers, table["group"].to_numpy())
        values |= {name: float(np.nanmean(numbers)), f"{name}_low": low, f"{name}_high": high}
    return values, pd.concat(found, ignore_index=True)


def variant_records(params: Params, crops: CropSet) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All trained variants: settings, whiteness and explanation of each, with every seed.

    Args:
        crops: all splits; those at the study's quality that have their originals are taken.

    Returns:
        one row each variant and seed; and image by image, columns variant, seed, measure, row, group,
        value: see `explanation_metrics`.
    """
    chosen = crops.select(quality=params.preprocess.quality).paired()
    default = params.whitening
    models = [
        (name, name, settings, seed)
        for name, settings in (("batch_norm", control(default)), ("whitened", default))
        for seed in params.train.seeds
    ]
    models += [
        (name, f"variants/{name}", params.variant(name), seed)
        for name in params.ablations.run
        for seed in params.ablations.seeds
    ]
    records, tables = [], []
    for name, kept, settings, seed in tqdm(models, "variants"):
        detector = load_variant(params, settings, kept, seed)
        subject = Subject(
            detector, detector, settings, chosen, seed, params.interpretability.num_images
        )
        values, images = explanation_metrics(subject)
        records.append({"variant": name, "seed": seed, **settings.model_dump()} | values)
        if len(images):  # an empty table has no types, and would take them from the others
            tables.append(images.assign(variant=name, seed=seed))
    return pd.DataFrame(records), pd.concat(tables, ignore_index=True)
