"""Rows of planted detectors: known orders, empty cells with their reason, failures that stop nobody."""

import numpy as np
import pandas as pd
import pytest

from fwstudy.interpretability.measures import GLOSSARY
from fwstudy.interpretability.sanity import PERTURBATIONS
from fwstudy.outside.rows import (
    NO_VALUE,
    OUTSIDE_COLUMNS,
    TOPICS,
    as_table,
    labels_reversed,
    measure_detector,
    measure_detectors,
    remarks,
)
from fwstudy.params import OutsideDetector

from .conftest import write_onnx

KEYS = ["topic", "model", "method", "subset", "measure"]
MODULES = {
    "layered": {"module": "planted:one", "layer": "edges"},
    "detached": {"module": "planted:Detached", "size": 64},
    "bare": {"module": "planted:Shown"},
    "turned": {"module": "planted:reversed_labels"},
    "three": {"module": "planted:three"},
    "nan": {"module": "planted:Nan"},
    "failing": {"module": "planted:fails"},
}


@pytest.fixture(scope="module")
def measured(crops, params, folder):
    given = [OutsideDetector(name=f"m_{name}", **values) for name, values in MODULES.items()]
    with_detectors = params.model_copy(update={"detectors": given})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fwstudy.interpretability.measures.CHECKED_IMAGES", 4)
        table, predictions = measure_detectors(with_detectors, crops, folder)
    return table, predictions


def of(measured, name):
    table = measured[0]
    return table[table["model"] == f"m_{name}"].set_index(["topic", "measure"]).sort_index()


def test_rows_have_the_form_of_the_studys_own(measured):
    table, predictions = measured
    assert list(table) == OUTSIDE_COLUMNS and not table.duplicated(KEYS).any()
    assert set(table["model"]) == {f"m_{name}" for name in MODULES}
    detection = {"auc", "ap", "eer", "accuracy"}
    assert set(table["measure"]) <= {*GLOSSARY, *detection}
    for _, rows in table.groupby("model"):
        wanted = {(topic.name, measure) for topic in TOPICS for measure in topic.measures}
        assert set(zip(rows["topic"], rows["measure"], strict=True)) == wanted
    assert table.loc[table["value"].isna() & (table["num_images"] == 0), "remark"].ne("").all()
    assert set(predictions) == {"m_layered", "m_detached", "m_bare", "m_turned"}


def test_a_planted_cue_is_detected_and_found(measured):
    found = of(measured, "layered")
    assert found.loc[("detection", "auc"), "value"].min() > 0.95
    mass = found.loc[("localization", "relevance_mass")]
    mass = mass[mass["subset"] == "all"].set_index("method")["value"]
    assert set(mass.index) == {"Grad-CAM", "LayerCAM", "integrated gradients", "occlusion"}
    assert mass["integrated gradients"] > 0.8 and mass["occlusion"] > 0.5
    randomized = found.loc[("randomization", "randomized_absolute_rank")]
    assert set(randomized["method"]) == {"Grad-CAM"}
    assert set(randomized["subset"]) == {"head", "edges"}
    stable = found.loc[("stability", "stability_rank")]
    assert set(stable["subset"]) == {*PERTURBATIONS, "c40"} and stable["value"].notna().all()
    assert found["remark"].eq("").all()


def test_without_gradients_there_is_occlusion(measured):
    found = of(measured, "detached")
    refused = found.loc["localization"].query("value.isna()")
    assert set(refused["method"]) == {"Grad-CAM", "LayerCAM", "integrated gradients"}
    assert refused["remark"].str.endswith(": its logit has no gradients").all()
    assert set(found.loc["localization"].query("value.notna()")["method"]) == {"occlusion"}
    assert set(found.loc["parts", "method"]) == {"occlusion"}
    for topic in ("randomization", "faithfulness"):
        assert found.loc[topic, "value"].notna().any()


