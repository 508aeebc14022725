"""Maps that must change with the model, and must not change with the weather."""

import copy
import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from fwstudy.crops.cropset import to_tensor
from fwstudy.interpretability import sanity
from fwstudy.interpretability.decomposition import evidence_maps, grad_cam
from fwstudy.whitening.layer import FeatureWhitening
from fwstudy.whitening.rotation import random_rotation
from fwstudy.whitening.statistics import update_statistics
from fwstudy.whitening.surgery import create_model, replace_norm


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(40, 215, (4, 64, 64, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def model(images):
    """Random weights, the last norm whitened and turned."""
    torch.manual_seed(0)
    model = create_model("test_efficientnet", output_stride=16)
    layer = replace_norm(model, "bn2", FeatureWhitening.from_batch_norm)
    update_statistics(model, layer, [to_tensor(images)])
    layer.set_rotation(random_rotation(256, torch.Generator().manual_seed(0)))
    return model.eval()


def brightness(model, layer, images):
    return images.mean(dim=1).numpy()


def test_parameter_groups_of_the_default_backbone(model):
    groups = sanity.parameter_groups(model)
    assert list(groups) == [
        "conv_stem, bn1", "blocks.0", "blocks.1", "blocks.2", "blocks.3",
        "blocks.4, conv_head, bn2", "classifier",
    ]  # fmt: skip
    assert groups["classifier"] == ["classifier.weight", "classifier.bias"]


@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv3_small_050", "test_vit", "plain"])
def test_parameter_groups_hold_every_parameter_once(name):
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 1))
    model = plain if name == "plain" else create_model(name)
    groups = sanity.parameter_groups(model)
    names = [parameter for group in groups.values() for parameter in group]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    assert 3 <= len(groups) <= 10
    last = names[-1].removesuffix(".bias")
    assert isinstance(model.get_submodule(last), nn.Linear)


@torch.no_grad()
def test_cascade_randomises_one_stage_more_each_time(model, images):
    before = copy.deepcopy(model.state_dict())
    groups = sanity.parameter_groups(model)
    inputs = to_tensor(images)
    seen, previous, randomized = [model(inputs)], dict(model.named_parameters()), set()
    for stage, copied in sanity.randomize_cascading(model, seed=0):
        randomized |= set(groups[stage])
        parameters = dict(copied.named_parameters())
        for name, values in parameters.items():
            assert torch.equal(values, previous[name]) or name in groups[stage], name
            if values.ndim > 1:
                assert torch.equal(values, before[name]) != (name in randomized), name
        assert all(map(torch.equal, copied.buffers(), model.buffers()))
        seen.append(copied(inputs))
        assert torch.isfinite(seen[-1]).all() and not torch.allclose(seen[-1], seen[-2])
        previous = parameters
    assert stage == "conv_stem, bn1" and randomized == set(previous)
    assert all(torch.equal(values, before[name]) for name, values in model.state_dict().items())
    whitened = copied.get_submodule("bn2")
    transform = whitened.transform.clone()
    whitened.refresh()
    torch.testing.assert_close(whitened.transform, transform, rtol=1e-3, atol=1e-3)


def test_cascade_repeats_itself_by_seed(model):
    first, again, other = (
        [p for _, copied in sanity.randomize_cascading(model, seed) for p in copied.parameters()]
        for seed in (0, 0, 1)
    )
    assert all(map(torch.equal, first, again)) and not all(map(torch.equal, first, other))


def test_copies_are_the_callers_own(model):
    untouched = [copied for _, copied in sanity.randomize_cascading(model)]
    for number, (_, copied) in enumerate(sanity.randomize_cascading(model)):
        torch.testing.assert_close(copied.state_dict(), untouched[number].state_dict())
        with torch.no_grad():
            copied.conv_stem.weight.zero_()


def test_random_values_are_as_wide_as_the_trained():
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(100, 100), nn.BatchNorm1d(100), nn.Linear(100, 1))
    with torch.no_grad():
        model[0].weight.fill_(0.3)
        model[1].weight.copy_(2 + torch.rand(100, generator=generator))
        model[2].bias.fill_(5)
    last = list(sanity.randomize_cascading(model))[-1][1].requires_grad_(False)
    assert last[0].weight.mean().abs() < 0.02
    assert last[0].weight.std() == pytest.approx(0.3, rel=0.05)
    assert last[1].weight.mean() == pytest.approx(2.5, abs=0.15)
    assert torch.equal(last[1].bias, model[1].bias)  # all alike: nothing to draw from
    assert torch.equal(last[2].bias, model[2].bias)  # one value


def test_randomisation_table_tells_a_map_of_the_model_from_one_of_the_image(model, images):
    inputs = to_tensor(images)
    table = sanity.randomization_table(grad_cam, model, "bn2", inputs)
    assert table["step"].tolist() == np.repeat(np.arange(1, 8), 4).tolist()
    assert table.index.tolist() == [0, 1, 2, 3] * 7
    assert table["stage"].iloc[0] == "classifier"
    signed = sanity.randomization_table(evidence_maps, model, "bn2", inputs)
    assert signed.loc[signed["step"] > 1, "randomized_absolute_rank"].abs().mean() < 0.5
    blind = sanity.randomization_table(brightness, model, "bn2", inputs)
    np.testing.assert_allclose(blind["randomized_absolute_rank"], 1)
    assert not any(module._forward_hooks for module in model.modules())


