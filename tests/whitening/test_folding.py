"""Folding for deployment: the same logits with standard layers only, and the same once exported."""

import copy
from functools import partial

import onnxruntime
import pytest
import torch
from timm.layers import Conv2dSame, StdConv2d
from torch import nn

import fwstudy.training.backbone  # noqa: F401 - registers fwstudy_small
from fwstudy.whitening.folding import fold
from fwstudy.whitening.iternorm import IterNormWhitening
from fwstudy.whitening.layer import FeatureWhitening
from fwstudy.whitening.statistics import update_statistics
from fwstudy.whitening.surgery import create_model, last_norm, list_norms, replace_norm

TINY_DENSENET = {"growth_rate": 4, "block_config": (1, 1, 1, 1)}
TINY_RESNET = {"layers": (1, 1, 1, 1), "channels": (16, 16, 32, 32), "stem_chs": 8}
MERGED, INSERTED = 0, 1  # convolutions that are added
CASES = {  # architecture, its options, norm (None: the last), convolutions added
    "efficientnet": ("test_efficientnet", {}, None, MERGED),
    "efficientnet, middle": ("test_efficientnet", {}, "blocks.2.0.bn2", MERGED),
    "small": ("fwstudy_small", {}, None, INSERTED),
    "mobilenetv2": ("mobilenetv2_035", {}, None, MERGED),
    "mobilenetv2, depthwise": ("mobilenetv2_035", {}, "blocks.2.1.bn2", INSERTED),
    "mobilenetv3": ("mobilenetv3_small_050", {}, "blocks.5.0.bn1", MERGED),
    "xception": ("legacy_xception", {}, None, MERGED),
    "densenet": ("densenet121", TINY_DENSENET, None, INSERTED),
    "densenet, middle": ("densenet121", TINY_DENSENET, "features.norm0", MERGED),
    "resnetv2": ("resnetv2_18", TINY_RESNET, None, INSERTED),
    "resnetv2, middle": ("resnetv2_18", TINY_RESNET, "stages.1.blocks.0.norm2", MERGED),
    "StdConv2d": (
        "resnetv2_50",
        {**TINY_RESNET, "conv_layer": StdConv2d},
        "stages.1.blocks.0.norm3",
        INSERTED,
    ),
    "Conv2dSame": ("tf_efficientnet_lite0", {}, "bn1", MERGED),
    "Conv2dSame, depthwise": ("tf_efficientnet_lite0", {}, "blocks.1.0.bn2", INSERTED),
}


@torch.no_grad()
def randomize(layer):
    """Random mean, covariance, axes and affine; the layer, in evaluation mode."""
    factors = torch.randn(*layer.running_covariance.shape[:2], 8)
    identity = torch.eye(factors.shape[1])
    layer.running_covariance.copy_(factors @ factors.mT + 0.3 * identity)
    layer.running_mean.normal_()
    layer.refresh()
    reflections = [
        torch.eye(layer.num_features) - 2 * torch.outer(v, v)
        for v in nn.functional.normalize(torch.randn(2, layer.num_features))
    ]
    layer.set_rotation(reflections[0] @ reflections[1])
    if layer.affine:
        layer.weight.uniform_(0.5, 1.5)
        layer.bias.normal_()
    return layer.eval()


def random_layer(num_features, **options):
    return randomize(FeatureWhitening(num_features, solver="cholesky", **options))


def smooth_images(count, size=64):
    """Images that differ in the large, so that logits do."""
    return nn.functional.interpolate(3 * torch.randn(count, 3, 3, 3), size, mode="bicubic")


@torch.no_grad()
def whitened(model, *names, **options):
    """The model with random whitening layers, and statistics with which images still differ."""
    for name in list_norms(model):
        norm = model.get_submodule(name)
        norm.momentum = 1.0
        nn.init.uniform_(norm.weight, 0.5, 1.5)  # 0 would hide a block
    model.train()(smooth_images(4))
    factory = partial(FeatureWhitening.from_batch_norm, solver="cholesky", **options)
    for name in names:
        randomize(replace_norm(model, name, factory))
    return model.eval()


def of_type(model, kind):
    return [module for module in model.modules() if isinstance(module, kind)]


def assert_same_logits(one, other):
    """To 1e-4 of the logits; they also have to differ between images by far more than that."""
    error, spread = (one - other).abs().max(), (other - other.mean(0)).abs().max()
    assert error < 1e-4 * other.abs().max()
    assert error < 1e-3 * spread


def check(model, images, num_added):
    """Fold, and compare logits and number of convolutions; returns the folded model."""
    folded = fold(model, images)
    assert not of_type(folded, FeatureWhitening)
    assert len(of_type(folded, nn.Conv2d)) == len(of_type(model, nn.Conv2d)) + num_added
    assert not any(module.training for module in folded.modules())
    images = torch.cat([images, torch.randn_like(images)])
    with torch.no_grad():
        assert_same_logits(folded(images), model(images))
    return folded


