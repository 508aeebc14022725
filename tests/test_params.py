import copy
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
import yaml
from dvc.utils.hydra import apply_overrides
from hypothesis import given, settings
from hypothesis import strategies as st

from fwstudy import params as schema
from fwstudy.crops.writers import WRITERS
from fwstudy.faces.sources import SOURCES
from fwstudy.params import checked, load_params, write_settings
from fwstudy.training.check import check_models
from fwstudy.training.concept_sets import CONCEPT_SETS
from fwstudy.training.trainer import OPTIMIZERS
from fwstudy.training.variants import ACTIVATIONS, NORMS
from fwstudy.whitening.covariance import ESTIMATORS
from fwstudy.whitening.solvers import SOLVERS

ROOT = Path(__file__).parents[1]
PARAMS = ROOT / "tests" / "params.yaml"  # of the tests: the study's own is the user's to change
TEXT = PARAMS.read_text()
CONTENT = yaml.safe_load(TEXT)


NETWORKS = "explanations.networks"
VIDEOS = {"faces.source": "ffiw", "preprocess.further_test_qualities": []}


@pytest.fixture
def content():
    return copy.deepcopy(CONTENT)


def write(folder, content):
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def put(content, key, value):
    *sections, name = key.split(".")
    for section in sections:
        content = content[section]
    content[name] = value


def keys(section, place=""):
    """Dotted keys of the values, variants and profiles left out."""
    if not isinstance(section, dict) or place in (".ablations.variants", ".profiles"):
        return {place}
    return set().union(*(keys(value, f"{place}.{name}") for name, value in section.items()))


def test_the_file_is_a_fixed_point_of_dvcs_writer(tmp_path):
    path = tmp_path / "params.yaml"
    for source in (ROOT / "params.yaml", PARAMS):
        shutil.copy(source, path)
        before, read = path.read_bytes(), yaml.safe_load(path.read_text())
        overrides = []
        for key in sorted(keys(read) - {".profiles", ".ablations.variants"}):
            value = read
            for name in key[1:].split("."):
                value = value[name]
            overrides.append(f"{key[1:]}={json.dumps(value)}")
        apply_overrides(path, overrides)
        assert path.read_bytes() == before
        rate = f"{read['train']['baseline']['learning_rate']:e}"
        apply_overrides(path, [f"train.baseline.learning_rate={rate}", "faces.scheduler=null"])
        assert path.read_bytes() == before
        assert not any(getattr(event, "anchor", None) for event in yaml.parse(before))


def test_the_shipped_file_is_valid_and_has_the_keys_of_the_tests():
    shipped = load_params(ROOT / "params.yaml").model_dump()
    options = ".train.backbone.options"
    found = [
        {key for key in keys(read) if not key.startswith(options)}
        for read in (shipped, load_params(PARAMS).model_dump())
    ]
    assert found[0] == found[1]


def test_by_hand_and_by_override_variants_are_the_same(tmp_path):
    changed = [tmp_path / "hand.yaml", tmp_path / "override.yaml"]
    old = "rotation_only:\n      concept_weight: 0.0\n      bottleneck: 0.0\n      rotate_every: "
    assert f"{old}20" in TEXT
    changed[0].write_text(TEXT.replace(f"{old}20", f"{old}5"))
    shutil.copy(PARAMS, changed[1])
    apply_overrides(changed[1], ["ablations.variants.rotation_only.rotate_every=5"])
    assert changed[0].read_text() == changed[1].read_text()
    before, after = load_params(PARAMS), load_params(changed[1])
    heirs = {
        name for name in before.ablations.variants if before.variant(name) != after.variant(name)
    }
    assert heirs == {"rotation_only", "iternorm", "iternorm_steps_2", "iternorm_steps_10"}
    assert all(after.variant(name).rotate_every == 5 for name in heirs)


def test_dvc_sees_what_a_variant_inherits(tmp_path, content):
    """The files that stage variant depends on: of what is run alone, and by bytes."""
    content["ablations"]["run"] = ["iternorm_steps_2", "bottleneck_none"]
    written = []
    for weight in (0.0, 0.5, 0.0):
        content["ablations"]["variants"]["rotation_only"]["concept_weight"] = weight
        write_settings(load_params(write(tmp_path, content)), tmp_path / "settings")
        written.append({path.name: path.read_bytes() for path in (tmp_path / "settings").iterdir()})
    first, changed, back = written
    assert set(first) == {"iternorm_steps_2.json", "bottleneck_none.json"} and first == back
    assert {name for name in first if first[name] != changed[name]} == {"iternorm_steps_2.json"}
    found = json.loads(changed["iternorm_steps_2.json"])
    assert (found["norm"], found["newton_steps"], found["concept_weight"]) == ("iternorm", 2, 0.5)


