"""What a network of others is given, what it may return, and what is said where it fails."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from fwstudy.interpretability.explainers import EXPLAINERS, NEEDS
from fwstudy.interpretability.sanity import parameter_groups
from fwstudy.outside.adapters import Adapter, adapted, lacking, one_logit
from fwstudy.params import OutsideDetector
from fwstudy.whitening.surgery import create_model

from .conftest import write_onnx


def module(name: str, **options) -> OutsideDetector:
    return OutsideDetector(name="mine", module=f"planted:{name}", **options)


@pytest.fixture
def images():
    return torch.rand(5, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1


class Kept(nn.Module):
    """Returns the mean of the channels and keeps what it was given."""

    def forward(self, images):
        self.given = images
        return images.mean((1, 2, 3))


def test_by_default_a_network_sees_the_crops_as_they_are(images):
    kept = Kept()
    found = Adapter(kept, module("x"))(images)
    assert found.shape == (5, 1) and torch.equal(kept.given, images)
    assert torch.equal(found[:, 0], images.mean((1, 2, 3)))


def test_mean_std_and_size_by_hand(images):
    kept, mean, std = Kept(), [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    Adapter(kept, module("x", mean=mean, std=std, size=32))(images)
    small = nn.functional.interpolate(images, (32, 32), mode="bilinear", antialias=True)
    middle, spread = (torch.tensor(values)[:, None, None] for values in (mean, std))
    torch.testing.assert_close(kept.given, ((small + 1) / 2 - middle) / spread)
    Adapter(kept, module("x", mean=[0.0] * 3, std=[1 / 255] * 3))(images)
    torch.testing.assert_close(kept.given, (images + 1) * 127.5)


def test_the_second_of_two_classes_is_forged(folder, images):
    one, two = (adapted(module(name), folder)(images) for name in ("one", "two"))
    torch.testing.assert_close(one, two)


def test_what_a_network_lacks_is_found_by_trying(folder):
    whole, layer = module("one"), module("one", layer="edges")
    assert set(lacking(adapted(whole, folder), whole, 64)) == {"layer"}
    assert not lacking(adapted(layer, folder), layer, 64)
    frozen = module("Detached")
    assert "gradients" in lacking(adapted(frozen, folder), frozen, 64)
    bare = module("Shown")
    assert "weights" in lacking(adapted(bare, folder), bare, 64)
    assert set(NEEDS) == set(EXPLAINERS)


def test_stages_of_the_network_are_randomized_and_not_the_whole_at_once(folder):
    groups = parameter_groups(adapted(module("one"), folder))
    assert groups == {
        "edges": ["model.edges.weight"],
        "head": ["model.head.weight", "model.head.bias"],
    }
    backbone = create_model("test_efficientnet")
    inner = parameter_groups(backbone)
    outer = parameter_groups(Adapter(backbone, module("x")))
    assert outer == {key: [f"model.{name}" for name in names] for key, names in inner.items()}


@pytest.mark.parametrize("classes", [1, 2])
def test_timm_with_its_weights(folder, images, classes):
    torch.manual_seed(classes)
    model = create_model("test_efficientnet", num_classes=classes).eval()
    save_file(model.state_dict(), folder / f"{classes}.safetensors")
    about = OutsideDetector(name="mine", timm="test_efficientnet", weights=f"{classes}.safetensors")
    found, given = adapted(about, folder)(images), model(images)
    torch.testing.assert_close(found[:, 0], given[:, -1] - (given[:, 0] if classes == 2 else 0))


@pytest.fixture(scope="session")
def onnx_files(folder):
    """A linear model of 32 pixels, for one, four or any number of images."""
    pytest.importorskip("onnxruntime")
    nodes = [("Flatten", ["images"], "flat"), ("Gemm", ["flat", "weight", "bias"], "logit")]
    weight = np.random.default_rng(0).normal(size=(3 * 32 * 32, 1)).astype(np.float32)
    values = {"weight": weight, "bias": np.float32([0.5])}
    shapes = {
        "1": [1, 3, 32, 32],
        "4": [4, 3, 32, 32],
        "any": ["n", 3, 32, 32],
        "nhwc": ["n", 32, 32, 3],
    }
    for name, shape in shapes.items():
        write_onnx(folder / f"{name}.onnx", shape, nodes, values)
    (folder / "broken.onnx").write_bytes(b"no graph")
    return weight


@pytest.mark.parametrize("name", ["1", "4", "any"])
def test_onnx_of_any_batch_resizes_to_its_own_size(folder, onnx_files, images, name):
    about = OutsideDetector(name="mine", onnx=f"{name}.onnx")
    adapter = adapted(about, folder)
    small = nn.functional.interpolate(images, (32, 32), mode="bilinear", antialias=True)
    expected = small.flatten(1).numpy() @ onnx_files + 0.5
    for count in (1, 4, 5):
        found = adapter(images[:count]).numpy()
        np.testing.assert_allclose(found, expected[:count], rtol=1e-4, atol=1e-4)
    assert set(lacking(adapter, about, 64)) == {"gradients", "layer", "weights"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"onnx": "gone.onnx"}, "detector mine: .*gone.onnx: no such file"),
        ({"onnx": "broken.onnx"}, r"detector mine \(broken.onnx\) cannot be read by onnxruntime: "),
        ({"onnx": "nhwc.onnx"}, r"\(nhwc.onnx\) takes tensor\(float\) .*wanted is one float32"),
        ({"onnx": "any.onnx", "size": 64}, r"takes images of 32 pixels, not of size: 64"),
        ({"module": "planted:nothing"}, r"detector mine \(planted:nothing\): module 'planted' has"),
        ({"module": "gone:nothing"}, r"detector mine \(gone:nothing\): No module named 'gone'"),
        (
            {"module": "planted:number"},
            r"detector mine \(planted:number\) returned int, not a torch",
        ),
        ({"module": "planted:one", "layer": "x"}, r"detector mine \(planted:one\) has no layer x"),
        ({"timm": "resnet10t", "weights": "1.safetensors"}, "detector mine: .*does not fit"),
        ({"timm": "resnet10t", "weights": "bad.safetensors"}, "detector mine: .*truncated or not"),
    ],
)
def test_what_cannot_be_used_names_detector_and_file(folder, onnx_files, values, message):
    if not (folder / "1.safetensors").exists():
        save_file({"x": torch.zeros(1)}, folder / "1.safetensors")
    (folder / "bad.safetensors").write_bytes(b"\x00" * 20)
    with pytest.raises(ValueError, match=message):
        adapted(OutsideDetector(name="mine", **values), folder)


def test_without_onnxruntime_the_message_says_how_to_get_it(folder, monkeypatch):
    (folder / "some.onnx").write_bytes(b"")
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(ValueError, match=r"\(some.onnx\): .*pip install -e '\.\[onnx\]'"):
        adapted(OutsideDetector(name="mine", onnx="some.onnx"), folder)


def test_three_classes_are_refused(folder, images):
    with pytest.raises(ValueError, match=r"mine \(planted:three\) returned \(5, 3\) for 5 images"):
        adapted(module("three"), folder)(images)


def test_a_function_may_import_what_lies_beside_it(folder):
    (folder / "late.py").write_text("def load():\n    from beside import one\n    return one()\n")
    (folder / "beside.py").write_text("from planted import one\n")
    assert adapted(OutsideDetector(name="mine", module="late:load"), folder)


def test_classes_are_no_logits():
    with pytest.raises(ValueError, match="classes perhaps"):
        one_logit(torch.tensor([0, 1]), 2, "x")
