"""Feature whitening: a drop-in for BatchNorm2d whose output channels are uncorrelated.

Batch normalisation centers and scales each channel. Whitening also removes the correlation between
channels, so that a rotation costs nothing afterwards and may give each axis to a concept::

    y = activation(weight * R W (x - mean) + bias)        W covariance W^T = I,  R R^T = I

Sources: Huang et al., "Iterative Normalization", CVPR 2019 (IterNorm); Chen, Bei, Rudin, "Concept
Whitening", Nature Machine Intelligence 2020; Hua et al., arXiv:2106.10834, 2021; Kessy et al.,
"Optimal Whitening and Decorrelation", The American Statistician 2018. The matrices come from
`fwstudy.whitening.solvers`.

Departures from the papers: the running average is kept of the covariance, not of the whitening
matrix; the matrix is converged, not cut after five steps; it may be held constant for some steps.
`fwstudy.whitening.iternorm` has the layer as published, to be compared with.
"""

import torch
from torch import Tensor, nn

from fwstudy.whitening.covariance import ESTIMATORS, as_rows, check_groups, covariance, shrink
from fwstudy.whitening.rotation import orthogonality_error
from fwstudy.whitening.solvers import MATRIX_FUNCTIONS, SOLVERS, whiten_few, whitening_matrix
from fwstudy.whitening.sync import all_reduce_count, all_reduce_sum, world_size