def test_a_map_of_turned_sign_is_the_same_picture(model, images):
    """The classifier comes first: with its weights turned, the signed map is its own negative."""
    turned = copy.deepcopy(model)
    with torch.no_grad():
        turned.classifier.weight.neg_()
    layers = (model, model.get_submodule("bn2")), (turned, turned.get_submodule("bn2"))
    one, other = (evidence_maps(*each, to_tensor(images)) for each in layers)
    np.testing.assert_allclose(sanity.rank_similarity(one, other), -1, atol=1e-6)
    np.testing.assert_allclose(sanity.rank_similarity(np.abs(one), np.abs(other)), 1, atol=1e-6)


@pytest.mark.filterwarnings("error")
def test_constant_maps_are_like_nothing():
    maps = np.random.default_rng(0).normal(size=(2, 16, 16)).astype(np.float32)
    flat = maps.copy()
    flat[1] = 0.1
    for pair in ((maps, flat), (flat, maps), (flat, flat)):
        np.testing.assert_allclose(sanity.rank_similarity(*pair), [1, np.nan], atol=1e-6)


@pytest.mark.parametrize("name", sanity.PERTURBATIONS)
def test_perturbations_change_images_a_little(name, images):
    perturbation, kept = sanity.PERTURBATIONS[name], images.copy()
    results = [perturbation.apply(images, np.random.default_rng(seed)) for seed in (0, 0)]
    np.testing.assert_array_equal(*results)
    np.testing.assert_array_equal(images, kept)
    assert results[0].shape == images.shape and results[0].dtype == np.uint8
    assert all((image != other).any() for image, other in zip(images, results[0], strict=True))


def test_noise_and_blur_by_their_spread():
    gray = np.full((2, 64, 64, 3), 128, np.uint8)
    rng = np.random.default_rng(0)
    noisy = sanity.noise(gray, rng).astype(float)
    assert noisy.std() == pytest.approx(4, rel=0.02) and noisy.mean() == pytest.approx(128, abs=0.1)
    assert sanity.noise(np.zeros_like(gray), rng).max() < 30  # cut off, not wrapped around
    point = np.zeros((1, 33, 33, 3), np.uint8)
    point[0, 16, 16] = 255
    width = np.arange(33) - 16
    profile = sanity.blur(point, rng)[0, 16, :, 0].astype(float)
    assert (profile * width**2).sum() / profile.sum() == pytest.approx(1, abs=0.1)


def test_jpeg_against_another_encoder():
    """With red and blue exchanged the luminance, and so the result, would be another."""
    rng = np.random.default_rng(0)
    image = np.kron(rng.integers(0, 255, (8, 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=75)
    expected = np.asarray(Image.open(file)).astype(int)
    result = sanity.PERTURBATIONS["JPEG 75"].apply(image[None], rng)[0]
    exchanged = sanity.jpeg(image[None, ..., ::-1], rng)[0, ..., ::-1]
    assert np.abs(result - expected).mean() < 0.1
    assert np.abs(exchanged - expected).mean() > 0.5


def test_shift_is_undone_exactly_but_for_the_border():
    maps = np.random.default_rng(0).normal(size=(64, 20, 20))
    perturbation = sanity.PERTURBATIONS["shift 2 px"]
    moved = perturbation.apply(maps, np.random.default_rng(5))
    back = perturbation.undo(moved, np.random.default_rng(5))
    np.testing.assert_array_equal(back[:, 2:-2, 2:-2], maps[:, 2:-2, 2:-2])
    offsets = {
        (y, x)
        for one, other in zip(maps, moved, strict=True)
        for y in (-2, 0, 2)
        for x in (-2, 0, 2)
        if other[8 + y, 8 + x] == one[8, 8]
    }
    assert len(offsets) == 8 and (0, 0) not in offsets


def ranks(explain, model, images, **perturbations):
    layer = model.get_submodule("bn2")
    return sanity.stability(explain, model, layer, images, perturbations)["stability_rank"]


def test_a_stable_map_an_unstable_one_and_an_empty_one(model, images):
    shifted = sanity.PERTURBATIONS["shift 2 px"]
    np.testing.assert_allclose(ranks(brightness, model, images, shift=shifted), 1)
    not_undone = sanity.Perturbation(shifted.apply)
    assert (ranks(brightness, model, images, shift=not_undone) < 0.5).all()
    rng = np.random.default_rng(0)

    def random(model, layer, images):
        return rng.normal(size=(len(images), 64, 64))

    assert (ranks(random, model, images, noise=sanity.PERTURBATIONS["noise"]).abs() < 0.1).all()
    assert ranks(lambda *which: 0 * random(*which), model, images, shift=shifted).isna().all()


class Mean(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(127.5))

    def forward(self, images):
        return self.scale * images.mean(dim=(1, 2, 3))[:, None]


def test_stability_of_the_verdict():
    """Logits -27.5, -2.5 and 22.5, to which the perturbation adds 10."""
    rng = np.random.default_rng(0)
    images = np.stack([rng.permutation(np.resize([level - 9, level + 9], 3072)).reshape(32, 32, 3)
                       for level in (100, 125, 150)]).astype(np.uint8)  # fmt: skip
    brighter = {"bright": sanity.Perturbation(lambda images, rng: images + np.uint8(10))}
    model = Mean().train()
    table = sanity.stability(brightness, model, model, images, brighter)
    assert table["verdict_flips"].tolist() == [0, 1, 0] and table.index.tolist() == [0, 1, 2]
    np.testing.assert_allclose(table["stability_rank"], 1)
    assert model.training
