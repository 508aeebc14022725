"""Paired batches: originals and forgeries *of the same frames*, with the truth about each pixel.

A forgery's traces are all that tells the two halves of a batch apart. The batch of a step depends on
the seed and the step alone: two models with one seed see the same images in the same order, and an
interrupted run resumes exactly.

Forgeries are of the whole face or of some parts. The latter are put together on the fly: from frames
with one part forged, where the data set has them, else as *transplants*, some parts of a frame taken
from its forgery and the rest left as it was. Transplants need nothing but originals and their forgeries,
so that every source has them. *Self-blended* ones need the originals alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
import torch
from torch.nn import functional

from fwstudy.crops.composites import forged_parts, transplant
from fwstudy.crops.cropset import CropSet, to_tensor
from fwstudy.training.self_blended import self_blended

MAX_SHIFT = 4  # pixels; random translation of a training crop
MAX_GAIN = 0.1  # random change of contrast, of one channel against another a third of it
TAKEN = 0.35  # chance of each part to be among those forged
SPILL = 2  # pixels around a forged part that the codec has changed with it


@dataclass(frozen=True)
class Batch:
    """One step's images and the truth about them.

    Args:
        images: (B, 3, S, S) float32 in [-1, 1]: originals, then a forgery of each.
        labels: (B,) float32, 1 for forged.
        mask: (B, S, S) bool, the pixels that the forgery changed.
        parsing: (B, S, S) uint8, indices into `fwstudy.labels.PARTS`.
    """

    images: torch.Tensor
    labels: torch.Tensor
    mask: torch.Tensor
    parsing: torch.Tensor


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


def draw_colors(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Random contrast and brightness of each channel: two arrays (count, 3)."""
    gain = rng.uniform(-MAX_GAIN, MAX_GAIN, (count, 1))
    gain = 1 + gain + rng.uniform(-1, 1, (count, 3)) * MAX_GAIN / 3
    offset = rng.uniform(-MAX_GAIN, MAX_GAIN, (count, 1)) * np.ones((1, 3))
    return gain, offset


def recolored(images: torch.Tensor, gain: np.ndarray, offset: np.ndarray) -> torch.Tensor:
    """Change contrast and brightness; the two images of a pair alike.

    Args:
        images: (2 B, 3, S, S) float32: originals, then their forgeries.
        gain, offset: (B, 3), see `draw_colors`.
    """
    gain, offset = (
        torch.from_numpy(np.tile(x, (2, 1))).to(images)[..., None, None] for x in (gain, offset)
    )
    return images * gain + offset


Pixels = Callable[[], tuple[np.ndarray, np.ndarray]]
"""Reads a forgery that was drawn: image (S, S, 3) uint8 and changed pixels (S, S) bool."""


