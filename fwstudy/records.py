"""The few numbers by which all variants of the study are compared."""

import numpy as np
import pandas as pd
from tqdm import tqdm

from fwstudy import concept_metrics, faithfulness, localisation
from fwstudy.concepts import CONCEPT_SETS
from fwstudy.crops import CropSet
from fwstudy.evidence import decompose, named_share
from fwstudy.faces.clips import FORGED_PARTS
from fwstudy.models import last_norm
from fwstudy.params import Params
from fwstudy.study import control, load_variant
from fwstudy.subject import (
    LEARNED_IMAGES,
    NAMED,
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
from fwstudy.whitening import whiteness


def explanation_metrics(subject: Subject) -> dict:
    """The few numbers that every ablation variant is judged by, on test people.

    ``batch_norm`` of the subject is not looked at. What only named axes have is missing (None) where
    there are none, or where the layer does not feed the pooling.
    """
    detector, settings = subject.whitened, subject.settings
    make = CONCEPT_SETS[settings.concepts].images
    count = len(subject.names)
    concepts = make(subject.faces("test"), PURITY_IMAGES, subject.seed, settings.grid_size)
    table = concept_activations(detector, concepts)
    learned = make(subject.faces("train"), LEARNED_IMAGES, subject.seed, settings.grid_size)
    chosen = best_axes(concept_activations(detector, learned), count)
    numbers = table["concept"].to_numpy()
    purity = {
        name: float(np.nanmean(concept_metrics.concept_purity(table[axes].to_numpy(), numbers)))
        for name, axes in (("purity", list(range(count))), ("best_purity", chosen))
    }
    whole = subject.faces("test", NORMALIZED_IMAGES, kind="whole")
    values = purity | whiteness(normalized_features(detector, whole))
    missing = dict.fromkeys(["named_share", "relevance_mass", "part_top1", "repair_correlation"])
    if not settings.named:
        return values | {"purity": None} | missing
    if detector.layer_name != last_norm(detector.model):
        return values | missing
    everything = subject.faces("test", kind="whole")
    share = named_share(decompose(detector.model, detector.layer, everything), count)
    values |= missing | {"named_share": share}
    forged = subject.faces("test", subject.num_images, kind="whole", label=1)
    maps = maps_of(subject, (WHITENED, NAMED), forged)
    changed, parts = truth_of(forged)
    values["relevance_mass"] = float(np.nanmean(localisation.relevance_mass(maps, changed)))
    if settings.concepts == "forged_parts":
        fall = faithfulness.repair(
            detector.model, tensor_of(forged, detector), originals_of(forged, detector), parts
        )
        pairs = faithfulness.repair_table(forged.manifest, fall, subject.named_evidence(forged))
        values["repair_correlation"] = faithfulness.repair_correlation(pairs)
        single = subject.faces("test", kind="part")
        part = np.array([FORGED_PARTS.index(name) for name in single.manifest["variant"]])
        hits = localisation.part_top1(subject.named_evidence(single), part)
        values["part_top1"] = float(hits.mean())
    return values


def variant_records(params: Params, crops: CropSet) -> pd.DataFrame:
    """All trained variants, one row each and seed: settings, detection, explanation.

    Args:
        crops: all splits; those at the study's quality are taken.
    """
    chosen = crops.select(quality=params.preprocess.quality)
    default = params.whitening
    models = [
        (name, name, settings, seed)
        for name, settings in (("batch_norm", control(default)), ("whitened", default))
        for seed in params.train.seeds
    ]
    models += [
        (name, f"ablation/{name}", params.variant(name), seed)
        for name in params.ablations.run
        for seed in params.ablations.seeds
    ]
    records = []
    for name, kept, settings, seed in tqdm(models, "variants"):
        detector = load_variant(params, settings, kept, seed)
        subject = Subject(
            detector, detector, settings, chosen, seed, params.interpretability.num_images
        )
        about = {"variant": name, "seed": seed, **settings.model_dump()}
        records.append(about | explanation_metrics(subject))
    return pd.DataFrame(records)
