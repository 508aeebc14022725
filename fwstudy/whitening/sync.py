"""What several processes that train one model share: sums of statistics, a batch, gradients.

Where torch.distributed is not initialised there is one process, and each function is the identity.
"""

import numpy as np
import torch
import torch.distributed
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.parallel import DistributedDataParallel


def is_distributed() -> bool:
    """Whether torch.distributed is initialised in this process."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def world_size() -> int:
    """How many processes train together; 1 where torch.distributed is not initialised."""
    return torch.distributed.get_world_size() if is_distributed() else 1


def rank() -> int:
    """Which of the processes this is, from 0."""
    return torch.distributed.get_rank() if world_size() > 1 else 0


def all_reduce_sum(share: Tensor) -> Tensor:
    """Sum of a tensor over all processes, differentiable: the gradient is summed over them too.

    Every process must call it, with the same shape, in the same order.
    """
    return share if world_size() == 1 else all_reduce(share)


def all_reduce_count(count: int, device: torch.device) -> int:
    """Sum of a number over all processes; on one process without a look at the device."""
    if world_size() == 1:
        return count
    return int(all_reduce_sum(torch.tensor(count, dtype=torch.float64, device=device)))


def share_of(count: int) -> slice:
    """The places, out of a number of pairs of a batch, that are this process's.

    Raises:
        ValueError: they cannot be divided evenly.
    """
    each, rest = divmod(count, world_size())
    if rest:
        raise ValueError(
            f"train.batch_size: {count} pairs cannot be divided among {world_size()} processes "
            "(train.launch.num_processes)"
        )
    return slice(rank() * each, (rank() + 1) * each)


def local_shard(rows: np.ndarray) -> np.ndarray:
    """This process's part of an array; those of all, one after another, make the whole.

    Args:
        rows: (n, ...); parts differ in length by one at most.
    """
    return np.array_split(rows, world_size())[rank()]


def all_gather_list(values: list) -> list:
    """The lists of all processes, one after another."""
    if world_size() == 1:
        return values
    found: list = [None] * world_size()
    torch.distributed.all_gather_object(found, values)
    return [value for share in found for value in share]


def wait_for_all() -> None:
    """Return when every process has come here."""
    if world_size() > 1:
        torch.distributed.barrier()


def synchronized(model: nn.Module) -> nn.Module:
    """The model as several processes train it: gradients are averaged over them.

    Whitening layers sum their statistics over the processes. So do BatchNorm layers on CUDA, which are
    replaced in place (timm's ``convert_sync_batchnorm``: the same parameters and names). On a CPU, where
    PyTorch has no such layer, they normalise by their own share of the batch and keep the running
    statistics of the first process (`follow_first`).
    """
    if world_size() == 1:
        return model
    if next(model.parameters()).is_cuda:
        from timm.layers import convert_sync_batchnorm  # slow to import, and seldom needed

        model = convert_sync_batchnorm(model)
    return DistributedDataParallel(model, find_unused_parameters=True)


@torch.no_grad()
def follow_first(model: nn.Module) -> None:
    """Give the buffers of all processes the values they have in the first."""
    if world_size() > 1:
        for buffer in model.buffers():
            torch.distributed.broadcast(buffer, 0)


def bare(model: nn.Module) -> nn.Module:
    """The model without what `synchronized` put around it."""
    return model.module if isinstance(model, DistributedDataParallel) else model
