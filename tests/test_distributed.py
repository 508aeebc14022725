"""Two processes with half a batch each do what one process does with all of it."""

import copy

import pytest
import torch
import torch.distributed
import torch.multiprocessing
from torch import nn

from fwstudy.concepts import Concept
from fwstudy.constraint import whitened_means
from fwstudy.distributed import num_processes, total
from fwstudy.whitening import FeatureWhitening, update_statistics

SHARES = (5, 3)  # images of each process: unequal on purpose
CASES = [("eigh", 1), ("cholesky", 1), ("eigh", 2)]  # solver, refresh_interval


def make_layer(solver: str, interval: int) -> FeatureWhitening:
    torch.manual_seed(1)
    layer = FeatureWhitening(6, 2, solver=solver, refresh_interval=interval).double()
    layer.set_rotation(torch.linalg.qr(torch.randn(6, 6))[0])
    return layer


def make_batches() -> list[torch.Tensor]:
    torch.manual_seed(2)
    mixing = torch.randn(6, 6, dtype=torch.float64)
    return [
        torch.einsum("dc,nchw->ndhw", mixing, torch.randn(sum(SHARES), 6, 3, 2).double())
        for _ in range(3)
    ]


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
        "weight": total(layer.weight.grad),
        "running_mean": layer.running_mean,
        "running_covariance": layer.running_covariance,
        "pooled_mean": update.running_mean,
        "pooled_covariance": update.running_covariance,
    }


def work(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    address = f"tcp://127.0.0.1:{port}"
    torch.distributed.init_process_group("gloo", address, rank=rank, world_size=len(SHARES))
    assert num_processes() == len(SHARES)
    shares = [batch.split(SHARES)[rank] for batch in make_batches()]
    found = {str(case): train(make_layer(*case), shares) for case in CASES}
    torch.save(found, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture
def port():
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    free = store.port
    del store
    return free


@pytest.fixture
def joined(tmp_path, port):
    """What each process found, for every case."""
    torch.multiprocessing.spawn(work, (port, str(tmp_path)), nprocs=len(SHARES), join=True)
    return [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(len(SHARES))]


def test_two_processes_equal_one(joined):
    for case in CASES:
        shares = [found[str(case)] for found in joined]
        single = train(make_layer(*case), make_batches())
        for name in ("output", "features"):
            whole = torch.cat([share.pop(name) for share in shares])
            torch.testing.assert_close(whole, single.pop(name), atol=1e-5, rtol=1e-5)
        for share in shares:
            torch.testing.assert_close(share, single, atol=1e-5, rtol=1e-5)


def test_one_process_changes_nothing():
    share = nn.Parameter(torch.ones(2))
    assert total(share) is share and num_processes() == 1
