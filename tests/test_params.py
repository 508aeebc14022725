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
        params.train.seeds = [1]


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
    with pytest.raises(KeyError, match="whitening_only"):
        load_params(ROOT / "params.yaml").variant("nothing")


def test_shares_must_sum_to_one(tmp_path, content):
    content["preprocess"]["split"]["train"] = 0.7
    with pytest.raises(ValueError, match=re.escape("preprocess.split")):
        load_params(write(tmp_path, content))


def test_exponent_without_dot_is_a_number(tmp_path, content):
    text = yaml.safe_dump(content).replace("learning_rate: 0.002", "learning_rate: 2e-3")
    assert "2e-3" in text
    path = tmp_path / "params.yaml"
    path.write_text(text)
    assert load_params(path).train.fine_tune.learning_rate == 2e-3


def test_empty_file(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("")
    with pytest.raises(ValueError, match="expected a mapping"):
        load_params(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer": "bn1"}, "bottleneck and concept_weight must be 0 unless layer is `last`"),
        ({"norm": "batch"}, "rotation must be none"),
        ({"rotation": "none", "concept_weight": 0.0}, "bottleneck needs concept axes"),
    ],
)
def test_impossible_combinations_name_their_keys(tmp_path, content, changes, message):
    content["ablations"]["variants"]["broken"] = changes
    with pytest.raises(ValueError, match=re.escape("ablations.variants.broken: ")) as error:
        load_params(write(tmp_path, content))
    assert message in str(error.value)


def test_runs_and_seeds_must_exist(tmp_path, content):
    content["ablations"]["run"] = ["nothing"]
    with pytest.raises(ValueError, match=r"ablations\.run: \['nothing'\]"):
        load_params(write(tmp_path, content))
    content["ablations"] |= {"run": [], "seeds": [7]}
    with pytest.raises(ValueError, match=r"ablations\.seeds: \[7\]"):
        load_params(write(tmp_path, content))


@pytest.mark.parametrize("section", ["train", "ablations"])
def test_at_least_one_seed_is_needed(tmp_path, content, section):
    content[section]["seeds"] = []
    with pytest.raises(ValueError, match=rf"{section}\.seeds: .*at least 1 item"):
        load_params(write(tmp_path, content))


@pytest.mark.parametrize(
    "changes", [{"norm": "iternorm"}, {"rotation": "random"}, {"layer": "bn1"}]
)
def test_the_default_model_has_aligned_axes_at_the_last_layer(tmp_path, content, changes):
    content["whitening"] |= changes
    with pytest.raises(ValueError, match=r"whitening: .* under ablations\.variants"):
        load_params(write(tmp_path, content))


def test_variants_differ_in_nothing_but_their_keys():
    params = load_params(ROOT / "params.yaml")
    default = params.whitening.model_dump()
    for name, changes in params.ablations.variants.items():
        assert params.variant(name).model_dump() == default | changes, name


def test_axes_are_named_by_rotation_or_loss():
    default = load_params(ROOT / "params.yaml").whitening
    named = {
        (rotation, weight): default.model_copy(
            update={"rotation": rotation, "concept_weight": weight}
        ).named
        for rotation in ("aligned", "random")
        for weight in (0.0, 1.0)
    }
    assert named == {
        ("aligned", 0.0): True,
        ("aligned", 1.0): True,
        ("random", 0.0): False,
        ("random", 1.0): True,
    }


def test_films_bring_their_own_crop_scale_and_qualities(tmp_path, content):
    content["faces"]["videos"]["crop_scale"] = 1.5
    assert load_params(write(tmp_path, content)).crop_scale == content["preprocess"]["crop_scale"]
    content["faces"]["source"] = "folder"
    with pytest.raises(ValueError, match=r"faces\.videos\.qualities: \['c23'\].*must be the first"):
        load_params(write(tmp_path, content))
    content["preprocess"]["further_test_qualities"] = []
    assert load_params(write(tmp_path, content)).crop_scale == 1.5


def test_frames_that_are_encoded_here_have_even_sides(tmp_path, content):
    content["faces"]["size"] = 299
    with pytest.raises(ValueError, match=r"faces\.size: 299; frames that H\.264 encodes"):
        load_params(write(tmp_path, content))


def test_every_source_of_the_params_exists():
    from fwstudy.faces.sources import SOURCES

    field = type(load_params(ROOT / "params.yaml").faces).model_fields["source"]
    assert set(field.annotation.__args__) == set(SOURCES)
