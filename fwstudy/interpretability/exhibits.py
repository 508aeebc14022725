"""What the notebook on interpretability shows of one seed: pictures, matrices and two bounds."""

import numpy as np
import pandas as pd
import torch
from torch.nn import functional

from fwstudy.interpretability.decomposition import capture, resize
from fwstudy.interpretability.localization import relevance_mass
from fwstudy.interpretability.model import (
    ALL_AXES,
    BATCH_NORM,
    CONCEPT_AXES,
    GRAD_CAM,
    PURITY_IMAGES,
    WHITENED,
    Subject,
    concept_activations,
    truth_of,
)
from fwstudy.labels import ORIGINAL
from fwstudy.training.variants import pooled_activations
from fwstudy.whitening.covariance import as_rows, covariance
from fwstudy.whitening.layer import FeatureWhitening
from fwstudy.whitening.statistics import whiteness

SHOWN = f"{GRAD_CAM}, {BATCH_NORM}", ALL_AXES, CONCEPT_AXES
"""The maps of `panel_rows`."""


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
    axes = list(range(len(subject.names)))
    table = concept_activations(subject, subject.concepts("test", PURITY_IMAGES))
    shown = table.groupby("concept")[axes].mean()
    originals = subject.faces("test", kind="whole", variant=ORIGINAL)
    plain = pooled_activations(subject.model, originals).numpy()[:, axes]
    table = (shown - plain.mean(axis=0)) / plain.std(axis=0)
    labels = [name.replace("_", " ") for name in subject.names]
    table.index, table.columns = labels, [f"axis {label}" for label in labels]
    return table


def panel_rows(subjects: dict[str, Subject]) -> list[dict]:
    """The rows of `fwstudy.reporting.plots.evidence_panel`: a face a family, two with one part forged.

    The whitened model's maps, like its evidence, are measured relative to those of a typical original.

    Args:
        subjects: from `fwstudy.interpretability.model.load_subjects`.

    Returns:
        dicts of label, image (S, S, 3) uint8, truth (S, S) bool, evidence (k,), and a signed map
        (S, S) for each of `SHOWN`.
    """
    plain, whitened = subjects[BATCH_NORM], subjects[WHITENED]
    forged = whitened.faces("test", label=1).manifest
    first = forged.groupby(["clip", "kind", "variant"])["frame"].transform("min")
    wanted = (forged["kind"] == "whole") | forged["variant"].isin(["left_eye", "mouth"])
    shown = forged[wanted & (forged["frame"] == first)]
    order = {"whole": 0, "part": 1}
    shown = shown.sort_values("kind", key=lambda kind: kind.map(order), kind="stable")
    tables = [part for _, part in shown.groupby(["kind", "variant"], sort=False)]
    rows = [t["row"].iloc[(2 * i + 1) * len(t) // (2 * len(tables))] for i, t in enumerate(tables)]
    crops = whitened.faces("test")
    crops = crops.take(pd.Index(crops.manifest["row"]).get_indexer(rows))
    originals = whitened.faces("validation", kind="whole", variant=ORIGINAL)
    everything = WHITENED, ALL_AXES
    maps = (
        plain.maps((BATCH_NORM, GRAD_CAM), crops),
        whitened.maps(everything, crops) - whitened.maps(everything, originals).mean(axis=0),
        whitened.maps((WHITENED, CONCEPT_AXES), crops),
    )
    truth, evidence = truth_of(crops)[0], whitened.concept_evidence(crops)
    return [
        {
            "label": variant.replace("_", " "),
            "image": crops.images[rows[i]],
            "truth": truth[i],
            "evidence": evidence[i],
            **{name: found[i] for name, found in zip(SHOWN, maps, strict=True)},
        }
        for i, variant in enumerate(crops.manifest["variant"])
    ]


@torch.no_grad()
def resolution_bound(subject: Subject, kind: str) -> tuple[float, int]:
    """Relevance mass of maps that know the truth but are as coarse as those of the layer.

    Every cell holds the share of its pixels that the forgery changed, and cells are scaled up to the
    image as all maps are. What a real map lacks beyond this is its own error; the rest is resolution.

    Args:
        kind: "whole" or "part", as in the manifest.

    Returns:
        mean over the explained test images, and the number of cells a side.
    """
    crops = subject.explained(kind)
    changed, first = truth_of(crops)[0], crops.evenly(1).tensor(subject.device)
    cells = capture(subject.model, subject.layer, first)[0].shape[-1]
    coarse = functional.adaptive_avg_pool2d(torch.from_numpy(changed).float(), cells)
    found = relevance_mass(resize(coarse, changed.shape[-1]), changed)
    return float(np.nanmean(found)), cells
