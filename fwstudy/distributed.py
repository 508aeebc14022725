"""Sums over the processes of torch.distributed, for statistics of a batch that several share."""

import torch
import torch.distributed
from torch import Tensor


def num_processes() -> int:
    """How many processes train together; 1 where torch.distributed is not initialised."""
    running = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if running else 1


def total(share: Tensor) -> Tensor:
    """Sum of a tensor over all processes, differentiable: the gradient is summed over them too.

    Every process must call it, with the same shape, in the same order.
    """
    if num_processes() == 1:
        return share
    from torch.distributed.nn.functional import all_reduce  # not in builds without processes

    return all_reduce(share)


def total_count(count: int, device: torch.device) -> int:
    """Sum of a number over all processes; on one process without a look at the device."""
    if num_processes() == 1:
        return count
    return int(total(torch.tensor(count, dtype=torch.float64, device=device)))
