"""The alignments to compare with: monotone ascent, the published search, bad input."""

from itertools import pairwise

import pytest
import torch

from benchmarks.alignment import align_max, cayley_search, mean_objective
from fwstudy.whitening.rotation import align_mean, orthogonality_error, random_rotation


def max_objective(rotation, maps):
    """The objective at the start."""
    return align_max(maps, rotation, max_iterations=0)[1][0]


@pytest.mark.parametrize("seed", range(4))
def test_align_max_is_monotone(seed):
    generator = torch.Generator().manual_seed(seed)
    maps = [torch.randn(count, 10, 5, 4, generator=generator) for count in (3, 1, 7)]
    rotation, history = align_max(maps)
    assert orthogonality_error(rotation) < 1e-6
    assert all(later > earlier for earlier, later in pairwise(history))
    assert max_objective(rotation, maps) == pytest.approx(history[-1], rel=1e-5)
    previous = random_rotation(10, generator)
    rotation, history = align_max(maps, previous)
    assert history[0] == pytest.approx(max_objective(previous, maps), rel=1e-5)
    assert history[-1] >= history[0]


def test_align_max_of_one_position_is_align_mean():
    maps = torch.randn(3, 4, 8, 1, 1)
    rotation, history = align_max(maps)
    means = maps.mean((1, 3, 4)).T
    torch.testing.assert_close(rotation, align_mean(means), atol=1e-5, rtol=0)
    assert len(history) <= 2
    rotation, _ = align_max(maps, random_rotation(8))
    assert mean_objective(rotation, means) == pytest.approx(history[-1], rel=1e-5)


def test_align_max_objective_golden():
    # One image, one concept, axis (1, 0): locations score 1, 2, 3, 5 in a 2 x 2 map.
    maps = [torch.tensor([[[[1.0, 2.0], [3.0, 5.0]], [[9.0, 9.0], [9.0, 9.0]]]])]
    assert max_objective(torch.eye(2), maps) == 5


def test_align_max_finds_planted_axes():
    # Concept j appears at one location only; elsewhere all axes are weakly active.
    axes = random_rotation(12)
    maps = 0.1 * torch.randn(4, 20, 12, 4, 4)
    for concept in range(4):
        maps[concept, :, :, 1, concept] += 5 * axes[concept]
    rotation, _ = align_max(maps)
    assert (rotation[:4] * axes[:4]).sum(1).min() > 0.99


@pytest.mark.parametrize("maps", [[], [torch.randn(3, 4)], [torch.randn(0, 4, 2, 2)]])
def test_align_max_refuses_maps_that_are_none_flat_or_empty(maps):
    with pytest.raises(ValueError, match="concept_maps must be tensors"):
        align_max(maps)


def test_cayley_search_ascends_to_the_closed_form_slowly():
    means = torch.randn(16, 4)
    best = mean_objective(align_mean(means), means)
    rotation, objectives = random_rotation(16), []
    for _ in range(60):
        rotation = cayley_search(means, rotation)
        objectives.append(mean_objective(rotation, means))
        assert orthogonality_error(rotation) < 1e-4
    assert all(later >= earlier - 1e-4 for earlier, later in pairwise(objectives))
    assert objectives[0] < 0.9 * best
    assert best * 0.9 < objectives[-1] <= best * (1 + 1e-6)
