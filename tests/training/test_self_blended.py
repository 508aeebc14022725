"""Forgeries made of the original alone: the mask is exact, the seed decides, labels are right."""

import cv2
import numpy as np
import pytest
import torch

from fwstudy.labels import PARTS
from fwstudy.training import batches, self_blended
from fwstudy.training.batches import PairedBatches

SIZE = 64


def face(x=0.0, y=0.0):
    """A noisy image and a part map with eyes, nose and mouth, moved to the right and down."""
    rng = np.random.default_rng(0)
    image = cv2.GaussianBlur(rng.integers(0, 256, (SIZE, SIZE, 3)).astype(np.uint8), (0, 0), 1.5)
    parts = np.zeros((SIZE, SIZE), np.uint8)
    parts[8:56, 12:52] = PARTS.index("skin")
    places = {"right_eye": (20, 18), "left_eye": (20, 36), "nose": (30, 27), "mouth": (44, 27)}
    for name, (row, column) in places.items():
        parts[row : row + 6, column : column + 10] = PARTS.index(name)
    moved = cv2.warpAffine(parts, np.float64([[1, 0, x], [0, 1, y]]), (SIZE, SIZE), flags=0)
    return image, moved


def test_the_mask_is_exact_and_the_rest_is_the_original():
    image, parts = face()
    before, areas = image.copy(), []
    for seed in range(40):
        forged, changed = self_blended.self_blended(image, parts, np.random.default_rng(seed))
        assert forged.dtype == np.uint8 and changed.dtype == bool and changed.shape == parts.shape
        assert np.array_equal(forged[~changed], image[~changed])
        assert (forged[changed] != image[changed]).any(axis=1).all()
        weight = self_blended.blending_mask(parts, np.random.default_rng(seed))
        assert not changed[weight == 0].any() and changed[weight > 0].mean() > 0.9
        areas.append(changed.mean())
    assert np.array_equal(image, before)
    assert 0.02 < min(areas) < 0.3 < max(areas) < 0.9


def test_the_generator_decides_everything():
    image, parts = face()
    one, again, other = (
        self_blended.self_blended(image, parts, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert all(np.array_equal(a, b) for a, b in zip(one, again, strict=True))
    assert not np.array_equal(one[0], other[0])


def test_the_inner_copy_becomes_softer_and_sharper_brighter_and_darker():
    image, _ = face()
    copies = [self_blended.altered(image, np.random.default_rng(seed)) for seed in range(30)]
    details = [cv2.Laplacian(copy, cv2.CV_32F).std() for copy in copies]
    for values, own in (
        (details, cv2.Laplacian(image, cv2.CV_32F).std()),
        ([copy.mean() for copy in copies], image.mean()),
    ):
        assert 5 < sum(value > own for value in values) < 25


@pytest.mark.parametrize("x, y", [(-32, 0), (0, -46), (34, 30), (-30, 40)])
def test_a_face_at_the_border(x, y):
    image, parts = face(x, y)
    assert 0 < (parts > 0).mean() < 0.3
    for seed in range(10):
        forged, changed = self_blended.self_blended(image, parts, np.random.default_rng(seed))
        assert changed.any() and np.array_equal(forged[~changed], image[~changed])


def test_of_scattered_pixels_the_largest_patch_counts():
    parts = np.zeros((SIZE, SIZE), bool)
    assert self_blended.outline(parts).shape == (0, 2)
    parts[10:20, 30:41] = parts[60, 5] = True
    corners = self_blended.outline(parts)
    assert {tuple(corner) for corner in corners} == {(30, 10), (40, 10), (40, 19), (30, 19)}


def test_skin_alone_will_do_and_no_face_is_an_error():
    image, parts = face()
    parts = np.where(parts > 0, PARTS.index("skin"), 0).astype(np.uint8)
    assert self_blended.self_blended(image, parts, np.random.default_rng(0))[1].any()
    with pytest.raises(ValueError, match="needs a part map that shows a face"):
        self_blended.self_blended(image, parts * 0, np.random.default_rng(0))


def test_without_a_ratio_no_batch_changes(training, monkeypatch):
    """`test_one_process_draws_the_batches_it_always_drew` says what they were."""
    plain, some = (PairedBatches(training, 8, 1, 0.5, self_blended_ratio=r) for r in (0.0, 0.5))
    assert not torch.equal(plain.batch(3).images, some.batch(3).images)
    monkeypatch.setattr(batches, "self_blended", None)  # not called
    for step in range(6):
        plain.batch(step)


def test_self_blended_alone_reads_no_other_forgery(training, monkeypatch):
    """Labels and masks are right, and a pair differs nowhere else."""
    monkeypatch.setattr(PairedBatches, "stored", None)
    monkeypatch.setattr(PairedBatches, "_compose", None)
    paired = PairedBatches(training, 8, 1, 0.5, self_blended_ratio=1.0)
    for step in range(4):
        batch = paired.batch(step)
        assert batch.labels.tolist() == [0] * 4 + [1] * 4
        original, forged = batch.images.unflatten(0, (2, 4))
        differs = (original != forged).any(dim=1)
        assert not batch.mask[:4].any() and torch.equal(batch.mask[4:], differs)
        assert differs.flatten(1).any(dim=1).all()
        halves = [paired.batch(step, share=slice(start, start + 2)) for start in (0, 2)]
        assert torch.equal(torch.cat([half.mask[2:] for half in halves]), batch.mask[4:])
