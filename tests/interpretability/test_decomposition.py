"""The verdict as a sum over axes, and its maps, on a tiny model with random weights."""

import numpy as np
import pytest
import torch

from fwstudy.crops.cropset import to_tensor
from fwstudy.interpretability import decomposition
from fwstudy.whitening.surgery import absorb_activation, create_model, find_classifier


def test_decomposition_is_exact(aligned, crops):
    test = crops.select(split="test", quality="c23")
    parts = decomposition.decompose(aligned.model, aligned.layer, test)
    np.testing.assert_allclose(parts.bias + parts.evidence.sum(axis=1), parts.logits, atol=1e-4)
    assert parts.evidence.shape == (len(test), 256)
    share, rest = (decomposition.concept_share(parts, number) for number in (4, 256))
    assert rest == pytest.approx(1) and share < 1


def test_a_norm_whose_activation_the_architecture_keeps_apart(crops):
    """Xception's, which is the paper's: its ReLU stands behind the norm (timm 1.0.31)."""
    model = absorb_activation(create_model("legacy_xception"))
    parts = decomposition.decompose(model, model.bn4, crops.select(split="test").evenly(4))
    np.testing.assert_allclose(parts.bias + parts.evidence.sum(axis=1), parts.logits, atol=1e-4)
    weight = find_classifier(model).weight.reshape(-1).numpy(force=True)
    assert (parts.evidence * np.sign(weight)).min() >= 0  # no activation is negative


def test_earlier_layer_does_not_decompose(aligned, crops):
    layer = aligned.model.get_submodule("blocks.1.0.bn2")
    with pytest.raises(ValueError, match="not before the pooling"):
        decomposition.decompose(aligned.model, layer, crops.select(split="test"))


def test_evidence_map_sums_to_the_logit_and_matches_grad_cam(aligned, crops):
    images = to_tensor(crops.images[:4])
    maps = decomposition.evidence_maps(aligned.model, aligned.layer, images)
    assert maps.shape == (4, 64, 64)
    with torch.no_grad():
        activations, logits = decomposition.capture(aligned.model, aligned.layer, images)
    bias = find_classifier(aligned.model).bias.item()
    weight = find_classifier(aligned.model).weight.reshape(-1)
    coarse = (activations * weight[:, None, None]).sum(dim=1) / activations[0, 0].numel()
    torch.testing.assert_close(coarse.sum(dim=(1, 2)) + bias, logits, rtol=1e-4, atol=1e-4)
    # For a linear head after the pooling, Grad-CAM is this map less its negative part.
    cam = decomposition.grad_cam(aligned.model, aligned.layer, images)
    expected = decomposition.resize(coarse.detach(), 64).clip(min=0)
    np.testing.assert_allclose(cam, expected, rtol=1e-3, atol=1e-5)


def test_priors(training):
    center = decomposition.center_prior(9)
    assert center.argmax() == 40 and center[0, 0] == pytest.approx(center[8, 8])
    prior = decomposition.mean_mask_prior(training.select(kind="whole"))
    assert prior.shape == (64, 64) and 0 < prior.max() <= 1
