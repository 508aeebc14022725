"""Explanation methods on tiny models of fixed weights, and what Captum leaves behind."""

import copy
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from fwstudy.interpretability import explainers
from fwstudy.interpretability.decomposition import evidence_maps
from fwstudy.interpretability.explainers import EXPLAINERS
from fwstudy.interpretability.localization import localization_scores
from fwstudy.whitening.concepts import BATCH_SIZE
from fwstudy.whitening.layer import FeatureWhitening
from fwstudy.whitening.statistics import update_statistics
from fwstudy.whitening.surgery import create_model, replace_norm

from ..models import hooks, two_channels

SIZE = 32
METHODS = pytest.mark.parametrize("name", EXPLAINERS)
NORMS = pytest.mark.parametrize("norm", ["batch", "whitening"])


def planted_images(count: int = 4) -> tuple[torch.Tensor, np.ndarray]:
    """Gray images with a little noise and one bright patch, and the mask of the patch."""
    images = 0.02 * torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    mask = np.zeros((count, SIZE, SIZE), bool)
    for number in range(count):
        y, x = 4 + 4 * number, 20 - 4 * number
        images[number, :, y : y + 8, x : x + 8] += 1
        mask[number, y : y + 8, x : x + 8] = True
    return images, mask


def brightness_model(norm: str) -> nn.Sequential:
    """Says *forged* where a cell of 4 x 4 is bright; the other channels see colors, an edge."""
    convolution = nn.Conv2d(3, 4, kernel_size=4, stride=4, bias=False)
    classifier = nn.Linear(4, 1)
    with torch.no_grad():
        kernels = torch.zeros(4, 3, 4, 4)
        kernels[0] = 1
        kernels[1, 0], kernels[1, 1] = 1, -1
        kernels[2, 1], kernels[2, 2] = 1, -1
        kernels[3, :, :, :2], kernels[3, :, :, 2:] = 1, -1
        convolution.weight.copy_(kernels / 16)
        classifier.weight.copy_(torch.tensor([[1.0, 0, 0, 0]]))
        classifier.bias.fill_(-0.1)
    layers = convolution, nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    model = nn.Sequential(*layers, classifier)
    if norm == "whitening":
        layer = replace_norm(model, "1", FeatureWhitening.from_batch_norm)
        update_statistics(model, layer, [planted_images()[0]])
    return model.eval()


def linear_model(size: int) -> nn.Sequential:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * size * size, 1))
    with torch.no_grad():
        generator = torch.Generator().manual_seed(1)
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model


@METHODS
@NORMS
def test_planted_patch_is_found(name, norm):
    model, (images, mask) = brightness_model(norm), planted_images()
    relevance = EXPLAINERS[name](model, model[1], images)
    assert relevance.shape == (4, SIZE, SIZE) and relevance.dtype == np.float32
    scores = localization_scores(relevance, mask).min()
    assert scores["relevance_mass"] > 0.6 and scores["pixel_auc"] > 0.95, scores
    assert scores["pointing_game"] == 1


@METHODS
@NORMS
def test_the_opposite_verdict_turns_the_map(name, norm):
    """Where the patch speaks against a forgery, no map may say that it speaks for one."""
    model, (images, mask) = brightness_model(norm), planted_images()
    with torch.no_grad():
        model[-1].weight.neg_()
    relevance = EXPLAINERS[name](model, model[1], images)
    assert relevance[mask].mean() <= 0


@METHODS
@NORMS
def test_everything_is_left_as_it_was(name, norm):
    model, (images, _) = brightness_model(norm), planted_images()
    expected = EXPLAINERS[name](model, model[1], images)
    model.train()
    model[0].eval()
    modes = [module.training for module in model.modules()]
    state, before = copy.deepcopy(model.state_dict()), images.clone()
    found = EXPLAINERS[name](model, model[1], images)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)  # evaluation mode meanwhile
    assert [module.training for module in model.modules()] == modes and hooks(model) == 0
    for key, value in model.state_dict().items():
        torch.testing.assert_close(value, state[key], rtol=1e-5, atol=1e-6)
    assert torch.equal(images, before) and not images.requires_grad and images.grad is None
    assert all(value.requires_grad and value.grad is None for value in model.parameters())
    with torch.no_grad():
        np.testing.assert_array_equal(EXPLAINERS[name](model, model[1], images), found)
        assert not torch.is_grad_enabled()


