"""What an outsider imports: enough for the example of the README, and nothing heavy behind it."""

import doctest
import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import fwstudy.whitening
from fwstudy.whitening import Concept, FeatureWhitening, align, fold, replace_norm, whitened_means

ROOT = Path(__file__).parents[2]
ROOMS = ROOT / "benchmarks", ROOT / "fwstudy"
MODULES = [path for room in ROOMS for path in sorted(room.rglob("*.py"))]
WITH_EXAMPLES = [path.relative_to(ROOT) for path in MODULES if ">>> " in path.read_text("utf-8")]
HEAVY = "cv2 dask dvc joblib matplotlib nbformat pandas papermill pydantic scipy sklearn timm torchvision"
PROGRAM = f"""
import sys, torch
before = set(sys.modules)
import fwstudy.whitening
new = {{name.partition(".")[0] for name in set(sys.modules) - before}}
rooms = [name for name in sys.modules if name.startswith("fwstudy.")]
print([*new.intersection({HEAVY.split()!r}), *(n for n in rooms if "fwstudy.whitening" not in n)])
"""


def test_the_import_loads_pytorch_only():
    assert subprocess.check_output([sys.executable, "-c", PROGRAM]) == b"[]\n"


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=str)
def test_docstring_examples(path):
    name = ".".join(path.with_suffix("").parts)
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_all_names_exist():
    assert all(hasattr(fwstudy.whitening, name) for name in fwstudy.whitening.__all__)


def test_replace_align_fold():
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 1)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), *head)
    layer = replace_norm(model, "1", FeatureWhitening.from_batch_norm)
    model(torch.randn(16, 3, 8, 8))
    red = torch.randn(6, 3, 8, 8) + torch.tensor([3.0, 0, 0])[:, None, None]
    concepts = [Concept("red", red, red.flip(1)), Concept("bright", red + 1)]
    align(model, layer, concepts)
    found = layer.rotation[:2] @ whitened_means(layer, model, concepts)
    assert (found.diagonal() > 0).all()
    torch.testing.assert_close(found, found.mT, atol=1e-4, rtol=1e-4)  # polar: symmetric
    folded = fold(model, red)
    torch.testing.assert_close(folded(red), model.eval()(red), atol=1e-4, rtol=1e-4)
    assert not any(isinstance(module, FeatureWhitening) for module in folded.modules())
