"""Explanations of a user's files: by hand on three channels, then on a tiny untrained detector."""

import dataclasses
import errno
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy.special import expit
from sklearn.covariance import LedoitWolf
from torch import nn

from fwstudy import execute
from fwstudy.crops.cropset import to_tensor
from fwstudy.explain import bundle, files, page, panels
from fwstudy.explain.__main__ import main
from fwstudy.explain.detector import (
    MahalanobisOOD,
    TrainedExplainer,
    contributions,
    explain_crops,
    make_trained,
    reference_statistics,
)
from fwstudy.interpretability import decomposition
from fwstudy.interpretability.calibration import Calibration, calibrate
from fwstudy.labels import FORGED_PARTS
from fwstudy.whitening.layer import FeatureWhitening
from fwstudy.whitening.rotation import random_rotation

from .notebooks import run_here
from .test_inputs import write_clip
from .test_params import ROOT

NAMES = ("mouth", "nose")
ABOUT = {
    "architecture": {
        "backbone": "test_efficientnet",
        "options": {},
        "layer": "bn2",
        "whitening": {"num_groups": 8},
        "activation": None,
    },
    "crop_size": 64,
    "crop_scale": 1.3,
    "data": "blobs",
    "seed": 0,
}


def flat_faces(levels: np.ndarray, size: int = 8) -> np.ndarray:
    """Faces of one color each: (N, 3) to (N, size, size, 3) uint8."""
    shape = (len(levels), size, size, 3)
    return np.broadcast_to(levels[:, None, None].round(), shape).astype(np.uint8)


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
    features = (contributions(model, layer, flat_faces(levels), 2)[2] for levels in (seen, unseen))
    nothing = np.zeros((3, 1, 1), np.float32)
    about = {"crop_size": 8, "crop_scale": 1.3, "data": "reddish rectangles", "seed": 0}
    return TrainedExplainer(
        model, layer, {}, NAMES, 0.5, -1.0, reference_statistics(*features), nothing, **about
    )


@pytest.fixture(scope="module")
def detector(aligned, crops):
    chosen = crops.select(quality="c23")
    made = make_trained(aligned.model, aligned.layer, FORGED_PARTS, chosen, **ABOUT)
    return dataclasses.replace(made, slope=0.8, intercept=1.5)


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
    table, kept = files.explain_all(detector, sorted(folder.iterdir()), frames=3)
    return table.set_index(table["file"].map(lambda file: file.rsplit("/")[-1])), kept


def test_evidence_by_hand(trained):
    """Left half pure red, right half pure blue: red and blue are 1 on half of it, green is -1."""
    face = np.zeros((1, 8, 8, 3), np.uint8)
    face[:, :, :4, 0] = face[:, :, 4:, 2] = 255
    found = explain_crops(trained, face)
    # slope 0.5 times red: (1 - 1) / 2 = 0, green: -3 x -1, blue: 0
    np.testing.assert_allclose(found.evidence, [[0, 1.5]], atol=1e-5)
    np.testing.assert_allclose(found.rest, [0], atol=1e-5)
    assert found.boundary == 0.5 * 0.5 - 1
    np.testing.assert_allclose(found.log_odds, [0.75], atol=1e-5)
    np.testing.assert_allclose(found.probability, expit([0.75]), atol=1e-6)
    assert found.maps.shape == (1, 2, 8, 8) and found.rest_maps.shape == (1, 8, 8)
    np.testing.assert_allclose(found.maps[0, 0, :, :4], 1 / 64, rtol=1e-5)
    np.testing.assert_allclose(found.maps[0, 0, :, 4:], -1 / 64, rtol=1e-5)
    np.testing.assert_allclose(found.maps[0, 1], 1.5 / 64, rtol=1e-5)
    np.testing.assert_allclose(found.rest_maps[0, :, 4:], 2 / 64, rtol=1e-5)