class PairedBatches:
    """The batch of every step: frames drawn at random, each as it was and with one forgery.

    Frames come in rounds, so that each is seen once before any is seen twice. A forgery whose original
    the data set lacks stands beside one of the originals, drawn once; no parts are taken from it.

    Args:
        crops: crops of the training split.
        batch_size: even; half originals, half forgeries.
        seed: of the order, the choice of forgeries and the augmentation.
        partial_forgery_ratio: share of the forgeries in which only some parts are forged, in [0, 1].
        random_labels: which of a pair is called forged is drawn by lot, where it is changed with it.
        self_blended_ratio: share of the forgeries that are made of the original alone, in [0, 1]; the
            ratio above is of the others.

    Raises:
        ValueError: no crop whose whole face was forged.
    """

    def __init__(
        self,
        crops: CropSet,
        batch_size: int,
        seed: int,
        partial_forgery_ratio: float,
        random_labels: bool = False,
        self_blended_ratio: float = 0.0,
    ):
        self.crops, self.half, self.seed = crops, batch_size // 2, seed
        self.partial_forgery_ratio, self.random_labels = partial_forgery_ratio, random_labels
        self.self_blended_ratio = self_blended_ratio
        forged = crops.manifest[crops.manifest["label"] == 1]
        self.paired, self.single = (
            forged[forged["kind"] == kind].groupby("original_row")["row"].agg(list).to_dict()
            for kind in ("whole", "part")
        )
        self.whole = {row: list(rows) for row, rows in self.paired.items()}
        lonely = forged.loc[forged["original_row"].isna(), "row"].to_numpy()
        if len(lonely):
            originals = crops.manifest.loc[crops.manifest["label"] == 0, "row"].to_numpy()
            if not len(originals):
                raise ValueError("the training split holds no original crop")
            order = np.random.default_rng([seed, 4]).permutation(originals)
            for row, forgery in zip(np.resize(order, len(lonely)).tolist(), lonely, strict=True):
                self.whole.setdefault(row, []).append(forgery)
        if not self.whole:
            raise ValueError("the training split holds no forged crop")
        self.originals = np.array(sorted(self.whole), int)

    def rows(self, step: int) -> np.ndarray:
        """Rows of the originals in the batch of one step."""
        places = np.arange(step * self.half, (step + 1) * self.half)
        rounds, turns = np.divmod(places, len(self.originals))
        orders = {
            number: np.random.default_rng([self.seed, 1, number]).permutation(self.originals)
            for number in np.unique(rounds)
        }
        return np.array([orders[number][turn] for number, turn in zip(rounds, turns, strict=True)])

    def forgery(self, row: int, rng: np.random.Generator) -> Pixels:
        """Draw one forgery of an original; its pixels are read when the result is called."""
        if self.self_blended_ratio and rng.random() < self.self_blended_ratio:
            return partial(self._self_blended, row, int(rng.integers(2**63)))
        if rng.random() < self.partial_forgery_ratio:
            if row in self.single:
                return partial(self._compose, row, subset(self.single[row], rng))
            if row in self.paired:
                return self.transplanted(row, rng)
        return partial(self.stored, rng.choice(self.whole[row]))

    def _self_blended(self, row: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        return self_blended(self.crops.images[row], self.crops.parsing[row], rng)

    def stored(self, chosen: int) -> tuple[np.ndarray, np.ndarray]:
        """A forgery as it is."""
        return self.crops.images[chosen], self.crops.mask[chosen]

    def _compose(self, row: int, parts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Some parts forged, each taken from a crop in which it alone is."""
        image = np.array(self.crops.images[row])
        changed = np.zeros(image.shape[:2], bool)
        for chosen in parts:
            mask = self.crops.mask[chosen].astype(np.uint8)
            around = cv2.dilate(mask, np.ones((2 * SPILL + 1,) * 2, np.uint8)) > 0
            image[around] = self.crops.images[chosen][around]
            changed |= mask > 0
        return image, changed

    def transplanted(self, row: int, rng: np.random.Generator) -> Pixels:
        """Some parts taken from a forgery of the whole face; all of it, if it changed no part."""
        chosen = rng.choice(self.paired[row])
        possible = np.flatnonzero(forged_parts(self.crops.mask[chosen], self.crops.parsing[row]))
        if not len(possible):
            return partial(self.stored, chosen)
        return partial(self._transplant, row, chosen, subset(possible, rng))

    def _transplant(
        self, row: int, chosen: int, parts: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        image, changed = self.stored(chosen)
        original = self.crops.images[row]
        image, where = transplant(original, image, self.crops.parsing[row], parts)
        return image, changed & where

    def batch(
        self, step: int, device: torch.device | None = None, share: slice = slice(None)
    ) -> Batch:
        """The batch of one step.

        Args:
            step: from 0.
            device: where it goes.
            share: of its pairs, where several processes divide a batch; all draw the whole batch, and
                each reads the pixels of its own pairs.
        """
        originals = self.rows(step)
        rng = np.random.default_rng([self.seed, 2, step])
        drawn = [self.forgery(row, rng) for row in originals][share]
        rng = np.random.default_rng([self.seed, 3, step])
        shifts = rng.integers(0, 2 * MAX_SHIFT + 1, (self.half, 2))[share]
        colors = [values[share] for values in draw_colors(self.half, rng)]
        swapped = rng.random(self.half) < 0.5 if self.random_labels else np.zeros(self.half, bool)
        originals = originals[share]
        forged, changed = zip(*[read() for read in drawn], strict=True)
        images = to_tensor(np.concatenate([self.crops.images[originals], forged]), device)
        truth = np.stack([changed, self.crops.parsing[originals]], axis=1).astype(np.float32)
        images = recolored(shifted(images, np.tile(shifts, (2, 1))), *colors)
        changed, parts = shifted(torch.from_numpy(truth).to(images.device), shifts).unbind(1)
        half = len(originals)
        labels = torch.arange(2, device=device).repeat_interleave(half)
        changed = torch.cat([torch.zeros_like(changed), changed])
        swaps = torch.from_numpy(swapped[share]).to(images.device).repeat(2)
        labels = labels ^ swaps
        changed = torch.where(swaps[:, None, None], changed.roll(half, 0), changed)
        return Batch(
            images.contiguous(memory_format=torch.channels_last),
            labels.float(),
            changed.bool(),
            torch.cat([parts, parts]).byte(),
        )