def test_maps_of_axes_leave_the_modes_too():
    model, (images, _) = brightness_model("batch"), planted_images()
    expected = evidence_maps(model, model[1], images)
    np.testing.assert_array_equal(evidence_maps(model.train(), model[1], images), expected)
    assert all(module.training for module in model.modules())


@METHODS
def test_frozen_model_is_explained_alike_and_stays_frozen(name):
    model, (images, _) = brightness_model("whitening"), planted_images()
    expected = EXPLAINERS[name](model, model[1], images)
    model.requires_grad_(False)
    np.testing.assert_array_equal(EXPLAINERS[name](model, model[1], images), expected)
    assert not any(value.requires_grad for value in model.parameters())


class Failing(nn.Module):
    def forward(self, features):
        raise RuntimeError("planted failure")


@METHODS
def test_no_hook_and_no_mode_survives_an_exception(name):
    model = brightness_model("batch").train()
    model[2] = Failing()
    with pytest.raises(RuntimeError, match="planted failure"):
        EXPLAINERS[name](model, model[1], planted_images()[0])
    assert hooks(model) == 0 and all(module.training for module in model.modules())


@pytest.mark.parametrize("name", ["Grad-CAM", "LayerCAM"])
def test_layer_of_another_model_is_an_error(name):
    stranger = nn.BatchNorm2d(4)
    with pytest.raises(AssertionError, match="did not obtain any outputs for given layer"):
        EXPLAINERS[name](brightness_model("batch"), stranger, planted_images()[0])
    assert hooks(stranger) == 0


@METHODS
@NORMS
def test_activation_in_place_changes_nothing(name, norm):
    model, (images, _) = brightness_model(norm), planted_images()
    expected = EXPLAINERS[name](model, model[1], images)
    model[2] = nn.ReLU(inplace=True)
    np.testing.assert_array_equal(EXPLAINERS[name](model, model[1], images), expected)


@METHODS
def test_equal_models_have_equal_maps_in_any_memory_format(name):
    """A fresh whitening layer is the batch normalisation it replaced; the maps must agree."""
    torch.manual_seed(0)
    model = create_model("test_efficientnet", output_stride=16).eval()
    whitened = copy.deepcopy(model)
    layer = replace_norm(whitened, "bn2", FeatureWhitening.from_batch_norm)
    images, _ = planted_images(2)
    expected = EXPLAINERS[name](model, model.bn2, images)
    assert np.abs(expected).max() > 0
    tolerance = 1e-3 * np.abs(expected).max()
    found = EXPLAINERS[name](whitened, layer, images.to(memory_format=torch.channels_last))
    np.testing.assert_allclose(found, expected, atol=tolerance)


def test_layer_cam_golden():
    model, images = two_channels()
    layer = model[0]
    # red: (1, 0, 2, 0) * (1, 2, 3, 4); its negative: (1, 1, 0, 0) * (-1, -2, -3, -4)
    found = explainers.layer_cam(model, layer, images)
    np.testing.assert_allclose(found, [[[0, 0], [6, 0]]], atol=1e-6)
    # Grad-CAM: mean gradients 1/2 and 0
    cam = EXPLAINERS["Grad-CAM"](model, layer, images)
    np.testing.assert_allclose(cam, [[[0.5, 1], [1.5, 2]]], atol=1e-6)


