"""The whole pipeline once, at smoke size."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import cv2
import pandas as pd
import pytest
import torch
import yaml
from sklearn.metrics import roc_auc_score

from fwstudy.clips import load_clip
from fwstudy.evaluation import metrics
from fwstudy.explain.__main__ import main as explain
from fwstudy.interpretability import interventions, measures, slices
from fwstudy.interpretability import leaderboard as ranking
from fwstudy.interpretability.concept_metrics import concept_summary, measured_rows
from fwstudy.interpretability.measures import COLUMNS
from fwstudy.outside.rows import OUTSIDE_COLUMNS
from fwstudy.reporting import leaderboard as board

from . import project
from .notebooks import run_here


def smoke(stage) -> None:
    """A stage's command: notebooks in this process; the rest as it is."""
    words = shlex.split(stage.cmd)
    if words[:3] != ["python", "-m", "fwstudy.execute"]:
        return project.call(stage)
    source, output, *rest = words[3:]
    parameters = {rest[i + 1]: yaml.safe_load(rest[i + 2]) for i in range(0, len(rest), 3)}
    run_here(Path(source), Path(output), parameters)


def take_fewer(patch) -> None:
    """Fewer draws, images and explainers: what is shown is that each stage runs on what others wrote."""
    for function in (metrics.measured, measured_rows, concept_summary):
        patch.setattr(function, "__defaults__", (0, 10))
    patch.setattr(slices.gap_table, "__defaults__", ((), 0, 19))
    patch.setattr(interventions, "REPEATS", 10)
    patch.setattr(measures, "WHITENESS_REPEATS", 10)
    patch.setattr(measures, "CHECKED_IMAGES", 8)
    quick = {name: ranking.RANKED[name] for name in ("Grad-CAM", "input x gradient")}
    for module in (ranking, board):
        patch.setattr(module, "RANKED", quick)
    patch.setattr(ranking, "ATTACK", {"counts": (1,), "steps": 1, "pairs": 2})
    patch.setattr(ranking, "NUM_DETECTORS", 2)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The results of the pipeline, run once; its project is the working folder."""
    here = Path.cwd()
    project.copy_of_the_project(tmp_path_factory.mktemp("project"), project.SMOKE)
    for photograph in sorted(Path("data/photos").glob("*.jpg"))[24:]:  # twelve people are enough
        photograph.unlink()
    with pytest.MonkeyPatch.context() as patch:
        take_fewer(patch)
        project.reproduce(smoke)
    torch.use_deterministic_algorithms(False)
    yield Path("data/results").absolute()
    os.chdir(here)


def read(results, name: str) -> dict:
    return json.loads((results / f"{name}.json").read_text())[name]


def test_accuracy_is_that_of_the_predictions(results):
    found = read(results, "detection")
    for name in ("baseline", "batch_norm", "whitened"):
        scores = pd.read_csv(f"data/predictions/seed0/{name}.csv")
        test = scores[(scores["split"] == "test") & (scores["quality"] == "c23")]
        expected = roc_auc_score(test["label"], test["score"])
        assert found[name]["auc"] == pytest.approx(expected, abs=1e-6)
        assert {"ap", "eer", "accuracy", "video_auc", "auc_c40"} <= set(found[name])


def test_what_the_layer_does_is_seen_in_the_results(results):
    """After a few steps features span a handful of directions, and which channels correlate less is chance.

    But the layer has raised what little varies, the bottleneck is tight, and two tables agree.
    """
    found = read(results, "ablations")
    assert set(found) == {"baseline", "batch_norm", "whitened", *project.FEW["ablations.run"]}
    assert found["bottleneck_full"]["concept_share"] == pytest.approx(1)
    white, batch = (found[name] for name in ("whitened", "batch_norm"))
    assert white["mean_variance"] > 2 * batch["mean_variance"]
    measured = read(results, "interpretability")
    for name, value in (
        ("mean_variance", white["mean_variance"]),
        ("mean_correlation", white["mean_correlation"]),
        ("mean_correlation_batch_norm", batch["mean_correlation"]),
    ):
        assert measured[name] == pytest.approx(value, abs=1e-5)
    expected = {"purity", "part_top1", "concept_share", "restoration_correlation"}
    expected |= {"relevance_mass", "relevance_mass_gradcam", "relevance_mass_prior"}
    assert expected <= set(measured)


def test_every_table_is_there(results):
    assert read(results, "trust")
    assert "| whitened | concept axes |" in (results / "summary.md").read_text()
    answers = pd.read_csv(results / "answers.csv")
    assert answers["variant"].tolist() == ["whitening_only", "whitened"]
    assert set(read(results, "generalization")) == {"FaceSwap.batch_norm", "FaceSwap.whitened"}
    executed = {path.name for path in Path("notebooks/executed").glob("*.ipynb")}
    assert executed == {path.name for path in Path("data/executed").glob("*.ipynb")}
    assert len(executed) == 19
    across = pd.read_csv(results / "cross_dataset.csv")
    assert set(across["tested_on"]) == {"rendered", "photos"}
    overall = across[across["family"] == "all"]
    assert overall["auc"].between(0, 1).all() and len(overall) == 2 * (3 * 3 + 1)
    assert len(read(results, "cross_dataset")) == len(overall)
    concepts = pd.read_csv(results / "cross_dataset_concepts.csv")
    assert set(concepts["measure"]) == {"purity", "part_top1"}
    assert list(pd.read_csv(results / "detectors.csv")) == OUTSIDE_COLUMNS
    ranked = pd.read_csv(results / "explanations.csv")
    assert list(ranked) == COLUMNS and "test_convnext" in set(ranked["model"])
    assert "Leaderboard" in (results / "leaderboard.html").read_text()


def test_nothing_is_left_to_do_and_metrics_can_be_shown(results):
    assert not project.changed()
    command = ["dvc", "metrics", "show"]
    environment = os.environ | project.ENVIRONMENT | {"DVC_NO_ANALYTICS": "1"}
    shown = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    assert "detection.baseline.auc" in shown.stdout and "interpretability.purity" in shown.stdout


def test_a_face_can_be_explained(results, capsys):
    """From a picture of one of the rendered people to a page, by the detector that was just trained."""
    clip = load_clip(min(Path("data/faces").glob("*.npz")))
    large = cv2.resize(clip.variants["original"].frames[0], (384, 384))
    cv2.imwrite("face.png", large[..., ::-1])
    explain(["face.png"])
    said = capsys.readouterr().out.strip()
    page = Path(said.removeprefix("page: ")).read_text(encoding="utf-8")
    assert "probability of a forgery" in page and "https://" not in page


def test_without_a_second_data_set_its_tables_are_empty(results):
    source, output = Path("notebooks/12_cross_dataset.ipynb"), Path("alone.ipynb")
    before = {path: path.read_bytes() for path in results.rglob("cross_dataset*.*")}
    with project.settings({"cross_dataset.sources": []}):
        run_here(source, output, {})
    assert pd.read_csv(results / "cross_dataset.csv").empty
    assert read(results, "cross_dataset") == {}
    for path, content in before.items():  # other tests read them
        path.write_bytes(content)


def test_unknown_key_is_found_before_anything_runs(results):
    command = [sys.executable, "-m", "fwstudy.params"]
    with project.settings({"train.epochs": 3}):
        done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode != 0 and "train.epochs" in done.stderr
    assert "Traceback" not in done.stderr
