"""Does the verdict use what an explanation names? Pixels of the original are put back to see.

Every forged image has its untouched original, so evidence can be taken away without leaving a
hole: gray or blurred patches are themselves unlike any face, and blur wipes out traces of a forgery
that the explanation did not name.
"""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
import torch
from scipy import stats
from scipy.special import expit
from torch import nn

from fwstudy.evaluation.metrics import Measure, Statistic
from fwstudy.interpretability.localization import MARGIN, part_regions
from fwstudy.labels import FORGED_PARTS
from fwstudy.whitening.concepts import BATCH_SIZE
from fwstudy.whitening.statistics import evaluation_mode

MEASURES: dict[str, Measure] = {
    "deletion": Measure(
        "area under the probability of a forgery while the most relevant pixels give way to "
        "those of the reference; chance is that of a random map",
        "Petsiuk et al. 2018 (RISE)",
        "lower",
    ),
    "insertion": Measure(
        "area under the probability of a forgery while the most relevant pixels enter the "
        "reference; chance is that of a random map",
        "Petsiuk et al. 2018 (RISE)",
        "higher",
    ),
    "restoration_correlation": Measure(
        "correlation, over images and parts, of the evidence for a part with the fall of the logit "
        "when the part is restored",
        "ours",
        "higher",
        0.0,
    ),
    "restoration_rank_correlation": Measure(
        "as restoration_correlation, of ranks (Spearman)", "ours", "higher", 0.0
    ),
}