@pytest.mark.parametrize("case", CASES)
def test_every_family_keeps_its_logits(case):
    architecture, options, name, num_added = CASES[case]
    model = create_model(architecture, num_classes=3, **options)
    whitened(model, name or last_norm(model), num_groups=4)
    check(model, smooth_images(2), num_added)


def test_cases_have_the_convolutions_that_they_name():
    same = create_model("tf_efficientnet_lite0")
    assert isinstance(same.conv_stem, Conv2dSame)
    assert isinstance(same.blocks[1][0].conv_dw, Conv2dSame)
    options = CASES["StdConv2d"][1]
    assert isinstance(create_model("resnetv2_50", **options).stages[1].blocks[0].conv2, StdConv2d)


def test_folded_model_is_the_batch_norm_model_less_one_norm():
    plain = create_model("test_efficientnet")
    model = whitened(copy.deepcopy(plain), "bn2")
    folded = check(model, smooth_images(2), MERGED)
    assert list_norms(folded) == list_norms(plain)[:-1]
    shapes = [conv.weight.shape for conv in of_type(folded, nn.Conv2d)]
    assert shapes == [conv.weight.shape for conv in of_type(plain, nn.Conv2d)]
    assert [type(module) for module in folded.bn2] == [type(plain.bn2.act)]


def test_every_norm_of_a_model():
    model = create_model("test_efficientnet")
    names = list_norms(model)
    depthwise = [conv for conv in of_type(model, nn.Conv2d) if conv.groups > 1]
    folded = check(whitened(model, *names), smooth_images(4), len(depthwise))
    assert not list_norms(folded)


def test_golden_value():
    """R W = [[0, -1], [1, 0]] diag(1/2, 1/3); mean (3, 2); scale (2, 3); shift (10, 20).

    The convolution gives (2 x + 1, 3 x + 5); whitened (x - 1, x + 1); rotated (-x - 1, x - 1);
    scaled and shifted (-2 x + 8, 3 x + 17).
    """
    conv, layer = nn.Conv2d(1, 2, 1), FeatureWhitening(2).eval()
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([2.0, 3.0]).view(2, 1, 1, 1))
        conv.bias.copy_(torch.tensor([1.0, 5.0]))
        layer.running_mean.copy_(torch.tensor([3.0, 2.0]))
        layer.whitening.copy_(torch.diag(torch.tensor([1 / 2, 1 / 3])))
        layer.set_rotation(torch.tensor([[0.0, -1.0], [1.0, 0.0]]))
        layer.weight.copy_(torch.tensor([2.0, 3.0]))
        layer.bias.copy_(torch.tensor([10.0, 20.0]))
    folded = fold(nn.Sequential(conv, layer), torch.randn(2, 1, 3, 3))
    torch.testing.assert_close(folded[0].weight.flatten(), torch.tensor([-2.0, 3.0]))
    torch.testing.assert_close(folded[0].bias, torch.tensor([8.0, 17.0]))
    inserted = fold(nn.Sequential(layer), torch.randn(2, 2, 3, 3))[0][0]
    matrix = torch.tensor([[0.0, -2 / 3], [3 / 2, 0.0]])
    torch.testing.assert_close(inserted.weight.flatten(1), matrix)
    torch.testing.assert_close(inserted.bias, torch.tensor([10 + 4 / 3, 20 - 9 / 2]))


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("options", "num_added"),
    [
        ({"kernel_size": 3, "stride": 2, "padding": 1}, MERGED),
        ({"kernel_size": (1, 5), "padding": "same", "padding_mode": "circular"}, MERGED),
        ({"kernel_size": 3, "dilation": 2, "padding": 2, "padding_mode": "reflect"}, MERGED),
        ({"kernel_size": 3, "groups": 2}, INSERTED),
        ({"kernel_size": 3, "groups": 4}, INSERTED),
    ],
)
def test_every_kind_of_convolution(options, num_added, bias, affine):
    conv = nn.Conv2d(4, 8, bias=bias, **options)
    layer = random_layer(8, num_groups=2, affine=affine, act=nn.SiLU())
    folded = check(nn.Sequential(conv, layer), torch.randn(2, 4, 9, 9), num_added)
    activation = folded[1] if num_added == MERGED else folded[1][1]
    assert isinstance(activation, nn.SiLU)


class Shortcut(nn.Module):
    """The convolution's output is read twice."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), random_layer(4)

    def forward(self, images):
        features = self.conv(images)
        return features + self.norm(features)


class Twice(nn.Module):
    """Two layers read the same output; a third layer, with two names, is called twice."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.one, self.two, self.three = (random_layer(4) for _ in range(3))
        self.alias = self.three

    def forward(self, images):
        features = self.conv(images)
        return self.alias(self.three(self.one(features)) + self.two(features))


def test_output_with_a_second_reader_is_left_alone():
    model = Shortcut()
    folded = check(model, torch.randn(2, 3, 7, 7), INSERTED)
    assert torch.equal(folded.conv.weight, model.conv.weight)