def test_the_shown_sum_is_the_verdict(detector, crops):
    """On every crop, and although the boundary parts faces elsewhere than the logit's sign."""
    found = explain_crops(detector, crops.images[:])
    with torch.inference_mode():
        logits = detector.model(to_tensor(crops.images[:]))[:, 0].numpy()
    total = found.boundary + found.evidence.sum(axis=1) + found.rest
    np.testing.assert_array_equal(found.log_odds, total)
    np.testing.assert_array_equal(found.probability, expit(total))
    np.testing.assert_array_equal(found.probability > 0.5, total > 0)
    calibration = Calibration(detector.slope, detector.intercept)
    np.testing.assert_allclose(found.probability, calibration.probability(logits), atol=1e-5)
    assert ((total > 0) != (logits > 0)).any() and ((total > 0) == (logits > 0)).any()


def test_without_an_axis_is_what_the_network_says_without_it(detector, crops):
    """The axis of the layer itself is held at what a typical original shows."""
    faces = crops.images[:6]
    found = explain_crops(detector, faces)
    originals = crops.select(quality="c23", split="validation", kind="whole", label=0).manifest
    seen = []
    with torch.inference_mode():
        with detector.layer.register_forward_hook(lambda *values: seen.append(values[-1])):
            detector.model(to_tensor(crops.images[originals["row"].to_numpy()]))
        typical = seen[0].mean(dim=0)
        for axis in range(len(detector.names)):

            def edited(layer, given, output, axis=axis):
                output[:, axis] = typical[axis]
                return output

            with detector.layer.register_forward_hook(edited):
                logits = detector.model(to_tensor(faces))[:, 0].numpy()
            expected = expit(detector.slope * logits + detector.intercept)
            without = expit(found.log_odds - found.evidence[:, axis])
            np.testing.assert_allclose(without, expected, atol=1e-5)


def test_a_typical_original_stands_at_the_boundary(detector, crops):
    originals = crops.select(quality="c23", split="validation", kind="whole", label=0).manifest
    found = explain_crops(detector, crops.images[originals["row"].to_numpy()])
    np.testing.assert_allclose(found.evidence.mean(axis=0), 0, atol=1e-5)
    assert found.log_odds.mean() == pytest.approx(found.boundary, abs=1e-5)


def test_distance_by_hand_and_by_scikit_learn():
    square = np.diag(np.float32([1, 0.25]))
    reference = MahalanobisOOD(np.float32([1, 0]), square, np.arange(101, dtype=np.float32))
    np.testing.assert_allclose(reference.distance(np.array([[1, 0], [4, 8]])), [0, 5])
    assert reference.limit == 99
    assert reference.share_nearer(1) == pytest.approx(99 / 101)
    assert reference.share_nearer(0) == 0 and reference.share_nearer(2) == 1
    seen, unseen = np.random.default_rng(0).normal(size=(2, 300, 6)).astype(np.float32)
    found, known = reference_statistics(seen, unseen), LedoitWolf().fit(seen)
    np.testing.assert_allclose(found.distance(unseen) ** 2, known.mahalanobis(unseen), rtol=1e-4)
    np.testing.assert_allclose(np.sort(found.distance(unseen)), found.distances, rtol=1e-4)


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
    for field in ("log_odds", "probability", "evidence", "rest", "maps", "rest_maps", "ood_score"):
        values = getattr(together, field)
        assert len(values) == 70
        np.testing.assert_allclose(values[-1:], getattr(last, field), rtol=1e-4, atol=1e-5)


def test_maps_are_those_of_the_study(detector, crops):
    images = to_tensor(crops.images[:5])
    _, maps, _ = contributions(detector.model, detector.layer, crops.images[:5], 4)
    for place, axes in ((0, [0]), (3, [3]), (4, slice(4, None))):
        expected = decomposition.evidence_maps(detector.model, detector.layer, images, axes)
        shown = decomposition.resize(torch.from_numpy(maps[:, place]), 64)
        np.testing.assert_allclose(shown, expected, atol=1e-5)


