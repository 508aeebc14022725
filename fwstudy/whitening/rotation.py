"""Rotations that give axes to concepts.

After whitening every rotation R is free: the output stays white. Here the first k rows of R, one
for each concept, are chosen so that each concept excites its own axis most. Rotations are orthogonal
with determinant 1 or -1: the sign of an axis carries meaning (its concept is positive), so it is
never flipped to repair a determinant.

Sources: Chen, Bei, Rudin, "Concept Whitening", Nature Machine Intelligence 2020, eq. 3; Schoenemann,
Psychometrika 1966 (orthogonal Procrustes). `benchmarks/alignment.py` has the published search.
"""

import torch
from torch import Tensor


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
