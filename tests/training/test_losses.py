"""The rotation's updates during training: axes follow concepts, the classifier stays whole."""

import copy

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn
from torch.testing import assert_close

from fwstudy.labels import FORGED_PARTS, PARTS
from fwstudy.training import losses
from fwstudy.training.batches import Batch
from fwstudy.training.concept_sets import CONCEPT_SETS
from fwstudy.training.variants import set_activation
from fwstudy.whitening.concepts import Alignment, Concept, whitened_means
from fwstudy.whitening.layer import FeatureWhitening
from fwstudy.whitening.rotation import random_rotation
from fwstudy.whitening.statistics import update_statistics
from fwstudy.whitening.surgery import find_classifier, pooled_and_logits

CHANNELS = 12


class Detector(nn.Module):
    """Convolution, whitening with ReLU, pooling, linear."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, CHANNELS, 3)
        self.norm = FeatureWhitening(CHANNELS, act=nn.ReLU())
        self.head = nn.Linear(CHANNELS, 1)

    def forward(self, images):
        return self.head(self.norm(self.conv(images)).mean(dim=(2, 3)))


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(0)
    texture = torch.randn(96, 3, 8, 8, generator=generator)
    return texture + 2 * torch.randn(96, 3, 1, 1, generator=generator)


@pytest.fixture
def model(images):
    torch.manual_seed(0)
    model = Detector().eval()
    update_statistics(model, model.norm, [images])
    return model


@pytest.fixture
def concepts(images):
    brighter = images[:8].clone()
    brighter[:, 0] += 1
    textured = images[8:16].clone()
    textured[:, 1, ::2] += 2
    return [
        Concept("brighter", brighter, images[:8], None),
        Concept("textured", textured, images[8:16], None),
    ]


def correlation(one, other):
    return torch.corrcoef(torch.stack([one, other]))[0, 1].item()


def test_an_update_does_not_break_the_classifier(model, images, concepts):
    """After a training step the axes turn anew; the verdicts stay, as under no other rotation."""
    align = Alignment(model, model.norm, concepts, 1)
    align.update()
    generator = torch.Generator().manual_seed(3)
    nn.init.normal_(model.head.weight, generator=generator)
    with torch.no_grad():
        noise = torch.randn(model.conv.weight.shape, generator=generator)
        model.conv.weight.add_(0.05 * model.conv.weight.std() * noise)
        before, rotation = model(images)[:, 0], model.norm.rotation.clone()
        align.update()
        assert not torch.equal(model.norm.rotation, rotation)
        assert correlation(model(images)[:, 0], before) > 0.98
        model.norm.set_rotation(random_rotation(CHANNELS, generator))
        assert correlation(model(images)[:, 0], before) < 0.5


def test_updates_come_at_their_interval(model, images, concepts):
    align = Alignment(model, model.norm, concepts, 3)
    turned = []
    for step in range(1, 8):
        before = model.norm.rotation.clone()
        with torch.no_grad():
            model.conv.weight.add_(0.1 * torch.randn_like(model.conv.weight))
        align(step)
        if not torch.equal(model.norm.rotation, before):
            turned.append(step)
    assert turned == [3, 6]


def test_an_update_leaves_the_mode_and_the_statistics(model, concepts):
    model.train()
    before = model.norm.running_mean.clone()
    Alignment(model, model.norm, concepts, 1).update()
    assert all(module.training for module in model.modules())
    assert torch.equal(model.norm.running_mean, before)


def test_axes_answer_to_their_concepts(model, concepts):
    Alignment(model, model.norm, concepts, 1).update()
    means = whitened_means(model.norm, model, concepts)
    answers = model.norm.rotation @ means
    assert (answers[:2].diagonal() > 0.7 * means.norm(dim=0)).all()
    assert answers[2:].abs().max() < 0.01 * means.norm()


@pytest.mark.parametrize("alone", [True, False])
def test_a_concept_counts_from_its_counterpart_or_the_running_mean(model, images, alone):
    shown, absent = images[:8], images[8:16]
    concept = Concept("shown", shown, None if alone else absent, None)
    found = model.norm.rotation @ whitened_means(model.norm, model, [concept])[:, 0]
    with torch.no_grad():
        maps, others = (model.norm.normalize(model.conv(x)) for x in (shown, absent))
    expected = maps.mean(dim=(0, 2, 3)) - (0 if alone else others.mean(dim=(0, 2, 3)))
    assert_close(found, expected, rtol=1e-3, atol=1e-4)


@pytest.fixture
def batch(images):
    """Originals are dark; the forgeries show a bright square where the nose is."""
    parts = torch.zeros(8, 8, 8, dtype=torch.uint8)
    parts[:, 2:6, 2:6] = PARTS.index("nose")
    parts[:, 6:, :] = PARTS.index("mouth")
    changed = torch.zeros(8, 8, 8, dtype=torch.bool)
    changed[4:, 2:6, 2:6] = True
    pictures = images[:8] + 3 * changed[:, None]
    return Batch(pictures, torch.arange(2).repeat_interleave(4).float(), changed, parts)


def test_masks_of_the_concept_sets(batch):
    masks = {name: made.masks(batch.mask, batch.parsing, 2) for name, made in CONCEPT_SETS.items()}
    nose, mouth = (list(FORGED_PARTS).index(name) for name in ("nose", "mouth"))
    assert masks["parts"].sum(dim=(0, 2, 3))[[nose, mouth]].tolist() == [8 * 16, 8 * 16]
    assert torch.equal(masks["forged_parts"][:, nose], batch.mask)
    assert not masks["forged_parts"][:, mouth].any()
    grid = masks["grid"]
    assert grid.shape == (8, 4, 8, 8) and (grid.sum(dim=1) == 1).all()
    assert grid[0, 1, :4, 4:].all()  # cells row by row, as the images of the set


def test_concept_loss_is_the_mean_over_every_cell():
    """Cells by hand: log-odds of log 3 are a chance of 3/4, so they cost log 4/3 or log 4.

    Present cells cost four times that.
    """
    axes = torch.tensor([3.0, 3.0, 1.0, 1.0]).log().reshape(2, 2, 1, 1)
    present = torch.tensor([True, False, True, False]).reshape(2, 2, 1, 1)
    cells = torch.tensor([4.0, 1.0, 4.0, 1.0]) * torch.tensor([4 / 3, 4.0, 2.0, 2.0]).log()
    assert_close(losses.concept_loss(axes, present), cells.mean())
    for extreme in (-80.0, 80.0):
        far = torch.full_like(axes, extreme, requires_grad=True)
        losses.concept_loss(far, present).backward()
        assert far.grad.isfinite().all()


def loss_of(model, concept_weight, bottleneck, num_concept_axes=4):
    masks = lambda changed, parts: CONCEPT_SETS["forged_parts"].masks(changed, parts, 2)
    return losses.ConstrainedLoss(model.norm, num_concept_axes, masks, concept_weight, bottleneck)


def test_constrained_loss_without_constraint_is_classification(model, batch):
    expected = nn.functional.binary_cross_entropy_with_logits(
        model(batch.images)[:, 0], batch.labels
    )
    assert_close(loss_of(model, 0.0, 0.0)(model, batch), expected)


@pytest.mark.parametrize("norm", ["whitening", "batch", "fused"])
def test_concept_loss_reads_the_axes_before_their_activation(model, batch, norm):
    """Of timm's fused norm, too, once `set_activation` has given it the softplus."""
    if norm == "batch":
        model.norm = nn.Sequential(nn.BatchNorm2d(CHANNELS), nn.ReLU())
        model.norm.act = model.norm[1]
    if norm == "fused":
        model.norm = BatchNormAct2d(CHANNELS, act_layer=nn.SiLU)
        set_activation(model.norm, "softplus")
    plain = copy.deepcopy(model.eval().norm)
    plain = plain[0] if norm == "batch" else plain
    plain.act = nn.Identity()
    axes = plain(model.conv(batch.images))[:, :4]
    masks = CONCEPT_SETS["forged_parts"].masks(batch.mask, batch.parsing, 2).float()
    present = nn.functional.adaptive_avg_pool2d(masks, axes.shape[-2:]) > losses.PRESENT
    expected = loss_of(model, 0.0, 0.0)(model, batch) + 3 * losses.concept_loss(axes, present)
    assert_close(loss_of(model, 3.0, 0.0)(model, batch), expected)
    assert present[:4].sum() == 0 and present[4:].any()
    assert not model.norm.act._forward_pre_hooks


