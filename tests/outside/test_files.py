"""Exported crops and what comes back for them: the round trip, and every kind of bad file."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from fwstudy import export, score
from fwstudy.crops.cropset import CropSet
from fwstudy.outside import files
from fwstudy.outside.rows import HANDED_BACK, NO_MAPS, measure_detector
from fwstudy.params import OutsideDetector

ELSEWHERE = Path(__file__).parent / "elsewhere.py"
ALL = ("train", "validation", "test")


@pytest.fixture(scope="module")
def exported(crops, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "crops"
    files.export_crops(crops, folder, ("validation", "test"))
    return folder


@pytest.fixture(scope="module")
def handed_back(exported):
    output = exported.parent / "back"
    command = [sys.executable, ELSEWHERE, exported, output]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return output


def test_files_hold_what_the_crop_set_holds(crops, exported):
    manifest = pd.read_csv(exported / "manifest.csv", dtype=str)
    chosen = crops.select(split=["validation", "test"])
    assert manifest["id"].is_unique and len(manifest) == len(chosen)
    assert manifest["id"].tolist() == files.crop_ids(chosen.manifest).tolist()
    assert len(list((exported / "masks").iterdir())) == (manifest["label"] == "1").sum()
    for place in (0, 7, len(chosen) - 1):
        row, name = chosen.manifest["row"].iloc[place], manifest["id"][place]
        image = cv2.imread(str(exported / "images" / f"{name}.png"))[..., ::-1]
        parts = cv2.imread(str(exported / "parts" / f"{name}.png"), cv2.IMREAD_GRAYSCALE)
        np.testing.assert_array_equal(image, crops.images[row])
        np.testing.assert_array_equal(parts, crops.parsing[row])
        if manifest["label"][place] == "1":
            mask = cv2.imread(str(exported / "masks" / f"{name}.png"), cv2.IMREAD_GRAYSCALE)
            np.testing.assert_array_equal(mask == 255, crops.mask[row])
            original = manifest.set_index("id").loc[manifest["original"][place]]
            assert original["variant"] == "original"
    text = (exported / "README.md").read_text()
    assert f"{len(manifest)} face crops" in text and "6 nose, 7 mouth" in text


def test_a_folder_that_holds_something_is_left_alone(crops, exported):
    with pytest.raises(ValueError, match="crops is not empty"):
        files.export_crops(crops, exported, ALL)
    with pytest.raises(ValueError, match="no crop of the split nowhere"):
        files.export_crops(crops, exported.parent / "new", ("nowhere",))


def test_round_trip_by_the_commands(crops, params, handed_back, tmp_path, monkeypatch, capsys):
    """Exported, scored where nothing is known of the study, and measured."""
    monkeypatch.setattr("fwstudy.runtime.project_root", lambda: tmp_path)
    monkeypatch.setattr("fwstudy.params.load_params", lambda path: params)
    monkeypatch.setattr(CropSet, "open", staticmethod(lambda folder: crops))
    monkeypatch.setattr(sys, "argv", ["export", str(tmp_path / "out")])
    export.main()
    count = (crops.manifest["split"] == "test").sum()
    assert capsys.readouterr().out == f"{count} crops: {tmp_path / 'out' / 'README.md'}\n"
    scores, output = handed_back / "scores.csv", tmp_path / "new" / "rows.csv"
    words = [str(scores), "--maps", str(handed_back / "maps"), "--output", str(output)]
    monkeypatch.setattr(sys, "argv", ["score", *words])
    score.main()
    printed, table = capsys.readouterr().out, pd.read_csv(output).set_index("topic")
    assert "relevance_mass" in printed and "maps of 16 x 16 were made 64 x 64" in printed
    found = table[table["subset"].isin(["all", "c23 all"])].set_index("measure")["value"]
    assert found["auc"].iloc[0] > 0.9 and found["relevance_mass"].iloc[0] > 0.5
    assert set(table.loc["localization", "method"]) == {HANDED_BACK}
    stable = table.loc[["stability"]]
    assert stable.loc[stable["subset"] == "c40", "value"].notna().all()
    assert table.loc["faithfulness", "value"].isna().all()
    assert table.loc["faithfulness", "remark"].str.contains("cannot be run").all()
    assert table.loc["coverage", "value"].eq(1).all()
    below = str(output / "rows.csv")  # a file is no folder: said before anything is measured
    monkeypatch.setattr(sys, "argv", ["score", str(tmp_path / "gone.csv"), "--output", below])
    with pytest.raises(SystemExit, match="rows.csv: "):
        score.main()
    for place in (tmp_path, scores):  # before an hour of measuring is lost, or what was handed back
        monkeypatch.setattr(sys, "argv", ["score", str(scores), "--output", str(place)])
        with pytest.raises(SystemExit, match="wanted is a CSV file other than the scores"):
            score.main()
    monkeypatch.setattr(sys, "argv", ["score", str(tmp_path / "gone.csv")])
    with pytest.raises(SystemExit, match="error: detector handed_back: .*gone.csv: no such file"):
        score.main()
    monkeypatch.setattr(sys, "argv", ["score", str(tmp_path / "gone.pkl")])
    with pytest.raises(SystemExit, match="error: scores: a file that ends in .csv"):
        score.main()
    monkeypatch.setattr(sys, "argv", ["score", "."])
    with pytest.raises(SystemExit, match="error: .*empty name"):
        score.main()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,score\na,1\na,2\nb,0\n", r"scores.csv: ids that stand there twice: 1 \(a\)"),
        ("id,score\na,1\nb,\nc,x\nd,inf\n", r"no number: the score of 3 \(b, c, d\)"),
        ("id,probability\na,0.5\nb,1.5\n", r"not from 0 to 1: the probability of 1 \(b\)"),
        ("name,score\na,1\n", "wanted are the columns id and score, .* not name, score"),
        ("id,score,probability\na,1,1\n", "wanted are the columns"),
        ("", "scores.csv: cannot be read as a CSV file"),
    ],
)
def test_bad_scores_name_the_file_and_the_ids(tmp_path, text, message):
    path = tmp_path / "scores.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        files.read_scores(path)


def test_probabilities_become_log_odds(tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text("id,probability\n007,0.5\na,0.9\nb,0\nc,1\n")
    found = files.read_scores(path)
    assert found["007"] == 0 and found["a"] == pytest.approx(np.log(9))
    assert np.isfinite(found).all() and found["b"] < -30 and found["c"] > 30


def test_a_comma_at_the_end_of_the_lines_shifts_no_column(tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text("id,score\na,0.5,\nb,0.7,\n")
    assert files.read_scores(path).to_dict() == {"a": 0.5, "b": 0.7}


def test_coverage_counts_and_names():
    manifest = pd.DataFrame({"id": list("abcdefgh"), "split": ["test"] * 7 + ["validation"]})
    (found,) = files.coverage("score", manifest, ["a", "x", "train"], {*manifest["id"], "train"})
    assert found["split"] == "test" and found["share"] == pytest.approx(1 / 7)
    assert found["remark"] == (
        "no score of 6 (b, c, d, e, f, …) of 7 images; "
        "scores of 1 (x) that are no image of this crop set"
    )


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 4)), r"a.npy: a map is a square array of real numbers, not float64 \(3, 4\)"),
        (np.zeros((3, 4, 4)), r"a.npy: a map is a square array"),
        (np.array([["x"]]), r"a.npy: a map is a square array of real numbers, not <U1"),
        (np.array([[{}]], object), r"a.npy: not an array as NumPy saves it"),
    ],
)
def test_bad_maps_name_the_file(tmp_path, array, message):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(ValueError, match=message):
        files.list_maps(tmp_path, 8)


def test_maps_are_read_at_the_size_of_the_crops(tmp_path):
    np.save(tmp_path / "a.npy", np.eye(8))
    np.save(tmp_path / "b.npy", np.ones((2, 2), np.uint8))
    (tmp_path / "._a.npy").write_bytes(b"as macOS puts into archives")
    listed, remark = files.list_maps(tmp_path, 8)
    assert remark == "maps of 2 x 2 were made 8 x 8 bilinearly"
    maps = files.read_maps([listed["a"], listed["b"]], 8)
    np.testing.assert_array_equal(maps, [np.eye(8), np.ones((8, 8))])
    np.save(tmp_path / "a.npy", np.full((8, 8), np.nan))
    with pytest.raises(ValueError, match="a.npy: holds NaN or infinity"):
        files.read_maps([listed["a"]], 8)


def given(folder, text, **maps):
    """A detector of these scores, which is written there."""
    (folder / "scores.csv").write_text(text)
    return OutsideDetector(name="mine", scores="scores.csv", **maps)


def test_partial_and_foreign_scores(crops, params, handed_back, tmp_path):
    scores = pd.read_csv(handed_back / "scores.csv")
    named = crops.manifest.assign(id=files.crop_ids(crops.manifest))
    test = named[(named["split"] == "test") & (named["kind"] == "whole")]["id"]
    few = scores[scores["id"].isin(test[3:])]
    about = given(tmp_path, few.to_csv(index=False) + "nobody,1\n")
    table, predictions = measure_detector(about, params, crops, tmp_path)
    assert len(predictions) == len(few)
    covered = table[table["topic"] == "coverage"].iloc[0]
    assert covered["value"] == pytest.approx(1 - 3 / len(test))
    assert "no score of 3 (" in covered["remark"] and "1 (nobody)" in covered["remark"]
    indexed = table.set_index(["topic", "measure"]).sort_index()
    accuracy = indexed.loc[("detection", "accuracy")]
    assert accuracy["value"].isna().all()
    assert accuracy["remark"].str.contains("no scores of .*validation").all()
    calibrated = indexed.loc["calibration"].set_index("method")["value"]
    assert calibrated["calibrated"].isna().all() and calibrated["as trained"].notna().all()
    at_c23 = predictions[(predictions["split"] == "test") & (predictions["quality"] == "c23")]
    assert set(indexed.loc["calibration", "num_images"]) == {0, len(at_c23)} != {0, len(few)}
    assert indexed.loc["localization", "remark"].eq(NO_MAPS).all()
    about = given(tmp_path, "id,score\n000001,1\n")
    with pytest.raises(
        ValueError, match=r"detector mine: .*scores.csv: no id is one of .*'000001'"
    ):
        measure_detector(about, params, crops, tmp_path)


def test_bad_maps_leave_the_scores_as_they_are(crops, params, handed_back, tmp_path):
    text = (handed_back / "scores.csv").read_text()
    (tmp_path / "maps").mkdir()
    np.save(tmp_path / "maps" / "a.npy", np.zeros((3, 4)))
    table, _ = measure_detector(given(tmp_path, text, maps="maps"), params, crops, tmp_path)
    table = table.set_index("topic")
    assert table.loc["detection", "value"].notna().all()
    told = table.loc["localization", "remark"]
    assert told.str.contains(r"detector mine \(scores.csv\): .*a.npy: a map").all()


def test_long_names_of_videos_can_be_exported(crops, tmp_path):
    few = crops.select(split="test").take(slice(2))
    long = dataclasses.replace(few, manifest=few.manifest.assign(clip="a" * 300))
    files.export_crops(long, tmp_path / "out", ["test"])
    assert len(list((tmp_path / "out" / "images").iterdir())) == 2


def test_a_picture_that_cannot_be_written_is_an_error(crops, tmp_path, monkeypatch):
    """OpenCV says so by what it returns alone."""
    monkeypatch.setattr(cv2, "imwrite", lambda path, picture: False)
    with pytest.raises(OSError, match=r"\.png: cannot be written"):
        files.export_crops(crops.select(split="test").take(slice(2)), tmp_path / "out", ["test"])


@pytest.mark.parametrize("which", ["forged", "validation"])
def test_one_class_alone_is_told(crops, params, handed_back, tmp_path, which):
    scores = pd.read_csv(handed_back / "scores.csv")
    named = crops.manifest.assign(id=files.crop_ids(crops.manifest))
    kept = named["label"] == 1 if which == "forged" else named["split"] == "validation"
    text = scores[scores["id"].isin(named[kept]["id"])].to_csv(index=False)
    table, _ = measure_detector(given(tmp_path, text), params, crops, tmp_path)
    found = table[table["topic"].isin(["detection", "calibration"])]
    assert found["value"].isna().all()
    assert found["remark"].str.contains("no scores of originals").all()


def test_without_originals_detection_is_measured(crops, params, handed_back, tmp_path):
    alone = dataclasses.replace(crops, manifest=crops.manifest.assign(original_row=np.nan))
    text = (handed_back / "scores.csv").read_text()
    table, _ = measure_detector(given(tmp_path, text), params, alone, tmp_path)
    table = table.set_index("topic")
    assert table.loc["detection", "value"].notna().all()
    assert table.loc["parts", "remark"].str.contains("original").all()
