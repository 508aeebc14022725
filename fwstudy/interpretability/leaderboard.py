"""Explainers × measures over detectors: which explanation may be trusted, and what does it cost?

Every explainer of `RANKED` explains the same test images of every detector. Measures are taken image by
image, explainers are ranked by them in each detector, and the ranks are averaged.
"""

import hashlib
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import combinations

import numpy as np
import pandas as pd
from torch import nn
from tqdm import tqdm

from fwstudy.crops.cropset import CropSet
from fwstudy.evaluation.metrics import auc_interval
from fwstudy.evaluation.models import MAIN, short, trained_models
from fwstudy.interpretability.adversarial import attack_table
from fwstudy.interpretability.agreement import mean_ranks, rank_agreement
from fwstudy.interpretability.explainers import EXPLAINERS, Explainer, in_batches, occlusion
from fwstudy.interpretability.faithfulness import deletion
from fwstudy.interpretability.measures import (
    COLUMNS,
    GLOSSARY,
    ROOMS,
    about,
    map_scores,
    mean_row,
    part_hits,
    read_or_made,
    row,
)
from fwstudy.interpretability.model import (
    CONCEPT_AXES,
    MEAN_MASK,
    RANDOM,
    Method,
    Subject,
    axes_explainer,
    originals_of,
    priors,
)
from fwstudy.interpretability.more_explainers import MORE_EXPLAINERS, lime
from fwstudy.interpretability.networks import train_network
from fwstudy.interpretability.sanity import randomize_cascading, rank_similarity
from fwstudy.params import Params
from fwstudy.runtime import partial_folder, project_root
from fwstudy.training.runs import array_stamps, find_run, load
from fwstudy.training.trainer import predict
from fwstudy.whitening.concepts import BATCH_SIZE

NUM_DETECTORS = 4  # of the study's own
FIRST = ("variants/concept_loss_only", "variants/random_labels")  # where they are run
CONTROLS = (MEAN_MASK, RANDOM)
RANKED: Mapping[str, Explainer] = {
    **{name: EXPLAINERS[name] for name in ("Grad-CAM", "LayerCAM", "integrated gradients")},
    **{name: MORE_EXPLAINERS[name] for name in ("EigenCAM", "input x gradient")},
    "occlusion": partial(occlusion, stride=1 / 8),
    "LIME": partial(lime, num_samples=100),
}
"""Explainers that suit every network of one output; those that sample take few samples."""
ATTACK = {"counts": (3,), "steps": 4, "pairs": 12, "rate": 4 / 255}
"""A shorter attack than the published one (up to 50 steps of 1/255 along 40 pairs), equally bounded."""
MEASURED = {
    "relevance_mass": "localization",
    "relevance_rank": "localization",
    "part_top1": "parts",
    "deletion": "faithfulness",
    "sufficiency": "attack",
    "accuracy_drop": "attack",
    "randomized_absolute_rank": "randomization",
}
"""The measures that rank, and the topic of each. `part_top1` asks of images with one part forged."""
ALL = "all detectors"


def compared_models(params: Params) -> list[str]:
    """The study's own models that are compared, by the names of their files: `NUM_DETECTORS` at most."""
    others = [name for name in trained_models(params) if name not in MAIN]
    return [*MAIN[1:], *sorted(others, key=lambda name: name not in FIRST)][:NUM_DETECTORS]


def compared_subjects(params: Params, crops: CropSet) -> dict[str, Subject]:
    """Detectors of the study and ``explanations.networks``, all of the first seed of the variants.

    The networks are trained here, unless they were before.

    Args:
        crops: all splits and qualities.
    """
    seed, settings = params.ablations.seeds[0], params.explanations
    runs = [find_run(params, short(name), seed) for name in compared_models(params)]
    found = {run.name: (load(run, params), run.settings) for run in runs}
    found |= {name: (train_network(params, name, seed, crops), None) for name in settings.networks}
    chosen = crops.select(quality=params.preprocess.quality).paired()
    return {
        name: with_explainers(Subject(name, *about_it, chosen, seed, settings.num_images))
        for name, about_it in found.items()
    }


