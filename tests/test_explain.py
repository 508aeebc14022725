"""Explanations of a user's files: by hand on three channels, then on a tiny untrained detector."""

import dataclasses
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy.special import expit
from skimage import data
from torch import nn

from fwstudy import explain, params
from fwstudy.crops.cropset import to_tensor
from fwstudy.explain import MahalanobisOOD, TrainedExplainer, explain_crops, reference_statistics
from fwstudy.interpretability import decomposition
from fwstudy.interpretability.calibration import Calibration, calibrate
from fwstudy.labels import FORGED_PARTS
from fwstudy.reporting import panels
from fwstudy.whitening.layer import FeatureWhitening
from fwstudy.whitening.rotation import random_rotation
from fwstudy.whitening.statistics import update_statistics
from fwstudy.whitening.surgery import create_model, find_classifier, replace_norm

from .notebooks import run_here
from .test_inputs import write_clip
from .test_params import ROOT

NAMES = ("mouth", "nose")
SEEDED = SimpleNamespace(train=SimpleNamespace(seeds=[0]))
"""Of the parameters, what the command reads itself."""


def flat_faces(levels: np.ndarray, size: int = 8) -> np.ndarray:
    """Faces of one color each: (N, 3) to (N, size, size, 3) uint8."""
    return np.broadcast_to(levels[:, None, None].round(), (len(levels), size, size, 3)).astype(
        np.uint8
    )


def three_channels() -> tuple[nn.Module, FeatureWhitening]:
    """logit = 2 red - 3 green + 4 blue + 0.5, of colors in [-1, 1]: its layer changes nothing."""
    layer = FeatureWhitening(3, eps=1e-12)
    model = nn.Sequential(layer, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 1))
    with torch.no_grad():
        model[-1].weight.copy_(torch.tensor([[2.0, -3.0, 4.0]]))
        model[-1].bias.fill_(0.5)
    return model.eval(), layer


@pytest.fixture(scope="module")
def trained():
    """The three channels; the training data are reddish, their two other colors near mid-gray."""
    model, layer = three_channels()
    rng = np.random.default_rng(0)
    seen, unseen = rng.normal((180, 128, 128), (20, 10, 5), (2, 400, 3)).clip(0, 255)
    reference = reference_statistics(model, layer, flat_faces(seen), flat_faces(unseen))
    return TrainedExplainer(
        model, layer, NAMES, Calibration(0.5, -1.0), reference, 8, 1.3, "reddish rectangles", 0
    )


@pytest.fixture(scope="module")
def detector(crops):
    """Random weights, but a white and turned last layer, and two crops of everything."""
    torch.manual_seed(0)
    model = create_model("test_efficientnet").eval()
    layer = replace_norm(model, "bn2", FeatureWhitening.from_batch_norm).eval()
    nn.init.normal_(find_classifier(model).weight, std=0.3)
    crops = crops.select(quality="c23")
    training = crops.select(split="train", kind="whole").manifest["row"]
    update_statistics(model, layer, [to_tensor(crops.images[training])])
    layer.set_rotation(random_rotation(256, torch.Generator().manual_seed(0)))
    about = {"crop_size": 64, "crop_scale": 1.3, "data": "blobs", "seed": 0}
    made = explain.make_trained(model, layer, FORGED_PARTS, crops, **about)
    return dataclasses.replace(made, calibration=Calibration())


@pytest.fixture(scope="module")
def astronaut() -> np.ndarray:
    return data.astronaut()[:320, 60:380]


@pytest.fixture(scope="module")
def folder(astronaut, tmp_path_factory):
    """A photograph, a clip with a gap, and what cannot be explained."""
    root = tmp_path_factory.mktemp("my files")
    Image.fromarray(astronaut).save(root / "ann's photo ☃.png")
    wall = np.full_like(astronaut, 90)
    write_clip(root / "clip.mp4", [astronaut] * 4 + [wall] * 4 + [astronaut[:, ::-1]] * 4)
    Image.fromarray(wall).save(root / "wall.png")
    (root / "broken.jpg").write_bytes(b"no photograph")
    return root


