import re
from pathlib import Path

import pytest
import yaml

from fwstudy.params import load_params

ROOT = Path(__file__).parents[1]


@pytest.fixture
def content():
    return yaml.safe_load((ROOT / "params.yaml").read_text())


def write(folder, content):
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_default_file_is_valid():
    params = load_params(ROOT / "params.yaml")
    assert params.variant("whitening_only").rotation == "none"
    assert params.whitening.rotation == "aligned"


def test_params_are_immutable():
    params = load_params(ROOT / "params.yaml")
    with pytest.raises(Exception, match="frozen"):
        params.train.seed = 1


def test_every_problem_is_named(tmp_path, content):
    content["train"]["epochs"] = 3
    content["preprocess"]["quality"] = "c99"
    del content["faces"]["size"]
    path = write(tmp_path, content)
    with pytest.raises(ValueError) as error:
        load_params(path)
    text = str(error.value)
    assert str(path) in text
    for key in ("train.epochs", "preprocess.quality", "faces.size", "'c99'"):
        assert key in text


def test_unknown_key_in_variant_is_named(tmp_path, content):
    content["ablations"]["variants"]["broken"] = {"rotations": "random"}
    with pytest.raises(ValueError, match=r"ablations\.variants\.broken\.rotations"):
        load_params(write(tmp_path, content))


def test_unknown_variant_lists_the_known():
    with pytest.raises(KeyError, match="batch_norm"):
        load_params(ROOT / "params.yaml").variant("nothing")


def test_shares_must_sum_to_one(tmp_path, content):
    content["preprocess"]["split"]["train"] = 0.7
    with pytest.raises(ValueError, match=re.escape("preprocess.split")):
        load_params(write(tmp_path, content))


def test_exponent_without_dot_is_a_number(tmp_path, content):
    text = yaml.safe_dump(content).replace("learning_rate: 0.0005", "learning_rate: 5e-4")
    assert "5e-4" in text
    path = tmp_path / "params.yaml"
    path.write_text(text)
    assert load_params(path).train.fine_tune.learning_rate == 5e-4


def test_empty_file(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("")
    with pytest.raises(ValueError, match="expected a mapping"):
        load_params(path)
