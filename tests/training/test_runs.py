"""The runs of the study: which there are, what each is trained from, and what an interruption leaves."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from fwstudy.evaluation.metrics import detection_table
from fwstudy.evaluation.transfer import transfer_table
from fwstudy.training import runs
from fwstudy.training.runs import all_runs, control, find_run, load, score_held_out, train, without

from ..models import some_params


def changed(section, **values):
    return section.model_copy(update=values)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Settings of runs of two steps, in a project without results: three models and a variant."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("params.yaml", "dvc.yaml"):
        (folder / name).touch()
    (folder / "data" / "crops").mkdir(parents=True)
    for name in ("images.npy", "manifest.csv"):
        (folder / "data" / "crops" / name).touch()  # what unfinished work is known by
    schedule = some_params().train.fine_tune.model_dump() | {"steps": 2, "evaluation_interval": 1}
    short = {"batch_size": 4, "baseline": schedule, "fine_tune": schedule, "seeds": [0]}
    changes = {f"train.{key}": value for key, value in short.items()}
    changes |= {"ablations.run": ["whitening_only"], "ablations.seeds": [0]}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield some_params(changes | {"preprocess.crop_size": 64})
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="module")
def trained(tiny, crops):
    """Every run of the tiny study, trained."""
    return {run: train(run, tiny, crops) for run in all_runs(tiny)}


def same(one, other):
    one, other = one.model.state_dict(), other.model.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_control_is_the_baseline_fine_tuned(tiny):
    settings = control(tiny.whitening)
    assert settings.norm == "batch" and not settings.named and settings.bottleneck == 0
    assert settings.activation == "backbone"
    assert control(settings) == settings


def test_every_run_has_a_name_a_seed_and_files_of_its_own(tiny):
    two = changed(tiny, train=changed(tiny.train, seeds=[0, 1]))
    found = all_runs(two)
    names = ["baseline", "batch_norm", "whitened"]
    expected = [(name, seed) for name in names for seed in (0, 1)] + [("whitening_only", 0)]
    assert [(run.name, run.seed) for run in found] == expected
    files = {path for run in found for path in (run.weights, run.predictions)}
    assert len(files) == 2 * len(found)
    data = Path.cwd() / "data"
    assert found[-1].weights == data / "models/seed0/variants/whitening_only.safetensors"
    elsewhere = find_run(tiny, "whitened", 1, "leave_one_out/FaceSwap")
    assert elsewhere.predictions == data / "leave_one_out/FaceSwap/seed1/whitened.csv"
    assert find_run(tiny, "cholesky", 0).settings.solver == "cholesky"
    with pytest.raises(KeyError, match="no variant .*unheard; there are: .*whitening_only"):
        find_run(tiny, "unheard", 0)


def test_unfinished_work_is_known_by_what_it_depends_on(tiny, trained):
    run = find_run(tiny, "whitened", 0)
    place = runs.partial_of(run, tiny)
    more = changed(tiny, train=changed(tiny.train, seeds=[0, 9]))
    assert runs.partial_of(run, more) == place
    longer = changed(
        tiny, train=changed(tiny.train, fine_tune=changed(tiny.train.fine_tune, steps=3))
    )
    assert runs.partial_of(run, longer) != place
    assert runs.partial_of(run.baseline, longer) == runs.partial_of(run.baseline, tiny)
    assert runs.partial_of(replace(run, settings=control(run.settings)), tiny) != place


def test_work_from_other_weights_is_not_picked_up(tiny, tmp_path):
    path = tmp_path / "w.safetensors"
    given = changed(tiny.train.backbone, weights=str(path))
    params, places = changed(tiny, train=changed(tiny.train, backbone=given)), set()
    for content in (b"1", b"2"):
        path.write_bytes(content)
        places.add(runs.partial_of(find_run(tiny, "baseline", 0), params))
    assert len(places) == 2


def test_trained_models_are_those_that_are_loaded(tiny, crops, trained):
    for run, detector in trained.items():
        loaded = load(run, tiny)
        assert same(loaded, detector) and loaded.layer_name == detector.layer_name
        assert detector.history["step"].tolist() == [1, 2]
        whitens = run.settings.norm == "whitening"
        assert ("eval_mean_correlation" in detector.history) == whitens
        assert set(detector.cost) == {"minutes", "core_seconds", "peak_memory_gb"}
        scored, again = (score_held_out(model, tiny, crops) for model in (loaded, detector))
        pd.testing.assert_frame_equal(scored, again)
    baseline, *others = trained.values()
    assert not any(same(baseline, other) for other in others)


def test_an_interrupted_stage_keeps_its_finished_models(tiny, crops, monkeypatch):
    """Outputs are deleted before an interrupted stage starts again."""
    run = find_run(tiny, "baseline", 5)
    first = train(run, tiny, crops)
    weights = run.weights.read_bytes()
    run.weights.unlink()
    monkeypatch.setattr(runs, "fit", lambda *_: pytest.fail("it is trained again"))
    again = train(run, tiny, crops)
    assert run.weights.read_bytes() == weights and same(first, again)
    pd.testing.assert_frame_equal(again.history, first.history)
    assert again.cost == first.cost
    runs.complete([run], tiny)
    assert not list(Path("data/partial/models").glob(f"{runs.partial_of(run, tiny).name}/*"))
    with pytest.raises(pytest.fail.Exception, match="trained again"):
        train(run, tiny, crops)


def test_models_of_another_folder_or_seed_leave_the_studys_alone(tiny, crops, trained):
    before = {run: run.weights.read_bytes() for run in trained}
    run = find_run(tiny, "batch_norm", 0, "leave_one_out/FaceSwap")
    kept = without(crops, "FaceSwap")
    found = [train(one, tiny, kept) for one in (run.baseline, run)]
    assert same(load(run.baseline, tiny), found[0]) and run.weights.exists()
    study = trained[find_run(tiny, "baseline", 0)]
    assert not found[0].history.equals(study.history)  # validated without the family
    other = train(find_run(tiny, "baseline", 1), tiny, crops)
    assert not same(other, study)
    assert {run: run.weights.read_bytes() for run in trained} == before


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


def test_parts_taken_from_a_family_are_left_out_with_it(crops):
    parts = crops.manifest["kind"] == "part"
    taken = crops.manifest["variant"].mask(parts, "Deepfakes")
    of_videos = replace(crops, manifest=crops.manifest.assign(family=taken))
    kept = without(of_videos, "Deepfakes").manifest
    assert set(kept.loc[kept["kind"] == "part", "split"]) <= {"test"}
    assert set(kept.loc[kept["family"] == "Deepfakes", "split"]) == {"test"}
    assert len(without(of_videos, "FaceSwap")) == len(without(crops, "FaceSwap"))


def test_transfer_takes_the_models_as_they_are(tiny, crops, trained):
    larger = changed(tiny, preprocess=changed(tiny.preprocess, crop_size=128))
    with pytest.raises(ValueError, match=r"crops of 64 pixels, .* trained on 128"):
        transfer_table(larger, crops)
    with pytest.raises(ValueError, match=r"generalization\.other_crops: no whole face"):
        transfer_table(tiny, crops.select(split="train"))
    found = transfer_table(tiny, crops).set_index(["model", "family"])
    whitened = trained[find_run(tiny, "whitened", 0)]
    expected = detection_table(score_held_out(whitened, tiny, crops.select(quality="c23")))
    expected = expected[expected["level"] == "frame"].set_index("family")["auc"]
    for family, auc in expected.items():
        assert found.loc[("whitened", family), "auc"] == pytest.approx(auc)
    assert set(found.index.levels[0]) == {"baseline", "batch_norm", "whitened", "whitening_only"}


def test_evaluation_is_of_test_people_at_every_quality(tiny, crops, trained):
    held_out = score_held_out(trained[find_run(tiny, "baseline", 0)], tiny, crops)
    scored = held_out[held_out["split"] == "test"]
    assert list(scored) == [*runs.PREDICTION_COLUMNS, "score"]
    whole = crops.select(split="test", kind="whole").manifest
    assert scored["row"].tolist() == whole["row"].tolist()
    assert set(scored["quality"]) == {"c23", "c40"} and np.isfinite(scored["score"]).all()
