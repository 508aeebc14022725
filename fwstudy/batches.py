"""Paired batches: originals and forgeries *of the same frames*, with the truth about each pixel.

A forgery's traces are all that tells the two halves of a batch apart. The batch of a step depends on
the seed and the step alone: two models with one seed see the same images in the same order, and an
interrupted run resumes exactly.

Forgeries are of the whole face or of some parts. The latter are put together on the fly: from frames
with one part forged, where the data set has them, else as *transplants*, some parts of a frame taken
from its forgery and the rest left as it was. Transplants need nothing but originals and their forgeries,
so that every source has them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch.nn import functional

from fwstudy.crops import CropSet, to_tensor
from fwstudy.faces.clips import FORGED_PART_OF, FORGED_PARTS

MAX_SHIFT = 4  # pixels; random translation of a training crop
MAX_GAIN = 0.1  # random change of contrast, of one channel against another a third of it
SEAM = 0.012  # width of a transplant's soft edge, share of the crop's side
MIN_CHANGED = 0.5  # share of a part that a forgery must have changed to be worth transplanting
TAKEN = 0.35  # chance of each part to be among those forged
SPILL = 2  # pixels around a forged part that the codec has changed with it
NUMBERS = np.arange(len(FORGED_PARTS))[:, None, None]


@dataclass(frozen=True)
class Batch:
    """One step's images and the truth about them.

    Args:
        images: (B, 3, S, S) float32 in [-1, 1]: originals, then a forgery of each.
        labels: (B,) float32, 1 for forged.
        changed: (B, S, S) bool, the pixels that the forgery changed.
        parts: (B, S, S) uint8, indices into `fwstudy.faces.clips.PARTS`.
    """

    images: torch.Tensor
    labels: torch.Tensor
    changed: torch.Tensor
    parts: torch.Tensor


def transplant(
    original: np.ndarray, forged: np.ndarray, parts: np.ndarray, numbers: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Take some parts of a face from its forgery and leave the rest as it was.

    Args:
        original, forged: (S, S, 3) uint8, the same frame.
        parts: (S, S) uint8, indices into PARTS, of the original.
        numbers: the parts to take, indices into FORGED_PARTS.

    Returns:
        image (S, S, 3) uint8, and where it may differ from the original, (S, S) bool.

    Example:
        >>> black, white = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 255, np.uint8)
        >>> transplant(black, white, np.zeros((8, 8), np.uint8), [3])[1].any()
        np.False_
    """
    edge = max(1, round(len(parts) * SEAM))
    taken = np.isin(FORGED_PART_OF[parts], numbers).astype(np.float32)
    weight = cv2.dilate(taken, np.ones((2 * edge + 1,) * 2, np.uint8))
    weight = cv2.GaussianBlur(weight, (0, 0), edge)
    weight[weight < 1 / 16] = 0  # less than what the codec leaves visible
    image = original + weight[..., None] * (forged.astype(np.float32) - original)
    return image.round().astype(np.uint8), weight > 0