def test_a_concept_counts_from_four_hundredths_of_a_cell(model, batch):
    """Masks of 60 x 60 on maps of 6 x 6: a cell has 100 pixels; 3 are too few, 5 are enough."""
    masks = torch.zeros(8, 4, 60, 60, dtype=torch.bool)
    masks[:, 0, 0, 0:3] = True
    masks[:, 1, 10, 20:25] = True
    present = torch.zeros(8, 4, 6, 6, dtype=torch.bool)
    present[:, 1, 1, 2] = True
    found = []
    handle = model.norm.act.register_forward_pre_hook(lambda _, x: found.append(x[0]))
    model(batch.images)
    handle.remove()
    loss = losses.ConstrainedLoss(model.norm, 4, lambda changed, parts: masks, 1.0, 0.0)
    expected = loss_of(model, 0.0, 0.0)(model, batch)
    expected = expected + losses.concept_loss(found[0][:, :4], present)
    assert_close(loss(model, batch), expected)


def test_concept_loss_teaches_the_layers_below(model, batch):
    """Its gradient reaches the convolution, and the verdict's own part is not all of it."""
    gradients = []
    for weight in (0.0, 3.0):
        model.zero_grad()
        loss_of(model, weight, 0.5)(model, batch).backward()
        gradients.append(model.conv.weight.grad.clone())
        assert gradients[-1].isfinite().all()
    assert not torch.allclose(*gradients)


