"""Backbone weights and files of weights: what is read, and what is refused."""

import pytest
import torch
from torch import nn

from fwstudy.training import models
from fwstudy.whitening.surgery import create_model

from ..models import some_params
from .test_trainer import tiny_model


def backbone(**values):
    return some_params({f"train.backbone.{key}": value for key, value in values.items()}).train


def test_backbone_weights_come_from_a_file_without_its_classifier(tmp_path):
    source = create_model("test_efficientnet", num_classes=1000)
    torch.nn.init.normal_(source.conv_stem.weight)
    path = tmp_path / "imagenet.safetensors"
    models.save_weights(source.state_dict(), path)
    model = models.new_model(backbone(weights=str(path)))
    assert torch.equal(model.conv_stem.weight, source.conv_stem.weight)
    assert model.classifier.weight.shape[0] == 1 and not model.classifier.weight.any()
    models.save_weights(create_model("resnet10t").state_dict(), path)
    with pytest.raises(
        ValueError, match=r"imagenet\.safetensors does not fit this model: .*Missing key.*"
    ):
        models.new_model(backbone(weights=str(path)))
    with pytest.raises(ValueError, match=r"gone\.pth is not a \.safetensors file that exists"):
        models.new_model(backbone(weights="gone.pth"))


def test_without_a_network_both_ways_to_get_weights_are_named(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        OSError, match=r"HF_HUB_OFFLINE=0.*set train\.backbone\.weights to its path"
    ):
        models.new_model(backbone(weights="hub"))


def test_weights_round_trip_and_errors(tmp_path):
    model, path = tiny_model(), tmp_path / "weights" / "model.safetensors"
    models.save_weights(model.state_dict(), path)
    other = models.load_weights(tiny_model(seed=3), path)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value, rtol=0, atol=0)
    with pytest.raises(ValueError, match="model.safetensors does not fit"):
        models.load_weights(nn.Linear(2, 2), path)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ValueError, match="model.safetensors is truncated"):
        models.load_weights(tiny_model(), path)
