"""Tables that people read."""

import numpy as np
import pandas as pd
import pytest

from fwstudy.evaluation.metrics import Measure
from fwstudy.interpretability.measures import GLOSSARY
from fwstudy.reporting import tables

METHODS = [
    ("no model", "center prior"), ("no model", "mean-mask prior"), ("BatchNorm", "Grad-CAM"),
    ("whitened", "concept axes"),
]  # fmt: skip
CONTRACT = {
    "purity": 0.96, "part_top1": 0.7, "relevance_mass": 0.8, "relevance_mass_gradcam": 0.6,
    "relevance_mass_prior": 0.7, "relevance_mass_part": 0.3, "relevance_mass_part_gradcam": 0.1,
    "relevance_mass_part_prior": 0.2, "concept_share": 0.9, "restoration_correlation": 0.8,
}  # fmt: skip


@pytest.fixture
def found():
    """Every method gets a tenth more than the one before."""
    rows = [
        (*key, *method, "all", 0.1 * number)
        for key in tables.SUMMARY
        for number, method in enumerate(METHODS, start=1)
    ]
    rows += [
        ("concepts", "purity", "whitened", "concept axes", "all", 0.9),
        ("concepts", "purity", "whitened", "concept axes", "transplants", 0.7),
        ("concepts", "purity", "BatchNorm", "best axes", "transplants", 0.55),
        ("concepts", "purity", "BatchNorm", "best axes", "all", 0.6),
        ("verdict", "concept_share", "whitened", "concept axes", "all", 0.8),
        ("whitening", "mean_correlation", "whitened", "eval", "all", 0.1),
        ("whitening", "mean_correlation", "BatchNorm", "eval", "all", 0.5),
        ("localization", "relevance_mass", "whitened", "concept axes", "FaceSwap", 0.99),
    ]
    columns = ["topic", "measure", "model", "method", "subset", "value"]
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(value_low=table["value"] - 0.05, value_high=table["value"] + 0.05)


def test_markdown_golden():
    assert tables.markdown([["a", "b"], ["1", "2"]]) == "| a | b |\n|---|---|\n| 1 | 2 |\n"


def test_summary_prints_the_best_in_bold(found):
    text = tables.summary(found, GLOSSARY)
    last, first = text.splitlines()[-1], text.splitlines()[2]
    assert last.count("**0.40**") == len(tables.SUMMARY) - 1
    assert first.count("**0.10**") == 1  # deletion: the lower the better
    assert "0.40** (0.35 to 0.45)" in last and "0.99" not in text


def test_contract_takes_the_better_prior_and_no_family(found):
    numbers = tables.contract(found)
    assert numbers["relevance_mass"] == pytest.approx(0.4)
    assert numbers["relevance_mass_gradcam"] == pytest.approx(0.3)
    assert numbers["relevance_mass_prior"] == pytest.approx(0.2)
    assert numbers["purity"] == 0.9 and numbers["purity_transplants"] == 0.7
    assert "purity_paired" not in numbers


def test_targets_say_what_held():
    text = tables.targets(CONTRACT, {"whitened": {"difference": -0.009}})
    verdicts = [line.split("|")[-2].strip() for line in text.splitlines()[2:]]
    assert verdicts == ["yes", "**no**", "yes", "**no**", "yes", "yes", "yes", "yes"]
    assert "impossible" in text
    text = tables.targets(CONTRACT, {"whitened": {"difference": -0.011}})
    assert "| concept share ≥ 0.8 at ≤ 1 point of AUC | 0.900 at 1.1 points less | **no** |" in text


def test_glossary_explains_each_measure_once():
    known = {"a": Measure("what |a| is", "ours", "higher", 0.5)}
    text = tables.glossary(known, ["a", "a", "b"])
    assert text.splitlines()[2:] == ["| a | what \\|a\\| is | ours | higher | 0.5 |"]


def test_any_table_as_markdown():
    table = pd.DataFrame({"name": ["a", "b"], "value": [0.12345, np.nan], "count": [3, 4]})
    assert tables.markdown_of(table, 2).splitlines() == [
        "| name | value | count |", "|---|---|---|", "| a | 0.12 | 3 |", "| b |  | 4 |"
    ]  # fmt: skip


def test_trust_names_model_and_calibration():
    calibration = pd.DataFrame({"model": ["m"], "calibration": ["as trained"], "ece": [0.1]})
    leakage = pd.DataFrame({"features": ["m, all axes"], "identity_accuracy": [0.12345678]})
    assert tables.trust(calibration.assign(brier=0.2), leakage) == {
        "m_as_trained": {"ece": 0.1, "brier": 0.2},
        "identity_accuracy": {"m_all_axes": 0.123457},
    }
