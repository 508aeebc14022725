"""The layer in other people's training: averages of weights, checkpointing, overflow, meta device."""

import copy

import pytest
import torch
from timm.utils import ModelEmaV3
from timm.utils.model import freeze_batch_norm_2d
from torch import nn
from torch.optim.swa_utils import AveragedModel, update_bn
from torch.utils.checkpoint import checkpoint

from fwstudy.whitening import (
    FeatureWhitening,
    IterNormWhitening,
    random_rotation,
    update_statistics,
)
from tests.whitening.matrices import correlated

LAYERS = {
    "exact": lambda: FeatureWhitening(8),
    "amortized": lambda: FeatureWhitening(8, whiten_every=2),
    "iternorm": lambda: IterNormWhitening(8),
}


def train(model, steps=3):
    for _ in range(steps):
        model.train()(correlated(8, 8, 3, 3))


def lerp_by_hand(model, average):
    for new, old in zip(model.state_dict().values(), average.state_dict().values(), strict=True):
        old.copy_(new) if new.dtype == torch.long else old.lerp_(new, 0.5)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("averaging", ["timm", "torch", "by hand"])
def test_averaged_weights_are_those_evaluated(name, averaging):
    model, features = nn.Sequential(LAYERS[name]()), correlated(4, 8, 3, 3)
    train(model)
    if averaging == "timm":
        ema = ModelEmaV3(model, decay=0.5)
        average, update = ema.module, lambda: ema.update(model)
    elif averaging == "torch":
        ema = AveragedModel(model, use_buffers=True).eval()
        average, update = ema.module, lambda: ema.update_parameters(model)
    else:
        average = copy.deepcopy(model).eval()

        def update():
            lerp_by_hand(model, average)

    for _ in range(3):
        train(model)
        update()
        before = average(features)
        fresh = LAYERS[name]().eval()
        fresh.load_state_dict(average[0].state_dict())
        assert torch.equal(before, fresh(features))
    assert not torch.equal(before, model.eval()(features))


def test_axes_set_in_place_are_followed_in_both_modes():
    layer = FeatureWhitening(8, whiten_every=5)
    train(layer)
    other = copy.deepcopy(layer)
    rotation = random_rotation(8, torch.Generator().manual_seed(0))
    layer.rotation.copy_(rotation)
    other.set_rotation(rotation)
    features = correlated(4, 8, 3, 3)
    assert torch.equal(layer(features), other(features))
    assert torch.equal(layer.eval()(features), other.eval()(features))


def test_statistics_of_averaged_weights_are_taken_by_update_statistics():
    """As `update_bn` does for BatchNorm2d; it passes over this layer."""
    layer = FeatureWhitening(8)
    model = nn.Sequential(nn.Conv2d(8, 8, 1), layer)
    batches = [correlated(16, 8, 3, 3) for _ in range(3)]
    train(model)
    average = AveragedModel(model, use_buffers=True)
    layer, before = average.module[1], average.module[1].running_covariance.clone()
    update_bn(batches, average)
    assert torch.equal(layer.running_covariance, before)
    update_statistics(average, layer, batches)
    rows = average.module[0](torch.cat(batches)).detach().movedim(1, 0).flatten(1)
    torch.testing.assert_close(layer.running_covariance[0], torch.cov(rows), rtol=1e-4, atol=1e-5)


def test_a_frozen_layer_is_one_in_evaluation():
    """timm's function takes each BatchNorm2d for a frozen one; for this layer `eval` does, in each epoch."""
    layer = FeatureWhitening(8)
    model = freeze_batch_norm_2d(nn.Sequential(nn.BatchNorm2d(8), layer))
    for _ in range(2):
        model.train()
        layer.eval()
        before = copy.deepcopy(layer.state_dict())
        model(correlated(4, 8, 3, 3))
        for name, value in layer.state_dict().items():
            assert torch.equal(value, before[name])
    train(model, 1)
    assert not torch.equal(layer.running_mean, before["running_mean"])


def test_built_on_meta_and_loaded_by_assignment():
    trained, features = FeatureWhitening(8), correlated(4, 8, 3, 3)
    train(trained)
    for mode in (True, False):
        with torch.device("meta"):
            layer = FeatureWhitening(8)
        layer.train(mode).load_state_dict(trained.state_dict(), assign=True)
        assert torch.equal(layer.eval()(features), trained.eval()(features))


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("name", LAYERS)
def test_checkpointing_changes_nothing(name, reentrant):
    layers = [LAYERS[name]() for _ in range(2)]
    for _ in range(5):
        batch, goal = correlated(4, 8, 3, 3), torch.randn(4, 8, 3, 3)
        found = []
        for layer, saved in zip(layers, (False, True), strict=True):
            features = batch.clone().requires_grad_()
            call = lambda x, layer=layer: checkpoint(layer, x, use_reentrant=reentrant)
            ((call if saved else layer)(features) * goal).sum().backward()
            found.append(features.grad)
        assert torch.equal(*found)
    for one, other in zip(*(layer.state_dict().values() for layer in layers), strict=True):
        assert torch.equal(one, other)  # statistics took each batch once


@pytest.mark.parametrize("rows", [3, 8])
@pytest.mark.parametrize("solver", ["eigh", "cholesky", "newton_schulz"])
def test_an_infinite_feature_gives_nan_and_leaves_the_statistics(solver, rows):
    layer, norm = FeatureWhitening(16, solver=solver), nn.BatchNorm2d(16)
    train(nn.Sequential(nn.Conv2d(8, 16, 1), layer))
    before = layer.running_covariance.clone(), layer.running_mean.clone()
    features = torch.randn(4, 16, rows, rows)[: 1 if rows == 3 else 4]  # also: few locations
    features[0, 0, 0, 0] = torch.inf
    features.requires_grad_()
    output = layer(features)
    output.sum().backward()
    assert norm(features).isnan().any() and output.isnan().all()
    assert features.grad.isnan().any()  # so that a GradScaler skips the step
    assert torch.equal(layer.running_covariance, before[0])
    assert torch.equal(layer.running_mean, before[1])
    assert layer.eval()(torch.randn(2, 16, 3, 3)).isfinite().all()


@pytest.mark.parametrize("interval", [1, 3])
@pytest.mark.parametrize("count", [2, 3])
def test_several_whitened_layers_train(count, interval):
    def block():
        layer = FeatureWhitening(12, 3, whiten_every=interval)
        return nn.Sequential(nn.LazyConv2d(12, 3, padding=1), layer, nn.ReLU())

    blocks = [block() for _ in range(count)]
    model = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(1))
    model(torch.randn(2, 3, 8, 8))
    optimizer = torch.optim.SGD(model.parameters(), 0.3)
    labels = torch.arange(16) % 2.0
    images = torch.randn(16, 3, 8, 8) + labels[:, None, None, None]
    losses = []
    for _ in range(20):
        loss = nn.functional.binary_cross_entropy_with_logits(model(images)[:, 0], labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(value.isfinite().all() for value in model.state_dict().values())
    assert losses[-1] < 0.7 * losses[0]
    assert model.eval()(images).isfinite().all()
