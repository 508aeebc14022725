"""The benchmark runs and judges; its times are not tested."""

from contextlib import nullcontext
from itertools import islice

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from benchmarks import gpu, study, videos
from benchmarks import whitening as bench
from fwstudy.clips import save_clip
from fwstudy.faces.videos.footage import open_video
from fwstudy.whitening.statistics import whiteness


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmark")
    bench.main(["--quick", "--output", str(folder)])
    return folder


@pytest.fixture
def table(output):
    return pd.read_csv(output / "whitening.csv")


def methods(table, section, phase):
    return set(table[(table["section"] == section) & (table["phase"] == phase)]["method"])


def test_nothing_is_missing(table):
    assert list(table["section"].unique()) == list(bench.SECTIONS)
    norms = {"BatchNorm2d", "iternorm", *bench.OURS, "exact, 2 layers", "exact, 3 layers"}
    assert methods(table, "layer", "train step") == set(bench.LAYERS)
    assert methods(table, "layer", "evaluation") == set(bench.LAYERS)
    assert methods(table, "model", "train step") == norms
    assert methods(table, "model", "evaluation") == norms | {"exact, folded"}
    searches = {f"search, {count} calls" for count in bench.QUICK.searches}
    assert methods(table, "alignment", "alignment") == {"align_mean", "align_max"} | searches
    drift = table[table["section"] == "drift"]
    assert len(drift) == 2 * len(bench.QUICK.intervals) * len(bench.QUICK.drifts)
    key = ["section", "model", "channels", "method", "phase"]
    assert not table.duplicated(key).any()


def test_measurements_are_finite(table):
    timed = table[table["section"] != "drift"]
    columns = ["seconds", "ratio", "ratio_low", "ratio_high", "peak_mb"]
    assert np.isfinite(timed[columns]).all().all() and (timed[columns] > 0).all().all()
    assert (timed["ratio_low"] <= timed["ratio"]).all()
    assert (timed["ratio"] <= timed["ratio_high"]).all()
    assert (timed.loc[timed["method"] == timed["reference"], "ratio"] == 1).all()
    step = table["phase"] == "train step"
    white = table[(table["section"] == "drift") | (table["section"] == "layer") & step]
    assert np.isfinite(white[["mean_correlation", "mean_variance"]]).all().all()
    assert np.isfinite(table.loc[table["section"] == "alignment", "objective"]).all()


def test_report_shows_every_section_and_target(output, table):
    text = (output / "whitening.md").read_text(encoding="utf-8")
    for _, title, _ in bench.SECTIONS.values():
        assert f"## {title}" in text
    for row in bench.judge(table, bench.QUICK).itertuples():
        assert row.target in text and row.met in ("yes", "**no**")
    assert "threads" in text and f"torch {torch.__version__.split('+')[0]}" in text


def test_targets_follow_the_measurements(table):
    table["ratio"], table["mean_correlation"], table["objective_high"] = 0.01, 0.0, 1.1
    met = bench.judge(table, bench.QUICK).groupby("target")["met"].unique().str[0]
    assert met["layer: train step <= 1/10 of iternorm"] == "yes"
    assert met["whiteness: mean correlation <= 0.01"] == "yes"
    assert met["alignment: search takes >= 100 align_mean"] == "**no**"
    assert met["alignment: objective <= align_mean's"] == "**no**"
    with pytest.raises(ValueError, match="nothing was measured for the target 'layer"):
        bench.judge(table[table["section"] != "layer"], bench.QUICK)


def test_memory_counts_what_a_call_allocates():
    calls = {"empty": lambda: torch.empty(2**18), "amortized": lambda: torch.empty(2**19)}
    table = bench.compare([calls, calls], "empty", 1e-4, phase="any").set_index("method")
    assert table["peak_mb"].to_dict() == {"empty": 1, "amortized": 2}
    assert list(table["rounds"]) == [2, 2] and table.loc["empty", "ratio"] == 1


def test_amortised_calls_take_in_one_computation_of_the_matrix(monkeypatch):
    layer, computed = bench.LAYERS["amortized"](nn.BatchNorm2d(8)), []
    monkeypatch.setattr(layer, "refresh", lambda: computed.append(1))
    for features in islice(
        bench.draw_features(8, 4, 2), 1 + bench.CALLS["amortized"]
    ):  # one is not timed
        layer(features)
    assert len(computed) == 1


