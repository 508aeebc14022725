"""The study's models on people from another source than the one they were trained on."""

import pandas as pd
from tqdm import tqdm

from fwstudy.crops.cropset import CropSet
from fwstudy.evaluation.comparison import mean_over_seeds
from fwstudy.evaluation.metrics import detection_table
from fwstudy.params import Params
from fwstudy.training.runs import all_runs, load, score

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
        ValueError: crops of another size, or no whole face of the test split at the study's quality.
    """
    size = params.preprocess.crop_size
    if crops.images.shape[1] != size:
        raise ValueError(
            f"generalization.other_crops: crops of {crops.images.shape[1]} pixels, "
            f"the models were trained on {size} (preprocess.crop_size)"
        )
    test, tables = crops.select(split="test", kind="whole", quality=params.preprocess.quality), []
    if not len(test):
        raise ValueError(
            "generalization.other_crops: no whole face of the split test at "
            f"{params.preprocess.quality} (preprocess.quality)"
        )
    for run in tqdm(all_runs(params), "other source"):
        # The threshold is of no account: AUC needs none, and there may be no validation split.
        table = detection_table(score(load(run, params), test), threshold=0.0)
        tables.append(table[table["level"] == "frame"].assign(model=run.name, seed=run.seed))
    return mean_over_seeds(pd.concat(tables, ignore_index=True), COLUMNS, ["auc"])
