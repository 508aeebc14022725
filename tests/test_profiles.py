import difflib
import re
import subprocess
import sys

import pytest
import yaml

from fwstudy.params import applied, load_params
from fwstudy.profiles import write_profile

from .test_params import ROOT

PROFILES = list(load_params(ROOT / "params.yaml").profiles)


@pytest.fixture
def path(tmp_path):
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    (tmp_path / "dvc.yaml").touch()
    return tmp_path / "params.yaml"


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_sets_its_values_and_nothing_else(path, name):
    before = path.read_text()
    values = write_profile(path, name)
    assert load_params(path)  # valid
    found, expected = yaml.safe_load(path.read_text()), applied(yaml.safe_load(before), values)
    variants = [content["ablations"].pop("variants") for content in (found, expected)]
    assert found == expected
    # Variants that are written as others with a change (`<<`) follow those; the rest is equal.
    followers = {name for name in variants[0] if variants[0][name] != variants[1][name]}
    assert followers <= {"iternorm_steps_2", "iternorm_steps_10"}
    lines = before.splitlines(), path.read_text().splitlines()
    gone = [line[2:] for line in difflib.ndiff(*lines) if line.startswith("- ")]
    names = {key.rpartition(".")[2] for key in values} | {"rotation_only", "iternorm", "run"}
    assert {re.match(r"\s*(\w+):", line).group(1) for line in gone} <= names
    write_profile(path, name)
    assert path.read_text().splitlines() == lines[1]


def test_anchors_stay_for_whoever_edits_on(path):
    write_profile(path, "paper")
    text = path.read_text()
    assert "essential: &essential" in text and "full: &full" in text
    path.write_text(re.sub(r"(?m)^  run: .*$", "  run: *full", text))
    assert load_params(path).ablations.run == load_params(path).ablations.full


def test_the_papers_values():
    """FACTS that a reader can check: the authors' public code, and DeepfakeBench's configuration."""
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    paper = applied(content, content["profiles"]["paper"])
    assert paper["train"]["baseline"] == {
        "steps": 40 * 720 * 5 * 32 // 32,
        "optimizer": "sgd",
        "learning_rate": 0.01,
        "decay": [5 / 40, 10 / 40, 15 / 40],
        "weight_decay": 5e-4,
        "evaluation_interval": 3600,
    }
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    bench = applied(content, content["profiles"]["deepfakebench"])
    assert bench["train"]["baseline"] == {
        "steps": 10 * 720 * 5 * 32 // 32,
        "optimizer": "adam",
        "learning_rate": 2e-4,
        "decay": "none",
        "weight_decay": 5e-4,
        "evaluation_interval": 3600,
    }
    for found in (paper, bench):
        assert found["train"]["backbone"]["name"] == "legacy_xception"
        assert found["faces"]["size"] == found["preprocess"]["crop_size"]
    assert (paper["faces"]["size"], bench["faces"]["size"]) == (299, 256)


def test_an_unknown_profile_or_key_is_named_and_nothing_is_written(path):
    before = path.read_text()
    with pytest.raises(
        ValueError, match=r"no profile 'papers'; there are: videos, paper, deepfakebench"
    ):
        write_profile(path, "papers")
    assert path.read_text() == before
    path.write_text(before.replace("faces.size: 299", "faces.sizes: 299"))
    with pytest.raises(ValueError, match=r"profiles\.paper: there is no key 'faces\.sizes'"):
        load_params(path)
    path.write_text(before.replace("preprocess.crop_size: 299", "preprocess.crop_size: many"))
    with pytest.raises(ValueError, match=r"profiles\.paper:\s+preprocess\.crop_size: .*'many'"):
        load_params(path)


def test_the_command_says_what_it_set_and_what_is_left_to_do(path):
    command = [sys.executable, "-m", "fwstudy.profiles", "paper"]
    done = subprocess.run(command, cwd=path.parent, capture_output=True, text=True, check=True)
    assert "train.backbone.name: legacy_xception" in done.stdout
    assert "faces.videos.root" in done.stdout
    command[-1] = "nonsense"
    done = subprocess.run(command, cwd=path.parent, capture_output=True, text=True, check=False)
    assert done.returncode and "no profile 'nonsense'" in done.stderr
    assert "Traceback" not in done.stderr
