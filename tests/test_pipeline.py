"""The pipeline as dvc.yaml has it: what a change reruns, and the whole of it once, at smoke size."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import cv2
import pandas as pd
import pytest
import ruamel.yaml
import torch
import yaml
from dvc.exceptions import ReproductionError
from dvc.repo import Repo
from dvc.stage.exceptions import StageCmdFailedError
from sklearn.metrics import roc_auc_score

from fwstudy.clips import load_clip
from fwstudy.interpretability.measures import COLUMNS
from fwstudy.outside.rows import OUTSIDE_COLUMNS
from tests.notebooks import run_here

ROOT = Path(__file__).parents[1]
COPIED = [
    "dvc.yaml",
    "params.yaml",
    "fwstudy",
    "notebooks",
    ".dvcignore",
    "data/assets",
    "data/cross_dataset/.gitkeep",  # stages depend on these folders, which a setting may leave empty
    "data/detectors",
    "data/leave_one_out/.gitkeep",
    "data/photos",
]
FEW = {
    "train.seeds": [0],
    "ablations.seeds": [0],
    "ablations.run": ["bottleneck_full", "whitening_only"],
    "generalization.families": ["FaceSwap"],
}
SMOKE = FEW | {
    "faces.size": 96,
    "faces.rendered": {
        "num_identities": 12,
        "clips_per_identity": 1,
        "frames_per_clip": 2,
        "part_frames": 1,
    },
    "faces.num_workers": 1,
    "preprocess.crop_size": 64,
    "preprocess.num_workers": 1,
    "preprocess.split": {"train": 0.34, "validation": 0.33, "test": 0.33},  # two pairs each
    "train.backbone": {"name": "test_efficientnet", "options": {}, "weights": None},
    "train.batch_size": 8,
    "train.baseline.steps": 8,
    "train.baseline.evaluation_interval": 4,
    "train.fine_tune.steps": 4,
    "train.fine_tune.evaluation_interval": 2,
    "whitening.rotate_every": 2,
    "whitening.whiten_every": 2,
    "interpretability.num_images": 8,
    "explanations.num_images": 2,
    "explanations.num_attacked": 1,
    "explanations.networks": {"test_convnext": {"layer": "stages", "options": None}},
    "explanations.schedule.steps": 2,
    "explanations.schedule.evaluation_interval": 2,
}
MODELS = {"train@0", "variant@bottleneck_full-0", "variant@whitening_only-0"}
FURTHER_MODELS = {
    "leave_one_out@FaceSwap-0",
    *(f"cross_train@photos-{training}" for training in ("other", "both", "self_blended")),
}
EXPENSIVE = MODELS | FURTHER_MODELS | {"faces", "preprocess", "other_crops@photos"}
ENVIRONMENT = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def change(changes: dict) -> None:
    """Set dotted keys of params.yaml in the working folder."""
    content = yaml.safe_load(Path("params.yaml").read_text())
    for key, value in changes.items():
        *sections, name = key.split(".")
        section = content
        for word in sections:
            section = section[word]
        section[name] = value
    Path("params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))


def copy_of_the_project(folder: Path, changes: dict) -> None:
    """A new DVC project with the study's pipeline, which becomes the working folder."""
    for name in COPIED:
        source = ROOT / name
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            skipped = shutil.ignore_patterns("__pycache__", "executed")
            shutil.copytree(source, folder / name, ignore=skipped)
        else:
            shutil.copy(source, folder / name)
    os.chdir(folder)
    change(changes)
    Repo.init(no_scm=True)


def reproduce(work, *targets: str) -> set[str]:
    """`dvc repro` in this process, where ``work(stage)`` stands for a stage's command.

    Returns:
        the stages whose command ran.
    """
    ran = set()

    def command(stage, dry=False, run_env=None):
        ran.add(stage.addressing)
        work(stage)

    with pytest.MonkeyPatch.context() as patch, Repo() as repo:
        patch.setattr("dvc.stage.run.cmd_run", command)
        repo.reproduce(targets)
    return ran


def changed() -> set[str]:
    """The stages that `dvc status` names: those that would run, but for what waits for their outputs."""
    with Repo() as repo:
        return set(repo.status())


def call(stage) -> None:
    """Run a stage's command as it is."""
    environment = os.environ | ENVIRONMENT | {"DVC_STAGE": stage.addressing}
    subprocess.run(stage.cmd, shell=True, check=True, env=environment)


def pretend(stage) -> None:
    """Write what a notebook would, always of the same content."""
    if " -m fwstudy.execute " not in stage.cmd:
        return call(stage)
    for out in stage.outs:
        path = Path(out.fs_path)
        path = path if path.suffix else path / "file"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(out.def_path)


@contextmanager
def edited(*patterns: str):
    """Files of the package with a remark at their end, and afterwards as they were."""
    files = {path: path.read_text() for name in patterns for path in Path("fwstudy").glob(name)}
    assert files
    for path, text in files.items():
        path.write_text(text + "\n# a remark\n")
    yield
    for path, text in files.items():
        path.write_text(text)


@contextmanager
def settings(changes: dict):
    """Keys of params.yaml changed, and afterwards as they were."""
    before = Path("params.yaml").read_text()
    change(changes)
    yield
    Path("params.yaml").write_text(before)


def test_dvc_reads_its_files_by_the_parser_in_c():
    """ruamel.yaml 0.19 no longer requires it, nor does DVC 3.67; without it a stage starts seconds later."""
    assert ruamel.yaml.__with_libyaml__