def forged_parts(changed: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """Which of FORGED_PARTS a forgery changed for the most part: (S, S) masks to (k,) bool."""
    inside = FORGED_PART_OF[parts] == NUMBERS
    area = inside.sum(axis=(1, 2))
    return (inside & changed).sum(axis=(1, 2)) > np.maximum(area * MIN_CHANGED, 0)


def subset(members: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    """Each with chance `TAKEN`, but one at least."""
    members = np.asarray(members)
    taken = members[rng.random(len(members)) < TAKEN]
    return taken if len(taken) else rng.choice(members, 1)


def shifted(images: torch.Tensor, shifts: np.ndarray) -> torch.Tensor:
    """Move each image by whole pixels; what lies beyond the border is mirrored.

    Whole pixels, because interpolation would wipe out the traces a detector looks for.

    Args:
        images: (B, C, S, S) float32.
        shifts: (B, 2) int, 0 to 2 MAX_SHIFT; MAX_SHIFT leaves an image in its place.
    """
    size = images.shape[-1]
    padded = functional.pad(images, [MAX_SHIFT] * 4, mode="reflect")
    pairs = zip(padded, shifts, strict=True)
    return torch.stack([image[:, y : y + size, x : x + size] for image, (y, x) in pairs])


def recoloured(images: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Change contrast and brightness at random; the two images of a pair alike.

    Args:
        images: (2 B, 3, S, S) float32: originals, then their forgeries.
    """
    count = len(images) // 2
    gain = rng.uniform(-MAX_GAIN, MAX_GAIN, (count, 1))
    gain = 1 + gain + rng.uniform(-1, 1, (count, 3)) * MAX_GAIN / 3
    offset = rng.uniform(-MAX_GAIN, MAX_GAIN, (count, 1)) * np.ones((1, 3))
    gain, offset = (
        torch.from_numpy(np.tile(x, (2, 1))).to(images)[..., None, None] for x in (gain, offset)
    )
    return images * gain + offset


class PairedBatches:
    """The batch of every step: frames drawn at random, each as it was and with one forgery.

    Frames come in rounds, so that each is seen once before any is seen twice.

    Args:
        crops: crops of the training split.
        batch_size: even; half originals, half forgeries.
        seed: of the order, the choice of forgeries and the augmentation.
        part_share: share of the forgeries in which only some parts are forged, in [0, 1].
        random_labels: which of a pair is called forged is drawn by lot, where it is changed with it.

    Raises:
        ValueError: no crop whose whole face was forged.
    """

    def __init__(
        self,
        crops: CropSet,
        batch_size: int,
        seed: int,
        part_share: float,
        random_labels: bool = False,
    ):
        self.crops, self.half, self.seed = crops, batch_size // 2, seed
        self.part_share, self.random_labels = part_share, random_labels
        forged = crops.manifest[crops.manifest["label"] == 1]
        self.whole, self.single = (
            forged[forged["kind"] == kind].groupby("original_row")["row"].agg(list).to_dict()
            for kind in ("whole", "part")
        )
        if not self.whole:
            raise ValueError("the training split holds no forged crop")
        self.originals = np.array(sorted(self.whole))

    def rows(self, step: int) -> np.ndarray:
        """Rows of the originals in the batch of one step."""
        places = np.arange(step * self.half, (step + 1) * self.half)
        rounds, turns = np.divmod(places, len(self.originals))
        orders = {
            number: np.random.default_rng([self.seed, 1, number]).permutation(self.originals)
            for number in np.unique(rounds)
        }
        return np.array([orders[number][turn] for number, turn in zip(rounds, turns, strict=True)])

    def forgery(self, row: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """One forgery of an original: image (S, S, 3) uint8 and changed pixels (S, S) bool."""
        if rng.random() < self.part_share:
            return (self.composed if row in self.single else self.transplanted)(row, rng)
        chosen = rng.choice(self.whole[row])
        return self.crops.images[chosen], self.crops.changed[chosen]

    def composed(self, row: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Some parts forged, each taken from a crop in which it alone is."""
        image = self.crops.images[row].copy()
        changed = np.zeros(image.shape[:2], bool)
        for chosen in subset(self.single[row], rng):
            mask = self.crops.changed[chosen].astype(np.uint8)
            around = cv2.dilate(mask, np.ones((2 * SPILL + 1,) * 2, np.uint8)) > 0
            image[around] = self.crops.images[chosen][around]
            changed |= mask > 0
        return image, changed

    def transplanted(self, row: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Some parts taken from a forgery of the whole face; all of it, if it changed no part."""
        chosen = rng.choice(self.whole[row])
        image, changed = self.crops.images[chosen], self.crops.changed[chosen]
        parts = self.crops.parts[row]
        possible = np.flatnonzero(forged_parts(changed, parts))
        if not len(possible):
            return image, changed
        original = self.crops.images[row]
        image, where = transplant(original, image, parts, subset(possible, rng))
        return image, changed & where

    def batch(self, step: int, device: torch.device | None = None) -> Batch:
        """The batch of one step."""
        originals = self.rows(step)
        rng = np.random.default_rng([self.seed, 2, step])
        forged, changed = zip(*[self.forgery(row, rng) for row in originals], strict=True)
        images = to_tensor(np.concatenate([self.crops.images[originals], forged]), device)
        truth = np.stack([changed, self.crops.parts[originals]], axis=1).astype(np.float32)
        rng = np.random.default_rng([self.seed, 3, step])
        shifts = rng.integers(0, 2 * MAX_SHIFT + 1, (self.half, 2))
        images = recoloured(shifted(images, np.tile(shifts, (2, 1))), rng)
        changed, parts = shifted(torch.from_numpy(truth).to(images.device), shifts).unbind(1)
        labels = torch.arange(2, device=device).repeat_interleave(self.half)
        changed = torch.cat([torch.zeros_like(changed), changed])
        if self.random_labels:
            swapped = torch.from_numpy(rng.random(self.half) < 0.5).to(images.device).repeat(2)
            labels = labels ^ swapped
            changed = torch.where(swapped[:, None, None], changed.roll(self.half, 0), changed)
        return Batch(
            images.contiguous(memory_format=torch.channels_last),
            labels.float(),
            changed.bool(),
            torch.cat([parts, parts]).byte(),
        )
