"""Paired batches: same frames, exact masks, the seed and the step decide everything."""

import numpy as np
import pandas as pd
import pytest
import torch

from fwstudy.crops.cropset import CropSet, to_tensor
from fwstudy.labels import FORGED_PARTS, PARTS
from fwstudy.training import batches
from fwstudy.training.batches import PairedBatches

GOLDEN = {  # seed 1, step 3, one process or several: means of images, changed pixels
    ("whole", "part"): (
        [-0.052, 0.0703, 0.0696, 0.0377, -0.0622, 0.08, 0.0725, 0.0366],
        [1332, 1122, 0, 292, 0, 0, 110, 0],
    ),
    ("whole",): (
        [-0.052, 0.0703, 0.0696, 0.0377, -0.0622, 0.08, 0.0717, 0.0358],
        [1332, 1122, 0, 495, 0, 0, 156, 0],
    ),
}
GOLDEN_LABELS = [1, 1, 0, 1, 0, 0, 1, 0]


def make(training, partial_forgery_ratio=0.0, seed=0, **options):
    return batches.PairedBatches(training, 4, seed, partial_forgery_ratio, **options)


def test_a_round_shows_every_frame_once(training):
    paired = make(training)
    table = training.manifest.set_index("row")
    seen = np.concatenate([paired.rows(step) for step in range(4)])
    assert (table.loc[seen, "variant"] == "original").all()
    assert len(set(seen)) == len(seen) == 8


def test_batch_depends_on_seed_and_step_alone(training):
    one, again, other = (make(training, 0.5, seed) for seed in (0, 0, 1))
    assert torch.equal(one.batch(5).images, again.batch(5).images)
    assert not torch.equal(one.batch(5).images, other.batch(5).images)
    assert one.batch(5).labels.tolist() == [0, 0, 1, 1]
    fresh = make(training, 0.5).batch(5)  # `one` has drawn step 5 before, and steps in between
    one.batch(9)
    for name in ("images", "labels", "mask", "parsing"):
        assert torch.equal(getattr(one.batch(5), name), getattr(fresh, name))


@pytest.mark.parametrize("partial_forgery_ratio", [0.0, 0.5, 1.0])
def test_pairs_differ_where_the_mask_says(training, partial_forgery_ratio):
    for step in range(8):
        batch = make(training, partial_forgery_ratio).batch(step)
        original, forged = batch.images.unflatten(0, (2, 2))
        assert not batch.mask[:2].any() and torch.equal(batch.parsing[:2], batch.parsing[2:])
        differs = (original - forged).abs().amax(dim=1) > 0.3  # the codec alone does less
        changed = batch.mask[2:]
        inside, outside = differs[changed].float().mean(), differs[~changed].float().mean()
        assert inside > 0.3 and outside < 0.03
        elsewhere = changed.roll(2 * batches.MAX_SHIFT, dims=-1)
        assert inside > differs[elsewhere].float().mean()


def test_random_labels_swap_label_and_mask_together(training):
    swapped = 0
    for step in range(16):
        given, drawn = (make(training, random_labels=flag).batch(step) for flag in (False, True))
        assert torch.equal(given.images, drawn.images)
        assert torch.equal(drawn.labels[:2], 1 - drawn.labels[2:])
        assert torch.equal(drawn.mask.flatten(1).any(dim=1), drawn.labels.bool())
        swapped += drawn.labels[:2].sum().item()
    assert 8 < swapped < 24


def test_shift_moves_whole_pixels_and_mirrors_the_border():
    image = torch.arange(144.0).reshape(1, 1, 12, 12)
    middle = batches.MAX_SHIFT
    assert torch.equal(batches.shifted(image, np.array([[middle, middle]])), image)
    moved = batches.shifted(image, np.array([[middle + 1, middle]]))
    assert torch.equal(moved[..., :-1, :], image[..., 1:, :])
    assert torch.equal(moved[..., -1, :], image[..., -2, :])


def test_no_forgeries_is_an_error(training):
    with pytest.raises(ValueError, match="no forged crop"):
        make(training.select(label=0))


