"""Planted detectors: what they see and what their maps must show is known."""

import textwrap

import pytest

from fwstudy.evaluation import metrics

from ..models import some_params

PLANTED = """
import torch
from torch import nn


class Planted(nn.Module):
    '''Contrast of neighbors: the checkerboards of the tiny data are forged.'''

    def __init__(self, sign=1.0, classes=1):
        super().__init__()
        kernel = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).expand(1, 3, 2, 2) / 12
        self.edges = nn.Conv2d(3, 1, 2, bias=False)
        self.edges.weight.data = kernel.clone()
        self.head = nn.Linear(1, classes)
        nn.init.zeros_(self.head.bias)
        nn.init.zeros_(self.head.weight)
        self.head.weight.data[-1] = sign * 40

    def forward(self, images):
        return self.head(self.edges(images).abs().amax((2, 3)))


def one():
    return Planted()


def two():
    return Planted(classes=2)


def reversed_labels():
    return Planted(sign=-1.0)


def three():
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 3))


class Nan(nn.Module):
    def forward(self, images):
        return images.mean((1, 2, 3)).log() * 0


class Detached(Planted):
    def forward(self, images):
        with torch.no_grad():
            return super().forward(images)[:, 0]


class Shown(nn.Module):
    '''The mean red of what it is given, without a weight.'''

    def forward(self, images):
        return images[:, 0].mean((1, 2))


class Pixels(Planted):
    '''As one whose pixels go through NumPy: its logit has gradients, which do not reach them.'''

    def forward(self, images):
        return super().forward(images.detach())


def number():
    return 3


def fails():
    raise RuntimeError("no such card")
"""


def write_onnx(path, shape, nodes, values):
    """A network from `images` of a shape to `logit`: operations with their inputs and output, weights."""
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto
    graph = helper.make_graph(
        [helper.make_node(name, inputs, [output]) for name, inputs, output in nodes],
        "planted",
        [helper.make_tensor_value_info("images", kind.FLOAT, shape)],
        [helper.make_tensor_value_info("logit", kind.FLOAT, [shape[0], 1])],
        [onnx.numpy_helper.from_array(array, name) for name, array in values.items()],
    )
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)


@pytest.fixture(scope="module", autouse=True)
def few_draws():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics.measured, "__defaults__", (0, 10))
        yield


@pytest.fixture(scope="session")
def params():
    """Settings that fit the tiny data."""
    crops = {"preprocess.crop_size": 64, "preprocess.further_test_qualities": ["c40"]}
    return some_params(crops | {"interpretability.num_images": 4})


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A folder of detectors."""
    folder = tmp_path_factory.mktemp("detectors")
    (folder / "planted.py").write_text(textwrap.dedent(PLANTED))
    return folder