class FeatureWhitening(nn.Module):
    """Whiten and rotate the channels of a feature map; a drop-in for BatchNorm2d.

    Training is *exact* with whiten_every = 1: mean and covariance are those of the batch and
    gradients flow through both and through the solver. Otherwise it is *amortized*: the mean is
    that of the batch, the running covariance is updated without gradient, and W is computed from
    it every whiten_every batches and is a constant in between. Evaluation whitens the running
    covariance. Statistics and parameters are float32 or wider, also under autocast and in a model cast
    to half precision. Where torch.distributed runs several processes, batch statistics are those of
    all of them, as in SyncBatchNorm.

    Before amortized training, `update_statistics` should have seen some batches: the running
    covariance starts as that of the BatchNorm2d, or as the identity. With several groups the output
    is white within each, and a rotation that mixes groups does not keep the variances at 1.

    In other people's training. Averages of weights (timm's ModelEmaV3, torch's AveragedModel with
    use_buffers=True) may write into the buffers: evaluation notices and computes W anew, except in a
    compiled graph and with the stacked buffers of several models: call `refresh` before. An average of
    different rotations is no rotation:
    call ``ema_layer.set_rotation(layer.rotation)`` after `align`. `torch.optim.swa_utils.update_bn`
    passes over this layer: call `update_statistics`. timm's `freeze_batch_norm_2d` does too: call
    ``layer.eval()`` after each ``model.train()``. With activation checkpointing a recomputed batch is
    not counted again; in amortized training there must be a backward pass between two forward passes.
    Features that are not finite give NaN and leave the running statistics as they are.

    Transforms. `torch.func` works in evaluation, with the layer's own buffers, detached ones, or those
    of several models by `stack_module_state`; in training it does not, as for a BatchNorm2d.
    `torch.compile` breaks the graph in training, but for solver "eigh" with whiten_every = 1: elsewhere
    without fullgraph=True. `torch.fx` needs a tracer that takes this layer as a leaf, or a folded model.

    Args:
        num_features: number C of channels.
        num_groups: number of blocks whitened apart; a divisor of C. C groups are a BatchNorm2d.
        eps: added to each variance; above 0.
        momentum: weight of a new batch in the running statistics; in [0, 1].
        affine: learn a scale and a shift for each channel.
        solver: key of SOLVERS.
        shrinkage: of each batch covariance towards a multiple of the identity, before it is
            averaged; in [0, 1] or a key of ESTIMATORS. Not 0 in exact training when a batch has fewer
            locations than channels. Estimators shrink nothing from four locations a channel on (in
            amortized training those of the running average count): keep batches of one size. A small
            number damps directions of little variance, which else move much while the layers before
            this one learn.
        whiten_every: batches between two computations of W; at least 1. The larger, the more
            W jumps when it is computed, also on leaving training: keep it to 10 or so unless the
            layers before this one learn slowly. Keep it to 1 where features have a lower rank than C:
            W amplifies the directions in which they do not vary, and a step of an adaptive optimizer
            moves them there. With Xception, 2048 channels of rank 1536, one step of AdamW at 5e-4
            raised a loss of 6 to 28,000.
        act: module applied to the output, as in timm's BatchNormAct2d.

    Shape: (N, C, H, W) -> the same. Buffers: running_mean (C,), running_covariance and whitening
    (G, d, d), rotation (C, C) orthogonal, rows are the axes, num_batches_tracked; derived from them
    and not in the state_dict: transform (C, C) = R W, so that evaluation and amortized training
    cost one matrix product.

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
        whiten_every: int = 1,
        act: nn.Module | None = None,
    ):
        super().__init__()
        check_groups(num_features, num_groups)
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
        _check(whiten_every >= 1, f"whiten_every must be at least 1, not {whiten_every}")
        self.num_features, self.num_groups = num_features, num_groups
        self.eps, self.momentum, self.affine = eps, momentum, affine
        self.solver, self.shrinkage, self.whiten_every = solver, shrinkage, whiten_every
        self.act = nn.Identity() if act is None else act
        self.weight = nn.Parameter(torch.ones(num_features)) if affine else None
        self.bias = nn.Parameter(torch.zeros(num_features)) if affine else None
        blocks = torch.eye(num_features // num_groups).repeat(num_groups, 1, 1)
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_covariance", blocks)
        self.register_buffer("whitening", blocks / (1 + eps) ** 0.5)
        self.register_buffer("rotation", torch.eye(num_features))
        self.register_buffer("num_batches_tracked", torch.tensor(0))
        self.register_buffer("transform", torch.block_diag(*self.whitening), persistent=False)
        self.register_load_state_dict_post_hook(_refresh_after_load)
        self._mark_current()

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
            "act": nn.Sequential(*fused) if fused else None,
        }
        layer = cls(norm.num_features, **(copied | options)).to(norm.running_var)
        with torch.no_grad():
            layer.running_mean.copy_(norm.running_mean)
            variances = norm.running_var.unflatten(0, (layer.num_groups, -1))
            layer.running_covariance.copy_(torch.diag_embed(variances))
            if norm.affine and layer.affine:
                layer.weight.copy_(norm.weight).requires_grad_(norm.weight.requires_grad)
                layer.bias.copy_(norm.bias).requires_grad_(norm.bias.requires_grad)
        layer.refresh()
        return layer.train(norm.training)

    def forward(self, features: Tensor) -> Tensor:
        _check(
            features.ndim == 4 and features.shape[1] == self.num_features,
            f"features must be (N, {self.num_features}, H, W), not {tuple(features.shape)}",
        )
        with torch.autocast(features.device.type, enabled=False):
            rows = as_rows(features.to(torch.promote_types(features.dtype, torch.float32)))
            if self.training:
                output = self._normalize_by_batch(rows, _count(rows))
            else:
                output = self._normalize_by_running(rows)
            if self.affine:
                output = torch.addcmul(self.bias.to(rows), output, self.weight.to(rows))
        return self.act(_as_maps(output.to(features.dtype), features))

    def normalize(self, features: Tensor) -> Tensor:
        """R W (x - mean) with the running statistics, before scale and activation: (N, C, H, W).

        In evaluation mode; in training W may be older than the running covariance.
        """
        return _as_maps(self._normalize_by_running(as_rows(features)), features)

    def decorrelate(self, deviations: Tensor) -> Tensor:
        """W deviations, with deviations from the mean as columns (C, k): before the rotation.

        In evaluation mode, as `normalize`. For the means of concepts: whitening is affine, so the mean
        of whitened features is the whitened mean.
        """
        self._follow()
        blocks = deviations.unflatten(0, (self.num_groups, -1))
        return (self.whitening.to(deviations) @ blocks).flatten(0, 1)

    @torch.no_grad()
    def refresh(self) -> None:
        """Compute W and `transform` from the other buffers."""
        if self.running_covariance.is_meta:
            return
        with torch.autocast(self.running_covariance.device.type, enabled=False):
            values = self.running_covariance
            values = values.to(torch.promote_types(values.dtype, torch.float32))
            self.whitening.copy_(self._solve(values))
            self._solved = _version(self.running_covariance)
            self._update_transform()

    @torch.no_grad()
    def set_rotation(self, rotation: Tensor) -> None:
        """Turn the axes.

        Args:
            rotation: orthogonal (C, C), rows are the new axes.

        Raises:
            ValueError: another shape, or not orthogonal.
        """
        shape = tuple(self.rotation.shape)
        _check(
            tuple(rotation.shape) == shape,
            f"rotation must be {shape}, not {tuple(rotation.shape)}",
        )
        error = orthogonality_error(rotation)
        _check(error < 1e-3, f"rotation must be orthogonal: R R^T differs from I by {error:.1g}")
        self.rotation.copy_(rotation)
        self._update_transform()

    def train(self, mode: bool = True) -> "FeatureWhitening":
        """Set the mode; W is brought up to date on leaving training."""
        if self.training and not mode:
            self._finish_training()
        return super().train(mode)

    def _apply(self, fn, recurse=True):
        def keep_precision(tensor: Tensor) -> Tensor:
            new = fn(tensor)
            half = new.is_floating_point() and new.dtype.itemsize < 4
            return tensor.to(new.device) if half else new

        for module in self.children() if recurse else ():
            module._apply(fn)
        return super()._apply(keep_precision, recurse=False)

    def _solve(self, blocks: Tensor) -> Tensor:
        return whitening_matrix(blocks, self.solver, self.eps)

    def _finish_training(self) -> None:
        """What is left to do before evaluation."""
        self.refresh()

    def extra_repr(self) -> str:
        names = "num_features num_groups eps momentum affine solver shrinkage whiten_every"
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in names.split())

    @torch.no_grad()
    def _update_transform(self) -> None:
        if self.transform.is_meta:  # built there, and given its other buffers by load_state_dict
            self.transform = torch.empty_like(self.rotation)
        self.transform.copy_(_compose(self.rotation, self.whitening))
        self._composed = _version(self.whitening), _version(self.rotation)

    def _mark_current(self) -> None:
        """Take W and `transform` as computed from the other buffers as they are now."""
        self._solved = _version(self.running_covariance)
        self._composed = _version(self.whitening), _version(self.rotation)

    def _follow(self) -> None:
        """Compute W (in evaluation) and `transform` anew where what they are computed from has moved."""
        if torch.compiler.is_compiling() or is_stacked(self.transform):
            return
        if not self.training and self._solved != _version(self.running_covariance):
            self._finish_training()
        elif self._composed != (_version(self.whitening), _version(self.rotation)):
            self._update_transform()

    def __getstate__(self) -> dict:
        self._follow()
        return super().__getstate__()

    def __setstate__(self, state: dict) -> None:
        super().__setstate__(state)
        self._mark_current()

    def _normalize_by_running(self, rows: Tensor) -> Tensor:
        """Rows normalised by the running statistics."""
        self._follow()
        return (rows - self.running_mean.to(rows)) @ self.transform.to(rows).mT

    def _normalize_by_batch(self, rows: Tensor, count: int) -> Tensor:
        """Rows of a training batch, count in all processes; updates the running statistics."""
        recomputed = recomputing()
        mean, blocks = covariance(rows, self.num_groups, all_reduce_sum)
        amortized = self.whiten_every > 1
        held = 2 / self.momentum - 1 if amortized and self.momentum else 1  # batches in the average
        blocks = shrink(blocks, held * count, self.shrinkage)
        if amortized:
            if not recomputed:
                self._refresh_in_turn()
            output = (rows - mean) @ self.transform.to(rows, copy=True).mT  # W changes later
        else:
            output = self._whiten(rows - mean, blocks)
        if not recomputed:
            self._update_running(mean, blocks * (count / (count - 1)))
        return output

    def _refresh_in_turn(self) -> None:
        """W every whiten_every batches, before a batch: one recomputed later has the W that it had."""
        count = self.num_batches_tracked
        if count % self.whiten_every == 0 and count > 0:
            self.refresh()
        self._follow()

    def _whiten(self, rows: Tensor, blocks: Tensor) -> Tensor:
        """Centred rows of a training batch, whitened by its covariance and rotated."""
        rotation = self.rotation.to(rows)
        few = world_size() == 1 and len(rows) < blocks.shape[-1]
        if few and self.solver in MATRIX_FUNCTIONS:
            options = self.num_groups, self.solver, self.shrinkage, self.eps
            return whiten_few(rows, *options) @ rotation.mT
        return rows @ _compose(rotation, self._solve(blocks)).mT

    @torch.no_grad()
    def _update_running(self, mean: Tensor, blocks: Tensor) -> None:
        """Take a batch's mean (C,) and unbiased covariance (G, d, d) into the running ones."""
        finite = (mean.sum() + blocks.diagonal(dim1=-2, dim2=-1).sum()).isfinite()
        for running, new in ((self.running_mean, mean), (self.running_covariance, blocks)):
            running.lerp_(torch.where(finite, new.to(running), running), self.momentum)
        self.num_batches_tracked.add_(1)