def with_explainers(subject: Subject) -> Subject:
    """The subject with `RANKED` and `CONTROLS` as its explainers, beside concept axes it may have."""
    blind = {name: explain for name, explain in priors(subject).items() if name in CONTROLS}
    explainers = {**RANKED, **blind}
    shown = (*explainers, CONCEPT_AXES)
    return replace(subject, explainers=explainers, shown=shown, priors=False)


@contextmanager
def measured_passes(model: nn.Module) -> Iterator[dict[str, float]]:
    """Images that a model sees, forward_passes, and core_seconds of all threads; filled in at the end."""
    found, seen = {}, []
    start = time.process_time()
    with model.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0]))):
        yield found
    found |= {"forward_passes": float(sum(seen)), "core_seconds": time.process_time() - start}


def randomized_similarity(subject: Subject, key: Method, randomized: nn.Module) -> np.ndarray:
    """Rank correlation of the absolute maps of the model and of one with random weights: (N,)."""
    crops, named = subject.explained("whole"), key[1] == CONCEPT_AXES
    layer = randomized.get_submodule(subject.detector.layer_name)
    batches = crops.tensor(subject.device).split(BATCH_SIZE)
    # what is typical of the trained model must not make a randomized one look like it
    explain = axes_explainer(slice(0, len(subject.names))) if named else subject.methods[key]
    trained = subject.explained_maps(key, "whole") + (subject.typical_map if named else 0)
    return rank_similarity(np.abs(trained), np.abs(in_batches(explain, randomized, layer, batches)))


def image_scores(
    subject: Subject, key: Method, num_attacked: int, randomized: nn.Module
) -> pd.DataFrame:
    """The measures of `MEASURED`, image by image: columns row, group, measure, value.

    Without faces of which one part is forged there is no `part_top1`.

    Args:
        num_attacked: at most so many images are attacked.
        randomized: the subject's model with no stage left as it was trained.
    """
    crops, device = subject.explained("whole"), subject.device
    few, maps = crops.evenly(num_attacked), subject.explained_maps(key, "whole")
    places = pd.Index(crops.manifest["row"]).get_indexer(few.manifest["row"])
    pairs = crops.tensor(device), originals_of(crops, device)
    areas = deletion(subject.model, pairs[0], maps, pairs[1], seed=subject.seed)
    attacked = attack_table(
        subject.model, few.tensor(device), maps[places], seed=subject.seed, **ATTACK
    )
    similarity = randomized_similarity(subject, key, randomized)
    parts = [part_hits(subject, key)] if len(subject.explained("part")) else []
    tables = [
        map_scores(subject, key, "whole"),
        *parts,
        about(crops, deletion=areas, randomized_absolute_rank=similarity),
        about(few, attacked[["sufficiency", "accuracy_drop"]]),
    ]
    long = pd.concat([table.melt(["row", "group"], var_name="measure") for table in tables])
    long = long[long["measure"].isin(list(MEASURED))]
    return long.astype({"value": float}).reset_index(drop=True)