def test_shared_outputs_and_layers():
    check(Twice(), torch.randn(2, 3, 7, 7), 3)


@pytest.mark.parametrize(
    ("between", "num_added"),
    [
        # hands on the very tensor that the convolution gave, changed
        (lambda conv: [conv, nn.ReLU(inplace=True)], INSERTED),
        (lambda conv: [conv, nn.MaxPool2d(2)], INSERTED),
        (lambda conv: [conv, nn.BatchNorm2d(4)], INSERTED),
        (lambda conv: [conv, nn.Linear(7, 7)], INSERTED),
        (lambda conv: [nn.utils.parametrizations.weight_norm(conv)], INSERTED),
        (lambda conv: [nn.utils.spectral_norm(conv)], INSERTED),
        (lambda conv: [conv, nn.Identity(), nn.Dropout()], MERGED),
    ],
)
def test_between_convolution_and_layer(between, num_added):
    model = nn.Sequential(*between(nn.Conv2d(3, 4, 3)), random_layer(4), nn.Conv2d(4, 2, 1))
    check(model.eval(), torch.randn(2, 3, 9, 9), num_added)


@pytest.mark.parametrize(
    ("kind", "options"),
    [(FeatureWhitening, {}), (IterNormWhitening, {})],
)
def test_after_training_and_the_model_is_unchanged(kind, options):
    model = create_model("test_efficientnet")
    replace_norm(model, "bn2", partial(kind.from_batch_norm, num_groups=4, **options))
    images = smooth_images(4)
    for _ in range(3):
        model(images)
    assert model.training
    before = copy.deepcopy(model.state_dict())
    folded = fold(model, images)
    after = model.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in before)
    assert all(module.training for module in model.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in folded.modules())
    assert_same_logits(folded(images), model.eval()(images))


def test_few_images_behind_the_covariance():
    """Fewer locations than channels: most directions are almost empty, and are scaled up."""
    model = whitened(create_model("test_efficientnet"), "bn2")
    update_statistics(model, model.bn2, [smooth_images(4)])
    check(model, smooth_images(2), MERGED)


def test_double_stays_double():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), random_layer(4), nn.ReLU(), random_layer(4)).double()
    images = torch.randn(2, 3, 9, 9, dtype=torch.float64)
    folded = check(model, images, 1)
    assert {tensor.dtype for tensor in folded.state_dict().values()} == {torch.float64}
    torch.testing.assert_close(folded(images), model(images), rtol=1e-5, atol=1e-5)


def test_model_without_whitening():
    model, images = nn.Sequential(nn.Conv2d(3, 4, 3)), torch.randn(2, 3, 5, 5)
    assert torch.equal(fold(model, images)(images), model(images))


def test_random_state_is_left_alone():
    model, images = Shortcut(), torch.randn(2, 3, 5, 5)
    state = torch.get_rng_state()
    fold(model, images)
    assert torch.equal(torch.get_rng_state(), state)


class Noise(nn.Module):
    def forward(self, features):
        return features + torch.randn_like(features)


def test_logits_that_differ_are_an_error():
    message = r"logits of the folded model differ by .* of the largest, above 0.0001; rounding"
    images = torch.randn(2, 3, 5, 5)
    with pytest.raises(ValueError, match=message):
        fold(nn.Sequential(nn.Conv2d(3, 4, 1), random_layer(4), Noise()), images)
    with pytest.raises(ValueError, match="differ by nan"):
        fold(nn.Sequential(nn.Conv2d(3, 4, 1), random_layer(4)), images * float("nan"))


def test_onnx_has_the_same_logits(tmp_path):
    """At any batch size; by way of `torch.export`."""
    depthwise, last = "blocks.3.0.bn2", "bn2"
    model = whitened(create_model("test_efficientnet"), depthwise, last)
    images, path = smooth_images(2), tmp_path / "folded.onnx"
    folded = check(model, images, MERGED + INSERTED)
    options = {"dynamic_shapes": ({0: "n"},), "verbose": False}
    torch.onnx.export(folded, (images,), path, dynamo=True, **options)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (name,) = (entry.name for entry in session.get_inputs())

    def run(images):
        return torch.from_numpy(session.run(None, {name: images.numpy()})[0])

    others = smooth_images(3)
    with torch.no_grad():
        expected = folded(others)
    assert_same_logits(run(others), expected)
    assert_same_logits(torch.cat([run(image[None]) for image in others]), expected)


def test_amortised_layer_is_brought_up_to_date():
    layer = FeatureWhitening(4, whiten_every=100)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), layer)
    images = torch.randn(4, 3, 8, 8)
    for _ in range(5):
        model(images)
    outdated = layer.whitening.clone()
    folded = fold(model, images)
    assert torch.equal(layer.whitening, outdated)
    assert_same_logits(folded(images), model.eval()(images))
    assert not torch.allclose(layer.whitening, outdated)
