"""The two models that are compared, on the tiny data."""

import pandas as pd
import pytest

from fwstudy.crops.cropset import CropSet
from fwstudy.interpretability.model import BATCH_NORM, WHITENED, Subject
from fwstudy.training.runs import Detector, control

from ..models import quick_settings


@pytest.fixture(scope="session")
def pair(aligned, baseline, crops):
    """Both models by name; validation and test both have one group of people."""
    chosen = crops.select(quality="c23")
    splits = {"validation": "test"}  # two groups of people to be measured on
    manifest = chosen.manifest.assign(split=chosen.manifest["split"].replace(splits))
    held_out = chosen.manifest[chosen.manifest["split"] == "validation"]
    both = CropSet(pd.concat([manifest, held_out]), chosen.images, chosen.mask, chosen.parsing)
    plain = Detector(baseline, aligned.layer_name, pd.DataFrame())
    settings, options = quick_settings(), {"crops": both, "seed": 0, "num_images": 8}
    return {
        BATCH_NORM: Subject(BATCH_NORM, plain, control(settings), **options),
        WHITENED: Subject(WHITENED, aligned, settings, **options, priors=True),
    }
