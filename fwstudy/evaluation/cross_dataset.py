"""Models of every training on the test people of two data sets: detection, frame by frame."""

import pandas as pd
from tqdm import tqdm

from fwstudy.evaluation.metrics import detection_table
from fwstudy.params import Params
from fwstudy.training.cross_dataset import all_studies, folders_of, open_crops
from fwstudy.training.runs import load, score

COLUMNS = ["trained_on", "model", "tested_on", "family", "auc", "auc_low", "auc_high",
    "num_images", "num_identities", "seed"]  # fmt: skip


def cross_table(params: Params, source: str) -> pd.DataFrame:
    """Every model of every training, tested on both data sets; nothing is trained here.

    Args:
        source: one of ``cross_dataset.sources``; its models are trained.

    Returns:
        columns `COLUMNS`; test split, whole faces, at the study's quality.
    """
    tests = {
        name: open_crops(params, folder).select(split="test", kind="whole")
        for name, folder in folders_of(params, source).items()
    }
    tables = []
    for study in tqdm(all_studies(params, source).values(), "trainings"):
        for run in study.runs:
            detector = load(run, study.params)
            for name, crops in tests.items():
                where = {"trained_on": study.label, "model": run.name, "tested_on": name}
                found = detection_table(score(detector, crops), threshold=0.0)  # of no account here
                frames = found[found["level"] == "frame"]
                tables.append(frames.assign(**where, seed=run.seed)[COLUMNS])
    return pd.concat(tables, ignore_index=True)
