"""The whole pipeline, at smoke size, in a copy of the project."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import pandas as pd
import pytest
import yaml

from fwstudy.clips import load_clip

ROOT = Path(__file__).parents[1]
COPIED = [
    "dvc.yaml",
    "fwstudy",
    "notebooks",
    ".dvcignore",
    "data/assets",
    "data/leave_one_out/.gitkeep",
]
SMOKE = {
    "faces.size": 96,
    "faces.rendered": {
        "num_identities": 12,
        "clips_per_identity": 1,
        "frames_per_clip": 2,
        "part_frames": 1,
    },
    "faces.num_workers": 2,
    "preprocess.crop_size": 64,
    "preprocess.num_workers": 1,
    "preprocess.split": {"train": 0.34, "validation": 0.33, "test": 0.33},  # two pairs each
    "train.backbone": {"name": "test_efficientnet", "options": {}, "weights": None},
    "train.seeds": [0],
    "train.batch_size": 8,
    "train.baseline.steps": 8,
    "train.baseline.evaluation_interval": 4,
    "train.fine_tune.steps": 4,
    "train.fine_tune.evaluation_interval": 2,
    "whitening.rotate_every": 2,
    "whitening.whiten_every": 2,
    "ablations.seeds": [0],
    "ablations.run": ["bottleneck_full", "whitening_only"],
    "generalization.families": ["FaceSwap"],
    "interpretability.num_images": 8,
}


def dvc(folder: Path, *words: str) -> str:
    """Run DVC in a folder; its output, or an error that shows it."""
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "DVC_NO_ANALYTICS": "1",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        ["dvc", *words], check=False, cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, (
        f"dvc {' '.join(words)}\n{done.stdout[-4000:]}\n{done.stderr[-6000:]}"
    )
    return done.stdout


def change(folder: Path, changes: dict) -> None:
    """Set dotted keys of params.yaml."""
    path = folder / "params.yaml"
    content = yaml.safe_load(path.read_text())
    for key, value in changes.items():
        *sections, name = key.split(".")
        section = content
        for word in sections:
            section = section[word]
        section[name] = value
    path.write_text(yaml.safe_dump(content, sort_keys=False))


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the project with smoke-size settings, its pipeline run once."""
    folder = tmp_path_factory.mktemp("project")
    for name in COPIED:
        source = ROOT / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        copy(source, folder / name)
    shutil.rmtree(folder / "notebooks" / "executed", ignore_errors=True)
    shutil.copy(ROOT / "params.yaml", folder)
    change(folder, SMOKE)
    dvc(folder, "init", "--no-scm", "-q")
    dvc(folder, "repro")
    return folder


def changed(project: Path) -> set[str]:
    """The stages that `dvc repro` would run now, without those that wait for their outputs.

    `dvc repro --dry` fails where the output of a new stage is missing (treeverse/dvc issue 9818).
    """
    return set(json.loads(dvc(project, "status", "--json")))


def test_all_results_are_there(project):
    results = project / "data" / "results"
    detection = json.loads((results / "detection.json").read_text())["detection"]
    for name in ("baseline", "batch_norm", "whitened"):
        assert 0 <= detection[name]["auc"] <= 1
        assert {"ap", "eer", "accuracy", "video_auc", "auc_c40"} <= set(detection[name])
    content = json.loads((results / "interpretability.json").read_text())["interpretability"]
    expected = {"purity", "part_top1", "concept_share", "restoration_correlation"}
    expected |= {"relevance_mass", "relevance_mass_gradcam", "relevance_mass_prior"}
    assert expected <= set(content)
    ablations = json.loads((results / "ablations.json").read_text())["ablations"]
    models = {"baseline", "batch_norm", "whitened", "bottleneck_full", "whitening_only"}
    assert set(ablations) == models
    assert ablations["bottleneck_full"]["concept_share"] == pytest.approx(1)
    assert "trust" in json.loads((results / "trust.json").read_text())
    assert "| whitened | concept axes |" in (results / "summary.md").read_text()
    executed = {path.stem for path in (project / "notebooks" / "executed").glob("*.ipynb")}
    assert len(executed) == 11
    answers = pd.read_csv(results / "answers.csv")
    assert answers["variant"].tolist() == ["whitening_only", "whitened"]
    left_out = json.loads((results / "generalization.json").read_text())["generalization"]
    assert set(left_out) == {"FaceSwap.batch_norm", "FaceSwap.whitened"}
    shown = dvc(project, "metrics", "show")
    assert "detection.baseline.auc" in shown and "interpretability.purity" in shown


def test_second_run_does_nothing(project):
    assert "up to date" in dvc(project, "repro")
    assert not changed(project)


def test_a_face_can_be_explained(project):
    """From a picture of one of the rendered people to a page, by the command that users type."""
    clip = load_clip(min((project / "data" / "faces").glob("*.npz")))
    large = cv2.resize(clip.variants["original"].frames[0], (384, 384))
    cv2.imwrite(str(project / "face.png"), large[..., ::-1])
    command = [sys.executable, "-m", "fwstudy.explain", "face.png"]
    done = subprocess.run(command, check=False, cwd=project, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    page = (project / "data" / "explained" / "face.png" / "page.html").read_text()
    assert "probability of a forgery" in page and "https://" not in page


def test_one_ablation_value_reruns_its_variant_alone(project):
    change(project, {"ablations.variants.whitening_only.whiten_every": 1})
    dvc(project, "repro", "settings")
    assert changed(project) == {"variant@whitening_only-0", "ablations"}


def test_a_new_variant_or_seed_reruns_nothing_done(project):
    change(project, {"ablations.run": ["bottleneck_full", "whitening_only", "bottleneck_none"]})
    change(project, {"train.seeds": [0, 1]})
    found = changed(project)
    assert {"variant@bottleneck_none-0", "train@1", "measure@1"} <= found
    done = {
        "faces",
        "preprocess",
        "variant@bottleneck_full-0",
        "train@0",
        "measure@0",
        "leave_one_out@FaceSwap-0",
    }
    assert not done & found


def test_unknown_key_is_found_before_anything_runs(project):
    change(project, {"train.epochs": 3})
    command = [sys.executable, "-m", "fwstudy.params"]
    done = subprocess.run(command, check=False, cwd=project, capture_output=True, text=True)
    assert done.returncode != 0 and "train.epochs" in done.stderr
    assert "Traceback" not in done.stderr
