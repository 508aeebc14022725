"""Rotations: optimality, orthogonality over many updates, degenerate input."""

import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.alignment import mean_objective
from fwstudy.whitening.rotation import align_mean, orthogonality_error, random_rotation

# --- mean


@settings(max_examples=20)
@given(
    size=st.integers(1, 12),
    share=st.floats(0, 1),
    seed=st.integers(0, 100),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_align_mean_is_orthogonal_and_reaches_the_nuclear_norm(size, share, seed, dtype):
    generator = torch.Generator().manual_seed(seed)
    count = 1 + int(share * (size - 1))
    means = torch.randn(size, count, generator=generator, dtype=dtype)
    rotation = align_mean(means, random_rotation(size, generator))
    assert rotation.dtype == dtype
    assert orthogonality_error(rotation) < 1e-6
    nuclear = torch.linalg.matrix_norm(means.double(), "nuc").item()
    assert mean_objective(rotation, means) == pytest.approx(nuclear, rel=1e-5)


def test_golden_two_by_two():
    # m_1 = (3, 4): r_1 = (3, 4) / 5. The identity's second row, projected on the complement
    # (-4, 3) / 5, is 3/5 of it.
    expected = torch.tensor([[0.6, 0.8], [-0.8, 0.6]])
    torch.testing.assert_close(align_mean(torch.tensor([[3.0], [4.0]])), expected)


@pytest.mark.parametrize(("size", "count"), [(7, 1), (9, 3), (8, 6), (5, 5)])
def test_other_axes_are_the_polar_projection_of_the_previous_ones(size, count):
    previous = random_rotation(size).double()
    means = torch.randn(size, count, dtype=torch.float64)
    rotation = align_mean(means, previous)
    axes, rest = rotation[:count], previous[count:]
    projected = rest - rest @ axes.T @ axes
    if len(rest):
        left, _, right = scipy.linalg.svd(projected.numpy(), full_matrices=False)
        torch.testing.assert_close(rotation[count:], torch.from_numpy(left @ right))


def test_other_axes_when_an_axis_is_taken_from_them():
    # Concept 1 asks for exactly the axis that was fourth: that row must go elsewhere.
    rotation = align_mean(torch.eye(4)[:, 3:])
    torch.testing.assert_close(rotation[0], torch.eye(4)[3])
    torch.testing.assert_close(rotation[1:3], torch.eye(4)[1:3])
    assert rotation[3].abs()[0] == pytest.approx(1)
    assert orthogonality_error(rotation) < 1e-6


def test_orthogonal_after_thousands_of_updates():
    rotation = random_rotation(24)
    for _ in range(3000):
        rotation = align_mean(torch.randn(24, 5), rotation)
    assert rotation.dtype == torch.float32
    assert orthogonality_error(rotation) < 1e-6
    assert abs(torch.linalg.det(rotation.double()).item()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    "means", [torch.zeros(6, 3), torch.eye(6)[:, :3] * torch.tensor([1, 0, 1])]
)
def test_zero_means_keep_the_previous_axes(means):
    previous = torch.eye(6) if means.any() else random_rotation(6)
    torch.testing.assert_close(align_mean(means, previous), previous, atol=1e-6, rtol=0)


def test_equal_means_share_the_axis():
    means = torch.eye(4)[:, [0, 0]]
    rotation = align_mean(means)
    assert orthogonality_error(rotation) < 1e-6
    assert mean_objective(rotation, means) == pytest.approx(2**0.5)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_any_scale(scale):
    means = torch.randn(5, 2)
    torch.testing.assert_close(align_mean(means * scale), align_mean(means), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("means", "previous", "message"),
    [
        (torch.ones(3), None, r"concept_means must be \(C, k\) with 1 <= k <= C, not \(3,\)"),
        (torch.ones(3, 4), None, r"concept_means must be .* not \(3, 4\)"),
        (torch.ones(3, 0), None, r"concept_means must be .* not \(3, 0\)"),
        (torch.full((3, 1), torch.nan), None, "concept_means must be finite"),
        (torch.ones(3, 1), torch.eye(4), r"previous must be \(C, C\), C = 3, not \(4, 4\)"),
        (torch.ones(3, 1), 2 * torch.eye(3), "previous must be orthogonal"),
        (torch.ones(3, 1), torch.full((3, 3), torch.nan), "previous must be orthogonal"),
    ],
)
def test_errors(means, previous, message):
    with pytest.raises(ValueError, match=message):
        align_mean(means, previous)


# --- random rotations


def test_random_rotation():
    rotation = random_rotation(16, torch.Generator().manual_seed(3))
    assert orthogonality_error(rotation) < 1e-6
    assert torch.linalg.det(rotation) == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(rotation, random_rotation(16, torch.Generator().manual_seed(3)))
    assert random_rotation(1).item() == 1
    entries = torch.stack([random_rotation(3) for _ in range(500)])
    assert entries.mean(0).abs().max() < 0.1  # Haar: no entry is favoured
    assert (entries.square().mean(0) - 1 / 3).abs().max() < 0.06
