"""What the notebook on interpretability shows of one seed: pictures and matrices, no new numbers."""

import numpy as np
import pandas as pd
import torch
from torch.nn import functional

from fwstudy.crops.cropset import CropSet
from fwstudy.interpretability.decomposition import capture, resize
from fwstudy.interpretability.localization import relevance_mass
from fwstudy.interpretability.model import (
    ALL_AXES,
    BATCH_NORM,
    CONCEPT_AXES,
    PURITY_IMAGES,
    WHITENED,
    Subject,
    concept_activations,
    concept_maps,
    evenly,
    maps_of,
    tensor_of,
    truth_of,
)
from fwstudy.interpretability.overlay import overlay
from fwstudy.labels import ORIGINAL
from fwstudy.training.concept_sets import CONCEPT_SETS
from fwstudy.training.variants import pooled_activations
from fwstudy.whitening.covariance import as_rows, covariance
from fwstudy.whitening.layer import FeatureWhitening
from fwstudy.whitening.statistics import whiteness


def channel_correlation(features: torch.Tensor) -> np.ndarray:
    """Correlation of every two channels over images and positions: (N, C, H, W) -> (C, C)."""
    return torch.corrcoef(features.movedim(1, 0).flatten(1)).numpy(force=True)


@torch.no_grad()
def subspace_whiteness(layer: FeatureWhitening, features: torch.Tensor) -> dict[str, float]:
    """`whiteness` of whitened features inside the space that the layer's input fills.

    A layer that follows a 1 x 1 convolution from r channels to C > r has an input of rank r, and C
    axes in r dimensions are correlated whatever the rotation. Seen along the principal axes of the
    running covariance, which unseen images had no part in, they need not be.

    Args:
        layer: in evaluation mode.
        features: (N, C, H, W), from `normalized_features`.

    Returns:
        the keys of `whiteness`; rank; and least_correlation, the smallest root mean square correlation
        of C axes in that many dimensions (Welch, IEEE Transactions on Information Theory 1974).
    """
    rows = as_rows(features).double()
    rank = int(torch.linalg.matrix_rank(covariance(rows)[1][0], hermitian=True, rtol=1e-6))
    values, vectors = torch.linalg.eigh(layer.running_covariance.double())
    principal = torch.block_diag(*vectors)[:, values.flatten().argsort()[-rank:]]
    channels = layer.num_features
    bound = ((channels - rank) / (rank * max(channels - 1, 1))) ** 0.5
    inner = rows @ layer.rotation.double() @ principal
    return {**whiteness(inner), "rank": rank, "least_correlation": bound}


def average_activations(subject: Subject) -> pd.DataFrame:
    """What each concept adds to each concept axis beyond a typical original, test people.

    Returns:
        a row a concept, a column a concept axis, in standard deviations of the axis over originals.
    """
    settings, detector, names = subject.settings, subject.whitened, subject.names
    make = CONCEPT_SETS[settings.concepts].images
    concepts = make(subject.faces("test"), PURITY_IMAGES, subject.seed, settings.grid_size)
    axes = list(range(len(names)))
    shown = concept_activations(detector, concepts).groupby("concept")[axes].mean()
    originals = subject.faces("test", kind="whole", variant=ORIGINAL)
    plain = pooled_activations(detector.model, originals).numpy()[:, axes]
    table = (shown - plain.mean(axis=0)) / plain.std(axis=0)
    labels = [name.replace("_", " ") for name in names]
    table.index, table.columns = labels, [f"axis {label}" for label in labels]
    return table


