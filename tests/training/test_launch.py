"""Two processes train one model: as one process does, and after one of them was killed."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from torch import nn

from fwstudy.crops.cropset import CropSet
from fwstudy.params import Launch
from fwstudy.training import launch, runs
from fwstudy.training.batches import PairedBatches
from fwstudy.training.launch import launched
from fwstudy.training.losses import ConstrainedLoss, variance
from fwstudy.training.trainer import fit
from fwstudy.whitening.layer import FeatureWhitening
from fwstudy.whitening.sync import local_shard, rank, share_of, world_size

from ..models import some_params
from .test_trainer import SCHEDULE as PLAIN

ONE = Launch(num_processes=1, max_restarts=0)
TWO = Launch(num_processes=2, max_restarts=1)
SCHEDULE = PLAIN.model_copy(update={"learning_rate": 1e-2, "weight_decay": 0.0})


class Small(nn.Module):
    """A network whose one norm layer whitens: nothing in it depends on how a batch is divided.

    No bias before the whitening, whose gradient would be rounding alone. One parameter is never used.
    """

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.convolution = nn.Conv2d(3, 8, 5, stride=4, bias=False)
        self.norm = FeatureWhitening(8, act=nn.Softplus())
        self.classifier = nn.Linear(8, 1)
        self.unused = nn.Parameter(torch.ones(2))

    def forward(self, images):
        return self.classifier(self.norm(self.convolution(images)).mean((2, 3)))


def two_masks(changed, parts):
    return torch.stack([changed, parts > 0], dim=1)


def train_small(crops: CropSet, checkpoint: Path, kill: Path | None) -> tuple:
    """History, weights, the step from which it went on, a price; the second process dies once."""
    model = Small()
    loss = ConstrainedLoss(model.norm, 2, two_masks, concept_weight=1.0, bottleneck=0.5)
    batches = PairedBatches(crops.select(split="train"), 8, seed=0, partial_forgery_ratio=0.5)
    begun = []

    def after_step(step: int) -> None:
        begun.append(step)
        if kill and not kill.exists() and step == 5 and rank() == 1:
            kill.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    validation = crops.select(split="validation", kind="whole", quality="c23")
    history = fit(model, batches, validation, SCHEDULE, checkpoint, loss, after_step)
    weights = {name: value.numpy() for name, value in model.state_dict().items()}
    return history, weights, begun[0], price()


def fail() -> None:
    if rank() == 1:
        raise ArithmeticError("the planted error")


def price() -> tuple:
    """Variance of a vector of which each process has a part; its gradient, averaged as DDP does."""
    values = torch.from_numpy(local_shard(np.arange(5.0) ** 2)).requires_grad_()
    found = variance(values)
    found.backward()
    return found.item(), (values.grad / world_size()).tolist()


def assert_same(one: tuple, other: tuple) -> None:
    pd.testing.assert_frame_equal(one[0], other[0], atol=1e-4, rtol=1e-4)
    for name, value in one[1].items():
        np.testing.assert_allclose(value, other[1][name], atol=1e-4, rtol=1e-3, err_msg=name)


def test_two_processes_train_as_one_and_outlive_a_killed_worker(crops, tmp_path):
    """The price of the unnamed is that of the whole batch: the first has three of five values."""
    alone = train_small(crops, tmp_path / "alone", None)
    killed = tmp_path / "killed"
    together = launched(train_small, TWO, crops, tmp_path / "state", killed)
    assert killed.exists() and together[2] == 5, "it should go on after the checkpoint of step 4"
    assert_same(alone, together)
    assert not (tmp_path / "state").exists()
    (value, gradient), (whole, expected) = together[3], alone[3]
    assert value == pytest.approx(whole) and gradient == pytest.approx(expected[:3])


def tiny_study(folder: Path, crops: CropSet):
    """Settings of a study of four steps, and its crops in the folder."""
    shutil.copytree(Path(crops.images.filename).parent, folder / "data" / "crops")
    schedule = {"steps": 4, "learning_rate": 1e-3, "evaluation_interval": 2}
    stages = ("train.baseline", "train.fine_tune")
    short = {f"{stage}.{key}": value for stage in stages for key, value in schedule.items()}
    return some_params(short | {"train.batch_size": 16})


def test_the_study_in_two_processes(crops, project):
    params = tiny_study(project, crops)
    histories = []
    for processes, names in ((ONE, ["baseline", "whitened"]), (TWO, ["whitened"])):
        train = params.train.model_copy(update={"launch": processes})
        used, found = params.model_copy(update={"train": train}), CropSet.open("data/crops")
        for chosen in (runs.find_run(used, name, 0) for name in names):
            whitened = runs.train(chosen, used, found)
            runs.complete([chosen], used)
        assert whitened.cost["minutes"] > 0 and isinstance(whitened.layer, FeatureWhitening)
        predictions = runs.score_held_out(whitened, used, found)
        assert predictions["score"].notna().all()
        histories.append(whitened.history)
    one, two = histories
    assert one["step"].tolist() == two["step"].tolist() and list(one) == list(two)
    # The backbone's BatchNorm layers see half the batch: alike, not equal.
    np.testing.assert_allclose(one["loss"], two["loss"], rtol=0.2)
    assert np.abs(one["validation_auc"] - two["validation_auc"]).max() < 0.25


def test_workers_that_keep_failing_say_why():
    before, environment = signal.getsignal(signal.SIGINT), dict(os.environ)
    message = r"in 2 processes.*after 0 restarts:\n(.*\n)*.*the planted error"
    with pytest.raises(RuntimeError, match=message) as caught:
        launched(fail, TWO.model_copy(update={"max_restarts": 0}))
    assert "in fail" in str(caught.value) and len(str(caught.value).splitlines()) < 12
    assert signal.getsignal(signal.SIGINT) == before and dict(os.environ) == environment


def test_one_process_is_this_one():
    assert launched(os.getpid, ONE) == os.getpid()


def test_what_the_machine_lacks_is_said(monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_backend_available", lambda name: False)
    with pytest.raises(RuntimeError, match=r"no gloo.*set train\.launch\.num_processes: 1"):
        launched(fail, TWO)
    monkeypatch.setattr(torch.distributed, "is_backend_available", lambda name: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert launch.backend_for(2) == "nccl"
    with pytest.raises(RuntimeError, match=r"num_processes: 4 processes, but 2 GPUs"):
        launch.backend_for(4)


def test_a_batch_that_cannot_be_divided_is_refused(monkeypatch):
    monkeypatch.setattr("fwstudy.whitening.sync.world_size", lambda: 3)
    with pytest.raises(ValueError, match=r"train\.batch_size: 16 pairs .* 3 processes"):
        share_of(16)


def test_synchronised_batch_norms_keep_names_and_parameters():
    """What is done on CUDA before training: weights are read and written as before."""
    model = timm.create_model("test_efficientnet", num_classes=1)
    before = dict(model.named_parameters()), list(model.state_dict())
    activation = model.bn2.act
    model = timm.layers.convert_sync_batchnorm(model)
    assert isinstance(model.bn2, nn.SyncBatchNorm) and model.bn2.act is activation
    assert list(model.state_dict()) == before[1]
    assert all(parameter is before[0][name] for name, parameter in model.named_parameters())


def test_the_program_for_torchrun_is_named_in_its_help():
    assert re.search(r"torchrun .*\n.*-m fwstudy\.training whitened 0", launch.__doc__)


def test_without_torchrun_it_says_how_to_start():
    command = [sys.executable, "-m", "fwstudy.training", "whitened", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "torchrun" in done.stderr
