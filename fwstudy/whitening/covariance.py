"""Covariances of feature maps: estimates, shrinkage, groups of channels. Pure functions.

Matrices come in stacks of blocks (G, d, d), one for each group of channels.
"""

from collections.abc import Callable

import torch
from torch import Tensor

DOUBLE_PRODUCTS = 32  # most channels of a block whose covariance is summed in float64


def as_rows(features: Tensor) -> Tensor:
    """Features (N, C, H, W) or (M, C) as rows (M, C), one for each location of each image."""
    return features.movedim(1, -1).reshape(-1, features.shape[1])


def covariance(
    features: Tensor, num_groups: int = 1, reduce: Callable[[Tensor], Tensor] = lambda share: share
) -> tuple[Tensor, Tensor]:
    """Mean and block-diagonal covariance over all locations, divided by M (maximum likelihood).

    The one place where batch statistics are computed. Up to 32 channels a block, float32 products are
    summed in float64: of 32768 rows with condition 1e6, float32 leaves whitened channels correlated by
    up to 1 at 8 channels a block, 0.007 on average at 16 and 0.003 at 32.

    Args:
        features: (N, C, H, W) or (M, C), floating point.
        num_groups: number G of blocks; a divisor of C. Block size d = C / G.
        reduce: sum over processes, `fwstudy.whitening.sync.all_reduce_sum` where each holds a share
            of the batch.

    Returns:
        mean (C,) and covariance (G, d, d), the latter float64 up to 32 channels a block.

    Example:
        >>> covariance(torch.tensor([[1.0, 0.0], [3.0, 4.0]]))[1]
        tensor([[[1., 2.],
                 [2., 4.]]], dtype=torch.float64)
    """
    rows = as_rows(features)
    check_groups(rows.shape[1], num_groups)
    count = reduce(rows.new_full((), float(len(rows))))
    mean = reduce(rows.sum(0)) / count
    blocks = as_blocks(rows - mean, num_groups)
    return mean, reduce(_Scatter.apply(blocks)) / count


class _Scatter(torch.autograd.Function):
    """X^T X of blocks (G, M, d): one product backward, where autograd makes two for two factors."""

    @staticmethod
    def forward(context, blocks):
        context.save_for_backward(blocks)
        wide = widen(blocks, DOUBLE_PRODUCTS)
        return wide.mT @ wide

    @staticmethod
    def backward(context, gradient):
        (blocks,) = context.saved_tensors
        return blocks @ (gradient + gradient.mT).to(blocks)


def widen(matrix: Tensor, most: int) -> Tensor:
    """As float64 where it has at most so many columns, and the device knows float64."""
    return matrix.double() if matrix.shape[-1] <= most and matrix.device.type != "mps" else matrix


def as_blocks(rows: Tensor, num_groups: int) -> Tensor:
    """Rows (M, C) as one block for each group of channels, (G, M, d)."""
    return rows.unflatten(1, (num_groups, -1)).transpose(0, 1)


def check_groups(num_features: int, num_groups: int) -> None:
    """Raise ValueError unless the channels divide into that many groups."""
    if num_groups < 1 or num_features % num_groups:
        raise ValueError(f"num_groups must divide num_features = {num_features}, not {num_groups}")


def oas(covariance: Tensor, num_samples: int, dimension: int) -> Tensor:
    """Oracle approximating shrinkage: the coefficient in [0, 1], one for each block.

    Chen Y. et al., "Shrinkage algorithms for MMSE covariance estimation", IEEE TSP 2010, eq. 23,
    without its terms 2/d, as scikit-learn. It assumes independent Gaussian rows: neighbouring
    locations of a map are not independent, so it is a lower bound there.
    """
    squares = covariance.square().sum((-2, -1), keepdim=True) / dimension**2
    scale = _mean_variance(covariance, dimension).square()
    spread = squares - scale / dimension
    known = spread > torch.finfo(spread.dtype).eps * squares  # else a multiple of the identity
    ratio = (squares + scale) / ((num_samples + 1) * torch.where(known, spread, 1))
    return torch.where(known, ratio, 1).clamp(max=1)


ESTIMATORS = {"oas": oas}
SAMPLES_PER_CHANNEL = 4  # from which on no estimator is asked


def shrink(
    covariance: Tensor, num_samples: int, shrinkage: float | str, dimension: int | None = None
) -> Tensor:
    """(1 - a) covariance + a (mean variance) I, with a a number in [0, 1] or a key of ESTIMATORS.

    Makes a covariance (..., d, d) of fewer samples than channels invertible. An estimator is asked
    only where samples are few: it minimises the error of the covariance and not of its inverse, and
    lifts small eigenvalues so much that the result does not whiten.

    Args:
        dimension: number of channels d, where the matrix is not the covariance but the Gram matrix
            of its samples, which has the same eigenvalues but for zeros.
    """
    dimension = dimension or covariance.shape[-1]
    if isinstance(shrinkage, str):
        few = num_samples < SAMPLES_PER_CHANNEL * dimension
        shrinkage = ESTIMATORS[shrinkage](covariance, num_samples, dimension) if few else 0.0
    a = shrinkage
    return (1 - a) * covariance + a * _mean_variance(covariance, dimension) * _identity(covariance)


def _identity(matrix: Tensor) -> Tensor:
    return torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)


def _mean_variance(covariance: Tensor, dimension: int) -> Tensor:
    return covariance.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None] / dimension
