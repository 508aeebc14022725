"""The further explainers on a model that reads one block of pixels, so that the right map is known."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.explainers import Counted
from fwstudy.interpretability import more_explainers
from fwstudy.interpretability.faithfulness import predict_logits
from fwstudy.interpretability.localization import localization_scores
from fwstudy.interpretability.more_explainers import MORE_EXPLAINERS, segments

from ..models import hooks, two_channels

SIZE, BLOCK = 32, slice(8, 16)
FEW = {
    "gradient SHAP": {"num_steps": 3},
    "RISE": {"num_masks": 20},
    "LIME": {"num_samples": 40},
    "KernelSHAP": {"num_samples": 40},
}  # where a test asks for no good map
METHODS = pytest.mark.parametrize("name", MORE_EXPLAINERS)
LAYER_MAPS = "Grad-CAM++", "HiResCAM", "EigenCAM", "ScoreCAM"  # interpolated: they overlap the rim


class Block(nn.Module):
    """Passes one block of an image and nothing of the rest."""

    def forward(self, images):
        window = torch.zeros_like(images)
        window[..., BLOCK, BLOCK] = 1
        return images * window


def block_model(activation: nn.Module | None = None) -> nn.Sequential:
    """Says *forged* where the block is bright; its second channel has no weight in the verdict."""
    convolution, classifier = nn.Conv2d(3, 2, kernel_size=4, stride=4, bias=False), nn.Linear(2, 1)
    with torch.no_grad():
        convolution.weight.fill_(1 / 48)
        convolution.weight[1, 1:] = 0
        classifier.weight.copy_(torch.tensor([[40.0, 0]]))
        classifier.bias.fill_(-1)
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), classifier
    return nn.Sequential(Block(), convolution, activation or nn.ReLU(), *head).eval()


def images(count: int = 3) -> torch.Tensor:
    """Cells of random color, and a bright block."""
    generator = torch.Generator().manual_seed(0)
    cells = 0.6 * torch.rand(count, 3, 4, 4, generator=generator) - 0.3
    found = cells.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)
    found[..., BLOCK, BLOCK] = 0.8
    return found


def mask(count: int = 3) -> np.ndarray:
    found = np.zeros((count, SIZE, SIZE), bool)
    found[:, BLOCK, BLOCK] = True
    return found


@METHODS
@pytest.mark.filterwarnings("error::UserWarning")
def test_the_block_that_is_read_is_found(name):
    model = block_model()
    found = MORE_EXPLAINERS[name](model, model[2], images())
    assert found.shape == (3, SIZE, SIZE) and found.dtype == np.float32
    scores = localization_scores(found, mask()).min()
    assert scores["pointing_game"] == 1
    assert scores["pixel_auc"] > 0.95
    least = {"RISE": 0.4, **dict.fromkeys(LAYER_MAPS, 0.6)}.get(name, 0.9)
    assert scores["relevance_mass"] > least, scores


@METHODS
def test_a_map_repeats_and_depends_on_no_other_image(name):
    model, few = block_model(), FEW.get(name, {})
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    together = MORE_EXPLAINERS[name](model, model[2], images(2), **few)
    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])
    with torch.no_grad():
        again = MORE_EXPLAINERS[name](model, model[2], images(2), **few)
    np.testing.assert_array_equal(together, again)
    alone = MORE_EXPLAINERS[name](model, model[2], images(2)[1:], **few)[0]
    np.testing.assert_allclose(alone, together[1], rtol=1e-4, atol=1e-6 * np.abs(alone).max())


@METHODS
def test_everything_is_left_as_it_was(name):
    model, given = block_model().train(), images(2)
    before, state = given.clone(), copy.deepcopy(model.state_dict())
    MORE_EXPLAINERS[name](model, model[2], given, **FEW.get(name, {}))
    assert hooks(model) == 0 and all(module.training for module in model.modules())
    assert torch.equal(given, before) and not given.requires_grad and given.grad is None
    assert all(value.requires_grad and value.grad is None for value in model.parameters())
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("name", "passes"),
    [("gradient SHAP", (32, 32)), ("ScoreCAM", (1 + 2, 0))],  # of two channels
)
def test_passes_are_counted(name, passes):
    model, images = two_channels()
    counted = Counted(model)
    MORE_EXPLAINERS[name](counted, model[0], images)
    assert (counted.forwards, counted.backwards) == passes


@pytest.mark.parametrize("name", ["DeepLift", "KernelSHAP"])
def test_the_map_sums_to_what_the_image_changes(name):
    model, given = block_model(nn.Softplus()), images(1)
    found = MORE_EXPLAINERS[name](model, model[2], given, **FEW.get(name, {})).sum(axis=(1, 2))
    change = predict_logits(model, given) - predict_logits(model, 0 * given)
    np.testing.assert_allclose(found, change, rtol=1e-3)


def test_gradient_shap_sums_to_the_change_from_the_mean_gray():
    model = block_model(nn.Identity())  # linear: the mean over grays is the middle one
    found = more_explainers.gradient_shap(model, model[2], images(), num_steps=400)
    change = predict_logits(model, images()) - predict_logits(model, 0 * images())
    np.testing.assert_allclose(found.sum(axis=(1, 2)), change, rtol=0.1)


@pytest.mark.parametrize("activation", [nn.SiLU(), nn.GELU(), nn.Mish()])
def test_deep_lift_refuses_where_it_has_no_rules(activation):
    model = block_model(activation)
    with pytest.raises(ValueError, match=f"no rules .*{type(activation).__name__}.*'input x grad"):
        more_explainers.deep_lift(model, model[2], images())
    assert hooks(model) == 0


def test_guided_grad_cam_refuses_what_is_not_relu():
    with pytest.raises(ValueError, match="defined for ReLU; the activation functions are ReLU6"):
        more_explainers.guided_grad_cam(block_model(nn.ReLU6()), None, images())
    with pytest.raises(ValueError, match="are no module"):
        more_explainers.guided_grad_cam(block_model(nn.Identity()), None, images())


def test_segments_are_numbered_without_gaps():
    found = segments(images())
    for labels in found:
        np.testing.assert_array_equal(np.unique(labels), np.arange(labels.max() + 1))
    assert found.shape == (3, SIZE, SIZE) and found.max() > 10
    noise = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="SLIC finds no segments in image 0 of 1"):
        segments(noise)


def test_rise_does_not_depend_on_the_share_of_open_cells():
    """The published mean of masks weighted by scores does: its pedestal grows with the share."""
    model = block_model()
    masses = [
        localization_scores(more_explainers.rise(model, model[2], images(1), share=share), mask(1))[
            "relevance_mass"
        ][0]
        for share in (0.3, 0.5, 0.7)
    ]
    assert max(masses) - min(masses) < 0.15, masses


def test_rise_masks_vary_alike_at_the_rim():
    masks = more_explainers.rise_masks(3000, 30, share=0.3, cells=7, seed=0)
    assert masks.shape == (3000, 30, 30) and masks.mean() == pytest.approx(0.3, abs=0.01)
    variance = masks.var(dim=0)
    assert variance.max() < 1.25 * variance.min()
    assert variance[0].mean() == pytest.approx(variance.mean().item(), rel=0.05)


def test_golden_maps_of_a_layer():
    """Activations (1, 2; 3, 4), and their negative."""
    model, given = two_channels()
    layer = model[0]
    # (1, -1, 2, 0) * (1, 2, 3, 4) + (1, 1, -1, -1) * (-1, -2, -3, -4), cut at zero
    found = MORE_EXPLAINERS["HiResCAM"](model, layer, given)
    np.testing.assert_allclose(found, [[[0, 0], [9, 4]]], atol=1e-6)
    # Channel sums 10 and -10: weights 1 / (2 + 10) + 2 / (2 + 20), and twice 1 / (2 - 10)
    found = MORE_EXPLAINERS["Grad-CAM++"](model, layer, given)
    weight = 1 / 12 + 2 / 22 + 2 / 8
    np.testing.assert_allclose(found, [[[weight, 2 * weight], [3 * weight, 4 * weight]]], rtol=1e-5)
    with torch.no_grad():
        model[-1].weight.mul_(1e-4)  # small gradients: as above, with 1e-4 of each
    found = MORE_EXPLAINERS["Grad-CAM++"](model, layer, given)
    weight = 1e-4 * (1 / 2.001 + 2 / 2.002 - 2 / 1.999)
    np.testing.assert_allclose(found[0], weight * given[0, 0], rtol=1e-4)
    with torch.no_grad():
        model[-1].weight.mul_(1e4)
    # One singular vector, (1, -1) / √2, of length √2 times the first map; its sum is 0.
    found = MORE_EXPLAINERS["EigenCAM"](model, layer, given)
    np.testing.assert_allclose(np.abs(found), 2**0.5 * given[0, :1], rtol=1e-5)
    # Masks (0, 1/3; 2/3, 1) and (1, 2/3; 1/3, 0) leave the logits 26 / 3 and 1 / 3
    found = MORE_EXPLAINERS["ScoreCAM"](model, layer, given)
    np.testing.assert_allclose(found, np.tanh(25 / 6) * given[0, :1], rtol=1e-5)