class TestGraph:
    """On outputs that are written without any work."""

    @pytest.fixture(scope="class", autouse=True)
    def project(self, tmp_path_factory):
        here = Path.cwd()
        copy_of_the_project(tmp_path_factory.mktemp("graph"), FEW)
        ran = reproduce(pretend)
        assert EXPENSIVE <= ran and "publish" in ran
        assert not changed()
        yield
        os.chdir(here)

    def test_plots_measures_and_schema_make_no_model_anew(self):
        with edited("interpretability/*.py", "reporting/*.py", "evaluation/*.py", "params.py"):
            found = changed()
        assert {"measure@0", "ablations", "detection", "trust"} <= found
        assert not EXPENSIVE & found

    def test_the_layer_makes_models_anew_but_no_data(self):
        with edited("whitening/*.py"):
            assert EXPENSIVE & changed() == MODELS | FURTHER_MODELS

    def test_faces_rerun_and_stop_there_if_the_clips_are_the_same(self):
        with edited("faces/photos.py", "faces/rendering/*.py"):
            assert reproduce(pretend) == {"faces", "other_crops@photos"}
        assert not reproduce(pretend)  # as it was: taken from the cache

    def test_faces_that_cannot_be_read_cost_no_table_in_git(self):
        """DVC removes what a stage writes before it runs it, also what git keeps."""

        def fail(stage) -> None:
            raise StageCmdFailedError(stage.cmd, 1)

        with edited("faces/photos.py"), pytest.raises(ReproductionError):
            reproduce(fail, "faces")
        assert not Path("data/executed/faces.csv").exists()
        assert Path("data/results/faces.csv").exists()
        reproduce(pretend)

    def test_one_ablation_value_reruns_its_variant_and_going_back_runs_nothing(self):
        stage = "variant@bottleneck_full-0"
        with settings({"ablations.variants.bottleneck_full.bottleneck": 0.75}):
            assert EXPENSIVE & reproduce(pretend) == {stage}
        assert not EXPENSIVE & reproduce(pretend)

    def test_there_need_be_no_second_data_set(self):
        with settings({"cross_dataset.sources": []}), Repo() as repo:
            names = {stage.addressing for stage in repo.index.stages}
        assert "cross_dataset" in names
        assert not any(name.startswith(("other_crops", "cross_train")) for name in names)

    def test_a_new_variant_or_seed_reruns_nothing_done(self):
        variants = [*FEW["ablations.run"], "bottleneck_none"]
        with settings({"ablations.run": variants, "train.seeds": [0, 1]}):
            found = changed()
        assert {"variant@bottleneck_none-0", "train@1", "measure@1"} <= found
        assert not (EXPENSIVE | {"measure@0"}) & found


def smoke(stage) -> None:
    """A stage's command: notebooks in this process, but one by the command itself; the rest as it is."""
    words = shlex.split(stage.cmd)
    if words[:3] != ["python", "-m", "fwstudy.execute"] or stage.addressing == "trust":
        return call(stage)
    source, output, *rest = words[3:]
    parameters = {rest[i + 1]: yaml.safe_load(rest[i + 2]) for i in range(0, len(rest), 3)}
    run_here(Path(source), Path(output), parameters)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The results of the pipeline, run once; its project is the working folder."""
    here = Path.cwd()
    copy_of_the_project(tmp_path_factory.mktemp("project"), SMOKE)
    for photograph in sorted(Path("data/photos").glob("*.jpg"))[24:]:  # twelve people are enough
        photograph.unlink()
    reproduce(smoke)
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
    """After a few steps it separates nothing yet, but the layer is white and the bottleneck tight."""
    found = read(results, "ablations")
    assert set(found) == {"baseline", "batch_norm", "whitened", *FEW["ablations.run"]}
    assert found["bottleneck_full"]["concept_share"] == pytest.approx(1)
    white, batch = (found[name]["mean_correlation"] for name in ("whitened", "batch_norm"))
    assert white < batch
    measured = read(results, "interpretability")
    assert measured["mean_correlation"] < measured["mean_correlation_batch_norm"]
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
    assert set(pd.read_csv(results / "cross_dataset_concepts.csv")["measure"]) == {
        "purity",
        "part_top1",
    }
    assert list(pd.read_csv(results / "detectors.csv")) == OUTSIDE_COLUMNS
    ranked = pd.read_csv(results / "explanations.csv")
    assert list(ranked) == COLUMNS and "test_convnext" in set(ranked["model"])
    assert "Leaderboard" in (results / "leaderboard.html").read_text()


def test_nothing_is_left_to_do_and_metrics_can_be_shown(results):
    assert not changed()
    command = ["dvc", "metrics", "show"]
    environment = os.environ | ENVIRONMENT | {"DVC_NO_ANALYTICS": "1"}
    shown = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    assert "detection.baseline.auc" in shown.stdout and "interpretability.purity" in shown.stdout


def test_a_face_can_be_explained(results):
    """From a picture of one of the rendered people to a page, by the command that users type."""
    clip = load_clip(min(Path("data/faces").glob("*.npz")))
    large = cv2.resize(clip.variants["original"].frames[0], (384, 384))
    cv2.imwrite("face.png", large[..., ::-1])
    command = [sys.executable, "-m", "fwstudy.explain", "face.png"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    page = Path(done.stdout.strip().removeprefix("page: ")).read_text(encoding="utf-8")
    assert "probability of a forgery" in page and "https://" not in page


def test_without_a_second_data_set_its_tables_are_empty(results):
    source, output = Path("notebooks/12_cross_dataset.ipynb"), Path("alone.ipynb")
    with settings({"cross_dataset.sources": []}):
        run_here(source, output, {})
    assert pd.read_csv(results / "cross_dataset.csv").empty
    assert read(results, "cross_dataset") == {}


def test_unknown_key_is_found_before_anything_runs(results):
    change({"train.epochs": 3})
    command = [sys.executable, "-m", "fwstudy.params"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode != 0 and "train.epochs" in done.stderr
    assert "Traceback" not in done.stderr
