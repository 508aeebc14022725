"""Pictures and matrices of one seed."""

import numpy as np
import pytest
import torch
from torch import nn

from fwstudy.interpretability import exhibits
from fwstudy.interpretability.localization import relevance_mass
from fwstudy.interpretability.model import CONCEPT_AXES, WHITENED, truth_of
from fwstudy.reporting.plots import evidence_panel
from fwstudy.whitening.layer import FeatureWhitening
from fwstudy.whitening.rotation import random_rotation
from fwstudy.whitening.statistics import update_statistics, whiteness


def test_average_activations_are_those_of_the_parts(pair):
    table = exhibits.average_activations(pair[WHITENED])
    assert table.shape == (4, 4) and np.isfinite(table.to_numpy()).all()
    assert np.diag(table).mean() > table.to_numpy().mean()


def test_panel_shows_a_face_of_each_family_and_two_parts(pair):
    rows = exhibits.panel_rows(pair)
    labels = [row["label"] for row in rows]
    assert labels[-2:] == ["left eye", "mouth"] and len(set(labels)) == len(labels) == 6
    for row in rows:
        assert all(row[name].shape == (64, 64) for name in exhibits.SHOWN) and row["truth"].any()
    figure = evidence_panel(rows, pair[WHITENED].names, exhibits.SHOWN)
    assert len(figure.axes) == 6 * 6 and figure.axes[0].get_title() == "face"


def test_no_map_of_the_layer_can_exceed_the_bound_by_much(pair):
    subject = pair[WHITENED]
    bounds = {kind: exhibits.resolution_bound(subject, kind) for kind in ("whole", "part")}
    assert bounds["whole"][1] == 2 and bounds["part"][0] < bounds["whole"][0] < 1
    crops = subject.explained("part")
    maps = subject.maps((WHITENED, CONCEPT_AXES), crops)
    assert np.nanmean(relevance_mass(maps, truth_of(crops)[0])) < bounds["part"][0]


def test_whiteness_inside_the_space_of_a_low_rank_input():
    """8 channels from 3: correlated axes by Welch's bound, white in 3 dimensions."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(8, 3, generator=generator)
    images = [torch.randn(16, 3, 8, 8, generator=generator) for _ in range(2)]
    seen, unseen = (torch.einsum("ck,nkhw->nchw", mixing, image) for image in images)
    layer = FeatureWhitening(8, shrinkage=0.0, eps=1e-6)
    update_statistics(nn.Sequential(layer), layer, [seen])
    layer.set_rotation(random_rotation(8, generator))
    features = layer.eval().normalize(unseen)
    inside, outside = exhibits.subspace_whiteness(layer, features), whiteness(features)
    assert inside["rank"] == 3
    assert inside["least_correlation"] == pytest.approx((5 / 21) ** 0.5)
    assert inside["mean_correlation"] < 0.08 and abs(inside["mean_variance"] - 1) < 0.1
    assert outside["mean_correlation"] > 0.3
