"""Rotations that give axes to concepts.

After whitening every rotation R is free: the output stays white. Here the first k rows of R, one
for each concept, are chosen so that each concept excites its own axis most. Means of whitened
features are linear in R, maxima over locations are convex in it; both are solved without a step
size. Rotations are orthogonal with determinant 1 or -1: the sign of an axis carries meaning (its
concept is positive), so it is never flipped to repair a determinant.

Sources: Chen, Bei, Rudin, "Concept Whitening", Nature Machine Intelligence 2020, eq. 3; Schoenemann,
Psychometrika 1966 (orthogonal Procrustes); Journee et al., "Generalized power method", JMLR 2010;
Wen and Yin, Mathematical Programming 2013 (the published search, kept as a baseline).
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d


def align_mean(concept_means: Tensor, previous: Tensor | None = None) -> Tensor:
    """The rotation that maximises sum_j <r_j, m_j>, the mean activation of each concept's axis.

    The axes are the polar factor of the means, by one thin SVD: the global optimum, where the paper
    searches along a curve. Where the means leave freedom (a zero mean, equal means) the axes stay
    near `previous`, as do the axes without a concept.

    Args:
        concept_means: (C, k), column j the mean whitened, unrotated feature of concept j; k <= C.
        previous: orthogonal (C, C), rows are the axes; the identity by default.

    Returns:
        Orthogonal (C, C) of the dtype of concept_means.

    Raises:
        ValueError: wrong shape, more concepts than channels, not finite, previous not orthogonal.

    Example:
        >>> align_mean(torch.tensor([[0.0], [2.0]]))[0].round()
        tensor([0., 1.])
    """
    previous = _checked_rotation(previous, concept_means)
    axes = _polar(concept_means.double(), previous)
    return _complete(axes, previous, concept_means.dtype)


def align_max(
    concept_maps: Sequence[Tensor],
    window: int | None = None,
    previous: Tensor | None = None,
    max_iterations: int = 100,
    tolerance: float = 1e-6,
) -> tuple[Tensor, list[float]]:
    """Ascend sum_j mean max <r_j, z>, z the features of concept j, the max over each window.

    The objective is convex in R, so its linearisation at the current axes (which location is the
    largest?) is a lower bound that is tight there; maximising it by the polar factor can only raise
    the objective (Journee et al. 2010). The result is a local optimum near the start.

    Args:
        concept_maps: k tensors (n_j, C, H, W), whitened and unrotated, n_j images of concept j.
        window: side of the square pooling windows, that do not overlap; incomplete ones at the
            border are left out, unless the map is smaller. None: the whole map ("max"); 3:
            "pool_max" of the paper; 1: "mean".
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
    objective, linear = _linearize(concept_maps, axes, window)
    history = [objective]
    for _ in range(max_iterations):
        proposal = _polar(linear, reference)
        objective, linear = _linearize(concept_maps, proposal, window)
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


def max_objective(
    rotation: Tensor, concept_maps: Sequence[Tensor], window: int | None = None
) -> float:
    """The objective of `align_max` for a rotation (C, C)."""
    return _linearize(concept_maps, rotation[: len(concept_maps)].double().mT, window)[0]


def orthogonality_error(rotation: Tensor) -> float:
    """Largest absolute entry of R R^T - I."""
    gram = rotation @ rotation.mT
    gram.diagonal().sub_(1)
    return gram.abs().max().item()


def random_rotation(num_features: int, generator: torch.Generator | None = None) -> Tensor:
    """A rotation (C, C), determinant 1, uniform (Haar); Stewart, SIAM J. Numer. Anal. 1980.

    Example:
        >>> rotation = random_rotation(8, torch.Generator().manual_seed(0))
    """
    normal = torch.randn(num_features, num_features, generator=generator, dtype=torch.float64)
    rotation, triangle = torch.linalg.qr(normal)
    rotation = rotation * triangle.diagonal().sign()
    rotation[0] *= torch.linalg.det(rotation).sign()
    return rotation.float()


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


def _linearize(concept_maps, axes: Tensor, window: int | None) -> tuple[float, Tensor]:
    """Objective at the axes (C, k), and its (sub)gradient (C, k): means over the largest."""
    columns = []
    for maps, axis in zip(concept_maps, axes.mT, strict=True):
        size = [min(window or side, side) for side in maps.shape[2:]]
        scores = torch.einsum("nchw,c->nhw", maps, axis.to(maps))
        places = max_pool2d(scores[:, None], size, return_indices=True)[1].flatten(1)
        chosen = maps.flatten(2).gather(2, places[:, None].expand(-1, maps.shape[1], -1))
        columns.append(chosen.double().mean((0, 2)))
    linear = torch.stack(columns, dim=1)
    return (linear * axes).sum().item(), linear


def _polar(means: Tensor, previous: Tensor) -> Tensor:
    """Orthonormal (C, k) nearest to means (C, k); what they leave free is taken from previous."""
    tie_break = previous[: means.shape[1]].mT.to(means) * (1e-9 * means.norm().clamp(min=1e-30))
    left, _, right = torch.linalg.svd(means + tie_break, full_matrices=False)
    return left @ right


def _complete(axes: Tensor, previous: Tensor, dtype: torch.dtype) -> Tensor:
    """Rotation with the first rows axes^T (C, k) and the others as near to previous as possible.

    The other rows of `previous` are turned in the planes spanned by its first k rows and the new
    axes (the direct rotation; cosines from one k x k SVD). This equals the polar factor of their
    projection on the complement, at k C^2 instead of C^3 operations.
    """
    axes = axes.to(dtype)
    named, rest = previous.to(dtype).tensor_split([axes.shape[1]])
    left, cosines, right = torch.linalg.svd(named @ axes)
    sines = rest @ (axes @ right.mT)
    turn = (sines.mT @ rest) / (1 + cosines[:, None]) + left.mT @ named
    rotation = torch.cat([axes.mT, rest - sines @ turn])
    rounding = (12 + 3 * len(rotation) ** 0.5) * torch.finfo(dtype).eps  # of one update
    if _probe(rotation) > rounding:  # it must not add up
        rotation = 1.5 * rotation - 0.5 * rotation @ rotation.mT @ rotation
    return rotation


def _probe(rotation: Tensor) -> float:
    """Largest change of a few random vectors under R^T R: tells at C^2 operations if R is a rotation."""
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(len(rotation), 4, generator=generator).to(rotation)
    return (rotation.mT @ (rotation @ vectors) - vectors).abs().max().item()


def _checked_rotation(previous: Tensor | None, concept_means: Tensor) -> Tensor:
    if concept_means.ndim != 2 or not 1 <= concept_means.shape[1] <= len(concept_means):
        shape = tuple(concept_means.shape)
        raise ValueError(f"concept_means must be (C, k) with 1 <= k <= C, not {shape}")
    if not concept_means.isfinite().all():
        raise ValueError("concept_means must be finite")
    if previous is None:
        return torch.eye(len(concept_means), device=concept_means.device)
    if previous.shape != (len(concept_means), len(concept_means)):
        raise ValueError(
            f"previous must be (C, C), C = {len(concept_means)}, not {tuple(previous.shape)}"
        )
    if not _probe(previous) < 1e-3:
        raise ValueError("previous must be orthogonal: R R^T differs from I by more than 1e-3")
    return previous
