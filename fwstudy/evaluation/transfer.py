"""The study's models on people from another source than the one they were trained on."""

from functools import partial

import pandas as pd
from tqdm import tqdm

from fwstudy.crops.cropset import CropSet
from fwstudy.evaluation.comparison import mean_over_seeds
from fwstudy.evaluation.metrics import detection_table
from fwstudy.params import Params
from fwstudy.training.runs import BASELINE, control, load_baseline, load_variant, score

COLUMNS = ["model", "family", "num_images", "num_identities"]


def transfer_table(params: Params, crops: CropSet) -> pd.DataFrame:
    """Detection of all trained models on the test split of another crop set; nothing is trained anew.

    Args:
        crops: of the same size as the study's; made by the stage `preprocess` from another source.

    Returns:
        frame level, at the study's quality, mean over the training seeds: columns model (the baseline, its
        control, the whitened model, and the variants of ``ablations.run``), family, num_images,
        num_identities, auc with _low, _high, _least and _most, num_seeds.

    Raises:
        ValueError: crops of another size.
    """
    size = params.preprocess.crop_size
    if crops.images.shape[1] != size:
        raise ValueError(
            f"generalization.other_crops: crops of {crops.images.shape[1]} pixels, "
            f"the models were trained on {size} (preprocess.crop_size)"
        )
    default, train, ablations = params.whitening, params.train, params.ablations
    own = {"batch_norm": control(default), "whitened": default}
    models = [(BASELINE, seed, partial(load_baseline, params)) for seed in train.seeds]
    models += [
        (name, seed, partial(load_variant, params, settings, name))
        for name, settings in own.items()
        for seed in train.seeds
    ]
    models += [
        (name, seed, partial(load_variant, params, params.variant(name), f"variants/{name}"))
        for name in ablations.run
        for seed in ablations.seeds
    ]
    test, tables = crops.select(split="test", kind="whole", quality=params.preprocess.quality), []
    for name, seed, load in tqdm(models, "other source"):
        # The threshold is of no account: AUC needs none, and there may be no validation split.
        table = detection_table(score(load(seed), test), threshold=0.0)
        tables.append(table[table["level"] == "frame"].assign(model=name, seed=seed))
    return mean_over_seeds(pd.concat(tables, ignore_index=True), COLUMNS, ["auc"])
