"""Do maps depend on the model, and do they withstand what leaves the face as it is?

A map that stays as it was when the weights are randomized shows the image and not the model (Adebayo
et al. 2018). A map that changes under a little blur shows the blur.
"""

import copy
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product

import cv2
import numpy as np
import pandas as pd
import torch
from timm.models import group_parameters
from torch import nn

from fwstudy.crops.cropset import to_tensor
from fwstudy.evaluation.metrics import Measure
from fwstudy.interpretability.explainers import Explainer, in_batches
from fwstudy.interpretability.faithfulness import predict_logits, rank_correlation
from fwstudy.whitening.concepts import BATCH_SIZE

BLUR = 1.0  # pixels, standard deviation
NOISE = 4.0  # of 255, standard deviation
JPEG_QUALITY = 75
SHIFT = 2  # pixels
DIRECTIONS = np.array([step for step in product((-1, 0, 1), repeat=2) if any(step)])


def rank_similarity(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Spearman's correlation over the pixels of maps (N, S, S): (N,), NaN for constant maps."""
    return rank_correlation(one.reshape(len(one), -1), other.reshape(len(other), -1))


def parameter_groups(model: nn.Module) -> dict[str, list[str]]:
    """Names of the parameters, stage by stage from input to output.

    Stages are those by which timm decays learning rates (`group_matcher(coarse=True)`); in other
    models the children, or those of the only child. A key names the modules: ``conv_stem, bn1``,
    ``blocks.0``, ``classifier``.
    """
    weighted = {name.partition(".")[0] for name, _ in model.named_parameters()}
    inner = dict(model.named_children())
    if len(weighted) == 1 and weighted <= set(inner) and not hasattr(model, "group_matcher"):
        (name,) = weighted
        groups = parameter_groups(inner[name])
        return {stage: [f"{name}.{end}" for end in names] for stage, names in groups.items()}
    children = list(dict.fromkeys(name.split(".")[0] for name, _ in model.named_parameters()))
    matcher = (
        model.group_matcher(coarse=True)
        if hasattr(model, "group_matcher")
        else lambda name: children.index(name.split(".")[0])
    )
    groups = group_parameters(model, matcher).values()
    child = re.compile(r"[^.]+(\.\d+(?=\.))?")  # with its number, if it is one of a row
    return {
        ", ".join(dict.fromkeys(child.match(name)[0] for name in names)): names for names in groups
    }


@torch.no_grad()
def _randomize(values: torch.Tensor, generator: torch.Generator) -> None:
    mean = values.mean() if values.ndim < 2 else 0.0
    scale = (values - mean).square().mean().sqrt()
    values.copy_(torch.randn(values.shape, generator=generator).to(values) * scale + mean)


def randomize_cascading(model: nn.Module, seed: int = 0) -> Iterator[tuple[str, nn.Module]]:
    """The model with its last stage randomized, then the last two, and so on down to the input.

    Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018, cascading randomization.
    Departure: values are drawn from a normal distribution as wide as the trained ones, so that any
    architecture does and signals keep their size: kernels and matrices about zero, vectors (biases,
    the scales of norm layers) about their own mean. A parameter of one value, or of equal values,
    stays. Buffers stay too: running statistics, and the mean, covariance, rotation and transform of
    a `FeatureWhitening`, which depend on each other and on no parameter. So a layer whitens by what
    the trained network before it would have shown.

    Args:
        model: is left as it is.
        seed: of the values.

    Yields:
        the name of the stage randomized last, and a copy of the model, the caller's to keep.
    """
    generator = torch.Generator().manual_seed(seed)
    model = copy.deepcopy(model)
    for stage, names in reversed(parameter_groups(model).items()):
        for name in names:
            _randomize(model.get_parameter(name), generator)
        yield stage, copy.deepcopy(model)


def randomization_table(
    explain: Explainer, model: nn.Module, layer_name: str, images: torch.Tensor, seed: int = 0
) -> pd.DataFrame:
    """How alike maps are to those of the trained model while it is randomized from the output on.

    Absolute values are compared: a map whose sign has turned is still the same picture.

    Args:
        layer_name: dotted name of the layer that `explain` looks at.
        images: (N, 3, S, S).

    Returns:
        step (1 …), stage (randomized last), randomized_absolute_rank; indexed by image, 0 … N - 1 in
        each step.
    """

    def maps(shown: nn.Module) -> np.ndarray:
        return np.abs(
            in_batches(explain, shown, shown.get_submodule(layer_name), images.split(BATCH_SIZE))
        )

    trained, tables = maps(model), []
    for step, (stage, randomized) in enumerate(randomize_cascading(model, seed), start=1):
        rank = rank_similarity(trained, maps(randomized))
        table = {"step": step, "stage": stage, "randomized_absolute_rank": rank}
        tables.append(pd.DataFrame(table))
    return pd.concat(tables)


@dataclass(frozen=True)
class Perturbation:
    """Something that leaves a face as it is, and how to lay a map of the result on the face again.

    Args:
        apply: images (N, S, S, 3) uint8 and a random generator -> the same.
        undo: maps (N, S, S) and a generator of the same seed -> the same; nothing by default.
    """

    apply: Callable[[np.ndarray, np.random.Generator], np.ndarray]
    undo: Callable[[np.ndarray, np.random.Generator], np.ndarray] = lambda maps, rng: maps


def blur(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Gaussian of `BLUR` pixels."""
    return np.stack([cv2.GaussianBlur(image, (0, 0), BLUR) for image in images])


def noise(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise, independent in every pixel and channel."""
    noisy = images + rng.normal(0, NOISE, images.shape)
    return np.clip(np.round(noisy), 0, 255).astype(np.uint8)


def jpeg(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """JPEG at `JPEG_QUALITY`; OpenCV takes and gives BGR."""
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    files = [cv2.imencode(".jpg", image[..., ::-1], options)[1] for image in images]
    return np.stack([cv2.imdecode(file, cv2.IMREAD_COLOR)[..., ::-1] for file in files])


def shift(arrays: np.ndarray, rng: np.random.Generator, sign: int = 1) -> np.ndarray:
    """Move each of (N, S, S, ...) by `SHIFT` pixels in one of 8 directions; borders are reflected.

    With the sign -1 and a generator of the same seed, it is moved back.
    """
    size = arrays.shape[1:3]
    around = [(0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT)] + [(0, 0)] * (arrays.ndim - 3)
    corners = SHIFT - sign * SHIFT * DIRECTIONS[rng.integers(len(DIRECTIONS), size=len(arrays))]
    padded = np.pad(arrays, around, mode="reflect")
    return np.stack(
        [
            array[y : y + size[0], x : x + size[1]]
            for array, (y, x) in zip(padded, corners, strict=True)
        ]
    )


PERTURBATIONS: dict[str, Perturbation] = {
    "blur": Perturbation(blur),
    "noise": Perturbation(noise),
    f"JPEG {JPEG_QUALITY}": Perturbation(jpeg),
    f"shift {SHIFT} px": Perturbation(shift, partial(shift, sign=-1)),
}


def stability(
    explain: Explainer,
    model: nn.Module,
    layer: nn.Module,
    images: np.ndarray,
    perturbations: dict[str, Perturbation] = PERTURBATIONS,
    seed: int = 0,
) -> pd.DataFrame:
    """How much maps and verdicts, the signs of logits, change when images are perturbed.

    Maps are compared without their outermost `SHIFT` pixels, which a shift does not bring back.

    Args:
        images: (N, S, S, 3) uint8.

    Returns:
        perturbation, stability_rank, verdict_flips (0 or 1); indexed 0 … N - 1 for each
        perturbation: ``manifest.reset_index(drop=True).join(table)`` says whose they are.
    """

    def seen(shown: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        tensor = to_tensor(shown)
        logits = predict_logits(model, tensor)
        return in_batches(explain, model, layer, tensor.split(BATCH_SIZE)), logits >= 0

    (before, forged), tables, inner = seen(images), [], np.s_[:, SHIFT:-SHIFT, SHIFT:-SHIFT]
    for name, perturbation in perturbations.items():
        maps, flipped = seen(perturbation.apply(images, np.random.default_rng(seed)))
        after = perturbation.undo(maps, np.random.default_rng(seed))
        rank = rank_similarity(before[inner], after[inner])
        flips = (forged != flipped).astype(float)
        table = {"perturbation": name, "stability_rank": rank, "verdict_flips": flips}
        tables.append(pd.DataFrame(table))
    return pd.concat(tables)


MEASURES: dict[str, Measure] = {
    "randomized_absolute_rank": Measure(
        "rank correlation of the absolute values of the maps of trained and randomized model",
        "Adebayo et al. 2018",
        "lower",
        0.0,
    ),
    "stability_rank": Measure(
        "rank correlation (Spearman) of the maps of an image and the perturbed image",
        "ours",
        "higher",
        0.0,
    ),
    "verdict_flips": Measure("share of verdicts that a perturbation turns", "ours", "lower"),
}
