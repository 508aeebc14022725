"""Two processes with half a batch each do what one process does with all of it."""

import copy
from functools import partial

import pytest
import torch
import torch.distributed
import torch.multiprocessing
from torch import nn

from fwstudy.whitening.concepts import Concept, whitened_means
from fwstudy.whitening.iternorm import IterNormWhitening
from fwstudy.whitening.layer import FeatureWhitening
from fwstudy.whitening.statistics import update_statistics
from fwstudy.whitening.sync import all_reduce_sum, world_size

SHARES = (5, 3)  # images of each process: unequal on purpose
LAYERS = {
    "eigh": partial(FeatureWhitening, solver="eigh"),
    "cholesky": partial(FeatureWhitening, solver="cholesky"),
    "newton_schulz": partial(FeatureWhitening, solver="newton_schulz"),
    "amortized": partial(FeatureWhitening, whiten_every=2),
    "iternorm": IterNormWhitening,
}
CASES = [(name, side) for name in LAYERS for side in (3, 1)]  # side of the maps: 1 is few locations


def make_layer(name: str) -> FeatureWhitening:
    torch.manual_seed(1)
    layer = LAYERS[name](20, 2).double()
    layer.set_rotation(torch.linalg.qr(torch.randn(20, 20))[0])
    return layer


def make_batches(side: int) -> list[torch.Tensor]:
    torch.manual_seed(2)
    mixing = torch.randn(20, 20, dtype=torch.float64)
    shape = sum(SHARES), 20, side, side
    return [torch.einsum("dc,nchw->ndhw", mixing, torch.randn(shape).double()) for _ in range(3)]


def train(layer: FeatureWhitening, batches: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    """Outputs of the last batch, gradients of a sum over images, statistics, concept means."""
    for batch in batches:
        features = batch.clone().requires_grad_()
        layer.zero_grad()
        output = layer(features)
        output.pow(3).sum().backward()
    update = copy.deepcopy(layer)
    update_statistics(update, update, batches)
    shown, absent, alone = (batch.float() for batch in batches)
    concepts = [Concept("pair", shown, absent, None), Concept("alone", alone, None, None)]
    return {
        "concepts": whitened_means(update.float().eval(), update, concepts),
        "output": output.detach(),
        "features": features.grad,
        "weight": all_reduce_sum(layer.weight.grad),
        "running_mean": layer.running_mean,
        "running_covariance": layer.running_covariance,
        "pooled_mean": update.running_mean,
        "pooled_covariance": update.running_covariance,
    }


def work(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    address = f"tcp://127.0.0.1:{port}"
    torch.distributed.init_process_group("gloo", address, rank=rank, world_size=len(SHARES))
    assert world_size() == len(SHARES)
    found = {}
    for name, side in CASES:
        shares = [batch.split(SHARES)[rank] for batch in make_batches(side)]
        found[f"{name}, {side}"] = train(make_layer(name), shares)
    torch.save(found, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture
def port():
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    free = store.port
    del store
    return free


@pytest.fixture
def results(tmp_path, port):
    """What each process found, for every case."""
    torch.multiprocessing.spawn(work, (port, str(tmp_path)), nprocs=len(SHARES), join=True)
    return [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(len(SHARES))]


def test_two_processes_equal_one(results):
    for case, side in CASES:
        shares = [found[f"{case}, {side}"] for found in results]
        single = train(make_layer(case), make_batches(side))
        for name in ("output", "features"):
            whole = torch.cat([share.pop(name) for share in shares])
            torch.testing.assert_close(whole, single.pop(name), atol=1e-5, rtol=1e-5)
        for share in shares:
            torch.testing.assert_close(share, single, atol=1e-5, rtol=1e-5)


def test_one_process_changes_nothing():
    share = nn.Parameter(torch.ones(2))
    assert all_reduce_sum(share) is share and world_size() == 1
