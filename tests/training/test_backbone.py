"""The backbone of this work: as timm wants it, of full rank before its last norm."""

import pytest
import timm
import torch

from fwstudy.training import backbone
from fwstudy.whitening.surgery import create_model


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return create_model("fwstudy_small").eval()


def test_it_has_the_parameters_it_is_said_to_have(model):
    assert sum(parameter.numel() for parameter in model.parameters()) == 215_249


@pytest.mark.parametrize("height, width", [(96, 96), (128, 128), (160, 96)])
def test_a_position_of_the_map_is_sixteen_pixels(model, height, width):
    images = torch.rand(2, 3, height, width)
    maps = model.forward_features(images)
    assert maps.shape == (2, 128, height // 16, width // 16)
    read = model.forward_head(maps, pre_logits=True)
    torch.testing.assert_close(read, maps.mean((2, 3)))
    torch.testing.assert_close(model(images), model.get_classifier()(read))


def test_other_sizes_and_strides_are_refused(model):
    with pytest.raises(ValueError, match=r"multiples of 16 pixels, got 96 x 100 .*crop_size"):
        model(torch.rand(1, 3, 96, 100))
    with pytest.raises(ValueError, match="has an output_stride of 16, not 8"):
        create_model("fwstudy_small", output_stride=8)


def test_classes_channels_and_a_new_classifier():
    model = timm.create_model("fwstudy_small", num_classes=5, in_chans=1)
    assert model(torch.rand(2, 1, 32, 32)).shape == (2, 5)
    model.reset_classifier(2)
    assert model.num_classes == model.get_classifier().out_features == 2
    model.reset_classifier(0)
    assert model(torch.rand(2, 1, 32, 32)).shape == (2, backbone.CHANNELS[-1])


def test_its_last_norm_is_of_full_rank(model):
    """What the norm is given spans all its channels, even before training."""
    images = torch.randn(32, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        rows = model.stages(model.unshuffle(images)).transpose(0, 1).flatten(1).double()
    assert torch.linalg.cond(rows.cov()) < 1e7