def test_reference_and_calibration_are_of_validation_faces(detector, crops):
    chosen = crops.select(split=["train", "validation"], quality="c23")
    made = make_trained(detector.model, detector.layer, ["a_b"], chosen, **ABOUT)
    assert made.names == ("a b",)
    validation = chosen.select(split="validation", kind="whole")
    assert len(made.reference.distances) == len(validation)
    images = validation.images[validation.manifest["row"]]
    largest = made.reference.distances[-1] / made.reference.limit
    assert explain_crops(made, images).ood_score.max() == pytest.approx(largest, rel=1e-3)
    logits = contributions(detector.model, detector.layer, images, 1)[0]
    fitted = calibrate(validation.manifest["label"].to_numpy(), logits)
    assert (made.slope, made.intercept) == (fitted.slope, fitted.intercept)


def test_large_terms_that_cancel_are_no_other_layer():
    """Red speaks for a forgery as green does against it, and either is rounded at its own size."""
    model, layer = three_channels()
    with torch.no_grad():
        model[-1].weight.copy_(torch.tensor([[1e7, -1e7, 0.0]]))
    faces = np.random.default_rng(0).integers(0, 255, (8, 16, 16, 3), dtype=np.uint8)
    faces[..., 1] = faces[:, ::-1, ::-1, 0]
    logits, maps, _ = contributions(model, layer, faces, 2)
    assert np.abs(maps).sum((1, 2, 3)).min() > 1e5 * np.abs(logits).max()


def test_distance_does_not_depend_on_the_rotation(detector, crops):
    distances, before = [], detector.layer.rotation.clone()
    for seed in (1, 2):
        detector.layer.set_rotation(random_rotation(256, torch.Generator().manual_seed(seed)))
        features = contributions(detector.model, detector.layer, crops.images[:64], 4)[2]
        distances.append(reference_statistics(features[:60], features[60:]).distances)
    detector.layer.set_rotation(before)
    np.testing.assert_allclose(*distances, rtol=1e-3)


def test_a_photograph_is_explained_and_unlike_blobs(explained, detector):
    table, kept = explained
    row = table.loc["ann's photo ☃.png"]
    assert row["problem"] == "" and row["frames"] == row["frames_with_face"] == row["faces"] == 1
    shares = [files.BOUNDARY, *detector.names, files.RESIDUAL]
    sums, done = table[shares].sum(axis=1), table["problem"] == ""
    np.testing.assert_allclose(sums[done], table["log_odds"][done], atol=1e-12)
    assert ((sums > 0) == (table["verdict"] == "forged"))[done].all()
    assert row["probability"] == expit(row["log_odds"])
    assert row["verdict"] == ("forged" if row["log_odds"] > 0 else "not forged")
    assert row["is_ood"] and row["ood_score"] > 1
    photo = kept[0]
    assert photo.name == "ann's photo ☃.png" and not photo.footage.is_clip
    text = files.describe(detector, photo)
    assert f"{photo.name}: {row['verdict']}; probability of a forgery" in text
    assert "UNLIKE THE TRAINING DATA (blobs)" in text and "Do not rely on this verdict" in text


def test_a_clip_gets_the_mean_logit_of_its_frames_with_a_face(explained, detector):
    table, kept = explained
    row, clip = table.loc["clip.mp4"], kept[1]
    assert (row["frames"], row["frames_with_face"]) == (3, 2)
    assert clip.table["has_face"].tolist() == [True, False, True]
    assert clip.table["notes"].tolist() == ["", "no face found", ""]
    first, second = clip.explanation.log_odds
    assert row["log_odds"] == pytest.approx((first + second) / 2, abs=1e-5) and first != second
    assert row["probability"] == pytest.approx(expit((first + second) / 2), abs=1e-6)
    assert row["notes"] == "no face in 1 of 3 frames"
    np.testing.assert_allclose(clip.table["log_odds"], [first, np.nan, second])
    text = files.describe(detector, clip)
    assert "mean of 2 frames with a face, out of 3" in text
    assert "Note: no face in 1 of 3 frames." in text


def test_what_cannot_be_explained_is_a_row_that_says_why(explained, detector, folder):
    table, kept = explained
    assert len(kept) == 2 and len(table) == 4
    assert table.loc["wall.png", "problem"].startswith("no face found in the photograph")
    assert "at least 16 px wide" in table.loc["wall.png", "problem"]
    assert table.loc["broken.jpg", "problem"].startswith("cannot be read as a photograph or clip")
    assert table.loc[["wall.png", "broken.jpg"], "log_odds"].isna().all()
    with pytest.raises(ValueError, match=r"wall\.png: no face found"):
        files.explain_path(detector, folder / "wall.png")
    only, none = files.explain_all(detector, [folder / "wall.png"])
    assert list(only.columns) == ["file", "problem"] and none == []