def _compose(rotation: Tensor, whitening: Tensor) -> Tensor:
    """R W (C, C), for W of blocks (G, d, d)."""
    columns = rotation.unflatten(1, whitening.shape[:2]).transpose(0, 1)
    return (columns @ whitening.to(rotation)).transpose(0, 1).flatten(1)


def _count(rows: Tensor) -> int:
    """Number of rows in all processes; ValueError where that is too few for statistics."""
    count = all_reduce_count(len(rows), rows.device)
    _check(count > 1, f"features must have at least 2 locations in training, not {count}")
    return count


def _as_maps(rows: Tensor, like: Tensor) -> Tensor:
    """Rows (N H W, C) as maps (N, C, H, W) in the memory format of others."""
    maps = rows.view(like.movedim(1, -1).shape).movedim(-1, 1)
    return maps.contiguous() if like.is_contiguous() else maps


def _refresh_after_load(layer: FeatureWhitening, _) -> None:
    if not layer.training:
        layer._finish_training()
    layer._update_transform()


def _version(buffer: Tensor) -> tuple[tuple, int | None]:
    """Changes when the buffer is written to or replaced (inference tensors do not count writes).

    Not when it is detached, as `torch.func.functional_call` is often given it.
    """
    place = buffer.untyped_storage()._cdata, buffer.storage_offset(), buffer.stride()
    return place, None if buffer.is_inference() else buffer._version


def is_stacked(buffer: Tensor) -> bool:
    """Whether `torch.func.vmap` runs over the buffers of several models, which cannot be compared."""
    return torch._C._functorch.is_functorch_wrapped_tensor(buffer)


def recomputing() -> bool:
    """Whether this is a forward pass inside a backward pass: activation checkpointing, no new batch."""
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)
