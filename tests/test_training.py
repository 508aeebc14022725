import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from fwstudy import training
from fwstudy.crops import CropSet
from fwstudy.params import Schedule

SCHEDULE = Schedule(steps=6, learning_rate=1e-3, weight_decay=0.01, evaluation_interval=2)


def tiny_model(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(8, 1),
    )  # fmt: skip


@pytest.fixture
def splits(crops):
    return (
        crops.select(split="train", kind="whole"),
        crops.select(split="validation", kind="whole"),
    )


def test_batches_pair_originals_with_their_forgeries(splits):
    train, _ = splits
    batches = training.PairedBatches(train, batch_size=4, seed=0)
    table = train.manifest.set_index("row")
    seen = []
    for step in range(4):
        originals, forged = batches.rows(step)
        assert (table.loc[originals, "variant"] == "original").all()
        assert (table.loc[forged, "label"] == 1).all()
        np.testing.assert_array_equal(table.loc[forged, "original_row"], originals)
        seen += originals.tolist()
    assert len(seen) == len(set(seen)) == 8  # a round shows every frame once


def test_batch_depends_on_seed_and_step_alone(splits):
    one, other = (training.PairedBatches(splits[0], 4, seed) for seed in (0, 1))
    again = training.PairedBatches(splits[0], 4, 0)
    torch.testing.assert_close(one.batch(5)[0], again.batch(5)[0], rtol=0, atol=0)
    assert not torch.equal(one.batch(5)[0], other.batch(5)[0])
    assert one.batch(5)[1].tolist() == [0, 0, 1, 1]


def test_augmentation_moves_a_pair_alike():
    images = torch.rand(1, 3, 3, 16, 16).repeat(2, 1, 1, 1, 1)
    images[1, :, :, 5, 5] += 1  # the forgery
    out = training.augment(images, np.random.default_rng(0))
    differing = (out[0] != out[1]).any(dim=1).flatten(1).sum(dim=1)
    assert (differing == 1).all()  # one pixel stays one pixel: no interpolation
    assert out.shape == images.shape


def test_no_forgeries_is_an_error(splits):
    with pytest.raises(ValueError, match="no forged crop"):
        training.PairedBatches(splits[0].select(label=0), 4, 0)


def test_learning_rate_warms_up_and_ends_near_zero():
    factors = [training.learning_rate_factor(step, 100) for step in range(100)]
    assert factors[0] == pytest.approx(0.1) and max(factors) == 1
    assert factors[-1] < 1e-3
    assert (np.diff(factors[10:]) <= 0).all()


def test_fit_learns_and_keeps_the_best(splits, tmp_path):
    model = tiny_model()
    schedule = SCHEDULE.model_copy(
        update={"steps": 60, "evaluation_interval": 20, "learning_rate": 0.02}
    )
    history = training.fit(model, *splits, schedule, 8, 0, tmp_path / "state")
    assert history["step"].tolist() == [20, 40, 60]
    assert history["loss"].iloc[-1] < history["loss"].iloc[0]
    scores = training.predict(model, splits[1])
    best = roc_auc_score(splits[1].manifest["label"], scores)
    assert best == pytest.approx(history["validation_auc"].max())
    assert best > 0.9  # the checkerboard is easy to see
    assert not (tmp_path / "state").exists() and not model.training


def test_interrupted_run_ends_like_an_uninterrupted_one(splits, tmp_path):
    whole = tiny_model()
    training.fit(whole, *splits, SCHEDULE, 4, 0, tmp_path / "whole")

    class Stop(Exception):
        pass

    def stop(step):
        if step == 5:
            raise Stop

    with pytest.raises(Stop):
        training.fit(tiny_model(), *splits, SCHEDULE, 4, 0, tmp_path / "state", stop)
    steps = []
    resumed = tiny_model(seed=7)  # other weights: all must come from the checkpoint
    history = training.fit(resumed, *splits, SCHEDULE, 4, 0, tmp_path / "state", steps.append)
    assert steps == [5, 6] and history["step"].tolist() == [2, 4, 6]
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, rtol=0, atol=0)


def test_truncated_checkpoint_is_named(splits, tmp_path):
    path = tmp_path / "state"
    path.write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{")
    with pytest.raises(ValueError, match="state is truncated"):
        training.fit(tiny_model(), *splits, SCHEDULE, 4, 0, path)


def test_weights_round_trip_and_errors(tmp_path):
    model, path = tiny_model(), tmp_path / "weights" / "model.safetensors"
    training.save_weights(model, path)
    other = training.load_weights(tiny_model(seed=3), path)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value, rtol=0, atol=0)
    with pytest.raises(ValueError, match="model.safetensors does not fit"):
        training.load_weights(nn.Linear(2, 2), path)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ValueError, match="model.safetensors is truncated"):
        training.load_weights(tiny_model(), path)


def test_predict_keeps_the_order(splits):
    train, _ = splits
    model = tiny_model()
    scores = training.predict(model, train, batch_size=5)
    assert len(scores) == len(train)
    backwards = CropSet(train.manifest[::-1], train.images, train.changed, train.parts)
    np.testing.assert_allclose(training.predict(model, backwards)[::-1], scores, atol=1e-6)