def test_another_layer_is_refused(trained):
    model = nn.Sequential(FeatureWhitening(3), nn.Conv2d(3, 3, 1), *trained.model[1:]).eval()
    other = dataclasses.replace(trained, model=model, layer=model[0])
    with pytest.raises(ValueError, match="not before the pooling"):
        explain_crops(other, flat_faces(np.array([[180, 128, 128]])))


def test_a_fault_of_the_model_is_no_problem_of_the_file(detector, folder):
    """It is raised, and not written down as if the photograph were to blame."""
    earlier = detector.model.get_submodule("blocks.1.0.bn2")
    broken = dataclasses.replace(detector, layer=earlier)
    with pytest.raises(ValueError, match="not before the pooling"):
        files.explain_all(broken, [folder / "ann's photo ☃.png"])


def test_details_are_kept_of_the_first_files_alone(detector, folder):
    paths = [folder / "wall.png", *[folder / "ann's photo ☃.png"] * 3]
    table, kept = files.explain_all(detector, paths, keep=2)
    assert len(table) == 4 and len(kept) == 2


def test_no_more_pictures_of_a_clip_are_kept_than_are_shown(detector, folder):
    report = files.explain_path(detector, folder / "clip.mp4", frames=12)
    kept = [image is not None for image in report.footage.images]
    assert len(kept) == 12 and sum(kept) == files.PICTURES < report.table["has_face"].sum()
    assert kept[0] and panels.face_sheet(report).count("<tr>") == 1 + files.PICTURES


def test_description_names_what_speaks_for_and_against(trained, explained):
    photo = explained[1][0]
    summary = {"verdict": "forged", "probability": 0.875, "log_odds": 1.5, "is_ood": False}
    summary |= {"mouth": 2.0, "nose": -1.0, files.RESIDUAL: 0.75, files.BOUNDARY: -0.25}
    summary |= {"ood_percentile": 0.25, "notes": ""}
    text = files.describe(trained, dataclasses.replace(photo, name="a.png", summary=summary))
    assert text == (
        "a.png: forged; probability of a forgery 88% (log-odds +1.50).\n"
        "For a forgery speak mouth (+2.00); against it nose (-1.00). The sum: -0.25 for a typical "
        "original (the boundary), +1.00 from the concept axes, +0.75 from the residual axes, which "
        "have no name.\n"
        "Without the evidence of one of them the probability would be: mouth 38%, nose 92%.\n"
        "Not found to be unlike the training data (reddish rectangles): farther away than 25% of "
        "unseen faces of that kind."
    )
    at_edge = dataclasses.replace(photo, summary=summary | {"ood_percentile": 0.97})
    assert "At the edge of the training data" in files.describe(trained, at_edge)


def test_what_is_read_is_what_was_written(detector, crops, tmp_path):
    bundle.write(detector, tmp_path / "one")
    read = bundle.read(tmp_path / "one", "a test")
    one, other = (explain_crops(which, crops.images[:9]) for which in (detector, read))
    for field in dataclasses.fields(one):
        values = [np.asarray(getattr(explained, field.name)) for explained in (one, other)]
        if values[0].dtype.kind == "f":  # several threads round otherwise
            np.testing.assert_allclose(*values, rtol=1e-5, atol=1e-6)
        else:
            np.testing.assert_array_equal(*values)
    assert (read.names, read.seed, read.origin) == (detector.names, 0, "a test")
    bundle.write(read, tmp_path / "two")
    for name in (bundle.SETTINGS, bundle.TENSORS, bundle.SUMS):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@pytest.mark.parametrize("name", [bundle.SETTINGS, bundle.TENSORS, bundle.SUMS])
