"""Copies of the project for tests: its pipeline on settings of a few steps, and what DVC would run."""

import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo

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


@contextmanager
def settings(changes: dict):
    """Keys of params.yaml changed, and afterwards as they were."""
    before = Path("params.yaml").read_text()
    change(changes)
    try:
        yield
    finally:
        Path("params.yaml").write_text(before)
