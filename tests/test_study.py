"""Small pieces of the study: settings, shortcuts, sources, runtime, figures."""

import time

import numpy as np
import pandas as pd
import pytest
import torch

from fwstudy import runtime
from fwstudy.evaluation import shortcuts
from fwstudy.evaluation.metrics import detection_table
from fwstudy.evaluation.transfer import transfer_table
from fwstudy.faces.sources import SOURCES
from fwstudy.interpretability.overlay import overlay
from fwstudy.params import load_params
from fwstudy.reporting import plots
from fwstudy.training import runs
from fwstudy.training.runs import (
    BASELINE,
    PREDICTION_COLUMNS,
    control,
    load_baseline,
    load_variant,
    predictions_path,
    score_held_out,
    settings_of,
    train_baseline,
    train_variant,
    weights_path,
    without,
)
from fwstudy.training.trainer import save_weights
from fwstudy.whitening.surgery import create_model

from .test_params import ROOT


def test_probe_finds_a_planted_shortcut_and_nothing_else():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"label": np.tile([0, 1], 60), "identity": np.repeat(np.arange(12), 10)})
    table["group"] = table["identity"]
    leak = table["label"].to_numpy()[:, None] + rng.normal(0, 0.3, (120, 2))
    assert shortcuts.probe_auc(leak, table)["auc"] > 0.95
    assert abs(shortcuts.probe_auc(rng.normal(size=(120, 2)), table)["auc"] - 0.5) < 0.2


def test_probe_does_not_learn_people():
    """A feature that tells people apart but not forgeries says nothing about unseen people."""
    table = pd.DataFrame({"label": np.tile([0, 1], 60), "identity": np.repeat(np.arange(12), 10)})
    table["group"] = table["identity"]
    people = np.eye(12)[table["identity"]]
    assert shortcuts.probe_auc(people, table)["auc"] == pytest.approx(0.5, abs=0.1)


def test_pixel_probes_see_the_background_alone(crops):
    rows = crops.select(kind="whole", quality="c23").manifest["row"].to_numpy()
    images, parts = np.array(crops.images[rows]), crops.parsing[rows]
    inside = parts != 0
    changed = images.copy()
    changed[inside] = 255 - changed[inside]
    before, after = (shortcuts.background(x, parts) for x in (images, changed))
    np.testing.assert_array_equal(before, after)


def test_shortcut_table(crops):
    table = shortcuts.shortcut_table(crops.select(kind="whole", quality="c23"))
    assert set(table["features"]) == {*shortcuts.PIXEL_PROBES, "file size"}
    assert table["auc"].between(0, 1).all()


def test_control_is_the_baseline_fine_tuned():
    params = load_params(ROOT / "params.yaml")
    settings = control(params.whitening)
    assert settings.norm == "batch" and not settings.named and settings.bottleneck == 0
    assert settings.activation == "backbone"
    assert control(settings) == settings