def test_features_have_the_stated_condition_number():
    features = next(bench.draw_features(8, 64, 16))
    assert features.shape == (16, 8, 64, 64)
    assert features.is_contiguous(memory_format=torch.channels_last)
    assert whiteness(features)["condition_number"] == pytest.approx(1e4, rel=0.05)


def test_cost_of_films_is_extrapolated_from_one_core():
    """Two takes of five videos in 20 s: 2 s a video, 5000 of which take 2.8 hours; 1 MB a video is 5 GB."""
    measured = pd.DataFrame(
        [
            {"benchmark": name, "workers": workers, "method": method, "round": turn}
            | {"seconds": seconds, "videos": 10, "crops": 320, "kept_mb": 1.0}
            for name in videos.KINDS
            for workers, times in ((1, (20.0, 40.0)), (2, (10.0, 20.0)))
            for method, seconds in zip(videos.METHODS, times, strict=True)
            for turn in range(3)
        ]
    )
    sizes = pd.DataFrame({"benchmark": list(videos.KINDS)})
    sizes = sizes.assign(clips_mb_per_video=1.0, crops_mb_per_video=0.5)
    whole = videos.extrapolated(measured, sizes).set_index("benchmark").loc["FaceForensics++"]
    assert whole["seconds a video"] == 2 and whole["core-hours"] == pytest.approx(2 * 5000 / 3600)
    assert whole["clips, GB"] == 5 and whole["crop set, GB"] == 2.5
    shown = videos.throughput(measured)
    assert set(shown["times as fast"]) == {"1", "2.00 (2.00 to 2.00)"}
    assert shown["videos a minute"].tolist()[:4] == [30, 15, 60, 30]


def test_the_films_of_the_benchmark_show_a_face_that_is_found(person, tmp_path):
    kind = videos.Kind(160, 240, 1, True, 0, 64)
    path = save_clip(tmp_path, person)
    take = videos.make_take(tmp_path, path, kind, 1)
    assert len(open_video(take.original).numbers) == videos.RATE
    assert videos.ours([take], kind, 3, 1, tmp_path / "clips") == 6


def test_a_remark_on_a_video_ends_no_benchmark(tmp_path, monkeypatch):
    rows = [{"file": "a.mp4", "reason": "several faces", "left_out": False}]
    monkeypatch.setattr(videos, "video_dataset", lambda *_: ([], rows))
    assert videos.ours([], videos.KINDS["DFDC"], 3, 1, tmp_path) == 0
    rows[0]["left_out"] = True
    with pytest.raises(AssertionError, match="several faces"):
        videos.ours([], videos.KINDS["DFDC"], 3, 1, tmp_path)


def test_the_earlier_revision_gets_none_of_the_presents_settings(tmp_path, monkeypatch):
    given = {}
    monkeypatch.setattr(study.subprocess, "run", lambda *_, env, **__: given.update(env))
    monkeypatch.setenv("GOMP_SPINCOUNT", "1000")
    study.run(tmp_path, "true")
    assert given and "GOMP_SPINCOUNT" not in given


def test_what_was_timed_before_an_interruption_is_not_timed_again(tmp_path, monkeypatch):
    folder, seconds = tmp_path / "present", iter(range(1, 100))
    (folder / "data" / "partial").mkdir(parents=True)
    (folder / "params.yaml").write_text((study.ROOT / "params.yaml").read_text())
    monkeypatch.setattr(study, "run", lambda *_: float(next(seconds)))
    monkeypatch.setattr(study, "neighbor", lambda busy: nullcontext())
    first, again = study.times(folder), study.times(folder)
    assert (first["faces"], first["preprocess"]) == (again["faces"], again["preprocess"]) == (1, 2)
    assert first["measure@0"] == 7 and again["measure@0"] == 12
    assert not (folder / "data" / "partial").exists()


def test_a_batch_that_does_not_fit_has_no_target():
    rows = [
        {"section": "model", "mode": "TF32", "batch": batch, "method": method, "ratio": ratio}
        for batch, ratio in ((64, 1.1), (128, np.nan))
        for method in ("iternorm", "exact", "amortized")
    ]
    assert set(gpu.targets(pd.DataFrame(rows))["batch"]) == {64}
