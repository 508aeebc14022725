"""A tiny model with random weights, and the whitened variant of it that the blobs give."""

from pathlib import Path

import pandas as pd
import torch

from fwstudy.crops.cropset import CropSet, to_tensor
from fwstudy.params import Params, Whitening, load_params
from fwstudy.training import variants
from fwstudy.training.runs import Detector
from fwstudy.whitening.surgery import create_model


def some_params() -> Params:
    return load_params(Path(__file__).parent / "params.yaml")


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
