"""Bad and odd inputs through the entries that users take: what is said names the file or the key."""

import re
import shutil
import sys

import pytest

from fwstudy import params as settings
from fwstudy.clips import load_header
from fwstudy.crops.cropset import CropSet
from fwstudy.faces.sources import SOURCES, build_faces
from fwstudy.params import load_params
from fwstudy.training.models import load_weights
from fwstudy.whitening.surgery import create_model

from ..project import change
from .recipes import RECIPES, ROOT

CASES = [(kind, name) for kind, recipes in RECIPES.items() for name in recipes]
pytestmark = pytest.mark.slow


def error_of(work, *arguments) -> list[str]:
    """What work says where it gives up: one line, as commands print it."""
    try:
        return work(*arguments)
    except SystemExit as error:
        lines = [str(error)]
    except (OSError, ValueError) as error:
        lines = [f"error: {error}"]
    return [" ".join(line.split()) for line in lines]


def faces_of(source: str, root) -> list[str]:
    """The stage `faces`: its report and its clips."""
    folder = "photos" if source == "photos" else "videos"
    change({"faces.source": source, f"faces.{folder}.root": str(root)})
    paths, report = build_faces(load_params().faces)
    said = [f"{row['file']}: {row['reason']}" for row in report]
    return said + [f"clip {path.stem}: {' '.join(load_header(path)['sources'])}" for path in paths]


def checked(source: str, root) -> list[str]:
    settings.main()
    return ["read"]


def weighed(source: str, root) -> list[str]:
    load_weights(create_model("test_efficientnet", num_classes=1), root / "w.safetensors")
    return ["read"]


def opened(source: str, root) -> list[str]:
    CropSet.open(root)
    return ["read"]


ENTRIES = dict.fromkeys(SOURCES, faces_of)
ENTRIES |= {"settings": checked, "weights": weighed, "crops": opened}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project in the working folder, for a few small frames."""
    shutil.copy(ROOT / "tests" / "params.yaml", tmp_path)
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / "data" / "photos").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["fwstudy.params"])
    videos = {"methods": ["Deepfakes"], "qualities": ["c23"], "frames_per_video": 6}
    change(
        {"faces.size": 96, "faces.num_workers": 1, "preprocess.further_test_qualities": []}
        | {f"faces.videos.{name}": value for name, value in videos.items()}
    )
    return tmp_path


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_recipe(kind, name, project, capsys):
    make, expected = RECIPES[kind][name]
    if kind == "deepfakebench":
        change({"faces.videos.methods": ["FaceForensics++"]})
    root = project if kind == "settings" else project / kind
    root.mkdir(exist_ok=True)
    if kind == "settings":
        (project / "params.yaml").unlink()
    make(root)
    said = error_of(ENTRIES[kind], kind, root) + capsys.readouterr().err.splitlines()
    assert any(re.search(expected, line) for line in said), "\n".join(said)
