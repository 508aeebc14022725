import difflib
import errno
import os
import subprocess
import sys

import pytest
import yaml
from dvc.utils.hydra import apply_overrides

from fwstudy.params import applied, load_params
from fwstudy.profiles import write_profile

from .test_params import CONTENT, PARAMS

PROFILES = list(CONTENT["profiles"])


@pytest.fixture
def path(tmp_path):
    (tmp_path / "params.yaml").write_text(PARAMS.read_text())
    (tmp_path / "dvc.yaml").touch()
    return tmp_path / "params.yaml"


def content_with(name, file=PARAMS):
    """The settings of a file with the values of a profile."""
    return applied(yaml.safe_load(file.read_text()), load_params(file).profile(name))


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_sets_its_values_and_nothing_else(path, name):
    before = path.read_text().splitlines()
    values = write_profile(path, name)
    assert yaml.safe_load(path.read_text()) == content_with(name) and load_params(path)
    after = path.read_text()
    gone = [line[2:] for line in difflib.ndiff(before, after.splitlines()) if line[:2] == "- "]
    words = {key.rpartition(".")[2] for key in values}
    fields = [line.strip().partition(":")[0] for line in gone if ":" in line]
    assert set(fields) <= words | {"output_stride"} and not any(line[:1] == "#" for line in gone)
    write_profile(path, name)
    assert path.read_text() == after
    apply_overrides(path, ["faces.seed=0"])
    assert path.read_text() == after, "not as DVC writes it"


SHIPPED = PARAMS.parents[1] / "params.yaml"


@pytest.mark.parametrize("name", list(yaml.safe_load(SHIPPED.read_text())["profiles"]))
def test_after_a_shipped_profile_every_other_can_be_written(path, name):
    """A profile that leaves a value to the file must fit whatever another has set."""
    path.write_text(SHIPPED.read_text())
    write_profile(path, name)
    assert load_params(path).profiles


LAYOUTS = {
    "flow": " [raw, c40]  # why",
    "block": "\n  - raw\n  - c40",
    "block with comments": "  # why\n  - raw  # one\n  - c40",
    "indented": "  # why\n    - raw\n    - c40\n  # next",
    "two lines": " [raw,\n    c40]  # why\n",
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("name", ["videos", "deepfakebench"])
def test_every_layout_of_a_list_can_be_replaced(path, name, layout):
    """By an empty list and by one with items."""
    old = "  further_test_qualities:\n  - raw\n  - c40"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, f"  further_test_qualities:{layout}"))
    write_profile(path, name)
    assert yaml.safe_load(path.read_text()) == content_with(name)


def test_what_would_not_survive_is_not_written(path, monkeypatch):
    monkeypatch.setattr("ruamel.yaml.YAML.dump", lambda self, content, out: out.write("a: b: c"))
    before = path.read_text()
    with pytest.raises(ValueError, match=r"params.yaml: .*; set profiles.paper by hand"):
        write_profile(path, "paper")
    assert path.read_text() == before


def test_all_variants_are_a_profile(path):
    write_profile(path, "full")
    assert load_params(path).ablations.run == list(CONTENT["ablations"]["variants"])
    write_profile(path, "essential")
    assert path.read_text() == PARAMS.read_text()


def test_who_inherits_follows_the_profile(path):
    write_profile(path, "paper")
    params = load_params(path)
    names = ("rotation_only", "iternorm", "iternorm_steps_2")
    assert [params.variant(name).rotate_every for name in names] == [1000] * 3
    assert params.variant("iternorm_steps_2").concepts == "grid"
    assert params.train.backbone.options == {}


def test_the_papers_values():
    """FACTS that a reader can check: the authors' public code, and DeepfakeBench's configuration."""
    paper, bench = (content_with(name, SHIPPED) for name in ("paper", "deepfakebench"))
    assert paper["train"]["baseline"] == {
        "steps": 40 * 720 * 5 * 32 // 32,
        "optimizer": "sgd",
        "learning_rate": 0.01,
        "decay": [5 / 40, 10 / 40, 15 / 40],
        "weight_decay": 5e-4,
        "evaluation_interval": 3600,
    }
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
        ValueError, match=r"no profile 'papers'; there are: full, essential, videos"
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
    command[-1] = "photos_pretrained"  # no videos
    done = subprocess.run(command, cwd=path.parent, capture_output=True, text=True, check=True)
    assert "faces.videos.root" not in done.stdout
    command[-1] = "nonsense"
    done = subprocess.run(command, cwd=path.parent, capture_output=True, text=True, check=False)
    assert done.returncode and "no profile 'nonsense'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_full_disk_leaves_the_settings_as_they_were(path, monkeypatch):
    before = path.read_bytes()

    def full(file, *_, **__):
        file.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file))

    monkeypatch.setattr(type(path), "write_text", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*params\.partial'"):
        write_profile(path, PROFILES[0])
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "changes",
    [["cross_dataset.seed=1"], ["train.launch.num_processes=3", "train.batch_size=48"]],
)
def test_a_profile_that_nobody_asked_for_forbids_no_setting(path, changes):
    path.write_text(SHIPPED.read_text())
    apply_overrides(path, changes)
    assert load_params(path)
