"""The published layer, kept as the baseline: that it is the published one, and what it does."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from fwstudy.whitening.iternorm import IterNormWhitening
from fwstudy.whitening.layer import FeatureWhitening
from fwstudy.whitening.statistics import whiteness


def reference_newton(covariance, eps, steps):
    """Algorithm 1 of IterNorm, step by step, for one group."""
    identity = torch.eye(len(covariance), dtype=covariance.dtype)
    sigma = covariance + eps * identity
    normalized = sigma / sigma.trace()
    p = identity
    for _ in range(steps):
        p = (3 * p - torch.linalg.matrix_power(p, 3) @ normalized) / 2
    return p / sigma.trace().sqrt()


def test_training_output_is_the_published_one():
    layer = IterNormWhitening(6, affine=False).double()
    layer.set_rotation(torch.linalg.qr(torch.randn(6, 6))[0])
    features = torch.randn(8, 6, 5, 5, dtype=torch.float64)
    rows = features.movedim(1, -1).flatten(0, 2)
    centered = rows - rows.mean(0)
    whitening = reference_newton(centered.mT @ centered / len(rows), layer.eps, 5)
    expected = centered @ whitening.mT @ layer.rotation.mT
    assert_close(layer(features).movedim(1, -1).flatten(0, 2), expected)


def test_running_average_is_of_the_whitening_matrices():
    layer = IterNormWhitening(4).double()
    before = layer.whitening.clone()
    features = torch.randn(8, 4, 5, 5, dtype=torch.float64)
    rows = features.movedim(1, -1).flatten(0, 2)
    batch = reference_newton(torch.cov(rows.mT, correction=0), layer.eps, 5)
    layer(features)
    assert_close(layer.whitening[0], 0.1 * before[0] + 0.9 * batch)
    layer.eval()
    assert_close(layer.whitening[0], 0.1 * before[0] + 0.9 * batch)  # not recomputed
    expected = (rows - layer.running_mean) @ layer.whitening[0].mT
    assert_close(layer(features).movedim(1, -1).flatten(0, 2), expected)


@pytest.mark.parametrize("mode", [True, False])
def test_gradient(mode):
    layer = IterNormWhitening(4, num_groups=2).double().train(mode)
    features = torch.randn(3, 4, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (features,))


def test_replaces_a_batch_norm_with_the_published_momentum():
    norm = nn.BatchNorm2d(6)
    norm.running_var.uniform_(0.9, 1.1)
    nn.init.uniform_(norm.weight)
    layer = IterNormWhitening.from_batch_norm(norm.eval())
    assert layer.momentum == 0.9 and layer.solver == "iternorm_newton"
    whitening = reference_newton(norm.running_var.diag(), norm.eps, 5)
    features = torch.randn(2, 6, 2, 2)
    expected = torch.einsum("dc,nchw->ndhw", norm.weight.diag() @ whitening, features)
    assert_close(layer(features), expected)


def test_errors():
    with pytest.raises(TypeError, match="whiten_every"):
        IterNormWhitening(4, whiten_every=10)
    with pytest.raises(ValueError, match="steps must be at least 1, not 0"):
        IterNormWhitening(4, steps=0)
    with pytest.raises(ValueError, match="at least 2 locations in training, not 1"):
        IterNormWhitening(4)(torch.randn(1, 4, 1, 1))


def test_it_hardly_whitens_many_channels_where_the_sound_layer_does():
    features = torch.randn(64, 512, 8, 8, generator=torch.Generator().manual_seed(0))
    features = features + 3 * features[:, :1]  # one strong common factor
    published = whiteness(IterNormWhitening(512, affine=False)(features))
    sound = whiteness(FeatureWhitening(512, affine=False)(features))
    assert published["mean_variance"] < 0.1 and published["mean_correlation"] > 0.05
    assert abs(sound["mean_variance"] - 1) < 0.02 and sound["mean_correlation"] < 0.01
