"""Do concept axes keep their meaning on a data set they were not trained on?"""

import pandas as pd

from fwstudy.interpretability.measures import explain_model
from fwstudy.interpretability.model import CONCEPT_AXES, Subject
from fwstudy.params import Params
from fwstudy.training.cross_dataset import all_studies, folders_of, open_crops
from fwstudy.training.runs import WHITENED, load

MEASURES = ("purity", "part_top1")  # of `fwstudy.interpretability.measures.GLOSSARY`
COLUMNS = ["trained_on", "model", "tested_on", "measure", "value", "low", "high", "num_images"]


def cross_concepts(params: Params, source: str) -> pd.DataFrame:
    """Purity of the concept axes and how often they name the forged part, on both data sets.

    Args:
        source: one of ``cross_dataset.sources``; its models are trained.

    Returns:
        columns `COLUMNS` and seed; a row for each whitened model, data set and measure, with 95 %
        intervals over groups of people. The test split, at the study's quality.
    """
    tests = {
        name: open_crops(params, folder).paired()
        for name, folder in folders_of(params, source).items()
    }
    runs = [
        (study, run)
        for study in all_studies(params, source).values()
        for run in study.runs
        if run.name == WHITENED
    ]
    num_images, tables = params.interpretability.num_images, []
    for study, run in runs:
        detector = load(run, study.params)
        for name, crops in tests.items():
            about_it = run.name, detector, run.settings, crops, run.seed, num_images
            subject = Subject(*about_it, shown=(CONCEPT_AXES,))
            rows = explain_model(subject, ["concepts", "parts"])
            wanted = (rows["subset"] == "all") & rows["measure"].isin(MEASURES)
            chosen = rows[wanted & (rows["method"] == CONCEPT_AXES)]
            chosen = chosen.assign(trained_on=study.label, tested_on=name, seed=run.seed)
            tables.append(chosen[[*COLUMNS, "seed"]])
    return pd.concat(tables, ignore_index=True)
