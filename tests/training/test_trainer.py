import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from fwstudy.crops.cropset import CropSet
from fwstudy.params import Schedule
from fwstudy.training import trainer
from fwstudy.training.batches import Batch, PairedBatches

SCHEDULE = Schedule(
    steps=6,
    optimizer="adamw",
    learning_rate=1e-3,
    decay="cosine",
    weight_decay=0.01,
    evaluation_interval=2,
)


def tiny_model(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Dropout(0.5), nn.Linear(8, 1),
    )  # fmt: skip


@pytest.fixture
def splits(crops):
    return [crops.select(split=name, kind="whole") for name in ("train", "validation")]


def fit(model, splits, schedule, batch_size, path, **options):
    batches = PairedBatches(splits[0], batch_size, 0, 0.0)
    return trainer.fit(model, batches, splits[1], schedule, path, **options)


def test_learning_rate_warms_up_and_ends_near_zero():
    factors = [trainer.learning_rate_factor(step, 100, "cosine") for step in range(100)]
    assert factors[0] == pytest.approx(0.1) and max(factors) == 1
    assert factors[-1] < 1e-3
    assert (np.diff(factors[10:]) <= 0).all()


def test_learning_rate_stays_or_falls_at_shares_of_the_run():
    """As the authors': milestones after 5, 10 and 15 of 40 epochs."""
    assert {trainer.learning_rate_factor(step, 40, "none") for step in range(40)} == {1.0}
    factors = [trainer.learning_rate_factor(step, 40, [0.125, 0.25, 0.375]) for step in range(40)]
    np.testing.assert_allclose(factors, [1.0] * 5 + [0.1] * 5 + [0.01] * 5 + [0.001] * 25)


def one_step(optimizer, weight_decay):
    """The weight of a model after one step from 1 with the gradient 0.5."""
    weight = nn.Parameter(torch.ones(()))
    made = trainer.OPTIMIZERS[optimizer]([weight], lr=0.1, weight_decay=weight_decay)
    weight.grad = torch.tensor(0.5)
    made.step()
    return weight.item()


def test_optimizers_golden():
    """The first step of Adam is the rate times the gradient's sign; weight decay comes in before or after."""
    assert one_step("adam", 0.0) == pytest.approx(0.9, abs=1e-6)
    assert one_step("adam", 0.5) == pytest.approx(0.9, abs=1e-6)  # decay is part of the gradient
    assert one_step("adamw", 0.5) == pytest.approx(1 * (1 - 0.1 * 0.5) - 0.1, abs=1e-6)
    assert one_step("sgd", 0.5) == pytest.approx(1 - 0.1 * (0.5 + 0.5), abs=1e-6)


def test_fit_learns_and_keeps_the_best(splits, tmp_path):
    model = tiny_model()
    schedule = SCHEDULE.model_copy(
        update={"steps": 60, "evaluation_interval": 20, "learning_rate": 0.02}
    )
    history = fit(model, splits, schedule, 8, tmp_path / "state")
    assert history["step"].tolist() == [20, 40, 60]
    assert history["loss"].iloc[-1] < history["loss"].iloc[0]
    scores = trainer.predict(model, splits[1])
    best = roc_auc_score(splits[1].manifest["label"], scores)
    assert best == pytest.approx(history["validation_auc"].max())
    assert best > 0.9  # the checkerboard is easy to see
    assert not (tmp_path / "state").exists() and not model.training


@pytest.mark.parametrize("optimizer", trainer.OPTIMIZERS)
def test_interrupted_run_ends_like_an_uninterrupted_one(splits, tmp_path, optimizer):
    """Measures survive; they are taken at every evaluation, and at the end, which is none of them here."""
    schedule = SCHEDULE.model_copy(update={"optimizer": optimizer, "steps": 7})
    whole, steps = tiny_model(), []
    fit(whole, splits, schedule, 4, tmp_path / "whole")

    def stop(step):
        steps.append(step)
        if steps == [1, 2, 3, 4, 5]:
            raise InterruptedError

    options = {"after_step": stop, "measure": lambda: {"taken_at": steps[-1]}}
    with pytest.raises(InterruptedError):
        fit(tiny_model(), splits, schedule, 4, tmp_path / "state", **options)
    resumed = tiny_model(seed=7)  # other weights: all must come from the checkpoint
    history = fit(resumed, splits, schedule, 4, tmp_path / "state", **options)
    assert steps == [1, 2, 3, 4, 5, 5, 6, 7]
    assert history["step"].tolist() == history["taken_at"].tolist() == [2, 4, 6, 7]
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, rtol=0, atol=0)


def test_another_loss_is_minimised(splits, tmp_path):
    """A loss that only asks for small logits leaves a model that answers 0."""
    model = tiny_model()
    schedule = SCHEDULE.model_copy(update={"steps": 40, "learning_rate": 0.02})
    loss = lambda model, batch: model(batch.images).square().mean()
    history = fit(model, splits, schedule, 4, tmp_path / "state", loss=loss)
    assert history["loss"].iloc[-1] < 0.2 * history["loss"].iloc[0]


def test_classification_loss_golden():
    """Logits 0 and 2, both of forgeries: the mean of log 2 and log(1 + exp(-2))."""
    batch = Batch(torch.zeros(2, 3, 4, 4), torch.ones(2), torch.empty(0), torch.empty(0))
    loss = trainer.classification_loss(lambda images: torch.tensor([[0.0], [2.0]]), batch)
    assert loss.item() == pytest.approx((np.log(2) + np.log1p(np.exp(-2))) / 2)


def test_truncated_checkpoint_is_named(splits, tmp_path):
    path = tmp_path / "state"
    path.write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{")
    with pytest.raises(ValueError, match="state is truncated"):
        fit(tiny_model(), splits, SCHEDULE, 4, path)


def test_predict_keeps_the_order(splits):
    train, _ = splits
    model = tiny_model()
    scores = trainer.predict(model, train, batch_size=5)
    assert len(scores) == len(train)
    backwards = CropSet(train.manifest[::-1], train.images, train.mask, train.parsing)
    np.testing.assert_allclose(trainer.predict(model, backwards)[::-1], scores, atol=1e-6)


def test_diverged_training_says_so(splits, tmp_path):
    model = tiny_model()
    with torch.no_grad():
        model[-1].weight.fill_(torch.nan)
    with pytest.raises(ValueError, match=r"diverged: after 2 steps .*learning_rate \(0.001\)"):
        fit(model, splits, SCHEDULE, 4, tmp_path / "state")