@pytest.fixture(scope="module")
def explained(detector, folder):
    table, kept = explain.explain_all(detector, sorted(folder.iterdir()), frames=3)
    return table.set_index(table["file"].map(lambda file: file.rsplit("/")[-1])), kept


def test_evidence_by_hand(trained):
    """Left half pure red, right half pure blue: red and blue are 1 on half of it, green is -1."""
    face = np.zeros((1, 8, 8, 3), np.uint8)
    face[:, :, :4, 0] = face[:, :, 4:, 2] = 255
    found = explain_crops(trained, face)
    # red: (1 - 1) / 2 = 0, green: -1, blue: 0
    np.testing.assert_allclose(found.evidence, [[0, 3]], atol=1e-5)
    np.testing.assert_allclose(found.rest, [0.5], atol=1e-5)
    np.testing.assert_allclose(found.logits, [3.5], atol=1e-5)
    np.testing.assert_allclose(found.probability, expit([0.75]), atol=1e-6)
    assert found.maps.shape == (1, 2, 8, 8) and found.rest_maps.shape == (1, 8, 8)
    np.testing.assert_allclose(found.maps[0, 0, :, :4], 2 / 64, rtol=1e-5)
    np.testing.assert_allclose(found.maps[0, 0, :, 4:], -2 / 64, rtol=1e-5)
    np.testing.assert_allclose(found.maps[0, 1], 3 / 64, rtol=1e-5)
    np.testing.assert_allclose(found.rest_maps[0, :, 4:], 4 / 64, rtol=1e-5)
    total = found.maps.sum(axis=(1, 2, 3)) + found.rest_maps.sum(axis=(1, 2)) + 0.5  # and the bias
    np.testing.assert_allclose(total, found.logits, atol=1e-4)


def test_distance_by_hand():
    reference = MahalanobisOOD(np.array([1.0, 0]), np.diag([1, 0.25]), np.arange(101.0))
    np.testing.assert_allclose(reference.distance(np.array([[1, 0], [4, 8]])), [0, 5])
    assert reference.limit == 99
    assert reference.share_nearer(1) == pytest.approx(99 / 101)
    assert reference.share_nearer(0) == 0 and reference.share_nearer(2) == 1


def test_only_what_is_like_the_training_data_counts_as_such(trained):
    rng = np.random.default_rng(1)
    alike = explain_crops(trained, flat_faces(rng.normal((180, 128, 128), (20, 10, 5), (1000, 3))))
    assert 0.97 < np.mean(alike.ood_score <= 1) <= 1
    # In blue the training data vary least: 40 levels off are 8 standard deviations there, but the
    # same step is common in red.
    levels = np.array([[220.0, 128, 128], [180, 128, 168]])
    red, blue = explain_crops(trained, flat_faces(levels)).ood_score
    assert red < 1 and blue > 2


def test_many_faces_are_the_same_as_one_by_one(trained):
    rng = np.random.default_rng(2)
    faces = rng.integers(0, 255, (70, 8, 8, 3), dtype=np.uint8)  # more than one batch
    together, last = explain_crops(trained, faces), explain_crops(trained, faces[-1:])
    for field in ("logits", "probability", "evidence", "rest", "maps", "rest_maps", "ood_score"):
        values = getattr(together, field)
        assert len(values) == 70
        np.testing.assert_allclose(values[-1:], getattr(last, field), rtol=1e-4, atol=1e-5)


def test_detector_decomposes_and_its_maps_are_those_of_the_study(detector, crops):
    faces = crops.images[:5]
    found = explain_crops(detector, faces)
    with torch.no_grad():
        logits = detector.model(to_tensor(faces))[:, 0].numpy()
    np.testing.assert_allclose(found.evidence.sum(axis=1) + found.rest, logits, atol=1e-4)
    images = to_tensor(faces)
    for axis in (0, 3):
        expected = decomposition.evidence_maps(detector.model, detector.layer, images, [axis])
        shown = found.maps[:, axis] + detector.typical_maps[axis]  # told relative to it
        np.testing.assert_allclose(shown, expected, atol=1e-6)
    others = decomposition.evidence_maps(detector.model, detector.layer, images, slice(4, None))
    np.testing.assert_allclose(found.rest_maps + detector.typical_maps[-1], others, atol=1e-5)