def score_subject(subject: Subject, num_attacked: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every method of one subject; see `score_explainers`."""
    scores, costs, crops = [], [], subject.explained("whole")
    *_, (_, randomized) = randomize_cascading(subject.model, subject.seed)
    for key in tqdm(subject.methods, subject.name):
        named = {"model": subject.name, "method": key[1]}
        subject.maps(key, crops.evenly(1))  # what is computed once is no cost of an image
        with measured_passes(subject.model) as cost:
            subject.explained_maps(key, "whole")
        each = {name: value / len(crops) for name, value in cost.items()}
        costs.append(named | each | {"num_images": len(crops)})
        found = image_scores(subject, key, num_attacked, randomized)
        scores.append(found.assign(**named))
    return pd.concat(scores, ignore_index=True), pd.DataFrame(costs)


def fingerprint(model: nn.Module) -> str:
    """A digest of all weights and buffers of a model."""
    digest = hashlib.sha256()
    for name, values in model.state_dict().items():
        digest.update(name.encode())
        digest.update(values.numpy(force=True).tobytes())
    return digest.hexdigest()


def kept_scores(subject: Subject, num_attacked: int) -> list[pd.DataFrame]:
    """`score_subject`, read again if the same weights and layer were scored before on the same crops."""
    what = {
        "weights": fingerprint(subject.model),
        "layer": subject.detector.layer_name,
        "seed": subject.seed,
        "num_images": subject.num_images,
        "num_attacked": num_attacked,
        "rows": subject.crops.manifest["row"].tolist(),
        "arrays": array_stamps([project_root() / "data" / "crops"]),
    }
    folder = partial_folder(f"explained/{subject.name}", what, rooms=ROOMS)
    make = partial(score_subject, subject, num_attacked)
    return read_or_made(folder, ("scores", "costs"), make)


def score_explainers(
    subjects: Mapping[str, Subject], num_attacked: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every method of every subject; a subject that was scored before is not scored again.

    Returns:
        `image_scores` with columns model and method; and costs of one image, columns model, method,
        forward_passes, core_seconds, num_images.
    """
    found = [kept_scores(subject, num_attacked) for subject in subjects.values()]
    scores, costs = (pd.concat(tables, ignore_index=True) for tables in zip(*found, strict=True))
    return scores, costs


def agreement_rows(scores: pd.DataFrame) -> Iterator[dict]:
    """Rank agreement of every two measures over `RANKED`, of means over images of all detectors."""
    chosen = scores[scores["method"].isin([*RANKED])]
    sign = {name: -1 if GLOSSARY[name].better == "lower" else 1 for name in MEASURED}
    values = chosen["value"] * chosen["measure"].map(sign)
    index = ["model", "method", "row", "group"]
    wide = chosen.assign(value=values).pivot(index=index, columns="measure", values="value")
    wide, count = wide.reset_index(), chosen["row"].nunique()
    for one, other in combinations([name for name in MEASURED if name in wide], 2):
        numbers = rank_agreement(wide, one, other)
        yield row("agreement", (ALL, one), other, "rank_agreement", *numbers, count)


def leaderboard(scores: pd.DataFrame, costs: pd.DataFrame) -> pd.DataFrame:
    """All numbers of the leaderboard, as rows with the columns of the study's measures.

    Topics of `MEASURED` hold each measure of each detector and method; ``cost`` that of a method;
    ``ranks`` the mean ranks over all detectors, by all measures (subset ``all``) and by each;
    ``agreement`` that of two measures, named as method and subset.

    Args:
        scores, costs: from `score_explainers`.
    """
    rows = [
        mean_row(MEASURED[name], key, "all", name, table.rename(columns={"value": name}))
        for (*key, name), table in scores.groupby(["model", "method", "measure"], sort=False)
    ]
    for cost in costs.to_dict("records"):
        key, count = (cost["model"], cost["method"]), cost["num_images"]
        for name in ("forward_passes", "core_seconds"):
            rows.append(row("cost", key, "all", name, cost[name], np.nan, np.nan, count))
    chosen = scores[scores["method"].isin([*RANKED, *CONTROLS])]
    better = {name: GLOSSARY[name].better for name in MEASURED}
    counts = chosen.groupby("measure")["row"].nunique()
    counts["all"] = chosen["row"].nunique()
    for found in mean_ranks(chosen, better).to_dict("records"):
        numbers = (found["value"], found["low"], found["high"], counts[found["measure"]])
        rows.append(
            row("ranks", (ALL, found["method"]), found["measure"], "explainer_rank", *numbers)
        )
    return pd.DataFrame([*rows, *agreement_rows(scores)], columns=COLUMNS)


def detector_accuracy(subjects: Mapping[str, Subject]) -> pd.DataFrame:
    """AUC on whole test faces: columns model, auc, auc_low, auc_high, num_images."""
    rows = []
    for subject in subjects.values():
        crops = subject.faces("test", kind="whole")
        scored = crops.manifest.assign(score=predict(subject.model, crops))
        rows.append({"model": subject.name, **auc_interval(scored), "num_images": len(crops)})
    return pd.DataFrame(rows)
