"""Concept sets: what the concept axes shall stand for.

Every set says it twice. By *images* (`Concept`): some that show the concept and, where there are any,
images that are alike in all but the concept; their difference is what an axis is turned towards. By
*masks*: the pixels in which the concept is present, of any image, from the exact truth about it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from fwstudy.crops.composites import forged_parts, transplant
from fwstudy.crops.cropset import CropSet, to_tensor
from fwstudy.labels import FORGED_PART_OF, FORGED_PARTS
from fwstudy.whitening.concepts import Concept


def sample(crops: CropSet, count: int | None, seed: int) -> CropSet:
    """At most ``count`` crops drawn at random, in their order; all if None."""
    if count is None or count >= len(crops):
        return crops
    places = np.random.default_rng(seed).choice(len(crops), count, replace=False)
    return crops.take(np.sort(places))


def grid_concepts(crops: CropSet, count: int | None, seed: int, grid_size: int) -> list[Concept]:
    """Zero-padded patches: cell (i, j) of an n × n grid is kept, the rest set to zero.

    Hua et al. 2021 as in the authors' code (there n = 10). Zero is mid-gray here, because images
    are scaled to [-1, 1].
    """
    shown = sample(crops.select(kind="whole"), count, seed)
    images, groups = shown.tensor(), shown.manifest["group"].to_numpy()
    edges = np.linspace(0, images.shape[-1], grid_size + 1).round().astype(int)
    concepts = []
    for i, j in np.ndindex(grid_size, grid_size):
        keep = torch.zeros_like(images[:1])
        keep[..., edges[i] : edges[i + 1], edges[j] : edges[j + 1]] = 1
        concepts.append(Concept(f"row {i + 1}, column {j + 1}", images * keep, None, groups))
    return concepts


def part_concepts(crops: CropSet, count: int | None, seed: int, grid_size: int) -> list[Concept]:
    """Zero-padded facial parts: the pixels of one part are kept, the rest set to zero."""
    shown = sample(crops.select(kind="whole"), count, seed)
    images, groups = shown.tensor(), shown.manifest["group"].to_numpy()
    numbers = torch.from_numpy(FORGED_PART_OF[crops.parsing[shown.manifest["row"].to_numpy()]])
    return [
        Concept(name, images * (numbers == number)[:, None], None, groups)
        for number, name in enumerate(FORGED_PARTS)
    ]


def transplants(
    crops: CropSet, name: str, count: int | None, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """One part of faces taken from their forgeries, where a data set has no forged parts of its own.

    Returns:
        images (n, S, S, 3) uint8, and the rows (n,) of their originals; n is at most ``count``.
    """
    whole = crops.select(kind="whole", label=1).manifest
    order = whole.sample(frac=1, random_state=seed)[["row", "original_row"]].dropna().to_numpy(int)
    number = list(FORGED_PARTS).index(name)
    images, originals = [], []
    for forged, original in order:
        if count is not None and len(images) == count:
            break
        parts = crops.parsing[original]
        if forged_parts(crops.mask[forged], parts)[number]:
            image, _ = transplant(crops.images[original], crops.images[forged], parts, [number])
            images.append(image)
            originals.append(original)
    return np.array(images), np.array(originals, int)


def forged_part_concepts(
    crops: CropSet, count: int | None, seed: int, grid_size: int
) -> list[Concept]:
    """Exactly one part is forged; the untouched original stands beside it, so identity cancels."""
    groups, concepts = crops.manifest.set_index("row")["group"], []
    for name in FORGED_PARTS:
        shown = sample(crops.select(kind="part", variant=name), count, seed).manifest
        images = crops.images[shown["row"].to_numpy()]
        originals = shown["original_row"].to_numpy(int)
        if not len(shown):
            images, originals = transplants(crops, name, count, seed)
        if not len(images):
            raise ValueError(
                f"concept set forged_parts: no crop has a forged {name} with its original beside it; "
                "where a data set has no such pairs, set whitening.concepts: parts or grid"
            )
        pristine = to_tensor(crops.images[originals])
        concepts.append(Concept(name, to_tensor(images), pristine, groups[originals].to_numpy()))
    return concepts


def grid_masks(changed: torch.Tensor, parts: torch.Tensor, grid_size: int) -> torch.Tensor:
    """The cells of an n × n grid, alike in every image."""
    places = (torch.arange(parts.shape[-1], device=parts.device) + 0.5) / parts.shape[-1]
    rows = (places * grid_size).long() == torch.arange(grid_size, device=parts.device)[:, None]
    cells = rows[:, None, :, None] & rows[None, :, None, :]
    return cells.flatten(0, 1).expand(len(parts), -1, -1, -1)


def part_masks(changed: torch.Tensor, parts: torch.Tensor, grid_size: int) -> torch.Tensor:
    """The pixels of each facial part."""
    numbers = torch.from_numpy(FORGED_PART_OF).to(parts.device)[parts.long()]
    concepts = torch.arange(len(FORGED_PARTS), device=parts.device)
    return numbers[:, None] == concepts[:, None, None]


def forged_part_masks(changed: torch.Tensor, parts: torch.Tensor, grid_size: int) -> torch.Tensor:
    """The pixels of each facial part that a forgery changed."""
    return part_masks(changed, parts, grid_size) & changed[:, None]


@dataclass(frozen=True)
class ConceptSet:
    """One way to name axes.

    Args:
        images: crops, images a concept (all if None), seed, grid_size to a list of `Concept`.
        masks: changed (B, S, S) bool, parts (B, S, S) uint8, grid_size to (B, k, S, S) bool.
    """

    images: Callable[[CropSet, int | None, int, int], list[Concept]]
    masks: Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]


CONCEPT_SETS = {
    "grid": ConceptSet(grid_concepts, grid_masks),
    "parts": ConceptSet(part_concepts, part_masks),
    "forged_parts": ConceptSet(forged_part_concepts, forged_part_masks),
}
