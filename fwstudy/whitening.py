"""Feature whitening: a drop-in for BatchNorm2d whose output channels are uncorrelated.

Batch normalisation centres and scales each channel. Whitening also removes the correlation between
channels, so that a rotation costs nothing afterwards and may give each axis to a concept::

    y = activation(weight * R W (x - mean) + bias)        W covariance W^T = I,  R R^T = I

Sources: Huang et al., "Iterative Normalization", CVPR 2019 (IterNorm); Chen, Bei, Rudin, "Concept
Whitening", Nature Machine Intelligence 2020; Hua et al., arXiv:2106.10834, 2021; Kessy et al.,
"Optimal Whitening and Decorrelation", The American Statistician 2018.

Departures from the papers: the running average is kept of the covariance, not of the whitening
matrix; the matrix is converged, not cut after five steps; it may be held constant for some steps.
"""

from contextlib import contextmanager

import torch
from torch import Tensor, nn


def as_rows(features: Tensor) -> Tensor:
    """Features (N, C, H, W) or (M, C) as rows (M, C), one for each location of each image."""
    return features.movedim(1, -1).reshape(-1, features.shape[1])


def covariance(features: Tensor, num_groups: int = 1) -> tuple[Tensor, Tensor]:
    """Mean and block-diagonal covariance over all locations, divided by M (maximum likelihood).

    The one place where batch statistics are computed (an all-reduce would go here).

    Args:
        features: (N, C, H, W) or (M, C), floating point.
        num_groups: number G of blocks; a divisor of C. Block size d = C / G.

    Returns:
        mean (C,) and covariance (G, d, d).

    Example:
        >>> covariance(torch.tensor([[1.0, 0.0], [3.0, 4.0]]))[1]
        tensor([[[1., 2.],
                 [2., 4.]]])
    """
    rows = as_rows(features)
    _check_groups(rows.shape[1], num_groups)
    mean = rows.mean(0)
    blocks = (rows - mean).unflatten(1, (num_groups, -1)).permute(1, 2, 0)
    return mean, blocks @ blocks.mT / len(rows)


def oas(covariance: Tensor, num_samples: int) -> Tensor:
    """Oracle approximating shrinkage: the coefficient in [0, 1], one for each block.

    Chen Y. et al., "Shrinkage algorithms for MMSE covariance estimation", IEEE TSP 2010, eq. 23,
    without its terms 2/d, as scikit-learn. It assumes independent Gaussian rows: neighbouring
    locations of a map are not independent, so it is a lower bound there.
    """
    squares = covariance.square().mean((-2, -1), keepdim=True)
    scale = _mean_variance(covariance).square()
    spread = squares - scale / covariance.shape[-1]
    known = spread > torch.finfo(spread.dtype).eps * squares  # else a multiple of the identity
    ratio = (squares + scale) / ((num_samples + 1) * torch.where(known, spread, 1))
    return torch.where(known, ratio, 1).clamp(max=1)


ESTIMATORS = {"oas": oas}


def shrink(covariance: Tensor, num_samples: int, shrinkage: float | str) -> Tensor:
    """(1 - a) covariance + a (mean variance) I, with a a number in [0, 1] or a key of ESTIMATORS.

    Makes a covariance (..., d, d) of fewer samples than channels invertible.
    """
    data_driven = isinstance(shrinkage, str)
    a = ESTIMATORS[shrinkage](covariance, num_samples) if data_driven else shrinkage
    return (1 - a) * covariance + a * _mean_variance(covariance) * _identity(covariance)


class _InverseRoot(torch.autograd.Function):
    """S^(-1/2) by `eigh`, with a derivative that stays finite for equal eigenvalues.

    With S = U diag(l) U^T, dW = U (K * (U^T dS U)) U^T (Daleckii-Krein), where the divided
    difference of l^(-1/2) is K_ij = -1 / (s_i s_j (s_i + s_j)), s = sqrt(l): nothing cancels.
    """

    @staticmethod
    def forward(context, covariance, eps):
        values, vectors = torch.linalg.eigh(covariance)
        noise = torch.finfo(values.dtype).eps * values[..., -1:].clamp(min=0)
        roots = values.maximum(noise).add(eps).sqrt()  # what is below the rounding is not known
        context.save_for_backward(roots, vectors)
        return (vectors / roots.unsqueeze(-2)) @ vectors.mT

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context, gradient):
        roots, vectors = context.saved_tensors
        row, column = roots.unsqueeze(-1), roots.unsqueeze(-2)
        inner = vectors.mT @ gradient @ vectors / -(row * column * (row + column))
        return vectors @ inner @ vectors.mT, None