def test_an_onnx_file_gives_what_the_module_gives(crops, params, folder, measured):
    pytest.importorskip("onnxruntime")
    kernel = np.array([[1, -1], [-1, 1]], np.float32) / 12
    values = {"kernel": np.broadcast_to(kernel, (1, 3, 2, 2)).copy(), "gain": np.float32([40])}
    nodes = [
        ("Conv", ["images", "kernel"], "maps"),
        ("Abs", ["maps"], "edges"),
        ("GlobalMaxPool", ["edges"], "pooled"),
        ("Flatten", ["pooled"], "flat"),
        ("Mul", ["flat", "gain"], "logit"),
    ]
    write_onnx(folder / "planted.onnx", ["n", 3, 64, 64], nodes, values)
    about = OutsideDetector(name="m_onnx", onnx="planted.onnx")
    table, predictions = measure_detectors(
        params.model_copy(update={"detectors": [about]}), crops, folder
    )
    expected = measured[1]["m_layered"]["score"]
    np.testing.assert_allclose(predictions["m_onnx"]["score"], expected, atol=1e-3)
    table = table.set_index("topic")
    assert set(table.loc["parts", "method"]) == {"occlusion"}
    told = table.loc[["localization"]].groupby("method")["remark"].first()
    assert told["Grad-CAM"] == "no Grad-CAM: its logit has no gradients" and told["occlusion"] == ""
    assert table.loc["faithfulness", "value"].notna().any()
    assert table.loc[["randomization"], "value"].isna().all()
    assert "weights" in table.loc[["randomization"], "remark"].iloc[0]


def test_without_weights_nothing_is_randomized(measured):
    found = of(measured, "bare").loc["randomization"]
    assert found["value"].isna().all() and found["remark"].str.contains("weights").all()


def test_an_explainer_that_fails_leaves_the_others(crops, params, folder):
    about = OutsideDetector(name="m", module="planted:Pixels", layer="head")
    table, _ = measure_detector(about, params, crops, folder)
    mass = table[(table["topic"] == "localization") & table["value"].notna()]
    assert set(mass["method"]) == {"occlusion"}


def test_labels_are_judged_at_the_studys_quality():
    """Strong compression may hide from a detector what it sees at the study's."""
    found = {"level": "frame", "auc": [0.1, 0.2, 0.41], "family": ["A", "B", "A"]}
    table = pd.DataFrame(found | {"quality": ["c23", "c23", "c40"]})
    assert labels_reversed(table[table["quality"] == "c23"])
    assert not labels_reversed(table)


def test_maps_of_whole_faces_alone_leave_parts_empty_with_a_reason():
    nothing = {"topic": "parts", "model": "x", "method": "map", "subset": "all"}
    empty = nothing | {"measure": "part_top1", "value": np.nan, "num_images": 0, "remark": ""}
    table = as_table([empty, empty | {"measure": "purity", "value": 0.5, "num_images": 4}])
    assert table["remark"].tolist() == [NO_VALUE, ""]


def test_labels_the_other_way_round_are_told_and_not_turned(measured):
    found = of(measured, "turned").loc[("detection", "auc")]
    assert found["value"].max() < 0.1
    assert found["remark"].str.contains("every family: the labels look the other way round").all()
    frames = {"level": "frame", "family": ["all", "A", "B"]}
    assert not labels_reversed(pd.DataFrame({**frames, "auc": [0.2, 0.2, 0.4]}))
    assert labels_reversed(pd.DataFrame({**frames, "auc": [0.2, 0.2, 0.3]}))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("three", r"detector m_three \(planted:three\) returned \(2, 3\) for 2 images"),
        ("nan", r"detector m_nan \(planted:Nan\) returned NaN or infinity for \d+ \(0000"),
        ("failing", r"detector m_failing \(planted:fails\): RuntimeError: no such card"),
    ],
)
def test_what_fails_is_rows_that_say_why(measured, name, message):
    found = of(measured, name)
    assert found["value"].isna().all() and found["remark"].str.contains(message).all()
    told = remarks(measured[0])
    assert (told["model"] == f"m_{name}").sum() == 1


def test_no_detector_is_an_empty_table(params, crops, folder):
    table, predictions = measure_detectors(params, crops, folder)
    assert list(table) == OUTSIDE_COLUMNS and not len(table) and not predictions
