"""The study's models on people from another source than the one they were trained on."""

import pandas as pd
from tqdm import tqdm

from fwstudy.comparison import mean_over_seeds
from fwstudy.crops import CropSet
from fwstudy.metrics import detection_table
from fwstudy.params import Params
from fwstudy.study import control, evaluate, load_variant

COLUMNS = ["model", "family", "num_images", "num_identities"]


def transfer_table(params: Params, crops: CropSet) -> pd.DataFrame:
    """Detection on the test split of another crop set; nothing is trained anew.

    Args:
        crops: of the same size as the study's; made by the stage `preprocess` from another source.

    Returns:
        frame level, at the study's quality, mean over the training seeds: columns model, family,
        num_images, num_identities, auc with _low, _high, _least and _most, num_seeds.

    Raises:
        ValueError: crops of another size.
    """
    size = params.preprocess.crop_size
    if crops.images.shape[1] != size:
        raise ValueError(
            f"generalisation.other_crops: crops of {crops.images.shape[1]} pixels, "
            f"the models were trained on {size} (preprocess.crop_size)"
        )
    quality, default = params.preprocess.quality, params.whitening
    settings = {"batch_norm": control(default), "whitened": default}
    models = [(name, seed) for name in settings for seed in params.train.seeds]
    tables = []
    for name, seed in tqdm(models, "other source"):
        detector = load_variant(params, settings[name], name, seed)
        predictions, threshold = evaluate(detector, params, crops.select(quality=quality))
        table = detection_table(predictions, threshold)
        tables.append(table[table["level"] == "frame"].assign(model=name, seed=seed))
    return mean_over_seeds(pd.concat(tables, ignore_index=True), COLUMNS, ["auc"])
