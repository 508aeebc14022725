"""Tiny models: of random weights, the whitened variant of it that the blobs give, and of known weights."""

from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from fwstudy.crops.cropset import CropSet, to_tensor
from fwstudy.params import Params, Whitening, applied, checked, read
from fwstudy.training import variants
from fwstudy.training.runs import Detector
from fwstudy.whitening.surgery import create_model


def some_params(changes: dict[str, Any] | None = None) -> Params:
    """The settings of the tests; those changed that are named by dotted keys."""
    path = Path(__file__).parent / "params.yaml"
    content = read(path.read_text(encoding="utf-8"))
    return checked(applied(content, changes or {}), str(path))


def quick_settings() -> Whitening:
    changes = {"num_groups": 8, "rotate_every": 2, "concept_weight": 0.0, "bottleneck": 0.0}
    return some_params().whitening.model_copy(update=changes | {"activation": "backbone"})


def tiny_baseline(crops: CropSet) -> torch.nn.Module:
    """Random weights, but running statistics of the data."""
    torch.manual_seed(0)
    model = create_model("test_efficientnet").train()
    with torch.no_grad():
        for step in range(30):
            model(to_tensor(crops.images[4 * step : 4 * step + 4]))
    return model.eval()


def aligned_detector(baseline: torch.nn.Module, training: CropSet) -> Detector:
    variant = variants.make_variant(baseline, quick_settings(), training, seed=0)
    return Detector(variant.model.eval(), variant.layer_name, pd.DataFrame())


def two_channels() -> tuple[nn.Sequential, torch.Tensor]:
    """A layer of red and its negative, whose gradients differ from place to place, and an image of red."""
    layer = nn.Conv2d(3, 2, kernel_size=1, bias=False)
    model = nn.Sequential(layer, nn.Flatten(), nn.Linear(8, 1, bias=False))
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 0, 0], [-1, 0, 0]])[..., None, None])
        model[-1].weight.copy_(torch.tensor([[1.0, -1, 2, 0, 1, 1, -1, -1]]))
    images = torch.zeros(1, 3, 2, 2)
    images[0, 0] = torch.tensor([[1.0, 2], [3, 4]])
    return model, images


def hooks(model: nn.Module) -> int:
    """How many hooks there are in a model."""
    kinds = "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"
    return sum(len(getattr(module, kind)) for module in model.modules() for kind in kinds)
