"""The whitening layer as published and as its authors set it: the baseline to compare with.

Huang et al., "Iterative Normalization", CVPR 2019, Algorithm 1, inside the layer of Chen, Bei, Rudin,
"Concept Whitening", 2020, as Hua et al. 2021 run it. `benchmarks/` measures what that does: the
more channels, the less it whitens and the longer it takes.
"""

import torch
from torch import Tensor, nn

from fwstudy.whitening.covariance import as_blocks, covariance
from fwstudy.whitening.layer import FeatureWhitening, _version, recomputing
from fwstudy.whitening.solvers import iternorm_newton
from fwstudy.whitening.sync import all_reduce_sum

MOMENTUM = 0.9  # the authors': nearly all of a running average is the last batch
STEPS = 5  # IterNorm's T


class IterNormWhitening(FeatureWhitening):
    """Five Newton steps in training, the running average of their results in evaluation.

    That average is of whitening matrices, which is not the whitening of the average covariance;
    training leaves the running covariance alone. `refresh` replaces the average by the result of five
    steps on the running covariance, as a start.

    Departures from the authors' code: derivatives are autograd's, also in evaluation; any device;
    groups, scale and shift, a fused activation; a start from the statistics of the norm replaced. The
    rotation is set from outside: the study finds it for both layers in the same way.

    Args:
        num_features, num_groups, eps, affine, act: as in `FeatureWhitening`.
        momentum: weight of a new batch in the running mean and whitening; in [0, 1].
        steps: number T of Newton iterations; at least 1. It diverges with many.

    Raises:
        ValueError: an argument or an input outside the above; one location alone in training.
    """

    def __init__(
        self,
        num_features: int,
        num_groups: int = 1,
        eps: float = 1e-5,
        momentum: float = MOMENTUM,
        affine: bool = True,
        steps: int = STEPS,
        act: nn.Module | None = None,
    ):
        if steps < 1:
            raise ValueError(f"steps must be at least 1, not {steps}")
        fixed = {"solver": "iternorm_newton", "shrinkage": 0.0, "act": act}
        super().__init__(num_features, num_groups, eps, momentum, affine, **fixed)
        self.steps = steps

    @classmethod
    def from_batch_norm(cls, norm: nn.BatchNorm2d, **options) -> "IterNormWhitening":
        """A layer with the statistics and parameters of a BatchNorm2d, and the published momentum.

        With many channels it is far from equal to it: five steps do not reach the scale.
        """
        return super().from_batch_norm(norm, **({"momentum": MOMENTUM} | options))

    def extra_repr(self) -> str:
        names = "num_features num_groups eps momentum affine steps"
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in names.split())

    def _solve(self, blocks: Tensor) -> Tensor:
        return iternorm_newton(blocks, self.eps, self.steps)

    def _normalize_by_batch(self, rows: Tensor, count: int) -> Tensor:
        mean, blocks = covariance(rows, self.num_groups, all_reduce_sum)
        whitening = self._solve(blocks)
        if not recomputing():
            with torch.no_grad():
                self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
                self.whitening.lerp_(whitening.to(self.whitening), self.momentum)
                self.num_batches_tracked.add_(1)
        white = as_blocks(rows - mean, self.num_groups) @ whitening.to(rows).mT
        return white.transpose(0, 1).flatten(1) @ self.rotation.to(rows).mT

    def _finish_training(self) -> None:
        self._solved = _version(self.running_covariance)  # W is an average and is not solved for
        self._update_transform()