def correlation(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Pearson's correlation along the last axis, in float64: SciPy's, twenty times faster.

    Args:
        one, other: (..., n).

    Returns:
        (...) in [-1, 1]; NaN where an input is constant or shorter than two; no warning.
    """
    both = [np.asarray(values, np.float64) for values in (one, other)]
    shape = np.broadcast_shapes(*(values.shape for values in both))
    if shape[-1] < 2:
        return np.full(shape[:-1], np.nan)
    constant = np.logical_or(*(np.ptp(values, axis=-1) == 0 for values in both))
    one, other = (values - values.mean(axis=-1, keepdims=True) for values in both)
    sizes = np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1)
    cosine = (one * other).sum(axis=-1) / np.where(constant, 1, sizes)
    return np.where(constant, np.nan, cosine.clip(-1, 1))


def rank_correlation(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Spearman's correlation along the last axis; see `correlation`."""
    return correlation(stats.rankdata(one, axis=-1), stats.rankdata(other, axis=-1))


@torch.inference_mode()
def predict_logits(model: nn.Module, images: torch.Tensor) -> np.ndarray:
    """The logit of each image, in evaluation mode; the model's mode is restored.

    Args:
        images: (N, 3, S, S), on any device.

    Returns:
        (N,) float64.
    """
    device = next(model.parameters()).device
    with evaluation_mode(model):
        logits = [model(batch.to(device))[:, 0] for batch in images.split(BATCH_SIZE)]
    return torch.cat(logits).double().numpy(force=True)


def pixel_order(relevance: np.ndarray, seed: int = 0) -> np.ndarray:
    """The place of each pixel, the most relevant first; equals in random order.

    Args:
        relevance: (N, S, S).

    Returns:
        (N, S, S) int, each image a permutation of 0 … S² - 1.

    Raises:
        ValueError: relevance is not finite.
    """
    if not np.isfinite(relevance).all():
        raise ValueError("relevance must be finite: NaN or infinity has no place in an order")
    flat = relevance.reshape(len(relevance), -1)
    at_random = np.random.default_rng(seed).random(flat.shape)
    return np.lexsort((at_random, -flat), axis=-1).argsort(axis=-1).reshape(relevance.shape)


def deletion(
    model: nn.Module,
    images: torch.Tensor,
    relevance: np.ndarray,
    reference: torch.Tensor,
    steps: int = 10,
    seed: int = 0,
    output: Callable[[np.ndarray], np.ndarray] = expit,
) -> np.ndarray:
    """Area under the verdict while the most relevant pixels give way to those of a reference.

    Petsiuk, Das, Saenko, "RISE", BMVC 2018. Departures: the reference is best the untouched original
    (RISE: gray); portions grow quadratically, since forged regions are small and a good map spends
    them at once.

    Args:
        images: (N, 3, S, S) float32, forged.
        relevance: (N, S, S), the more, the sooner; equals in random order, so that a
            constant map is a random one.
        reference: images of the same shape, or one that expands to it: originals, gray.
        steps: number of portions.
        seed: of the random order.
        output: what the curves are of, from the logits: the probability by default; `numpy.asarray`
            for the logit, which does not saturate.

    Returns:
        (N,) float64.

    Raises:
        ValueError: relevance has another shape or is not finite.
    """
    if relevance.shape != (len(images), *images.shape[2:]):
        raise ValueError(
            f"relevance must be (N, S, S) like images {tuple(images.shape)}, not {relevance.shape}"
        )
    order = torch.from_numpy(pixel_order(relevance, seed)).to(images.device)[:, None]
    reference = reference.to(images).expand_as(images)
    shares = np.linspace(0, 1, steps + 1) ** 2
    logits = [
        predict_logits(model, torch.where(order < count, reference, images))
        for count in np.round(shares * order[0].numel())
    ]
    return np.trapezoid(output(np.stack(logits, axis=1)), shares, axis=1)


def deletion_insertion(
    model: nn.Module,
    images: torch.Tensor,
    relevance: np.ndarray,
    reference: torch.Tensor,
    **options,
) -> pd.DataFrame:
    """`deletion`, and the same while the most relevant pixels of the images enter the reference.

    Departure from Petsiuk et al. 2018: the reference is the same in both (RISE: gray, and blur).

    Returns:
        deletion, insertion; indexed 0 … N - 1.
    """
    whole = reference.to(images).expand_as(images)
    deleted = deletion(model, images, relevance, whole, **options)
    return pd.DataFrame(
        {"deletion": deleted, "insertion": deletion(model, whole, relevance, images, **options)}
    )


def restoration(
    model: nn.Module,
    forged: torch.Tensor,
    originals: torch.Tensor,
    parts: np.ndarray,
    margin: float = MARGIN,
) -> np.ndarray:
    """By how much the logit falls when one part gets back the pixels of the original.

    The region is that of `fwstudy.interpretability.localization.part_regions`, with a hard edge: a soft one would mix the
    two images and make pixels that are in neither. The margin takes along the seam of the forgery
    and what the codec spread around it.

    Args:
        forged, originals: (N, 3, S, S), of the same frames.
        parts: (N, S, S) uint8, indices into `fwstudy.labels.PARTS`.
        margin: width of the rim as a share of S.

    Returns:
        (N, k) float64, of each of FORGED_PARTS; positive where the part spoke for a forgery, NaN where
        it is not visible.
    """
    before = predict_logits(model, forged)
    falls = []
    for region in part_regions(parts, margin).swapaxes(0, 1):
        chosen = torch.from_numpy(region).to(forged.device)[:, None]
        after = predict_logits(model, torch.where(chosen, originals, forged))
        falls.append(np.where(region.any(axis=(1, 2)), before - after, np.nan))
    return np.stack(falls, axis=1)


def restoration_table(
    manifest: pd.DataFrame, fall: np.ndarray, evidence: np.ndarray
) -> pd.DataFrame:
    """The effect of restoring each part beside what an explanation gave it, one pair a row.

    Args:
        manifest: the N rows of the forged images, with row, group and variant.
        fall: (N, k), from `restoration`.
        evidence: (N, k), of the same parts, in the explanation's unit.

    Returns:
        columns row, group, variant, part, fall, evidence; N k rows.

    Raises:
        ValueError: fall or evidence is not (N, k).
    """
    shape = (len(manifest), len(FORGED_PARTS))
    if not fall.shape == evidence.shape == shape:
        raise ValueError(
            f"fall {fall.shape} and evidence {evidence.shape} must both be "
            f"(images, parts) = {shape}"
        )
    about = manifest[["row", "group", "variant"]]
    tables = [
        about.assign(part=name, fall=fall[:, j], evidence=evidence[:, j])
        for j, name in enumerate(FORGED_PARTS)
    ]
    return pd.concat(tables, ignore_index=True)


def _pairs(table: Mapping) -> np.ndarray:
    both = np.stack([np.asarray(table["fall"]), np.asarray(table["evidence"])])
    return both[:, ~np.isnan(both).any(axis=0)]


def restoration_correlation(table: Mapping) -> float:
    """Pearson's correlation of fall and evidence over the defined pairs of a `restoration_table`."""
    return float(correlation(*_pairs(table)))


def restoration_rank_correlation(table: Mapping) -> float:
    """Spearman's correlation of fall and evidence over the defined pairs of a `restoration_table`."""
    return float(rank_correlation(*_pairs(table)))


STATISTICS: dict[str, Statistic] = {
    "restoration_correlation": restoration_correlation,
    "restoration_rank_correlation": restoration_rank_correlation,
}
"""Of a `restoration_table`."""