def test_files_of_a_bundle_are_checked(detector, tmp_path, name):
    bundle.write(detector, tmp_path)
    content = (tmp_path / name).read_bytes()
    named = bundle.SETTINGS if name == bundle.SUMS else name
    for broken in (content[:-1], content.replace(b"0", b"1", 1)):
        (tmp_path / name).write_bytes(broken)
        if name != bundle.SUMS or broken != content[:-1]:
            with pytest.raises(ValueError, match=f"{named} is truncated or altered"):
                bundle.read(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(ValueError, match=f"{name} is missing"):
        bundle.read(tmp_path)


def test_a_bundle_of_another_version_is_told(detector, tmp_path):
    other = dataclasses.replace(detector, architecture=ABOUT["architecture"] | {"layer": "bn9"})
    bundle.write(other, tmp_path)
    with pytest.raises(ValueError, match=r"detector.json does not fit this version: 'bn9' is not"):
        bundle.read(tmp_path)


def test_own_detector_goes_before_the_shipped_one(project, detector, monkeypatch):
    """It is calibrated once, and anew when its weights change."""
    made = []
    monkeypatch.setattr(bundle, "of_study", lambda *_: made.append(1) or detector)
    bundle.write(detector, project / bundle.SHIPPED)
    assert bundle.find(project).origin.startswith("the one that comes with the study")
    with pytest.raises(ValueError, match=r"no trained model yet \(data/models/seed0/whitened"):
        bundle.find(project, own=True)
    weights = project / "data" / "models" / "seed0" / "whitened.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"one")
    with pytest.raises(ValueError, match=r"manifest.csv is missing"):
        bundle.find(project)
    (project / "data" / "crops").mkdir()
    (project / "data" / "crops" / "manifest.csv").write_text("")
    assert [bundle.find(project).origin[:8] for _ in range(2)] == ["your own"] * 2
    assert len(made) == 1
    weights.write_bytes(b"two")
    main(["--export", "mine"])
    assert len(made) == 2 and bundle.read(project / "mine").names == detector.names


def test_strongest_axes_keep_their_order():
    assert panels.strongest(np.array([[1, -9, 0, 4], [1, 9, 0, 4]]), 2).tolist() == [1, 3]


def test_marked_picture_is_square_and_shows_the_box():
    picture = panels.marked(np.zeros((50, 100, 3), np.uint8), [20, 10, 60, 50], 200)
    assert picture.shape == (200, 200, 3)
    assert (picture[:47] == 235).all() and (picture[153:] == 235).all()
    assert (picture[70, 40:120] == 255).all() and (picture[80, 50] == 0).all()


def test_face_sheet_has_a_row_for_each_frame_with_a_face(explained):
    sheet = panels.face_sheet(explained[1][1])
    assert sheet.count("<tr>") == 1 + 2 and sheet.count("<img ") == 2 * (4 + 4)
    assert sheet.count('<th scope="col">') == 4 + 4 and "<td>picture" not in sheet
    assert "<td>0.08 s<img" in sheet and '<img alt="left eye 0.40 s"' in sheet


def bars_of(svg: str) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Names, numbers and signed lengths of the bars that a reader sees."""
    texts = [node.text for node in ElementTree.fromstring(svg).iter() if node.tag.endswith("}text")]
    names, numbers = texts[1:-1:2], np.array(texts[2:-1:2], float)
    widths = [float(width) for width in re.findall(r'<rect [^>]* width="([0-9.]+)"', svg)]
    colors = re.findall(r'fill="(rgb[^"]+)"', svg)
    signs = [1 if color == f"rgb{panels.FOR}" else -1 for color in colors]
    return names, numbers, np.array(widths) * signs


def test_bars_add_up_to_the_verdict(explained):
    report = explained[1][1]
    evidence = np.arange(40).reshape(2, 20) - 18.0
    many = {"names": tuple(f"<a{i}>" for i in range(20)), "evidence": evidence, "boundary": -9.0}
    many = dataclasses.replace(report.explanation, **many, rest=np.array([1.0, 3.0]))
    for found in (report.explanation, many):
        svg = panels.evidence_bars(dataclasses.replace(report, explanation=found))
        names, numbers, lengths = bars_of(svg)
        assert numbers[:-1].sum() == pytest.approx(numbers[-1], abs=0.05)
        assert numbers[-1] == pytest.approx(found.log_odds.mean(), abs=0.005)
        assert lengths[:-1].sum() == pytest.approx(lengths[-1], abs=1)
    assert names[0] == "boundary (a typical original)" and len(names) == 1 + 16 + 3
    assert names[-3:] == ["4 other concept axes", "residual axes", "sum (log-odds)"]


def test_clip_over_time_is_a_figure(explained, detector):
    table = explained[1][1].table
    for part in (table, table[table["has_face"]]):
        figure = panels.evidence_over_time(part, detector.names)
        assert figure.startswith('<img alt="evidence over time" src="data:image/png;base64,')


def test_strip_marks_every_input():
    known = np.linspace(0.3, 1.1, 50)
    for far, scale in ((2, ""), (30, ", on a logarithmic scale")):
        svg = panels.ood_strip(known, {"a & b": 0.5, "c": far})
        places = [float(x) for x in re.findall(r'<circle cx="([0-9.]+)"', svg)]
        limit = float(re.search(r'<line x1="([0-9.]+)"', svg)[1])
        assert panels.LABELS < places[0] < limit < places[1] < panels.LABELS + panels.PLOT
        assert f"limit{scale}<" in svg and "a &amp; b" in svg


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project whose models are not trained, and the working folder."""
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "notebooks").mkdir()
    shutil.copy(ROOT / "notebooks" / "08_explain.ipynb", tmp_path / "notebooks")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def ready(project, detector):
    """The same with a detector that came along."""
    bundle.write(detector, project / bundle.SHIPPED)
    return project


