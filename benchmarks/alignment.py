"""Other ways to align axes with concepts, to compare with `fwstudy.whitening.rotation.align_mean`.

The published search along a curve (Wen and Yin, Mathematical Programming 2013; Chen, Bei, Rudin,
"Concept Whitening", 2020, Algorithm 2), and the ascent of maxima over locations instead of means
(Journee et al., "Generalized power method", JMLR 2010), which are convex in the rotation.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from fwstudy.whitening.rotation import _checked_rotation, _complete, _polar, align_mean


def align_max(
    concept_maps: Sequence[Tensor],
    previous: Tensor | None = None,
    max_iterations: int = 100,
    tolerance: float = 1e-6,
) -> tuple[Tensor, list[float]]:
    """Ascend sum_j mean max <r_j, z>, z the features of concept j, the max over the map ("max" of the paper).

    The objective is convex in R, so its linearisation at the current axes (which location is the
    largest?) is a lower bound that is tight there; maximising it by the polar factor can only raise
    the objective (Journee et al. 2010). The result is a local optimum near the start.

    Args:
        concept_maps: k tensors (n_j, C, H, W), whitened and unrotated, n_j images of concept j.
        previous: where to start, orthogonal (C, C); by default the best rotation for the means.
        max_iterations: at least 0.
        tolerance: stop when the objective rises by less than this share of itself.

    Returns:
        Orthogonal (C, C), and the objective at the start and after each iteration.

    Example:
        >>> rotation, objective = align_max(torch.randn(2, 8, 4, 3, 3))
    """
    if len(concept_maps) == 0 or any(m.ndim != 4 or m.numel() == 0 for m in concept_maps):
        raise ValueError("concept_maps must be tensors (n, C, H, W), at least one, none empty")
    means = torch.stack([maps.mean((0, 2, 3)) for maps in concept_maps], dim=1)
    start = align_mean(means) if previous is None else _checked_rotation(previous, means)
    reference = start.double()
    axes = reference[: len(concept_maps)].mT
    objective, linear = _linearize(concept_maps, axes)
    history = [objective]
    for _ in range(max_iterations):
        proposal = _polar(linear, reference)
        objective, linear = _linearize(concept_maps, proposal)
        if objective <= history[-1]:
            break
        axes = proposal
        history.append(objective)
        if history[-1] - history[-2] <= tolerance * abs(history[-1]):
            break
    return _complete(axes, start, means.dtype), history


def mean_objective(rotation: Tensor, concept_means: Tensor) -> float:
    """sum_j <r_j, m_j> for a rotation (C, C) and means (C, k)."""
    return (rotation[: concept_means.shape[1]].mT * concept_means).sum().item()


def cayley_search(
    concept_means: Tensor,
    previous: Tensor | None = None,
    num_trials: int = 10,
    step: float = 1.0,
    decrease: float = 1e-4,
    curvature: float = 0.9,
) -> Tensor:
    """One step of the published search, for comparison: same objective as `align_mean`.

    Moves X = R^T along Y(t) = (I + t/2 A)^-1 (I - t/2 A) X with A = G X^T - X G^T and G the gradient
    of F = -sum_j <x_j, m_j>; t by bisection until the Armijo and Wolfe conditions hold (Wen and Yin
    2013, eq. 7 and Algorithm 1; Concept Whitening, Algorithm 2). Each trial solves a C x C system.

    Args:
        concept_means, previous: as in `align_mean`.
        num_trials: most step sizes tried, at least 1. step: the first one.
        decrease, curvature: constants of the Armijo and the Wolfe condition, in (0, 1).
    """
    previous = _checked_rotation(previous, concept_means)
    point, means = previous.double().mT, concept_means.double()
    gradient = torch.nn.functional.pad(-means, (0, len(means) - means.shape[1]))
    skew = gradient @ point.mT - point @ gradient.mT
    identity = torch.eye(len(means), dtype=torch.float64, device=means.device)
    value, slope = (gradient * point).sum(), -skew.square().sum() / 2
    low, high = 0.0, float("inf")
    for _ in range(num_trials):
        system = identity + step / 2 * skew
        moved = torch.linalg.solve(system, (identity - step / 2 * skew) @ point)
        velocity = -torch.linalg.solve(system, skew @ (point + moved)) / 2
        too_long = (gradient * moved).sum() > value + decrease * step * slope
        too_short = (gradient * velocity).sum() < curvature * slope
        if not (too_long or too_short):
            break
        low, high = (low, step) if too_long else (step, high)
        step = 2 * low if high == float("inf") else (low + high) / 2
    return moved.mT.to(concept_means.dtype)


def _linearize(concept_maps, axes: Tensor) -> tuple[float, Tensor]:
    """Objective at the axes (C, k), and its (sub)gradient (C, k): means over the largest."""
    columns = []
    for maps, axis in zip(concept_maps, axes.mT, strict=True):
        scores = torch.einsum("nchw,c->nhw", maps, axis.to(maps)).flatten(1)
        chosen = maps.flatten(2)[torch.arange(len(maps)), :, scores.argmax(1)]
        columns.append(chosen.double().mean(0))
    linear = torch.stack(columns, dim=1)
    return (linear * axes).sum().item(), linear
