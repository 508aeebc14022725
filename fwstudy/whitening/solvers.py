"""From a covariance to a whitening matrix: the solvers. Pure functions.

A whitening matrix W satisfies W covariance W^T = I. There are as many as rotations; the symmetric one,
covariance^(-1/2), is called ZCA and moves the features least (Kessy et al., "Optimal Whitening and
Decorrelation", The American Statistician 2018). All functions work on stacks of blocks (G, d, d), one
for each group of channels.
"""

import torch
from torch import Tensor

from fwstudy.whitening.covariance import _identity, _mean_variance, as_blocks, shrink, widen

DOUBLE_SOLVE = 512  # most channels of a block that is solved in float64


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
        context.save_for_backward(covariance, roots, vectors)
        context.eps = eps
        return (vectors / roots.unsqueeze(-2)) @ vectors.mT

    @staticmethod
    def backward(context, gradient):
        covariance, roots, vectors = context.saved_tensors
        if torch.is_grad_enabled():  # second derivatives: of the same function, as matrix products
            root = newton_schulz(covariance, context.eps)
            return *torch.autograd.grad(root, covariance, gradient, create_graph=True), None
        row, column = roots.unsqueeze(-1), roots.unsqueeze(-2)
        inner = vectors.mT @ gradient @ vectors / -(row * column * (row + column))
        return vectors @ inner @ vectors.mT, None


def eigh(covariance: Tensor, eps: float) -> Tensor:
    """ZCA whitening (covariance + eps I)^(-1/2) by eigendecomposition; symmetric."""
    return _InverseRoot.apply(covariance, eps)


class _InverseCholesky(torch.autograd.Function):
    """L^-1 of S = L L^T, with three matrix products backward, where autograd solves four systems.

    With W = L^-1, dW = -P(W dS W^T) W, where P takes the lower triangle and half the diagonal
    (Murray, "Differentiation of the Cholesky decomposition", arXiv:1602.07527, section 3.1).
    """

    @staticmethod
    def forward(context, covariance):
        whitening = _inverse_factor(covariance)
        context.save_for_backward(covariance, whitening)
        return whitening

    @staticmethod
    def backward(context, gradient):
        covariance, whitening = context.saved_tensors
        if torch.is_grad_enabled():  # second derivatives: autograd's, of the same function
            return torch.autograd.grad(
                _inverse_factor(covariance), covariance, gradient, create_graph=True
            )
        inner = (gradient @ whitening.mT).tril()
        inner.diagonal(dim1=-2, dim2=-1).div_(2)
        inner = (inner + inner.mT) / -2
        return whitening.mT @ inner @ whitening


def _inverse_factor(covariance: Tensor) -> Tensor:
    factor, failed = torch.linalg.cholesky_ex(covariance)
    if failed.any():
        factor = torch.linalg.cholesky(covariance + _rounding(covariance, failed > 0))
    identity = _identity(covariance).expand_as(covariance)
    return torch.linalg.solve_triangular(factor, identity, upper=False)


def cholesky(covariance: Tensor, eps: float) -> Tensor:
    """Whitening L^-1 with L L^T = covariance + eps I (Kessy et al. 2018): ZCA up to a rotation.

    A block too close to singular for the precision is given a ridge of that precision. The quickest in
    exact training, most of all on a GPU.
    """
    return _InverseCholesky.apply(covariance + eps * _identity(covariance))


def newton_schulz(covariance: Tensor, eps: float, max_steps: int = 40) -> Tensor:
    """ZCA by the coupled Newton-Schulz iteration: matrix products only, stable, until it converges.

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
    trace = _mean_variance(matrix, 1)
    ridge = torch.where(failed[..., None, None], 10 * torch.finfo(matrix.dtype).eps * trace, 0)
    return ridge * _identity(matrix)


def iternorm_newton(covariance: Tensor, eps: float, steps: int = 5) -> Tensor:
    """IterNorm as published (Huang et al. 2019, Algorithm 1, T = 5): the baseline.

    It stops long before convergence when channels are many, and diverges with more steps: the
    result then does not whiten. Kept to be compared with.
    """
    ridged = covariance + eps * _identity(covariance)
    trace = _mean_variance(ridged, 1)
    inverse = _identity(covariance).expand_as(covariance)
    for _ in range(steps):
        inverse = 1.5 * inverse - 0.5 * inverse @ inverse @ inverse @ (ridged / trace)
    return inverse / trace.sqrt()


SOLVERS = {
    "eigh": eigh,
    "cholesky": cholesky,
    "newton_schulz": newton_schulz,
    "iternorm_newton": iternorm_newton,
}
MATRIX_FUNCTIONS = ("eigh", "newton_schulz")  # solvers that return f(covariance)


def whitening_matrix(covariance: Tensor, solver: str, eps: float) -> Tensor:
    """W (..., d, d) of a covariance, by a solver, in the precision that condition 1e6 takes.

    Up to 512 channels a block it is solved in float64: with one direction of condition 1e6, `eigh` in
    float32 leaves a mean correlation of 0.21 at 2 channels, 0.012 at 256 and 0.008 at 512, where
    its time would double. A block that is not finite gives NaN, as BatchNorm2d does.

    Args:
        solver: key of SOLVERS.

    Returns:
        of the shape and dtype of covariance.
    """
    wide = widen(covariance, DOUBLE_SOLVE)
    finite = _mean_variance(wide, 1).isfinite()
    solved = SOLVERS[solver](torch.where(finite, wide, _identity(wide)), eps)
    return torch.where(finite, solved, torch.nan).to(covariance)


def whiten_few(
    rows: Tensor, num_groups: int, solver: str, shrinkage: float | str, eps: float
) -> Tensor:
    """Whiten centered rows by themselves, where they are fewer than the channels of a group.

    X (X^T X)^(-1/2) = (X X^T)^(-1/2) X: the same result from the M x M Gram matrix, at M^3 instead of
    d^3 operations. Holds for functions of the covariance, shrunk or not, not for Cholesky factors.

    Args:
        rows: (M, C), mean 0.
        solver: one of MATRIX_FUNCTIONS.

    Returns:
        (M, C).
    """
    blocks = as_blocks(rows, num_groups)
    gram = blocks @ blocks.mT / len(rows)
    gram = shrink(gram, len(rows), shrinkage, blocks.shape[-1])
    return (whitening_matrix(gram, solver, eps) @ blocks).transpose(0, 1).flatten(1)