def eigh(covariance: Tensor, eps: float) -> Tensor:
    """ZCA whitening (covariance + eps I)^(-1/2) by eigendecomposition; symmetric."""
    return _InverseRoot.apply(covariance, eps)


def cholesky(covariance: Tensor, eps: float) -> Tensor:
    """Whitening L^-1 with L L^T = covariance + eps I (Kessy et al. 2018): ZCA up to a rotation.

    A block too close to singular for the precision is given a ridge of that precision.
    """
    ridged = covariance + eps * _identity(covariance)
    factor, failed = torch.linalg.cholesky_ex(ridged)
    if failed.any():
        factor = torch.linalg.cholesky(ridged + _rounding(ridged, failed > 0))
    identity = _identity(covariance).expand_as(covariance)
    return torch.linalg.solve_triangular(factor, identity, upper=False)


def newton_schulz(covariance: Tensor, eps: float, max_steps: int = 40) -> Tensor:
    """ZCA by the coupled Newton-Schulz iteration: matrix products only, stable, run to convergence.

    Higham, "Functions of Matrices", 2008, eq. 6.35. The scale is an upper bound of the largest
    eigenvalue, so the iteration converges for every positive definite matrix. A block too close to
    singular for the precision is given a ridge of that precision.
    """
    ridged = covariance + eps * _identity(covariance)
    whitening, error = _coupled_iteration(ridged, max_steps)
    failed = ~(error < 0.5)  # or not a number
    if failed.any():
        whitening, _ = _coupled_iteration(ridged + _rounding(ridged, failed), max_steps)
    return whitening


def _coupled_iteration(matrix: Tensor, max_steps: int) -> tuple[Tensor, Tensor]:
    identity = _identity(matrix)
    bounds = matrix.abs().sum(-1).amax(-1), matrix.square().sum((-2, -1)).sqrt()
    scale = torch.minimum(*bounds)[..., None, None].detach()
    root, inverse = matrix / scale, identity.expand_as(matrix)
    tolerance = matrix.shape[-1] * torch.finfo(matrix.dtype).eps
    for _ in range(max_steps):
        product = inverse @ root
        step = 1.5 * identity - 0.5 * product
        root, inverse = root @ step, step @ inverse
        error = (product.detach() - identity).abs().amax((-2, -1))
        if error.max() < tolerance:
            break  # after the step: the derivative converges one step later than the value
    return inverse / scale.sqrt(), error


def _rounding(matrix: Tensor, failed: Tensor) -> Tensor:
    """A ridge just above the rounding error of a matrix, for the blocks that failed."""
    trace = matrix.shape[-1] * _mean_variance(matrix)
    ridge = torch.where(failed[..., None, None], 10 * torch.finfo(matrix.dtype).eps * trace, 0)
    return ridge * _identity(matrix)


def published_newton(covariance: Tensor, eps: float, steps: int = 5) -> Tensor:
    """IterNorm as published (Huang et al. 2019, Algorithm 1, T = 5): the baseline.

    It stops long before convergence when channels are many, and diverges with more steps: the
    result does not whiten. Kept to be compared with.
    """
    ridged = covariance + eps * _identity(covariance)
    trace = ridged.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
    inverse = _identity(covariance).expand_as(covariance)
    for _ in range(steps):
        inverse = 1.5 * inverse - 0.5 * inverse @ inverse @ inverse @ (ridged / trace)
    return inverse / trace.sqrt()


SOLVERS = {
    "eigh": eigh,
    "cholesky": cholesky,
    "newton_schulz": newton_schulz,
    "published_newton": published_newton,
}