def test_params_are_immutable():
    with pytest.raises(Exception, match="frozen"):
        load_params(PARAMS).train.seeds = [1]


def test_every_problem_is_named(tmp_path, content):
    content["train"]["epochs"] = 3
    content["preprocess"]["quality"] = "c99"
    del content["faces"]["size"]
    path = write(tmp_path, content)
    with pytest.raises(ValueError) as error:
        load_params(path)
    lines = str(error.value).splitlines()
    assert lines[0] == f"{path}:" and len(lines) == 4
    for key in ("train.epochs: there is no such key", "preprocess.quality", "faces.size", "'c99'"):
        assert key in str(error.value)


def test_exponent_without_dot_is_a_number(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(TEXT.replace("learning_rate: 0.002", "learning_rate: 2e-3"))
    assert load_params(path).train.fine_tune.learning_rate == 2e-3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "expected a mapping"),
        (b"faces:\n\tseed: 0\n", r"line 2: found character '\\t'"),
        (b"faces:\n  seed: 0\n  seed: 1\n", 'line 3: found duplicate key "seed"'),
        (b"faces: [\n", "line 2: "),
        (b"faces: \xff\n", "no text in UTF-8"),
    ],
)
def test_what_is_no_yaml_is_one_line(tmp_path, text, message):
    path = tmp_path / "params.yaml"
    path.write_bytes(text)
    with pytest.raises(ValueError, match=message) as error:
        load_params(path)
    assert str(error.value).startswith(f"{path}: ") and len(str(error.value).splitlines()) == 1