def test_layer_cam_before_the_pooling_is_grad_cam_of_the_channels_that_speak_for():
    torch.manual_seed(0)
    model = create_model("test_efficientnet", output_stride=16).eval()
    images, _ = planted_images(2)
    with torch.no_grad():
        model.classifier.weight.normal_()
    both = EXPLAINERS["Grad-CAM"](model, model.bn2, images)
    found = explainers.layer_cam(model, model.bn2, images)
    assert not np.allclose(both, found)
    with torch.no_grad():
        model.classifier.weight.clamp_(min=0)
    expected = EXPLAINERS["Grad-CAM"](model, model.bn2, images)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6)


def test_integrated_gradients_of_a_linear_model_are_weight_times_pixel():
    model = linear_model(8)
    images = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    found = explainers.integrated_gradients(model, model, images, num_steps=2)
    expected = (model[1].weight.view(1, 3, 8, 8) * images).sum(dim=1).detach()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    logits = model(images)[:, 0].detach() - model[1].bias.item()  # that of mid-gray is the bias
    np.testing.assert_allclose(found.sum(axis=(1, 2)), logits, rtol=1e-4)


@NORMS
def test_integrated_gradients_are_complete(norm):
    model, (images, _) = brightness_model(norm), planted_images()
    found = explainers.integrated_gradients(model, model[1], images).sum(axis=(1, 2))
    with torch.no_grad():
        expected = (model(images) - model(torch.zeros_like(images)))[:, 0].numpy()
    assert np.abs(expected).min() > 0.01
    np.testing.assert_allclose(found, expected, rtol=0.03)


def test_integrated_gradients_in_parts_equal_those_at_once_without_a_warning():
    model = brightness_model("batch")
    images = planted_images()[0].repeat(BATCH_SIZE // 4 + 1, 1, 1, 1)  # more than one batch
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = explainers.integrated_gradients(model, model[1], images)
        few = explainers.integrated_gradients(model, model[1], images[:4])
    np.testing.assert_allclose(found[-4:], few, rtol=1e-4, atol=1e-7)


def test_occlusion_of_a_linear_model_is_what_the_squares_hold():
    model = linear_model(8)
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    parts = (model[1].weight.view(1, 3, 8, 8) * images).sum(dim=1).detach().numpy()
    apart = explainers.occlusion(model, model, images, window=1 / 4, stride=1 / 4)
    tiles = parts.reshape(2, 4, 2, 4, 2).sum(axis=(2, 4))
    np.testing.assert_allclose(apart, np.kron(tiles, np.ones((2, 2))), rtol=1e-3, atol=1e-4)
    # Squares one pixel apart: the mean over the (up to four) squares that cover a pixel.
    squares = sum(parts[:, y : y + 7, x : x + 7] for y in (0, 1) for x in (0, 1))
    total, covered = np.zeros((2, 8, 8)), np.zeros((8, 8))
    for y in (0, 1):
        for x in (0, 1):
            total[:, y : y + 7, x : x + 7] += squares
            covered[y : y + 7, x : x + 7] += 1
    found = explainers.occlusion(model, model, images, window=1 / 4, stride=1 / 8)
    np.testing.assert_allclose(found, total / covered, rtol=1e-3, atol=1e-4)


def test_random_maps_are_white_and_repeatable():
    images = torch.rand(50, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    maps = explainers.random_maps(images, seed=3)
    assert maps.shape == (50, SIZE, SIZE) and maps.dtype == np.float32
    assert 0 <= maps.min() and maps.max() < 1 and maps.mean() == pytest.approx(0.5, abs=0.01)
    neighbors = np.corrcoef(maps[:, 1:].ravel(), maps[:, :-1].ravel())[0, 1]
    assert abs(neighbors) < 0.02 and abs(np.corrcoef(maps[0].ravel(), maps[1].ravel())[0, 1]) < 0.1
    halves = [explainers.random_maps(half, seed=3) for half in images.split(25)]
    np.testing.assert_array_equal(maps, np.concatenate(halves))
    assert len(np.unique(maps[:, 0, 0])) == 50
    assert not np.array_equal(maps, explainers.random_maps(images, seed=4))
