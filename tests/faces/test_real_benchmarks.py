"""The study on tiny data sets in the official layouts: rendered people, filmed, forged and masked."""

import json
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fwstudy.crops.cropset import CropSet
from fwstudy.evaluation.comparison import worth
from fwstudy.evaluation.metrics import detection_table
from fwstudy.evaluation.transfer import transfer_table
from fwstudy.faces.sources import build_faces
from fwstudy.faces.videos import assemble
from fwstudy.interpretability.measures import explain_model, explain_variants
from fwstudy.interpretability.model import WHITENED, load_subjects
from fwstudy.labels import FORGED_PARTS, ORIGINAL
from fwstudy.params import load_params
from fwstudy.preprocess.build import build_crops
from fwstudy.training.runs import own_runs, score_held_out, train

from ..project import ENVIRONMENT, ROOT, SMOKE, change, copy_of_the_project
from .trees import METHODS, TREES, dfdc_with_test, openforensics, split_of

FRAMES_TAKEN = 2
SETTINGS = {
    "faceforensics": {
        "faces.videos.methods": METHODS,
        "faces.videos.qualities": ["c23", "c40"],
        "preprocess.further_test_qualities": ["c40"],
        "preprocess.storage": "zarr",
        "generalization.families": ["NeuralTextures"],
    },
    "celeb_df_plus": {"faces.source": "celeb_df", "faces.videos.methods": []},
    "deepfakebench": {"faces.videos.methods": ["FaceForensics++"]},
    "openforensics": {
        "faces.videos.frames_per_video": 1,
        "train.partial_forgery_ratio": 0.0,
        "whitening.concepts": "parts",  # forged parts need forgeries beside their originals
    },
}
MASK_SOURCES = {  # of each family, how its changed pixels are known
    "faceforensics": {"Deepfakes": "given", "NeuralTextures": "given", "FaceShifter": "difference"},
    "celeb_df": {"CelebDF": "difference"},
    "celeb_df_plus": {"InSwapper": "difference", "LivePortrait": "difference"},
    "dfdc": {"DFDC": "difference"},
    "dfdc_preview": {"DFDCP-A": "difference"},
    "deepfakebench": {"Deepfakes": "given"},
    "ffiw": {"FFIW": "given"},
    "folder": {"swap": "given"},
}


def settings(source: str, root) -> dict:
    """Dotted keys for a run of a few steps on a tree."""
    videos = {
        "faces.source": source,
        "faces.videos.root": str(root),
        "faces.videos.qualities": ["c23"],
        "faces.videos.frames_per_video": FRAMES_TAKEN,
        "faces.num_workers": 1,
        "preprocess.further_test_qualities": [],
        "generalization.families": [],
        "cross_dataset.sources": [],
    }
    return SMOKE | videos | SETTINGS.get(source, {})


@pytest.fixture(scope="module")
def trees(people, tmp_path_factory):
    """The data sets, by name, each made when it is asked for."""
    root = tmp_path_factory.mktemp("trees")
    return cache(lambda name: TREES[name](root / name, people))


@pytest.fixture
def project(project):
    """An empty project in the working folder."""
    shutil.copy(ROOT / "params.yaml", project)
    return project


def crops_of(params, project) -> tuple[CropSet, list[dict]]:
    """What the stages `faces` and `preprocess` make."""
    paths, report = build_faces(params.faces)
    preprocess = params.preprocess
    built, left_out = build_crops(
        paths,
        project / "data" / "crops",
        [preprocess.quality, *preprocess.further_test_qualities],
        preprocess.split.model_dump(),
        preprocess.seed,
        {"crop_scale": preprocess.crop_scale, "crop_size": preprocess.crop_size},
        1,
        preprocess.storage,
    )
    assert left_out == 0
    return built, report


def train_all(params, crops: CropSet) -> dict:
    """The three models of notebook 2."""
    return {run.name: train(run, params, crops) for run in own_runs(params, 0)}


def assert_nobody_is_in_two_splits(manifest: pd.DataFrame) -> None:
    people = [manifest[[name, "split"]].to_numpy() for name in ("identity", "source")]
    seen = pd.DataFrame(np.concatenate(people), columns=["person", "split"]).drop_duplicates()
    assert not seen["person"].duplicated().any()
    assert set(seen["split"]) == {"train", "validation", "test"}


@pytest.mark.parametrize("source", TREES)
def test_from_videos_to_crops(trees, people, project, source, monkeypatch):
    change(settings(source, trees(source)) | {"ablations.run": []})
    params = load_params()
    crops, report = crops_of(params, project)
    shutil.rmtree(project / "data" / "faces")  # as DVC does before it runs a stage
    monkeypatch.setattr(assemble, "cut_group", None)  # not called: what was cut is kept
    assert build_faces(params.faces)[1] == report
    asked = [row for row in report if "not asked for" not in row["reason"]]
    assert not [row for row in asked if row["left_out"]]
    # c40 is for the test split alone; DeepfakeBench has masks of originals too, which are black.
    assert bool(len(report) - len(asked)) == (source in ("faceforensics", "deepfakebench"))
    table = crops.manifest
    assert_nobody_is_in_two_splits(table)
    whole = table[table["kind"] == "whole"]
    forged = whole[whole["label"] == 1]
    assert forged.groupby("variant")["mask_source"].unique().map(list).to_dict() == {
        family: [known] for family, known in MASK_SOURCES[source].items()
    }
    assert whole.groupby(["video", "variant", "quality"]).size().isin([FRAMES_TAKEN]).all()
    assert table["original_row"].notna().all()  # a forgery has its original's frame beside it
    assert set(table.loc[table["kind"] == "part", "variant"]) == set(FORGED_PARTS)
    if source == "faceforensics":
        official = {f"youtube-{n:03d}": split for n, split in split_of(people).items()}
        names = {"train": "train", "val": "validation", "test": "test"}
        found = whole.groupby("identity")["split"].first().to_dict()
        assert found == {person: names[split] for person, split in official.items()}
        assert set(whole.loc[whole["quality"] == "c40", "split"]) == {"test"}


