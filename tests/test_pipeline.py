"""The whole pipeline, at smoke size, in a copy of the project."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
COPIED = ["dvc.yaml", "fwstudy", "notebooks", ".dvcignore", "data/assets"]
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
    "train.backbone": {"name": "test_efficientnet", "options": {}, "weights": None},
    "train.batch_size": 8,
    "train.baseline.steps": 8,
    "train.baseline.evaluation_interval": 4,
    "train.fine_tune.steps": 4,
    "train.fine_tune.evaluation_interval": 2,
    "whitening.rotation_interval": 2,
    "whitening.refresh_interval": 2,
    "ablations.variants": {"batch_norm": {"norm": "batch"}, "whitening_only": {"rotation": "none"}},
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


def test_all_results_are_there(project):
    results = project / "data" / "results"
    detection = json.loads((results / "detection.json").read_text())["detection"]
    for name in ("baseline", "whitened"):
        assert 0 <= detection[name]["auc"] <= 1
        assert {"ap", "eer", "accuracy", "video_auc", "auc_c40"} <= set(detection[name])
    interpretability = json.loads((results / "interpretability.json").read_text())
    assert {"purity", "relevance_mass", "named_evidence_share"} <= set(
        interpretability["interpretability"]
    )
    ablations = json.loads((results / "ablations.json").read_text())["ablations"]
    assert set(ablations) == {"batch_norm", "whitening_only", "whitened (default)"}
    executed = {path.stem for path in (project / "notebooks" / "executed").glob("*.ipynb")}
    assert len(executed) == 7
    shown = dvc(project, "metrics", "show")
    assert "detection.baseline.auc" in shown and "interpretability.purity" in shown


def test_second_run_does_nothing(project):
    assert "up to date" in dvc(project, "repro")


def test_one_ablation_value_reruns_its_variant_alone(project):
    change(project, {"ablations.variants.whitening_only": {"rotation": "random"}})
    planned = dvc(project, "repro", "--dry")
    running = {line for line in planned.splitlines() if line.startswith("Running stage")}
    assert {line.split("'")[1] for line in running} == {"ablation@whitening_only", "ablations"}


def test_unknown_key_is_found_before_anything_runs(project):
    change(project, {"train.epochs": 3})
    command = [sys.executable, "-m", "fwstudy.params"]
    done = subprocess.run(command, check=False, cwd=project, capture_output=True, text=True)
    assert done.returncode != 0 and "train.epochs" in done.stderr
    assert "Traceback" not in done.stderr