NEW = "ablations.variants.new"
NOT_A_NAME = "a name begins with a letter"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("faces.rendered.num_identities", 4, "num_identities: .*greater than or equal to 6"),
        ("whitening.solver", "qr", "whitening.solver: "),
        ("whitening.shrinkage", 1.5, "whitening.shrinkage"),
        ("whitening.shrinkage", "ledoit", "whitening.shrinkage"),
        ("whitening.shrinkage", float("nan"), "whitening.shrinkage"),
        ("whitening.concept_weight", float("inf"), "whitening.concept_weight: .*finite"),
        ("whitening.norm", "iternorm", "whitening: .* under ablations.variants"),
        ("whitening.rotation", "random", "whitening: .* under ablations.variants"),
        ("whitening.layer", "bn1", "whitening: bottleneck and concept_weight must be 0 unless"),
        ("train.baseline.learning_rate", float("inf"), "train.baseline.learning_rate: .*finite"),
        ("train.batch_sise", 3, "train.batch_sise: there is no such key; did you mean batch_size"),
        ("train.seeds", [], "train.seeds: .*at least 1 item"),
        ("train.seeds", [0, 1, 2, 1], "train.seeds: .*twice"),
        ("train.seeds", [-1], "train.seeds.0: "),
        ("train.launch.num_processes", 3, r"train.launch.num_processes: 3 .* 16 .*batch_size"),
        ("preprocess.split.train", 0.7, r"preprocess.split: train \+ validation \+ test must be 1"),
        ("preprocess.further_test_qualities", ["raw", "c23"], "further_test_qualities: c23 is"),
        ("faces.videos.qualities", ["raw", "raw"], "faces.videos.qualities: .*twice"),
        ("faces.photos.identity_pattern", "(", "identity_pattern: not a regular expression: "),
        ("faces.size", 299, r"faces.size: 299; frames that H.264 encodes"),
        ("faces.num_workers", 0, "faces.num_workers: -1"),
        ("faces.source", "celebdf", "faces.source: .*'celeb_df'"),
        ("faces.source", "folder", r"faces.videos.qualities: \['c23'\].*must be the first"),
        ("generalization.families", ["FaceSwap", "FaceSwap"], "generalization.families: .*twice"),
        ("generalization.families", ["Face Swap"], f"generalization.families.0: {NOT_A_NAME}"),
        ("cross_dataset.sources", ["photos", "photos"], "cross_dataset.sources: .*twice"),
        ("cross_dataset.trainings", ["neither"], "cross_dataset.trainings.0: .*'other', 'both'"),
        ("cross_dataset.seed", 77, "cross_dataset.seed: 77 is not among train.seeds"),
        ("ablations.seeds", [7], r"ablations.seeds: \[7\] are not among train.seeds"),
        ("ablations.run", ["nothing"], r"ablations.run: \['nothing'\]"),
        ("ablations.run", ["iternorm", "iternorm"], "ablations.run: .*twice"),
        ("ablations.run", "full", "run: must be a list; `python -m fwstudy.profiles full`"),
        (NEW, {"rotations": "random"}, f"{NEW}.rotations: .*did you mean rotation"),
        (NEW, {"layer": "bn1"}, f"{NEW}: bottleneck and concept_weight must be 0 unless layer"),
        (NEW, {"norm": "batch"}, f"{NEW}.norm: batch .*rotation must be none"),
        (NEW, {"rotation": "none", "concept_weight": 0.0}, f"{NEW}: bottleneck needs concept"),
        (NEW, {"base": "newer"}, f"{NEW}.base: 'newer' is not among ablations.variants: "),
        (NEW, {"base": ["iternorm"]}, f"{NEW}.base: .* is not among ablations.variants: "),
        (NEW, {"base": "new"}, f"{NEW}.base: a circle, new -> new"),
        ("profiles.paper.base", "deepfakebench", "profiles.deepfakebench.base: a circle, "),
        *[
            ("detectors", [{"name": "a", **values}], message)
            for values, message in (
                ({}, "detectors.0: must have exactly one of module, timm, onnx, scores; .* none"),
                ({"onnx": "a.onnx", "scores": "a.csv"}, "exactly one .* it has onnx and scores"),
                ({"timm": "resnet18"}, "detectors.0: timm needs weights, a .safetensors file"),
                ({"timm": "resnet18", "weights": "a.pth"}, "detectors.0.weights: .*no pickle"),
                ({"onnx": "a.pkl"}, "detectors.0.onnx: a file that ends in .onnx"),
                ({"onnx": "a.onnx", "layer": "b"}, "detectors.0.layer: of no use beside onnx"),
                ({"scores": "a.csv", "size": 8}, "detectors.0.size: of no use beside scores"),
                ({"module": "a.b"}, "detectors.0.module: must be package.module:function"),
                ({"onnx": "a.onnx", "std": [1, 0, 1]}, "detectors.0.std.1: .*greater than 0"),
                ({"onnx": "a.onnx", "mean": [0.5]}, "detectors.0.mean: .*at least 3 items"),
                ({"modul": "a:b"}, "detectors.0.modul: .*did you mean module"),
                ({"name": "iternorm", "onnx": "a.onnx"}, r"detectors: \['iternorm'\]: .*that name"),
                ({"name": "whitened", "onnx": "a.onnx"}, f"detectors.0.name: {NOT_A_NAME}"),
            )
        ],
        (NETWORKS, {"a": {"layer": "a", "layr": 1}}, r"networks\.a\.layr: .*did you mean layer"),
        ("cross_dataset.sources", ["rendered"], r"\.sources: \['rendered'\] name a data"),
        ("interpretability.num_images", 1, r"num_images: .*greater than or equal to 2 \(got 1\)"),
        ("detectors", [{"name": "a", "onnx": "a.onnx"}] * 2, r"detectors: \['a'\]: .*that name"),
        *[
            ("ablations.variants", {name: {}}, NOT_A_NAME)
            for name in ("a.b", "a@8", "x y", "q;w", "a/b", "16", "", "$a", "-a", "é", "a\n", "NaN")
            + ("baseline", "batch_norm", "whitened", "True", "yes", "Off")
        ],
    ],
)
def test_what_is_impossible_names_its_key(content, key, value, message):
    put(content, key, value)
    if key == "ablations.variants":
        content["ablations"]["run"] = []
    with pytest.raises(ValueError, match=message) as error:
        params = checked(content, "params.yaml")
        [params.profile(name) for name in params.profiles]
    assert "{'" not in str(error.value) and len(str(error.value).splitlines()) <= 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train.backbone": {"name": "resnet18"}}, r"backbone.name: resnet18.*no norm layer"),
        ({"train.backbone.name": "legacy_xception"}, r"legacy_xception.*argument 'output_stride'"),
        ({"train.backbone": {"name": "nosuch"}}, r"train.backbone .*nosuch"),
        ({"train.backbone.weights": "gone.safetensors"}, r"weights: .*gone.safetensors is not"),
        ({"train.backbone": {"name": "darknet17", "weights": "hub"}}, r"weights: timm has none"),
        ({"train.backbone": {"name": "resnet18", "weights": "package"}}, r"\.weights: package holds"),
        ({"train.backbone": {"name": "fwstudy_small"}, "preprocess.crop_size": 100},
         r"crop_size: 100: .*multiples of 16"),
        ({"whitening.num_groups": 7}, r"whitening: num_groups must divide .* 256, not 7"),
        ({"whitening.concepts": "grid", "whitening.grid_size": 17}, r"whitening: .* 289 axes"),
        ({f"{NEW}.layer": "blocks.4.0.bn9"}, rf"{NEW}: 'blocks.4.0.bn9' is not.*blocks.4.0.bn3"),
        ({f"{NEW}.layer": "no", f"{NEW}.norm": "batch"}, rf"{NEW}: 'no' is not a layer"),
        ({f"{NEW}.num_groups": 5}, rf"{NEW}: num_groups must divide"),
        ({"generalization.families": ["Faceswap"]}, r"families: rendered has no .*FaceSwap"),
        ({"generalization.other_crops": "nowhere"}, r"other_crops: nowhere: no such folder"),
        ({"faces.source": "photos", "faces.photos.root": "no"}, r"photos\.root: no: no such folder"),
        ({"cross_dataset.sources": ["photos"], "faces.photos.root": "no"}, r"photos\.root: no: no su"),
        ({"cross_dataset.sources": ["ffiw"], "faces.videos.root": "no"}, r"videos\.root: no: no such"),
        ({**VIDEOS, "faces.videos.root": "~/no"}, r"faces\.videos\.root: ~/no: no such folder"),
        ({NETWORKS: {"nosuch": {"layer": "a", "options": None}}}, r"networks.nosuch: .*nosuch"),
        ({NETWORKS: {"resnet18": {"layer": "a", "options": None}}}, r"networks.resnet18: .*`a`"),
        ({NETWORKS: {"fwstudy_small": {"layer": "norm", "options": None}}, "preprocess.crop_size": 100},
         r"networks\.fwstudy_small: preprocess\.crop_size: 100: fwstudy_small takes"),
    ],
)  # fmt: skip
def test_what_the_backbone_cannot_do_names_its_key(content, monkeypatch, changes, message):
    monkeypatch.chdir(ROOT)
    free = {"base": "whitening_only", "activation": "backbone"}
    content["ablations"] |= {"variants": {**content["ablations"]["variants"], "new": free}}
    content["ablations"]["run"] = ["new", "earlier_groups_16", "iternorm"]
    whole = {"options": None, "weights": None}
    for key, value in changes.items():
        put(content, key, whole | value if key == "train.backbone" else value)
    with pytest.raises(ValueError, match=message) as error:
        check_models(checked(content, "params.yaml"))
    assert len(str(error.value).splitlines()) == 2