def test_reference_and_calibration_are_of_validation_faces(detector, crops):
    chosen = crops.select(split=["train", "validation"], quality="c23")
    about = {"crop_size": 64, "crop_scale": 1.3, "data": "blobs", "seed": 0}
    made = explain.make_trained(detector.model, detector.layer, ["a_b"], chosen, **about)
    assert made.names == ("a b",)
    validation = chosen.select(split="validation", kind="whole")
    assert len(made.reference.distances) == len(validation)
    found = explain_crops(made, validation.images[validation.manifest["row"]])
    assert found.ood_score.max() == pytest.approx(
        made.reference.distances[-1] / made.reference.limit, rel=1e-3
    )
    labels = validation.manifest["label"].to_numpy()
    assert made.calibration == calibrate(labels, found.logits)


def test_another_layer_is_refused(trained):
    model = nn.Sequential(FeatureWhitening(3), nn.Conv2d(3, 3, 1), *trained.model[1:]).eval()
    other = dataclasses.replace(trained, model=model, layer=model[0])
    with pytest.raises(ValueError, match="not before the pooling"):
        explain_crops(other, flat_faces(np.array([[180, 128, 128]])))


def test_unlikeness_does_not_depend_on_the_rotation(detector, crops):
    training, new = crops.images[:60], crops.images[60:64]
    distances = []
    for seed in (1, 2):
        generator = torch.Generator().manual_seed(seed)
        before = detector.layer.rotation.clone()
        detector.layer.set_rotation(random_rotation(256, generator))
        found = reference_statistics(detector.model, detector.layer, training, new)
        detector.layer.set_rotation(before)
        distances.append(found.distances)
    np.testing.assert_allclose(*distances, rtol=1e-3)


def test_a_photograph_is_explained_and_unlike_blobs(explained, detector):
    table, kept = explained
    row = table.loc["ann's photo ☃.png"]
    assert row["problem"] == "" and row["frames"] == row["frames_with_face"] == row["faces"] == 1
    assert row[[*detector.names, explain.RESIDUAL]].sum() == pytest.approx(row["logit"], abs=1e-4)
    assert row["probability"] == pytest.approx(expit(row["logit"]), abs=1e-6)
    assert row["verdict"] == ("forged" if row["logit"] >= 0 else "not forged")
    assert row["is_ood"] and row["ood_score"] > 1
    photo = kept[0]
    assert photo.name == "ann's photo ☃.png" and not photo.footage.is_clip
    text = explain.describe(detector, photo)
    assert f"{photo.name}: {row['verdict']}; probability of a forgery" in text
    assert "UNLIKE THE TRAINING DATA (blobs)" in text and "Do not rely on this verdict" in text


def test_a_clip_gets_the_mean_logit_of_its_frames_with_a_face(explained, detector):
    table, kept = explained
    row, clip = table.loc["clip.mp4"], kept[1]
    assert (row["frames"], row["frames_with_face"]) == (3, 2)
    assert clip.table["has_face"].tolist() == [True, False, True]
    assert clip.table["notes"].tolist() == ["", "no face found", ""]
    first, second = clip.explanation.logits
    assert row["logit"] == pytest.approx((first + second) / 2, abs=1e-5) and first != second
    assert row["probability"] == pytest.approx(expit((first + second) / 2), abs=1e-6)
    assert row["notes"] == "no face in 1 of 3 frames"
    np.testing.assert_allclose(clip.table["logit"], [first, np.nan, second])
    text = explain.describe(detector, clip)
    assert "mean of 2 frames with a face, out of 3" in text
    assert "Note: no face in 1 of 3 frames." in text


def test_what_cannot_be_explained_is_a_row_that_says_why(explained, detector, folder):
    table, kept = explained
    assert len(kept) == 2 and len(table) == 4
    assert table.loc["wall.png", "problem"].startswith("no face found in the photograph")
    assert "at least 20 px wide" in table.loc["wall.png", "problem"]
    assert table.loc["broken.jpg", "problem"].startswith("cannot be read as a photograph or clip")
    assert table.loc[["wall.png", "broken.jpg"], "logit"].isna().all()
    with pytest.raises(ValueError, match=r"wall\.png: no face found"):
        explain.explain_path(detector, folder / "wall.png")
    only, none = explain.explain_all(detector, [folder / "wall.png"])
    assert list(only.columns) == ["file", "problem"] and none == []


