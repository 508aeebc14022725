"""Whitening matrices: against references, golden values, gradients, degenerate covariances."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.covariance import OAS
from torch.autograd import gradcheck, gradgradcheck

from fwstudy.whitening.covariance import covariance, oas, shrink
from fwstudy.whitening.solvers import MATRIX_FUNCTIONS, SOLVERS, whiten_few, whitening_matrix
from tests.whitening.matrices import residual, spd

CONVERGED = ["eigh", "cholesky", "newton_schulz"]


# --- covariance and shrinkage


@pytest.mark.parametrize("shape", [(6, 4, 3, 2), (20, 4)])
def test_covariance_equals_torch_cov_block_by_block(shape):
    features = torch.randn(shape, dtype=torch.float64)
    rows = features.movedim(1, -1).reshape(-1, 4)
    mean, blocks = covariance(features, num_groups=2)
    torch.testing.assert_close(mean, rows.mean(0))
    for block, columns in zip(blocks, rows.split(2, dim=1), strict=True):
        torch.testing.assert_close(block, torch.cov(columns.T, correction=0))


@pytest.mark.parametrize("count", [5, 40])
def test_oas_equals_scikit_learn(count):
    rows = torch.randn(count, 12, dtype=torch.float64) @ torch.randn(12, 12, dtype=torch.float64)
    reference = OAS().fit(rows.numpy())
    sample = covariance(rows)[1]
    assert oas(sample, count, 12).item() == pytest.approx(reference.shrinkage_)
    expected = torch.from_numpy(reference.covariance_)
    torch.testing.assert_close(shrink(sample, count, "oas")[0], expected)


def test_no_shrinkage_is_estimated_where_samples_are_many():
    sample = covariance(torch.randn(48, 12))[1]
    assert oas(sample, 48, 12) > 0
    assert torch.equal(shrink(sample, 48, "oas"), sample)
    assert not torch.equal(shrink(sample, 47, "oas"), sample)


def test_oas_of_a_multiple_of_the_identity_is_one_and_its_gradient_finite():
    matrix = (2 * torch.eye(3)[None]).requires_grad_()
    shrunk = shrink(matrix, 10, "oas")
    shrunk.sum().backward()
    torch.testing.assert_close(shrunk, matrix)
    assert matrix.grad.isfinite().all()


def test_shrink_keeps_the_trace_and_reaches_the_identity():
    matrix = spd(5)[None]
    assert shrink(matrix, 9, 0.3)[0].trace().item() == pytest.approx(matrix[0].trace().item())
    torch.testing.assert_close(shrink(matrix, 9, 0.0), matrix)
    scaled = matrix[0].trace() / 5 * torch.eye(5, dtype=torch.float64)
    torch.testing.assert_close(shrink(matrix, 9, 1.0)[0], scaled)


# --- solvers


@pytest.mark.parametrize("solver", CONVERGED)
@settings(max_examples=8)
@given(
    size=st.integers(1, 12),
    groups=st.integers(1, 3),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_solver_whitens(solver, size, groups, dtype):
    matrix = spd(size, 100.0, (groups,), dtype)
    whitening = SOLVERS[solver](matrix, 1e-12)
    assert whitening.dtype == dtype
    assert residual(whitening, matrix) < (1e-4 if dtype == torch.float32 else 1e-9)


@pytest.mark.parametrize("size", [2, 128])
@pytest.mark.parametrize("solver", CONVERGED)
def test_matrix_is_white_in_float32_when_ill_conditioned(solver, size):
    matrix = spd(size, 1e6, dtype=torch.float32)
    assert residual(whitening_matrix(matrix, solver, 1e-12), matrix) < 1e-3


@pytest.mark.parametrize("solver", SOLVERS)
def test_golden_two_by_two(solver):
    # [[5, 3], [3, 5]] / 2: eigenvalues 4 and 1 along (1, 1) and (1, -1), so the inverse root is
    # (1/2 + 1) / 2 = 3/4 on and (1/2 - 1) / 2 = -1/4 off the diagonal. L = [[s, 0], [3/(2s), t]],
    # s^2 = 5/2, t^2 = 5/2 - 9/10 = 8/5. Newton needs more than its 5 steps here.
    matrix = torch.tensor([[2.5, 1.5], [1.5, 2.5]], dtype=torch.float64)
    s, t = 2.5**0.5, 1.6**0.5
    zca = [[0.75, -0.25], [-0.25, 0.75]]
    golden = {"cholesky": [[1 / s, 0], [-1.5 / (s * s * t), 1 / t]]}.get(solver, zca)
    expected = torch.tensor(golden, dtype=torch.float64)
    tolerance = 0.01 if solver == "iternorm_newton" else 1e-6
    torch.testing.assert_close(SOLVERS[solver](matrix, 1e-12), expected, atol=tolerance, rtol=0)


def test_published_newton_diverges_with_more_steps():
    matrix = spd(64, 1e3, dtype=torch.float32)
    assert not residual(SOLVERS["iternorm_newton"](matrix, 1e-5, steps=40), matrix) < 1


@pytest.mark.parametrize(
    ("check", "solver"),
    [(gradcheck, name) for name in SOLVERS] + [(gradgradcheck, name) for name in CONVERGED],
)
def test_solver_gradient(check, solver):
    factor = torch.randn(2, 3, 3, dtype=torch.float64, requires_grad=True)
    ridge = torch.eye(3, dtype=torch.float64)
    assert check(lambda a: SOLVERS[solver](a @ a.mT + ridge, 1e-3), factor, atol=1e-4)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_block_that_is_not_finite_gives_nan(solver):
    blocks = spd(4, blocks=(3,), dtype=torch.float32)
    expected = whitening_matrix(blocks, solver, 1e-5)
    blocks[1, 2, 2] = torch.inf
    found = whitening_matrix(blocks, solver, 1e-5)
    assert found[1].isnan().all()
    torch.testing.assert_close(found[[0, 2]], expected[[0, 2]])


@pytest.mark.parametrize("solver", CONVERGED)
def test_gradient_is_finite_and_right_at_equal_eigenvalues(solver):
    # d/dS of tr S^(-1/2) at S = 4 I is -S^(-3/2) / 2 = -I / 16; the same for L^-1.
    matrix = (4 * torch.eye(3, dtype=torch.float64)).requires_grad_()
    SOLVERS[solver](matrix, 1e-12).diagonal().sum().backward()
    torch.testing.assert_close(
        matrix.grad, -torch.eye(3, dtype=torch.float64) / 16, atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("solver", CONVERGED)
@pytest.mark.parametrize(("size", "rank"), [(64, 1), (256, 20)])
def test_solver_survives_a_singular_covariance(solver, size, rank):
    vectors = 100 * torch.randn(2, size, rank)
    vectors[1] = torch.eye(size, rank)
    matrix = (vectors @ vectors.mT).requires_grad_()
    whitening = SOLVERS[solver](matrix, 1e-5)
    whitening.sum().backward()
    assert whitening.isfinite().all()
    assert matrix.grad.isfinite().all()
    kept = torch.linalg.svdvals(whitening[0].detach() @ vectors[0])
    torch.testing.assert_close(kept, torch.ones(rank), atol=0.05, rtol=0)


# --- fewer samples than channels


@pytest.mark.parametrize("solver", MATRIX_FUNCTIONS)
@settings(max_examples=10)
@given(
    count=st.integers(2, 6),
    size=st.integers(7, 12),
    groups=st.integers(1, 3),
    shrinkage=st.sampled_from([0.05, 0.5, "oas"]),
)
def test_whitening_few_rows_equals_whitening_their_covariance(
    solver, count, size, groups, shrinkage
):
    rows = torch.randn(count, groups * size, dtype=torch.float64)
    rows -= rows.mean(0)
    blocks = shrink(covariance(rows, groups)[1], count, shrinkage)
    expected = torch.einsum(
        "gde,mge->mgd", SOLVERS[solver](blocks, 1e-5), rows.unflatten(1, (groups, -1))
    )
    found = whiten_few(rows, groups, solver, shrinkage, 1e-5)
    torch.testing.assert_close(found, expected.flatten(1), atol=1e-7, rtol=1e-6)


def test_few_rows_golden():
    # One direction of variance 2 among three channels: (2 + 0)^(-1/2) times the rows.
    rows = torch.tensor([[2.0, 0.0, 0.0], [-2.0, 0.0, 0.0]], dtype=torch.float64) / 2**0.5
    white = whiten_few(rows, 1, "eigh", 0.0, 1e-12)
    torch.testing.assert_close(white, rows / 2**0.5, atol=1e-6, rtol=0)


@pytest.mark.parametrize("solver", MATRIX_FUNCTIONS)
def test_few_rows_gradient(solver):
    rows = torch.randn(3, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda rows: whiten_few(rows - rows.mean(0), 2, solver, "oas", 1e-5), rows, atol=1e-4
    )
