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
    '''The mean red of what it is given, and a record of the shapes.'''

    def forward(self, images):
        self.shape = tuple(images.shape)
        return images[:, 0].mean((1, 2))


def number():
    return 3


def fails():
    raise RuntimeError("no such card")
"""


@pytest.fixture(scope="module", autouse=True)
def few_draws():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics.measured, "__defaults__", (0, 10))
        yield


@pytest.fixture(scope="session")
def params():
    """Settings that fit the tiny data."""
    params = some_params()
    sections = {
        "preprocess": params.preprocess.model_copy(
            update={"crop_size": 64, "further_test_qualities": ["c40"]}
        ),
        "interpretability": params.interpretability.model_copy(update={"num_images": 4}),
    }
    return params.model_copy(update=sections)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A folder of detectors."""
    folder = tmp_path_factory.mktemp("detectors")
    (folder / "planted.py").write_text(textwrap.dedent(PLANTED))
    return folder