def test_set_activation_of_either_norm():
    whitening, fused = FeatureWhitening(4, act=nn.SiLU()), BatchNormAct2d(4)
    before = whitening.act, fused.act
    for layer, kept in zip((whitening, fused), before, strict=True):
        set_activation(layer, "backbone")
        assert layer.act is kept
        set_activation(layer, "softplus")
        assert isinstance(layer.act, nn.Softplus)


def test_binding_prices_the_variance_of_unnamed_evidence(model, batch):
    plain = loss_of(model, 0.0, 0.0)(model, batch)
    pooled, _ = pooled_and_logits(model, batch.images)
    residual = pooled[:, 4:] @ find_classifier(model).weight[0, 4:]
    assert_close(loss_of(model, 0.0, 0.75)(model, batch), plain + 3 * residual.var())
    losses.cut_residual(model, 4)
    assert not find_classifier(model).weight[:, 4:].any()
    assert find_classifier(model).weight[:, :4].any()
    assert_close(loss_of(model, 0.0, 0.75)(model, batch), loss_of(model, 0.0, 0.0)(model, batch))


def test_named_axes_speak_for_a_forgery_only(model):
    weight = find_classifier(model).weight
    with torch.no_grad():
        weight.copy_(torch.arange(CHANNELS) - 1.5)
    before = weight.clone()
    losses.keep_positive(model, 4)
    after = find_classifier(model).weight
    assert_close(after[:, :4], before[:, :4].clamp(min=0))
    assert torch.equal(after[:, 4:], before[:, 4:]) and (before[:, :4] < 0).any()


def test_named_axes_start_as_rare(model):
    losses.start_log_odds(model.norm, 4)
    assert_close(model.norm.bias[:4].sigmoid(), torch.full((4,), losses.RARE))
    assert model.norm.weight[:4].tolist() == [1] * 4


def test_no_hook_survives_a_failing_model(model, batch):
    wrong = Batch(batch.images[:, :1], batch.labels, batch.mask, batch.parsing)
    with pytest.raises(RuntimeError):
        loss_of(model, 1.0, 0.5)(model, wrong)
    assert not model.norm.act._forward_pre_hooks
    assert not find_classifier(model)._forward_pre_hooks