def test_the_shipped_settings_fit_the_backbone(monkeypatch):
    monkeypatch.chdir(ROOT)
    check_models(load_params(ROOT / "params.yaml"))


def choices(section, field):
    """The strings a field may hold."""
    annotation = section.model_fields[field].annotation
    options = [get_args(option) or (option,) for option in get_args(annotation)]
    return {name for option in options for name in option if isinstance(name, str)}


def test_choices_are_those_there_are():
    whitening = schema.Whitening
    assert choices(schema.Faces, "source") == set(SOURCES)
    assert choices(schema.Preprocess, "storage") == set(WRITERS)
    assert choices(schema.Schedule, "optimizer") == set(OPTIMIZERS)
    assert choices(whitening, "norm") == {*NORMS, "batch"}
    assert choices(whitening, "solver") == set(SOLVERS) - {"iternorm_newton"}
    assert choices(whitening, "shrinkage") == set(ESTIMATORS)
    assert choices(whitening, "concepts") == set(CONCEPT_SETS)
    assert choices(whitening, "activation") == {*ACTIVATIONS, "backbone"}
    shipped = (ROOT / "params.yaml").read_text()
    assert all(name in shipped for name in SOURCES)


def test_the_schema_is_light():
    heavy = "{'torch', 'pandas', 'dvc', 'timm', 'numpy'}"
    code = f"import sys, fwstudy.params; sys.exit(bool({heavy} & set(sys.modules)))"
    assert not subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 400) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)  # fmt: skip
LEAVES = sorted(
    keys(CONTENT)
    | {f".ablations.variants.iternorm.{name}" for name in ("base", "norm", "newton_steps", "layer")}
)


@given(key=st.sampled_from(LEAVES), value=VALUES)
@settings(max_examples=60)
def test_whatever_stands_there_is_valid_or_named(key, value):
    content = copy.deepcopy(CONTENT)
    put(content, key[1:], value)
    try:
        params = checked(content, "params.yaml")
        [params.profile(name) for name in params.profiles]
    except ValueError as error:
        message = str(error)
        assert re.search(rf"\b{key.rpartition('.')[2]}\b", message), (key, value, message)


@pytest.mark.parametrize("rotation", ["aligned", "random"])
@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_axes_are_named_by_rotation_or_loss(rotation, weight):
    changes = {"rotation": rotation, "concept_weight": weight}
    named = load_params(PARAMS).whitening.model_copy(update=changes).named
    assert named == (rotation == "aligned" or weight > 0)


def test_videos_bring_their_own_crop_scale(content):
    content["faces"]["videos"]["crop_scale"] = 1.5
    assert checked(content, "").crop_scale == content["preprocess"]["crop_scale"]
    content["faces"]["source"] = "folder"
    content["preprocess"]["further_test_qualities"] = []
    assert checked(content, "").crop_scale == 1.5
