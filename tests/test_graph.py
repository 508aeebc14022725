"""What a change reruns, by dvc.yaml; on outputs that are written without any work."""

import os
from contextlib import contextmanager
from pathlib import Path

import pytest
import ruamel.yaml
import yaml
from dvc.exceptions import ReproductionError
from dvc.repo import Repo
from dvc.stage.exceptions import StageCmdFailedError

from .project import FEW, call, changed, copy_of_the_project, reproduce, settings

MODELS = {"train@0", "variant@bottleneck_full-0", "variant@whitening_only-0"}
FURTHER_MODELS = {
    "leave_one_out@FaceSwap-0",
    *(f"cross_train@photos-{training}" for training in ("other", "both", "self_blended")),
}
EXPENSIVE = MODELS | FURTHER_MODELS | {"faces", "preprocess", "other_crops@photos"}


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
    try:
        yield
    finally:
        for path, text in files.items():
            path.write_text(text)


def test_dvc_reads_its_files_by_the_parser_in_c():
    """ruamel.yaml 0.19 no longer requires it, nor does DVC 3.67; without it a stage starts seconds later."""
    assert ruamel.yaml.__with_libyaml__


@pytest.fixture(scope="module", autouse=True)
def project(tmp_path_factory):
    here = Path.cwd()
    copy_of_the_project(tmp_path_factory.mktemp("graph"), FEW)
    ran = reproduce(pretend)
    assert EXPENSIVE <= ran and "publish" in ran
    assert not changed()
    yield
    os.chdir(here)


def test_plots_measures_and_schema_make_no_model_anew():
    with edited("interpretability/*.py", "reporting/*.py", "evaluation/*.py", "params.py"):
        found = changed()
    assert {"measure@0", "ablations", "detection", "trust"} <= found
    assert not EXPENSIVE & found


def test_the_layer_makes_models_anew_but_no_data():
    with edited("whitening/*.py"):
        assert EXPENSIVE & changed() == MODELS | FURTHER_MODELS


def test_faces_rerun_and_stop_there_if_the_clips_are_the_same():
    with edited("faces/photos.py", "faces/rendering/*.py"):
        assert reproduce(pretend) == {"faces", "other_crops@photos"}
    assert not reproduce(pretend)  # as it was: taken from the cache


def test_faces_that_cannot_be_read_cost_no_table_in_git():
    """DVC removes what a stage writes before it runs it, also what git keeps."""

    def fail(stage) -> None:
        raise StageCmdFailedError(stage.cmd, 1)

    with edited("faces/photos.py"), pytest.raises(ReproductionError):
        reproduce(fail, "faces")
    assert not Path("data/executed/faces.csv").exists()
    assert Path("data/results/faces.csv").exists()
    reproduce(pretend)


def test_one_ablation_value_reruns_its_variant_and_going_back_runs_nothing():
    stage = "variant@bottleneck_full-0"
    with settings({"ablations.variants.bottleneck_full.bottleneck": 0.75}):
        assert EXPENSIVE & reproduce(pretend, *EXPENSIVE) == {stage}
    assert not EXPENSIVE & reproduce(pretend, *EXPENSIVE)


def test_there_need_be_no_second_data_set():
    with settings({"cross_dataset.sources": []}), Repo() as repo:
        names = {stage.addressing for stage in repo.index.stages}
    assert "cross_dataset" in names
    assert not any(name.startswith(("other_crops", "cross_train")) for name in names)


def test_a_new_variant_or_seed_reruns_nothing_done():
    variants = [*FEW["ablations.run"], "bottleneck_none"]
    with settings({"ablations.run": variants, "train.seeds": [0, 1]}):
        found = changed()
    assert {"variant@bottleneck_none-0", "train@1", "measure@1"} <= found
    assert not (EXPENSIVE | {"measure@0"}) & found


def test_dvc_makes_no_stage_of_a_word_in_place_of_a_list(tmp_path, monkeypatch):
    """DVC 3.67.1 stops at a matrix over a word, and its error names no key: the schema refuses it."""
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("run: full")
    stage = {"matrix": {"name": "${run}"}, "cmd": "echo ${item.name}"}
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": {"variant": stage}}))
    with Repo.init(no_scm=True) as repo, pytest.raises(TypeError, match="'Value' .* not iterable"):
        _ = repo.index.stages