def test_a_fault_of_the_model_is_no_problem_of_the_file(detector, folder):
    """It is raised, and not written down as if the photograph were to blame."""
    earlier = detector.model.get_submodule("blocks.1.0.bn2")
    broken = dataclasses.replace(detector, layer=earlier)
    with pytest.raises(ValueError, match="not before the pooling"):
        explain.explain_all(broken, [folder / "ann's photo ☃.png"])


def test_details_are_kept_of_the_first_files_alone(detector, folder):
    paths = [folder / "wall.png", *[folder / "ann's photo ☃.png"] * 3]
    table, kept = explain.explain_all(detector, paths, keep=2)
    assert len(table) == 4 and len(kept) == 2


def test_description_names_what_speaks_for_and_against(trained, explained):
    photo = explained[1][0]
    summary = {"verdict": "forged", "probability": 0.875, "logit": 1.5, "mouth": 2.0, "nose": -1.0}
    summary |= {explain.RESIDUAL: 0.5, "is_ood": False, "ood_percentile": 0.25, "notes": ""}
    text = explain.describe(trained, dataclasses.replace(photo, name="a.png", summary=summary))
    assert text == (
        "a.png: forged; probability of a forgery 88% (logit +1.50).\n"
        "For a forgery speak mouth (+2.00); against it nose (-1.00). Together the concept axes give "
        "+1.00, what has no name (other axes and the bias) +0.50.\n"
        "Not found to be unlike the training data (reddish rectangles): farther away than 25% of "
        "unseen faces of that kind."
    )
    at_edge = dataclasses.replace(photo, summary=summary | {"ood_percentile": 0.97})
    assert "At the edge of the training data" in explain.describe(trained, at_edge)


def test_panels_are_of_frames_with_a_face(explained):
    panels = explain.panels(explained[1][1])
    assert panels["labels"] == ["0.08 s", "0.40 s"] and len(panels["boxes"]) == 2
    figure = panels.face_sheet(**panels)
    assert len(figure.axes) == 2 * (4 + 4)
    assert [axis.get_title() for axis in figure.axes[:6]] == [
        *("picture", "face", "all axes", "concept axes", "left eye", "right eye")
    ]
    assert len(explain.panels(explained[1][1], most=1)["crops"]) == 1


def test_strongest_axes_keep_their_order():
    assert panels.strongest(np.array([[1, -9, 0, 4], [1, 9, 0, 4]]), 2).tolist() == [1, 3]


def test_marked_picture_is_square_and_shows_the_box():
    picture = panels.marked(np.zeros((50, 100, 3), np.uint8), [20, 10, 60, 50], 200)
    assert picture.shape == (200, 200, 3)
    assert (picture[:47] == 235).all() and (picture[153:] == 235).all()
    assert (picture[70, 40:120] == 255).all() and (picture[80, 50] == 0).all()


def test_bars_add_up_to_the_verdict():
    values = pd.DataFrame(np.arange(40).reshape(2, 20) - 18.0, columns=[f"a{i}" for i in range(20)])
    rest = np.array([1.0, 3.0])
    axis = panels.evidence_bars(values, rest, "title").axes[0]
    widths = [bar.get_width() for bar in axis.patches]
    labels = [label.get_text() for label in axis.get_yticklabels()]
    assert labels[-3:] == ["4 other concept axes", "residual axes, bias", "verdict (logit)"]
    assert len(widths) == 16 + 3
    assert sum(widths[:-1]) == pytest.approx(widths[-1])
    assert widths[-1] == pytest.approx(values.sum(axis=1).mean() + 2)