@pytest.fixture
def planted():
    """One frame whose only forgery repaints nose and mouth, and leaves the left eye as it was."""
    parts = np.zeros((64, 64), np.uint8)
    for name, start in (("left_eye", 4), ("nose", 24), ("mouth", 48)):
        parts[start : start + 10, start : start + 10] = PARTS.index(name)
    original = np.random.default_rng(0).integers(0, 100, (64, 64, 3)).astype(np.uint8)
    changed = np.isin(parts, [PARTS.index("nose"), PARTS.index("mouth")])
    columns = {"row": [0, 1], "original_row": [0, 0], "label": [0, 1], "kind": "whole"}
    manifest = pd.DataFrame(columns | {"variant": ["original", "swap"]})
    images = np.stack([original, original + 100])  # brighter outside the mask too, as after a codec
    return CropSet(manifest, images, np.stack([changed & False, changed]), np.stack([parts, parts]))


def test_a_frame_without_forged_parts_gets_transplants(planted):
    """Every subset of the parts that the forgery changed, none of another part."""
    paired = batches.PairedBatches(planted, 2, 0, 1.0)
    original, parts = planted.images[0], planted.parsing[0]
    seen = set()
    for seed in range(60):
        image, changed = paired.forgery(0, np.random.default_rng(seed))()
        shown = set(parts[changed])
        taken = frozenset(name for name in FORGED_PARTS if PARTS.index(name) in shown)
        seen.add(taken)
        assert np.array_equal(changed, np.isin(parts, [PARTS.index(name) for name in taken]))
        assert np.array_equal(image[:16], original[:16])  # the left eye, and 8 pixels above a nose
        assert (image != original).any()
    assert seen == {frozenset({"nose"}), frozenset({"mouth"}), frozenset({"nose", "mouth"})}


def test_masks_move_with_their_images(planted, monkeypatch):
    """One translation explains both images of the pair, the mask and the parts."""
    monkeypatch.setattr(batches, "recolored", lambda images, gain, offset: images)
    paired = batches.PairedBatches(planted, 2, 0, 0.0)
    images = to_tensor(planted.images)
    truth = torch.from_numpy(np.stack([planted.mask[1], planted.parsing[1]])[None]).float()
    places = [(y, x) for y in range(9) for x in range(9)]
    found = []
    for step in range(6):
        batch = paired.batch(step)
        fits = [
            place
            for place in places
            if torch.equal(batches.shifted(images, np.array([place, place])), batch.images)
        ]
        assert len(fits) == 1
        changed, parts = batches.shifted(truth, np.array(fits))[0]
        assert torch.equal(batch.mask[1], changed.bool())
        assert torch.equal(batch.parsing, parts.byte().expand(2, -1, -1))
        found += fits
    assert len(set(found)) > 1


@pytest.mark.parametrize("kinds", GOLDEN, ids="-".join)
def test_one_process_draws_the_batches_it_always_drew(crops, kinds):
    """With and without crops of single forged parts; pixels to what a codec may differ by."""
    chosen = crops.select(split="train", kind=list(kinds))
    batch = PairedBatches(chosen, 8, 1, 0.5, random_labels=True).batch(3)
    means, changed = GOLDEN[kinds]
    assert batch.labels.int().tolist() == GOLDEN_LABELS
    np.testing.assert_allclose(batch.images.mean((1, 2, 3)), means, atol=2e-3)
    np.testing.assert_allclose(batch.mask.sum((1, 2)), changed, rtol=0.02)


@pytest.mark.parametrize("kinds", GOLDEN, ids="-".join)
def test_shares_of_a_batch_make_the_batch(crops, kinds):
    chosen = crops.select(split="train", kind=list(kinds))
    batches = PairedBatches(chosen, 8, 1, 0.5, random_labels=True)
    whole = batches.batch(3)
    one, two = (batches.batch(3, share=slice(start, start + 2)) for start in (0, 2))
    for name in ("images", "labels", "mask", "parsing"):
        parts = [getattr(half, name) for half in (one, two)]
        together = torch.cat([parts[0][:2], parts[1][:2], parts[0][2:], parts[1][2:]])
        assert torch.equal(together, getattr(whole, name)), name


def test_a_share_reads_no_pixels_of_others(crops):
    """Rows of images and masks that are read while a process puts its share together."""

    class Watched:
        def __init__(self, array):
            self.array, self.read = array, set()

        def __getitem__(self, rows):
            self.read |= set(np.atleast_1d(rows).tolist())
            return self.array[rows]

    def images_read(share):
        watched = Watched(crops.images)
        chosen = crops.select(split="train")
        chosen = CropSet(chosen.manifest, watched, chosen.mask, chosen.parsing)
        PairedBatches(chosen, 8, 1, 0.5).batch(3, share=share)
        return watched.read

    one, two = (images_read(slice(start, start + 2)) for start in (0, 2))
    assert not one & two and one | two == images_read(slice(None))
