"""The whitening layer as published and as its authors set it: the baseline to compare with.

Huang et al., "Iterative Normalization", CVPR 2019, Algorithm 1, inside the layer of Chen, Bei, Rudin,
"Concept Whitening", 2020, as Hua et al. 2021 run it. `benchmarks/` measures what that does at many
channels: it hardly whitens, and takes its time.
"""

import torch
from torch import Tensor, nn

from fwstudy.distributed import total
from fwstudy.solvers import as_blocks, covariance, published_newton
from fwstudy.whitening import FeatureWhitening

MOMENTUM = 0.9  # the authors': nearly all of a running average is the last batch
STEPS = 5  # IterNorm's T


class PublishedWhitening(FeatureWhitening):
    """Five Newton steps in training, the running average of their results in evaluation.

    That average is of whitening matrices, which is not the whitening of the average covariance; the
    running covariance stays what it was at the start.

    Departures from the authors' code: derivatives are autograd's, also in evaluation; any device.

    Args:
        num_features, num_groups: as in `FeatureWhitening`, like all that is not named here.
        momentum: weight of a new batch in the running mean and whitening.
        steps: number T of Newton iterations; at least 1. It diverges with many.
    """

    def __init__(
        self,
        num_features: int,
        num_groups: int = 1,
        momentum: float = MOMENTUM,
        steps: int = STEPS,
        **options,
    ):
        fixed = {"momentum": momentum, "solver": "published_newton", "shrinkage": 0.0}
        super().__init__(num_features, num_groups, **(options | fixed))
        self.steps = steps

    @classmethod
    def from_batch_norm(cls, norm: nn.BatchNorm2d, **options) -> "PublishedWhitening":
        """As `FeatureWhitening.from_batch_norm`, with the published momentum."""
        return super().from_batch_norm(norm, **({"momentum": MOMENTUM} | options))

    def _solve(self, blocks: Tensor) -> Tensor:
        return published_newton(blocks, self.eps, self.steps)

    def _observe(self, rows: Tensor) -> Tensor:
        mean, blocks = covariance(rows, self.num_groups, total)
        whitening = self._solve(blocks)
        with torch.no_grad():
            self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
            self.whitening.lerp_(whitening.to(self.whitening), self.momentum)
            self.num_batches_tracked.add_(1)
        white = as_blocks(rows - mean, self.num_groups) @ whitening.mT
        return white.transpose(0, 1).flatten(1) @ self.rotation.to(rows).mT

    def _settle(self) -> None:
        self._update_transform()