class FeatureWhitening(nn.Module):
    """Whiten and rotate the channels of a feature map; a drop-in for BatchNorm2d.

    Training is *exact* with refresh_interval = 1: mean and covariance are those of the batch and
    gradients flow through both and through the solver. Otherwise it is *amortised*: the mean is
    that of the batch, the running covariance is updated without gradient, and W is computed from
    it every refresh_interval batches and is a constant in between. Evaluation whitens the running
    covariance. Statistics are float32 (or wider) also under autocast.

    Args:
        num_features: number C of channels.
        num_groups: number of blocks whitened apart; a divisor of C. C groups are a BatchNorm2d.
        eps: added to each variance; above 0.
        momentum: weight of a new batch in the running statistics; in [0, 1].
        affine: learn a scale and a shift for each channel.
        solver: key of SOLVERS.
        shrinkage: of each batch covariance towards a multiple of the identity, before it is
            averaged; in [0, 1] or a key of ESTIMATORS. 0 when a batch has far more locations than
            channels; not 0 in exact training when it has fewer.
        refresh_interval: batches between two computations of W; at least 1. The larger, the more
            W jumps when it is computed, also on leaving training: keep it to 10 or so unless the
            layers before this one learn slowly.
        activation: module applied to the output, as in timm's BatchNormAct2d.

    Shape: (N, C, H, W) -> the same. Buffers: running_mean (C,), running_covariance and whitening
    (G, d, d), rotation (C, C) orthogonal, rows are the axes, num_batches_tracked.

    Raises:
        ValueError: an argument or an input outside the above; one location alone in training.

    Example:
        >>> layer = FeatureWhitening(4, num_groups=2)
        >>> layer(torch.randn(8, 4, 5, 5)).shape
        torch.Size([8, 4, 5, 5])
    """

    def __init__(
        self,
        num_features: int,
        num_groups: int = 1,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
        solver: str = "eigh",
        shrinkage: float | str = "oas",
        refresh_interval: int = 1,
        activation: nn.Module | None = None,
    ):
        super().__init__()
        _check_groups(num_features, num_groups)
        _check(eps > 0, f"eps must be above 0, not {eps}")
        _check(
            momentum is not None and 0 <= momentum <= 1,
            f"momentum must be in [0, 1], not {momentum}",
        )
        _check(solver in SOLVERS, f"solver must be one of {', '.join(SOLVERS)}, not {solver!r}")
        _check(
            shrinkage in ESTIMATORS if isinstance(shrinkage, str) else 0 <= shrinkage <= 1,
            f"shrinkage must be in [0, 1] or one of {', '.join(ESTIMATORS)}, not {shrinkage!r}",
        )
        _check(
            refresh_interval >= 1, f"refresh_interval must be at least 1, not {refresh_interval}"
        )
        self.num_features, self.num_groups = num_features, num_groups
        self.eps, self.momentum, self.affine = eps, momentum, affine
        self.solver, self.shrinkage, self.refresh_interval = solver, shrinkage, refresh_interval
        self.activation = nn.Identity() if activation is None else activation
        self.weight = nn.Parameter(torch.ones(num_features)) if affine else None
        self.bias = nn.Parameter(torch.zeros(num_features)) if affine else None
        blocks = torch.eye(num_features // num_groups).repeat(num_groups, 1, 1)
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_covariance", blocks)
        self.register_buffer("whitening", blocks / (1 + eps) ** 0.5)
        self.register_buffer("rotation", torch.eye(num_features))
        self.register_buffer("num_batches_tracked", torch.tensor(0))
        self.register_load_state_dict_post_hook(_refresh_after_load)

    @classmethod
    def from_batch_norm(cls, norm: nn.BatchNorm2d, **options) -> "FeatureWhitening":
        """A layer equal in evaluation to the given BatchNorm2d, with its fused drop and activation.

        The running variance becomes the diagonal of the running covariance. `options` override.

        Example:
            >>> layer = FeatureWhitening.from_batch_norm(nn.BatchNorm2d(6), num_groups=2)
        """
        _check(
            isinstance(norm, nn.BatchNorm2d) and norm.running_var is not None,
            f"norm must be a BatchNorm2d that tracks its statistics, not {norm}",
        )
        fused = [m for m in norm.children() if not isinstance(m, nn.Identity)]
        copied = {
            "eps": norm.eps,
            "momentum": norm.momentum,
            "affine": norm.affine,
            "activation": nn.Sequential(*fused) if fused else None,
        }
        layer = cls(norm.num_features, **(copied | options)).to(norm.running_var)
        with torch.no_grad():
            layer.running_mean.copy_(norm.running_mean)
            variances = norm.running_var.unflatten(0, (layer.num_groups, -1))
            layer.running_covariance.copy_(torch.diag_embed(variances))
            if norm.affine and layer.affine:
                layer.weight.copy_(norm.weight)
                layer.bias.copy_(norm.bias)
        layer.refresh()
        return layer.train(norm.training)

    def forward(self, features: Tensor) -> Tensor:
        _check(
            features.ndim == 4 and features.shape[1] == self.num_features,
            f"features must be (N, {self.num_features}, H, W), not {tuple(features.shape)}",
        )
        with torch.autocast(features.device.type, enabled=False):
            rows = as_rows(features.to(torch.promote_types(features.dtype, torch.float32)))
            mean, whitening = self._observe(rows) if self.training else self._recall(rows)
            output = self._rotate(rows - mean, whitening)
            if self.affine:
                output = torch.addcmul(self.bias.to(rows), output, self.weight.to(rows))
        return self.activation(_as_maps(output.to(features.dtype), features))

    def normalize(self, features: Tensor) -> Tensor:
        """R W (x - mean) with the running statistics, before scale and activation: (N, C, H, W)."""
        rows = as_rows(features)
        mean, whitening = self._recall(rows)
        return _as_maps(self._rotate(rows - mean, whitening), features)

    def decorrelate(self, deviations: Tensor) -> Tensor:
        """W deviations, with deviations from the mean as columns (C, k): before the rotation.

        For the means of concepts: whitening is affine, so the mean of whitened features is the
        whitened mean.
        """
        blocks = deviations.unflatten(0, (self.num_groups, -1))
        return (self.whitening.to(deviations) @ blocks).flatten(0, 1)

    @torch.no_grad()
    def refresh(self) -> None:
        """Compute W from the running covariance; needed after changing the latter by hand."""
        with torch.autocast(self.running_covariance.device.type, enabled=False):
            values = self.running_covariance
            values = values.to(torch.promote_types(values.dtype, torch.float32))
            self.whitening.copy_(SOLVERS[self.solver](values, self.eps))

    def train(self, mode: bool = True) -> "FeatureWhitening":
        """Set the mode; W is brought up to date on leaving training."""
        if self.training and not mode:
            self.refresh()
        return super().train(mode)

    def extra_repr(self) -> str:
        names = "num_features num_groups eps momentum affine solver shrinkage refresh_interval"
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in names.split())

    def _rotate(self, rows: Tensor, whitening: Tensor) -> Tensor:
        """R W rows, with R W (C, C) composed first: by blocks, and cheaper than two products."""
        columns = self.rotation.to(rows).unflatten(1, whitening.shape[:2]).transpose(0, 1)
        return rows @ (columns @ whitening).transpose(0, 1).flatten(1).mT

    def _recall(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        return self.running_mean.to(rows), self.whitening.to(rows)

    def _observe(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and whitening matrix for a training batch; updates the running statistics."""
        count, exact = len(rows), self.refresh_interval == 1
        _check(count > 1, f"features must have at least 2 locations in training, not {count}")
        mean, blocks = covariance(rows if exact else rows.detach(), self.num_groups)
        blocks = shrink(blocks, count, self.shrinkage)
        with torch.no_grad():
            unbiased = (blocks * (count / (count - 1))).to(self.running_covariance)
            self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
            self.running_covariance.lerp_(unbiased, self.momentum)
            self.num_batches_tracked.add_(1)
        if exact:
            return mean, SOLVERS[self.solver](blocks, self.eps)
        whitening = self.whitening.to(rows, copy=True)
        if self.num_batches_tracked % self.refresh_interval == 0:
            self.refresh()
        return rows.mean(0), whitening


@torch.no_grad()
def update_statistics(model: nn.Module, layer: FeatureWhitening, batches) -> None:
    """Set the running mean and covariance of a layer exactly, from all batches pooled.

    The model runs in evaluation mode (layers before this one keep their statistics) and is left
    in its mode. Moments are pooled in float64 (Chan, Golub, LeVeque 1983).

    Args:
        model: contains `layer`; called with images.
        batches: iterable of images (N, C, H, W), or of tuples that begin with images.

    Raises:
        ValueError: the layer saw fewer than two locations.
    """
    count, mean, scatter = 0, 0.0, 0.0

    def accumulate(_, inputs):
        nonlocal count, mean, scatter
        rows = as_rows(inputs[0]).double()
        batch_mean, batch_covariance = covariance(rows, layer.num_groups)
        total, shift = count + len(rows), batch_mean - mean
        blocks = shift.unflatten(0, (layer.num_groups, -1, 1))
        between = blocks @ blocks.mT * (count * len(rows) / total)
        mean = mean + shift * (len(rows) / total)
        scatter = scatter + batch_covariance * len(rows) + between
        count = total

    device = layer.running_mean.device
    handle = layer.register_forward_pre_hook(accumulate)
    try:
        with evaluation_mode(model):
            for batch in batches:
                model((batch if isinstance(batch, Tensor) else batch[0]).to(device))
    finally:
        handle.remove()
    _check(count > 1, f"batches must give the layer at least two locations, not {count}")
    layer.running_mean.copy_(mean)
    layer.running_covariance.copy_(shrink(scatter / (count - 1), count, layer.shrinkage))
    layer.refresh()


@torch.no_grad()
def whiteness(features: Tensor) -> dict[str, float]:
    """How white features (N, C, H, W) or (M, C) are; computed in float64.

    Returns:
        mean_correlation, max_correlation: absolute, off the diagonal, over channels that vary
            (0 and 0 when white); mean_variance (1); effective_rank: exp of the entropy of the
            normalised eigenvalues (C), Roy and Vetterli 2007; condition_number (1).

    Example:
        >>> round(whiteness(torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]]))["effective_rank"])
        2
    """
    matrix = covariance(features.double())[1][0]
    varies = matrix.diagonal() > 0
    scale = matrix.diagonal()[varies].sqrt()
    correlation = matrix[varies][:, varies] / (scale * scale[:, None])
    others = correlation[~torch.eye(len(scale), dtype=torch.bool, device=scale.device)].abs()
    others = others if len(others) else others.new_zeros(1)
    values = torch.linalg.eigvalsh(matrix).clamp(min=0)
    shares = values / values.sum()
    return {
        "mean_correlation": others.mean().item(),
        "max_correlation": others.max().item(),
        "mean_variance": matrix.diagonal().mean().item(),
        "effective_rank": torch.special.entr(shares).sum().exp().item(),
        "condition_number": (values.max() / values.min()).item(),
    }


@contextmanager
def evaluation_mode(model: nn.Module):
    """Evaluation mode inside the block; afterwards each layer has the mode that it had before."""
    modes = {module: module.training for module in model.modules()}
    try:
        yield model.eval()
    finally:
        for module, mode in modes.items():
            module.training = mode


def _as_maps(rows: Tensor, like: Tensor) -> Tensor:
    return rows.view(like.movedim(1, -1).shape).movedim(-1, 1)


def _refresh_after_load(layer: FeatureWhitening, _) -> None:
    if not layer.training:
        layer.refresh()


def _identity(matrix: Tensor) -> Tensor:
    return torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)


def _mean_variance(covariance: Tensor) -> Tensor:
    return covariance.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]


def _check_groups(num_features: int, num_groups: int) -> None:
    _check(
        num_groups >= 1 and num_features % num_groups == 0,
        f"num_groups must divide num_features = {num_features}, not {num_groups}",
    )


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)