def error_of(words: list) -> str:
    with pytest.raises(SystemExit) as exit_:
        main([str(word) for word in words])
    text = str(exit_.value)
    assert text.startswith("error: ") and "\n" not in text
    return text.removeprefix("error: ")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["gone.jpg"], "gone.jpg: no such file or folder"),
        (["photo.png", "--frames", "0"], "the number of frames must be at least 1, not 0"),
        (["photo.png", "--output", "photo.png/x"], "cannot be written"),
        (["--export", "photo.png"], "cannot be written"),
        (["--export", "mine"], "no trained model yet (data/models/seed0/whitened"),
        (["notebooks"], "notebooks: no photograph or clip in this folder"),
        (["photo.png"], "no trained model yet (data/models/"),
    ],
)
def test_errors_of_the_user_are_one_line(project, astronaut, words, reason):
    Image.fromarray(astronaut).save("photo.png")
    assert reason in error_of(words)
    assert not (project / "data" / "explained").exists()


def test_params_are_read_before_what_takes_seconds(project, astronaut):
    Image.fromarray(astronaut).save("photo.png")
    Path("params.yaml").write_text("faces:\n\tseed: 0\n")
    code = "import sys; from fwstudy.explain.__main__ import main\ntry: main(['photo.png'])\n"
    code += "except SystemExit as end: print(end, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "params.yaml: line 2: found character" in done.stdout
    assert done.stdout.endswith("no tabs) False\n")


def test_nothing_explained_is_an_error(ready, folder):
    for name, reason in (("wall.png", "no face found in the"), ("broken.jpg", "cannot be read as")):
        assert error_of([folder / name]).startswith(f"{folder / name}: {reason}")
    assert not (ready / "data" / "explained").exists()
    (ready / "walls").mkdir()
    for name in "ab":
        shutil.copy(folder / "wall.png", ready / "walls" / f"{name}.png")
    assert "none of 2 files could be explained; see " in error_of(["walls", "--output", "out"])
    assert len(pd.read_csv(ready / "out" / "evidence.csv")) == 2


