"""Small pieces of the study: shortcuts, comparison, sources, runtime, figures."""

import numpy as np
import pandas as pd
import pytest
import torch

from fwstudy import comparison, figures, runtime, shortcuts
from fwstudy.params import load_params
from fwstudy.sources import SOURCES

from .test_params import ROOT


def predictions(shift=0.0, seed=0):
    rng = np.random.default_rng(seed)
    rows = [
        {"group": f"{i}", "identity": f"{i}", "clip": f"{i}_0", "frame": f, "variant": v, "quality": "c23",
         "label": int(v != "original")}
        for i in range(8) for f in range(3) for v in ("original", "FaceSwap")
    ]  # fmt: skip
    table = pd.DataFrame(rows)
    return table.assign(score=rng.normal(table["label"] * shift))


def test_compare_with_itself_is_zero():
    table = comparison.compare({"a": predictions(1), "b": predictions(1)}, "a", "c23")
    columns = ["difference", "difference_low", "difference_high"]
    np.testing.assert_array_equal(table[columns], 0)


def test_compare_finds_the_better_model():
    table = comparison.compare({"good": predictions(4), "blind": predictions(0)}, "blind", "c23")
    good = table.set_index("variant").loc["good"]
    assert good["difference"] == pytest.approx(good["auc"] - table["auc"].min())
    assert 0 < good["difference_low"] <= good["difference"] <= good["difference_high"]
    assert good["num_images"] == 48 and good["num_identities"] == 8


def test_compare_refuses_other_images():
    with pytest.raises(ValueError, match="b and a were not scored on the same images"):
        comparison.compare({"a": predictions(), "b": predictions()[4:]}, "a", "c23")


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
    images, parts = np.array(crops.images[rows]), crops.parts[rows]
    inside = parts != 0
    changed = images.copy()
    changed[inside] = 255 - changed[inside]
    before, after = (shortcuts.background(x, parts) for x in (images, changed))
    np.testing.assert_array_equal(before, after)


def test_shortcut_table(crops):
    table = shortcuts.shortcut_table(crops.select(kind="whole", quality="c23"))
    assert set(table["features"]) == {*shortcuts.PIXEL_PROBES, "file size"}
    assert table["auc"].between(0, 1).all()


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
        figures.contact_sheet([[image, None]], ["a", "b"], ["row"]),
        figures.intervals(table, "v", "g", "h", 0.5, "AUC"),
        figures.histories(history),
        figures.whiteness_history(whiteness),
        figures.correlations({"a": np.eye(3)}),
        figures.heat_table(pd.DataFrame(np.eye(2)), "value"),
        figures.evidence_panel([row], ["one", "two"], ["map"]),
        figures.plane(table, "v", "v", "g", "x", "y"),
    ]
    for figure in drawn:
        assert figure._repr_png_().startswith(b"\x89PNG")


def test_overlay_colours_say_the_sign():
    image = np.full((1, 2, 3), 128, np.uint8)
    red, blue = figures.overlay(image, np.array([[1.0, -1.0]]), 1.0)[0, :, ::2].astype(int).T
    assert red[0] > blue[0] and blue[1] > red[1]
