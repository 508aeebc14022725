"""Models of every training on the test people of two data sets: detection, frame by frame."""

import pandas as pd
from tqdm import tqdm

from fwstudy.evaluation.metrics import score_auc, with_interval
from fwstudy.labels import ORIGINAL
from fwstudy.params import Params
from fwstudy.training.cross_dataset import all_studies, folders_of, open_crops
from fwstudy.training.runs import load, score

COLUMNS = ["trained_on", "model", "tested_on", "family", "auc", "auc_low", "auc_high",
    "num_images", "num_identities", "seed"]  # fmt: skip


def auc_by_family(predictions: pd.DataFrame) -> list[dict]:
    """Frame-level AUC of all forgeries and of each family against all originals.

    Args:
        predictions: columns variant, label, group, identity, score.

    Returns:
        a dict for each with family (``all`` first), auc, auc_low, auc_high (95 %, over groups of people),
        num_images, num_identities.
    """
    families = predictions.loc[predictions["label"] == 1, "variant"].unique()
    wanted = {family: predictions["variant"].isin([ORIGINAL, family]) for family in families}
    rows = []
    for family, chosen in {"all": predictions["label"] >= 0, **wanted}.items():
        part = predictions[chosen]
        count = {"num_images": len(part), "num_identities": part["identity"].nunique()}
        rows.append({"family": family} | with_interval("auc", part, score_auc) | count)
    return rows


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
    rows = []
    for study in tqdm(all_studies(params, source).values(), "trainings"):
        for run in study.runs:
            detector = load(run, study.params)
            for name, crops in tests.items():
                where = {"trained_on": study.label, "model": run.name, "tested_on": name}
                found = auc_by_family(score(detector, crops))
                rows += [where | row | {"seed": run.seed} for row in found]
    return pd.DataFrame(rows, columns=COLUMNS)
