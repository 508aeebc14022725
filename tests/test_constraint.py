"""The rotation's updates during training: axes follow concepts, the classifier stays whole."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from fwstudy.alignment import random_rotation
from fwstudy.concepts import Concept
from fwstudy.constraint import Alignment, whitened_means
from fwstudy.models import find_classifier, pooled_and_logits
from fwstudy.whitening import FeatureWhitening, update_statistics

CHANNELS = 12


class Detector(nn.Module):
    """Convolution, whitening with ReLU, pooling, linear."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, CHANNELS, 3)
        self.norm = FeatureWhitening(CHANNELS, activation=nn.ReLU())
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


def test_concept_without_counterpart_counts_from_the_running_mean(model, images):
    alone = Concept("alone", images[:8], None, None)
    mean = whitened_means(model.norm, model, [alone])[:, 0]
    with torch.no_grad():
        maps = model.norm.normalize(model.conv(images[:8]))
    expected = model.norm.rotation.T @ maps.mean(dim=(0, 2, 3))
    assert_close(mean, expected, rtol=1e-3, atol=1e-4)


def test_pooled_and_logits_are_what_the_classifier_reads_and_says(model, images):
    pooled, logits = pooled_and_logits(model, images)
    assert pooled.shape == (96, CHANNELS)
    assert_close(find_classifier(model)(pooled)[:, 0], logits)
    assert_close(logits, model(images)[:, 0])