def test_a_new_seed_changes_nothing_that_another_depends_on():
    params = load_params(ROOT / "params.yaml")
    more = params.model_copy(update={"train": params.train.model_copy(update={"seeds": [0, 9]})})
    assert settings_of(params, 0, "fine_tune") == settings_of(more, 0, "fine_tune")
    assert settings_of(params, 0, "fine_tune") != settings_of(params, 1, "fine_tune")


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Settings of runs of two steps, in a project without results."""
    for name in ("params.yaml", "dvc.yaml"):
        (tmp_path / name).touch()
    (tmp_path / "data" / "crops").mkdir(parents=True)
    for name in ("images.npy", "manifest.csv"):
        (tmp_path / "data" / "crops" / name).touch()  # what unfinished work is known by
    monkeypatch.chdir(tmp_path)
    params = load_params(ROOT / "params.yaml")
    schedule = params.train.fine_tune.model_copy(update={"steps": 2, "evaluation_interval": 1})
    short = {"batch_size": 4, "baseline": schedule, "fine_tune": schedule}
    yield params.model_copy(update={"train": params.train.model_copy(update=short)})
    torch.use_deterministic_algorithms(False)


def same(one, other):
    one, other = one.model.state_dict(), other.model.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_trained_models_are_those_that_are_loaded(tiny, crops):
    baseline = train_baseline(tiny, 3, crops)
    assert same(load_baseline(tiny, 3), baseline)
    only = tiny.whitening.model_copy(
        update={"rotation": "none", "concept_weight": 0, "bottleneck": 0}
    )
    for name, settings in {
        "batch_norm": control(tiny.whitening),
        "whitened": tiny.whitening,
        "variants/whitening_only": only,
    }.items():
        trained = train_variant(tiny, settings, name, 3, crops)
        loaded = load_variant(tiny, settings, name, 3)
        assert same(loaded, trained) and loaded.layer_name == trained.layer_name
        assert not same(loaded, baseline)
        assert trained.history["step"].tolist()[-1] == 2
        assert ("eval_mean_correlation" in trained.history) == (settings.norm == "whitening")
        scored, again = (score_held_out(model, tiny, crops) for model in (loaded, trained))
        pd.testing.assert_frame_equal(scored, again)


def test_each_seed_has_its_own_models_and_predictions(tiny, crops):
    one, other = (train_baseline(tiny, seed, crops) for seed in (0, 1))
    assert not same(one, other)
    assert same(load_baseline(tiny, 0), one) and same(load_baseline(tiny, 1), other)
    paths = [path(BASELINE, seed) for path in (weights_path, predictions_path) for seed in (0, 1)]
    assert len(set(paths)) == 4 and all(path.parent.is_dir() for path in paths)


def test_a_family_is_left_out_of_training_and_validation_alone(crops):
    kept = without(crops, "Deepfakes")
    families = kept.manifest[kept.manifest["variant"] == "Deepfakes"]
    assert set(families["split"]) == {"test"}
    test = crops.select(split="test").manifest
    pd.testing.assert_frame_equal(kept.select(split="test").manifest, test)
    others = crops.manifest[crops.manifest["variant"] != "Deepfakes"]
    assert len(kept) == len(others) + len(families)
    with pytest.raises(ValueError, match="'Deepfake'; there are: Deepfakes, Face2Face, FaceSwap"):
        without(crops, "Deepfake")


def test_models_of_another_folder_leave_the_studys_alone(tiny, crops):
    train_baseline(tiny, 0, crops)
    before = weights_path(BASELINE, 0).read_bytes()
    elsewhere = train_baseline(tiny, 0, without(crops, "FaceSwap"), "leave_one_out/FaceSwap")
    assert same(load_baseline(tiny, 0, "leave_one_out/FaceSwap"), elsewhere)
    tuned = train_variant(
        tiny, control(tiny.whitening), "batch_norm", 0, crops, "leave_one_out/FaceSwap"
    )
    assert weights_path("batch_norm", 0, "leave_one_out/FaceSwap").exists()
    assert not weights_path("batch_norm", 0).exists()
    assert weights_path(BASELINE, 0).read_bytes() == before
    assert {"minutes", "core_seconds", "peak_memory_gb"} == set(tuned.cost)


def test_transfer_takes_the_models_as_they_are(tiny, crops):
    only = ["whitening_only"]
    ablations = tiny.ablations.model_copy(update={"run": only, "seeds": [0]})
    train = tiny.train.model_copy(update={"seeds": [0]})
    chosen = tiny.model_copy(update={"train": train, "ablations": ablations})
    with pytest.raises(ValueError, match=r"crops of 64 pixels, .* trained on 128"):
        transfer_table(chosen, crops)
    small = chosen.preprocess.model_copy(update={"crop_size": 64})
    chosen = chosen.model_copy(update={"preprocess": small})
    train_baseline(chosen, 0, crops)
    for name, settings in (
        ("batch_norm", control(chosen.whitening)),
        ("whitened", chosen.whitening),
        ("variants/whitening_only", chosen.variant("whitening_only")),
    ):
        train_variant(chosen, settings, name, 0, crops)
    found = transfer_table(chosen, crops).set_index(["model", "family"])
    predictions = score_held_out(
        load_variant(chosen, chosen.whitening, "whitened", 0), chosen, crops.select(quality="c23")
    )
    expected = detection_table(predictions)
    expected = expected[expected["level"] == "frame"].set_index("family")["auc"]
    for family, auc in expected.items():
        assert found.loc[("whitened", family), "auc"] == pytest.approx(auc)
    assert set(found.index.levels[0]) == {"baseline", "batch_norm", "whitened", *only}


def test_cost_is_that_of_the_work_inside():
    with runtime.measured_cost() as cost:
        assert not cost
        until = time.process_time() + 0.05
        while time.process_time() < until:
            pass
    assert 0.05 <= cost["core_seconds"] < 5 and cost["minutes"] > 0.05 / 60 * 0.9
    assert 0.01 < cost["peak_memory_gb"] < 100


def test_evaluation_is_of_test_people_at_every_quality(tiny, crops):
    held_out = score_held_out(train_baseline(tiny, 0, crops), tiny, crops)
    scored = held_out[held_out["split"] == "test"]
    assert list(scored) == [*PREDICTION_COLUMNS, "score"]
    whole = crops.select(split="test", kind="whole").manifest
    assert scored["row"].tolist() == whole["row"].tolist()
    assert set(scored["quality"]) == {"c23", "c40"} and np.isfinite(scored["score"]).all()


def test_every_source_of_the_params_exists():
    field = type(load_params(ROOT / "params.yaml").faces).model_fields["source"]
    assert set(field.annotation.__args__) == set(SOURCES)


def test_project_root(tmp_path, monkeypatch):
    inner = tmp_path / "notebooks"
    inner.mkdir()
    monkeypatch.chdir(inner)
    with pytest.raises(FileNotFoundError, match="start from the project's folder"):
        runtime.project_root()
    for name in ("params.yaml", "dvc.yaml"):
        (tmp_path / name).touch()
    assert runtime.project_root() == tmp_path


def test_partial_folder_depends_on_settings(tmp_path, monkeypatch):
    for name in ("params.yaml", "dvc.yaml"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    one, same, other = (runtime.partial_folder("x", {"seed": s}) for s in (0, 0, 1))
    assert one == same != other and one.is_dir()


def test_seed_repeats():
    values = []
    for _ in range(2):
        runtime.seed_everything(3)
        values.append((torch.rand(2), np.random.rand(2)))
    assert torch.equal(values[0][0], values[1][0]) and (values[0][1] == values[1][1]).all()
    torch.use_deterministic_algorithms(False)


def test_figures_draw():
    table = pd.DataFrame({"g": ["x", "y"], "h": "m", "v": [0.4, 0.6]})
    table = table.assign(v_low=table["v"] - 0.1, v_high=table["v"] + 0.1)
    history = pd.DataFrame({"model": "m", "step": [1, 2], "loss": [1, 0.5], "validation_auc": 0.5})
    names = ("train_mean_correlation", "eval_mean_correlation")
    names += ("train_mean_variance", "eval_mean_variance")
    whiteness = pd.DataFrame({"step": [1, 2], **{name: [0.1, 0.2] for name in names}})
    image = np.zeros((8, 8, 3), np.uint8)
    row = {"label": "f", "image": image, "truth": image, "map": image, "evidence": [1, -1]}
    drawn = [
        plots.contact_sheet([[image, None]], ["a", "b"], ["row"]),
        plots.intervals(table, "v", "g", "h", 0.5, "AUC"),
        plots.histories(history),
        plots.whiteness_history(whiteness),
        plots.correlations({"a": np.eye(3)}),
        plots.heat_table(pd.DataFrame(np.eye(2)), "value"),
        plots.evidence_panel([row], ["one", "two"], ["map"]),
    ]
    for figure in drawn:
        assert figure._repr_png_().startswith(b"\x89PNG")


def test_overlay_colours_say_the_sign():
    image = np.full((1, 2, 3), 128, np.uint8)
    red, blue = overlay(image, np.array([[1.0, -1.0]]), 1.0)[0, :, ::2].astype(int).T
    assert red[0] > blue[0] and blue[1] > red[1]


def backbone(**values):
    train = load_params(ROOT / "params.yaml").train
    return train.model_copy(update={"backbone": train.backbone.model_copy(update=values)})


def test_backbone_weights_come_from_a_file_without_its_classifier(tmp_path):
    source = create_model("test_efficientnet", num_classes=1000)
    torch.nn.init.normal_(source.conv_stem.weight)
    path = tmp_path / "imagenet.safetensors"
    save_weights(source, path)
    model = runs.new_model(backbone(weights=str(path)))
    assert torch.equal(model.conv_stem.weight, source.conv_stem.weight)
    assert model.classifier.weight.shape[0] == 1 and not model.classifier.weight.any()
    save_weights(create_model("resnet10t"), path)
    with pytest.raises(ValueError, match=r"imagenet\.safetensors does not fit this model: "):
        runs.new_model(backbone(weights=str(path)))
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"imagenet\.safetensors is truncated"):
        runs.new_model(backbone(weights=str(path)))
    with pytest.raises(ValueError, match=r"gone\.pth is not a \.safetensors file that exists"):
        runs.new_model(backbone(weights="gone.pth"))


def test_without_a_network_both_ways_to_get_weights_are_named(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        OSError, match=r"HF_HUB_OFFLINE=0.*set train\.backbone\.weights to its path"
    ):
        runs.new_model(backbone(weights="hub"))