def test_a_full_disk_is_told_with_the_folder(ready, astronaut, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    Image.fromarray(astronaut).save("photo.png")
    monkeypatch.setattr(page, "write", full)
    assert error_of(["photo.png", "--output", "out"]) == f"{ready / 'out'}: No space left on device"


def test_a_notebook_whose_kernel_dies_costs_no_page(ready, astronaut, monkeypatch):
    def died(source, *_):
        raise RuntimeError(f"{source}: the kernel died in cell 3")

    Image.fromarray(astronaut).save("photo.png")
    monkeypatch.setattr(execute, "execute", died)
    said = error_of(["photo.png", "--notebook", "--output", "out"])
    assert "08_explain.ipynb: the kernel died in cell 3; the page is there: " in said
    assert (ready / "out" / "page.html").is_file()


def test_names_that_are_no_text_are_told_or_do_no_harm(ready, astronaut, monkeypatch):
    folder = ready / os.fsdecode(b"odd\xff")
    folder.mkdir()
    Image.fromarray(astronaut).save(folder / "photo.png")
    for path in (folder, folder / "photo.png"):
        with pytest.raises(SystemExit, match=r"odd.udcff.photo\.png: its name is no text in UTF-8"):
            main([str(path)])
    monkeypatch.chdir(folder)
    main([".", "--output", str(ready / "out")])
    assert (ready / "out" / "page.html").is_file()


def test_files_of_one_name_get_two_pages(ready, astronaut, capsys):
    pages = []
    for name, height in (("a", 320), ("b", 300)):
        Path(name).mkdir()
        Image.fromarray(astronaut[:height]).save(f"{name}/IMG_1.png")
        main([f"{name}/IMG_1.png"])
        pages.append(Path(capsys.readouterr().out.removeprefix("page: ").strip()))
    assert pages[0].read_text() != pages[1].read_text()
    assert all(page.parent.name.startswith("IMG_1.png-") for page in pages)
    table, kept = files.explain_all(
        bundle.find(ready), [Path("a/IMG_1.png"), Path("b/IMG_1.png")], 1
    )
    assert [one.name for one in kept] == ["a/IMG_1.png", "b/IMG_1.png"] and len(table) == 2


def test_a_folder_becomes_a_page_a_table_and_a_notebook(ready, folder, monkeypatch, capsys):
    """The whole way: command, page, notebook."""
    monkeypatch.setattr(execute, "execute", run_here)
    main([str(folder), "--frames", "3", "--notebook", "--output", "out"])
    told, output = capsys.readouterr(), ready / "out"
    assert told.out.endswith(f"page: {output / 'page.html'}\n")
    assert "broken.jpg: cannot be read as a photograph" in told.err
    assert "photo ☃.png: unlike the training data" in told.err
    written = (output / "page.html").read_text(encoding="utf-8")
    assert not re.search(r"<script|<link|@import|(src|href)=[\"'](?!data:|#)", written)
    table = pd.read_csv(output / "evidence.csv")
    assert len(table) == 4 and table["problem"].notna().sum() == 2
    named = [name.replace("_", " ") for name in FORGED_PARTS]
    done = table[table["problem"].isna()]
    total = done[[files.BOUNDARY, *named, files.RESIDUAL]].sum(axis=1)
    np.testing.assert_allclose(total, done["log_odds"], atol=1e-9)
    assert ((total > 0) == (done["verdict"] == "forged")).all()
    for text in (written, (output / "explain.ipynb").read_text()):
        assert text.count("data:image/png;base64") == (1 + 2) * (4 + 4) + 1
        for claim in ("UNLIKE THE TRAINING DATA", "wall.png: NOT EXPLAINED, no face", "photo ☃"):
            assert claim in text
        assert "Detector: the one that comes with the study (data/assets/detector)" in text


def test_start_is_light():
    """A mistake costs no import, and explaining imports nothing that it does not use."""
    code = """
import sys
from fwstudy.explain.__main__ import main, without_compiler
try:
    main(["gone.jpg"])
except SystemExit:
    assert not {"torch", "numpy", "pandas"} & set(sys.modules)
with without_compiler():
    from fwstudy.explain import bundle, page
    import fwstudy.faces.inputs
heavy = "numba captum sklearn dask dvc matplotlib seaborn nbconvert torch._dynamo"
assert not set(heavy.split()) & set(sys.modules), set(heavy.split()) & set(sys.modules)
import torch
assert torch._dynamo.is_compiling() is False  # the compiler itself is still there
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_the_detector_in_the_box_fits_this_version():
    shipped = bundle.read(ROOT / bundle.SHIPPED)
    assert shipped.names == tuple(name.replace("_", " ") for name in FORGED_PARTS)