def panel_rows(subject: Subject) -> list[dict]:
    """What `fwstudy.reporting.plots.evidence_panel` shows: a face of each family, and two with one part forged.

    The whitened model's maps, like its evidence, are told relative to those of a typical original.
    """
    kinds = [("whole", None), *[("part", name) for name in ("left_eye", "mouth")]]
    tables = []
    for kind, part in kinds:
        wanted = {"kind": kind, "label": 1} | ({"variant": part} if part else {})
        manifest = subject.faces("test", **wanted).manifest
        first = manifest.groupby(["clip", "variant"])["frame"].transform("min")
        manifest = manifest[manifest["frame"] == first]
        tables += [found for _, found in manifest.groupby("variant", sort=False)]
    places = [(2 * i + 1) * len(table) // (2 * len(tables)) for i, table in enumerate(tables)]
    chosen = pd.concat([t.iloc[[place]] for t, place in zip(tables, places, strict=True)])
    crops = CropSet(chosen, subject.crops.images, subject.crops.mask, subject.crops.parsing)
    originals = subject.faces("validation", kind="whole", variant=ORIGINAL)
    shown = {
        "Grad-CAM, BatchNorm": maps_of(subject, (BATCH_NORM, "Grad-CAM"), crops),
        ALL_AXES: maps_of(subject, (WHITENED, ALL_AXES), crops)
        - maps_of(subject, (WHITENED, ALL_AXES), originals).mean(axis=0),
        CONCEPT_AXES: maps_of(subject, (WHITENED, CONCEPT_AXES), crops),
    }
    limits = {name: np.quantile(np.abs(values), 0.99) for name, values in shown.items()}
    evidence = subject.concept_evidence(crops)
    return [
        {
            "label": entry["variant"].replace("_", " "),
            "image": crops.images[entry["row"]],
            "truth": crops.mask[entry["row"]],
            "evidence": evidence[number],
            **{
                name: overlay(crops.images[entry["row"]], values[number], limits[name])
                for name, values in shown.items()
            },
        }
        for number, entry in enumerate(chosen.to_dict("records"))
    ]


@torch.no_grad()
def resolution_bound(subject: Subject, kind: str) -> tuple[float, int]:
    """Relevance mass of maps that know the truth, but are as coarse as those of the layer.

    Every cell holds the share of its pixels that the forgery changed; cells are blown up to the image as
    all maps are. What a real map misses of this is its fault; the rest is the resolution's.

    Args:
        kind: "whole" or "part", as in the manifest.

    Returns:
        mean over the explained test images, and the number of cells a side.
    """
    crops = subject.faces("test", subject.num_images, kind=kind, label=1)
    detector, changed = subject.whitened, truth_of(crops)[0]
    first = tensor_of(evenly(crops, 1), detector)
    cells = capture(detector.model, detector.layer, first)[0].shape[-1]
    coarse = functional.adaptive_avg_pool2d(torch.from_numpy(changed).float(), cells)
    found = relevance_mass(resize(coarse, changed.shape[-1]), changed)
    return float(np.nanmean(found)), cells


def sharper_maps(subject: Subject) -> pd.DataFrame:
    """Relevance mass of the concept axes' map and of two that might be sharper, beside Grad-CAM's.

    Of the strongest concept axis alone; and averaged over shifts of the image by a quarter of a cell, each
    shifted back, because cells of another grid cut another outline.

    Returns:
        a row a map, a column each kind of forgery (whole, part); explained test images, means.
    """
    originals = subject.faces("validation", kind="whole", variant=ORIGINAL)
    columns = {}
    for kind in ("whole", "part"):
        crops = subject.faces("test", subject.num_images, kind=kind, label=1)
        images, changed = tensor_of(crops, subject.whitened), truth_of(crops)[0]
        typical = concept_maps(subject, originals).mean(axis=0)
        strongest = subject.concept_evidence(crops).argmax(axis=1)
        single = (concept_maps(subject, crops) - typical)[np.arange(len(crops)), strongest]
        step = images.shape[-1] // (4 * resolution_bound(subject, kind)[1])
        detector, explain = subject.methods[WHITENED, CONCEPT_AXES]
        moved = [
            np.roll(
                explain(
                    detector.model, detector.layer, images.roll((y, x), dims=(2, 3))
                ),
                (-y, -x),
                axis=(1, 2),
            )
            for y in (-step, 0, step)
            for x in (-step, 0, step)
        ]  # fmt: skip
        maps = {
            "Grad-CAM, BatchNorm": maps_of(subject, (BATCH_NORM, "Grad-CAM"), crops),
            "concept axes": maps_of(subject, (WHITENED, CONCEPT_AXES), crops),
            "the strongest concept axis": single,
            "concept axes, averaged over shifts": np.mean(moved, axis=0),
        }
        columns[kind] = {n: np.nanmean(relevance_mass(m, changed)) for n, m in maps.items()}
    return pd.DataFrame(columns)