def test_from_crops_to_what_the_axes_mean(trees, project):
    """The other sources differ in their readers alone; `test_the_whole_pipeline` runs them all."""
    change(settings("folder", trees("folder")) | {"ablations.run": []})
    params = load_params()
    crops, _ = crops_of(params, project)
    whole = crops.manifest[crops.manifest["kind"] == "whole"]
    for detector in train_all(params, crops).values():
        predictions = score_held_out(detector, params, crops)
        rows = detection_table(predictions).set_index(["quality", "family", "level"])
        test = whole[(whole["split"] == "test") & (whole["quality"] == "c23")]
        assert rows.loc[("c23", "all", "frame"), "num_images"] == len(test)
        num_videos = test.groupby(["video", "variant"]).ngroups
        assert rows.loc[("c23", "all", "video"), "num_images"] == num_videos
    subject = load_subjects(params, 0, crops)[WHITENED]
    found = explain_model(subject, ["parts"])
    assert {"relevance_mass", "part_top1"} <= set(found["measure"])
    rows, _ = explain_variants(params, crops)
    assert worth(rows).set_index("variant").loc["whitened", "purity"] > 0


def test_forgeries_without_originals_are_detected_and_no_more(people, project):
    """DFDC with its labelled test folder: who was forged there is known, from what is not."""
    root = dfdc_with_test(project / "videos", people)
    change(settings("dfdc", root) | {"ablations.run": []})
    params = load_params()
    crops, _ = crops_of(params, project)
    test = crops.manifest[crops.manifest["split"] == "test"]
    assert test["identity"].str.startswith("test-").all() and set(test["label"]) == {0, 1}
    assert set(test.loc[test["label"] == 1, "mask_source"]) == {"face"}
    assert len(test) == 8 * FRAMES_TAKEN
    assert ORIGINAL in set(test["variant"])
    for detector in train_all(params, crops).values():
        predictions = score_held_out(detector, params, crops)
        assert (predictions["split"] == "test").sum() == len(test)
    found = transfer_table(params, crops.select(split="test"))  # as another source's crops
    assert set(found["model"]) == {"baseline", "batch_norm", "whitened"}
    assert found.set_index(["model", "family"]).loc[("whitened", "all"), "num_images"] == len(test)
    with pytest.raises(ValueError, match="no forgery of the split test has its original beside it"):
        load_subjects(params, 0, crops)


def test_a_wrong_root_is_named(project):
    change(settings("celeb_df", project / "nowhere"))
    with pytest.raises(FileNotFoundError, match=r"faces\.videos\.root: .*nowhere: no such folder"):
        build_faces(load_params().faces)


def dvc_repro(*stages: str) -> subprocess.CompletedProcess:
    """The pipeline of the working folder."""
    environment = os.environ | ENVIRONMENT | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        ["dvc", "repro", *stages], check=False, env=environment, capture_output=True, text=True
    )


@pytest.mark.slow
def test_the_pipeline_on_pictures_without_originals(people, tmp_path, monkeypatch):
    """OpenForensics: up to detection; what the axes mean cannot be measured, and the stage says so."""
    monkeypatch.chdir(tmp_path)
    root = openforensics(tmp_path / "pictures", people)
    copy_of_the_project(tmp_path, settings("openforensics", root))
    done = dvc_repro("detection")
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-6000:]}"
    faces = pd.read_csv("data/executed/faces.csv")
    assert len(faces) == 2 * len(people)
    found = json.loads(Path("data/results/detection.json").read_text())["detection"]
    assert 0 <= found["whitened"]["auc"] <= 1
    done = dvc_repro("ablations")
    assert done.returncode and "has its original beside it" in done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("source", TREES)
def test_the_whole_pipeline(trees, tmp_path, monkeypatch, source):
    """Every notebook but those of a second data set, by `dvc repro`."""
    monkeypatch.chdir(tmp_path)
    copy_of_the_project(tmp_path, settings(source, trees(source)))
    done = dvc_repro()
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-6000:]}"
    results = tmp_path / "data" / "results"
    detection = json.loads((results / "detection.json").read_text())["detection"]
    assert 0 <= detection["whitened"]["auc"] <= 1
    found = json.loads((results / "interpretability.json").read_text())["interpretability"]
    assert {"purity", "relevance_mass", "restoration_correlation"} <= set(found)
    left_out = json.loads((results / "generalization.json").read_text())["generalization"]
    assert bool(left_out) == (source == "faceforensics")