def test_lines_over_time_break_where_there_is_no_face(explained, detector):
    table = explained[1][1].table
    figure = panels.evidence_over_time(table, detector.names, explain.RESIDUAL)
    above, below = figure.axes
    lines = {line.get_label(): line for line in (*above.lines, *below.lines)}
    assert {*detector.names, "verdict (logit)", "concept axes", "no face"} <= set(lines)
    np.testing.assert_allclose(lines["mouth"].get_ydata(), table["mouth"])
    named, rest = (lines[name].get_ydata() for name in ("concept axes", "residual axes, bias"))
    assert np.isnan(named[1])
    np.testing.assert_allclose(named + rest, table["logit"], atol=1e-4)
    assert lines["no face"].get_xdata().tolist() == table.loc[[1], "time"].tolist()


@pytest.mark.parametrize("gap", [True, False])
def test_lines_over_time_fill_the_figure(explained, detector, gap):
    table = explained[1][1].table
    table = table if gap else table[table["has_face"]]
    figure = panels.evidence_over_time(table, detector.names, explain.RESIDUAL)
    figure._repr_png_()
    assert all(axis.get_position().height > 0.3 for axis in figure.axes)


def test_unlikeness_strip_marks_every_input():
    axis = panels.ood_strip(np.linspace(0.3, 1.1, 50), {"a": 0.5, "b": 30}).axes[0]
    assert [line.get_xdata()[0] for line in axis.lines] == [1, 0.5, 30]
    assert axis.get_xscale() == "log"


def assert_offline(page: str) -> None:
    assert "<script" not in page and "<link" not in page and "@import" not in page
    assert not re.search(r"(src|href)=[\"'](?!data:|#)", page)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project whose models are not trained."""
    root = tmp_path_factory.mktemp("project")
    shutil.copy(ROOT / "params.yaml", root)
    shutil.copy(ROOT / "dvc.yaml", root)
    (root / "notebooks").mkdir()
    shutil.copy(ROOT / "notebooks" / "08_explain.ipynb", root / "notebooks")
    return root


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["gone.jpg"], "gone.jpg: no such file or folder"),
        (["notebooks"], "notebooks: no photograph or clip in this folder"),
        (["params.yaml"], "params.yaml: cannot be read as a photograph or clip"),
        (["photo.png"], "no trained model yet (data/models/"),
        (["photo.png", "--frames", "0"], "the number of frames must be at least 1, not 0"),
    ],
)
def test_errors_of_the_user_are_one_line(project, astronaut, monkeypatch, words, reason):
    monkeypatch.chdir(project)
    monkeypatch.setattr(explain, "load_params", lambda path: SEEDED)
    Image.fromarray(astronaut).save("photo.png")
    with pytest.raises(SystemExit) as exit_:
        explain.main(words)
    assert str(exit_.value).startswith(f"error: {reason}") and "\n" not in str(exit_.value)
    assert not (project / "data" / "explained").exists()


def test_a_folder_becomes_a_page_and_a_table(
    project, detector, folder, monkeypatch, capsys, caplog
):
    """The whole way: command, notebook, page."""
    monkeypatch.chdir(project)
    monkeypatch.setattr(explain, "load_params", lambda path: SEEDED)
    monkeypatch.setattr(explain, "check_trained", lambda params: None)
    monkeypatch.setattr(explain, "load_trained", lambda params: detector)
    monkeypatch.setattr(params, "load_params", lambda path: SEEDED)
    monkeypatch.setattr(explain, "execute", run_here)
    explain.main([str(folder), "--frames", "3"])
    output = project / "data" / "explained" / folder.name
    assert capsys.readouterr().out == f"page: {output / 'page.html'}\n"
    assert "Alternative text is missing" not in caplog.text
    page = (output / "page.html").read_text(encoding="utf-8")
    assert_offline(page)
    assert page.count("data:image/png;base64") == 1 + 2 + 2 + 1
    for claim in ("UNLIKE THE TRAINING DATA", "wall.png: NOT EXPLAINED, no face found", "photo ☃"):
        assert claim in page
    table = pd.read_csv(output / "evidence.csv")
    assert len(table) == 4 and table["problem"].notna().sum() == 2
    named = [name.replace("_", " ") for name in FORGED_PARTS]
    total = table[[*named, explain.RESIDUAL]].sum(axis=1, skipna=False)
    np.testing.assert_allclose(total, table["logit"], atol=1e-4)
