"""Backbones: every family takes a whitening layer; the layer before the pooling is found."""

import copy
from functools import partial

import pytest
import timm
import torch
from torch import nn

import fwstudy.training.backbone  # noqa: F401 - registers fwstudy_small
from fwstudy.whitening import surgery
from fwstudy.whitening.layer import FeatureWhitening

SIZE = 64
TINY_DENSENET = {"growth_rate": 4, "block_config": (1, 1, 1, 1)}
FAMILIES = {  # name -> options, and the norm that is averaged into the classifier input, if any
    "legacy_xception": ({}, "bn4"),
    "tf_efficientnet_lite0": ({}, "bn2"),
    "xception41": ({}, "blocks.12.stack.conv3.bn_pw"),
    "mobilenetv2_035": ({"output_stride": 16}, "bn2"),
    "efficientnet_b0": ({}, "bn2"),
    "resnetv2_18": ({}, "norm"),
    "fwstudy_small": ({"output_stride": 16}, "norm"),
    "densenet121": (TINY_DENSENET, "features.norm5"),
    "mobilenetv3_small_100": ({}, None),  # a layer after the pooling
    "regnetx_002": ({}, None),  # a shortcut after the norm
    "resnet18": ({}, None),  # the same
}


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_takes_a_whitening_layer(name):
    options, expected = FAMILIES[name]
    model = surgery.create_model(name, **options).eval()
    images = torch.rand(2, 3, SIZE, SIZE, requires_grad=True)
    before = model(images).detach()
    check_absorbed(copy.deepcopy(model), images, before, expected)
    chosen = expected or surgery.list_norms(model)[-1]
    if expected is None:
        with pytest.raises(ValueError, match=f"averaged into the classifier .* {chosen}$"):
            surgery.last_norm(model)
    else:
        assert surgery.last_norm(model) == expected
    norm = model.get_submodule(chosen)
    num_groups = 8 if norm.num_features % 8 == 0 else 1
    options = {"num_groups": num_groups, "whiten_every": 2}
    layer = surgery.replace_norm(
        model, chosen, partial(FeatureWhitening.from_batch_norm, **options)
    )
    assert model.get_submodule(chosen) is layer
    assert chosen not in surgery.list_norms(model)
    if expected is not None:
        assert surgery.last_norm(model) == expected
    torch.testing.assert_close(model(images), before, atol=1e-4, rtol=1e-3)
    for mode in (True, False):
        images.grad = None
        model.train(mode)(images).sum().backward()
        assert images.grad.isfinite().all()
        assert images.grad.abs().sum() > 0
        assert layer.weight.grad.isfinite().all()


def check_absorbed(model, images, before, expected):
    """The activation after the last norm becomes part of it.

    timm 1.0.31: of these, legacy_xception, resnetv2, densenet and xception41 keep it in various places.
    """
    keys = list(model.state_dict())
    assert surgery.absorb_activation(model) is model
    assert torch.equal(model(images), before) and list(model.state_dict()) == keys
    if expected is None:
        return
    assert surgery.last_norm(model) == expected
    found = []
    model.get_submodule(expected).register_forward_hook(lambda _, inputs, out: found.append(out))
    pooled = surgery.pooled_and_logits(model, images)[0]
    torch.testing.assert_close(found[0].mean((2, 3)), pooled)


def test_convnext_has_no_layer_to_replace():
    model = surgery.create_model("convnext_atto")
    assert surgery.list_norms(model) == []
    with pytest.raises(ValueError, match="these can: none .the architecture has no BatchNorm2d"):
        surgery.replace_norm(model, "head.norm", FeatureWhitening.from_batch_norm)
    with pytest.raises(ValueError, match="no norm layer of ConvNeXt .*none .it has no BatchNorm2d"):
        surgery.last_norm(model)


def test_replace_norm_lists_the_layers():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU())
    for name in ("0", "bn9", ""):
        with pytest.raises(ValueError, match="is not a layer that can be replaced; these can: 1$"):
            surgery.replace_norm(model, name, FeatureWhitening.from_batch_norm)


@pytest.mark.parametrize("name", ["mobilenetv2_035", "resnet18"])
def test_activations_are_not_in_place(name):
    in_place = [m for m in timm.create_model(name).modules() if getattr(m, "inplace", False)]
    assert in_place  # else there is nothing left to do
    assert not any(getattr(m, "inplace", False) for m in surgery.create_model(name).modules())


def test_create_model_outputs_and_options():
    model = surgery.create_model("mobilenetv2_035", output_stride=16, in_chans=1).eval()
    assert model(torch.randn(1, 1, SIZE, SIZE)).shape == (1, 1)
    assert model.forward_features(torch.randn(1, 1, SIZE, SIZE)).shape == (1, 1280, 4, 4)


def test_find_classifier_without_one():
    with pytest.raises(ValueError, match="no classifier"):
        surgery.find_classifier(surgery.create_model("resnet10t", num_classes=0))
    with pytest.raises(ValueError, match="no classifier"):
        surgery.find_classifier(nn.Sequential(nn.Conv2d(3, 4, 1)))
    plain = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    assert surgery.find_classifier(plain) is plain[2]


def tail(*layers):
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 1)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), *layers, *head)


@pytest.mark.parametrize("activation", [nn.ReLU(inplace=True), nn.ReLU(), nn.SiLU(), nn.Identity()])
def test_last_norm_sees_through_an_activation(activation):
    assert surgery.last_norm(tail(activation)) == "1"


@pytest.mark.parametrize("layers", [(), (nn.ReLU(),)])
def test_the_last_norm_always_has_an_activation_to_set(layers):
    """ConvMixer's has none of its own: the concept loss, which reads it, found nothing."""
    model = surgery.absorb_activation(tail(*layers).eval())
    model.get_submodule(surgery.last_norm(model)).act = nn.Softplus()
    assert model[1](torch.randn(2, 8, 4, 4)).min() > 0


@pytest.mark.parametrize("layer", [nn.Conv2d(8, 8, 1), nn.PReLU(), nn.MaxPool2d(2)])
def test_last_norm_refuses_a_layer_in_between(layer):
    with pytest.raises(ValueError, match="no norm layer of Sequential .* name one of 1$"):
        surgery.last_norm(tail(layer))


def test_last_norm_leaves_no_trace():
    model = tail(nn.Dropout())
    model[1].eval()
    modes = [module.training for module in model.modules()]
    before = model[1].running_mean.clone()
    assert surgery.last_norm(model) == "1"
    with pytest.raises(RuntimeError):
        surgery.last_norm(model, torch.randn(1, 5, 9, 9))
    assert [module.training for module in model.modules()] == modes
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())
    torch.testing.assert_close(model[1].running_mean, before)


def test_zero_initialised_shortcut_is_not_mistaken_for_the_last_norm():
    with pytest.raises(ValueError, match="no norm layer of ResNet"):
        surgery.last_norm(surgery.create_model("test_resnet"))


@torch.no_grad()
@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "mobilenetv2_035", "legacy_xception"])
def test_last_norm_of_trained_weights(name):
    """Statistics and weights of the magnitude of ImageNet's; a bias below 0 leaves nothing of a map."""
    model = surgery.create_model(name)
    for norm in (model.get_submodule(place) for place in surgery.list_norms(model)):
        norm.running_mean.normal_(0, 2)
        norm.running_var.uniform_(0.1, 30)
        norm.weight.uniform_(0.01, 3)
        norm.bias.uniform_(-9, -3)
    assert surgery.last_norm(model) == FAMILIES[name][1]
