"""A small backbone for the traces of forgeries, registered with timm as ``fwstudy_small``.

Traces are fine, so no pixel is averaged away: the first step is a lossless pixel unshuffle, which
puts most of the work on maps of a quarter of the image's side and below, where a CPU is not bound by
memory traffic. The last norm has as many inputs as channels, so that it can be made white. It is
followed by its activation and the pooling alone, as `fwstudy.whitening.surgery.last_norm` asks for.
"""

from timm.layers import BatchNormAct2d, ClassifierHead, ConvNormAct
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models._efficientnet_blocks import DepthwiseSeparableConv
from torch import Tensor, nn

UNSHUFFLE = 4  # side of the square of pixels that becomes one position
CHANNELS = (48, 96, 128)  # of the stages; each but the first halves the map
DEPTHS = (1, 2, 2)  # residual blocks of the stages; one where maps are largest, and cost most
STRIDE = 16  # pixels of the image a position of the last map


class SmallBackbone(nn.Module):
    """Pixel unshuffle by 4, three stages of depthwise-separable residual blocks, norm, pooling, linear.

    Args:
        num_classes: outputs; 0 leaves the classifier out.
        in_chans: channels of the images.
        global_pool: of timm's `ClassifierHead`.
        drop_rate: of what the classifier reads.
        output_stride: pixels a position of the last map; only 16.

    Raises:
        ValueError: another output stride.

    Example:
        >>> import timm, torch
        >>> timm.create_model("fwstudy_small", num_classes=1)(torch.zeros(2, 3, 96, 128)).shape
        torch.Size([2, 1])
    """

    def __init__(
        self,
        num_classes: int = 1,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        output_stride: int = STRIDE,
    ):
        super().__init__()
        if output_stride != STRIDE:
            raise ValueError(f"fwstudy_small has an output_stride of {STRIDE}, not {output_stride}")
        self.num_classes, self.num_features = num_classes, CHANNELS[-1]
        self.head_hidden_size = self.num_features
        self.unshuffle = nn.PixelUnshuffle(UNSHUFFLE)
        stages, inputs = [], in_chans * UNSHUFFLE**2
        for number, (channels, depth) in enumerate(zip(CHANNELS, DEPTHS, strict=True)):
            kernel, stride = (3, 2) if number else (1, 1)
            first = ConvNormAct(inputs, channels, kernel, stride, act_layer=nn.SiLU)
            blocks = [
                DepthwiseSeparableConv(channels, channels, act_layer=nn.SiLU) for _ in range(depth)
            ]
            stages.append(nn.Sequential(first, *blocks))
            inputs = channels
        self.stages = nn.Sequential(*stages)
        self.norm = BatchNormAct2d(self.num_features, act_layer=nn.SiLU)
        self.head = ClassifierHead(self.num_features, num_classes, global_pool, drop_rate)

    def get_classifier(self) -> nn.Module:
        """The linear layer; Identity where there are no classes."""
        return self.head.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a new, untrained classifier in the place of this one."""
        self.num_classes = num_classes
        self.head.reset(num_classes, global_pool)

    def forward_features(self, x: Tensor) -> Tensor:
        """Images (N, in_chans, H, W) to maps (N, 128, H / 16, W / 16).

        Raises:
            ValueError: H or W is no multiple of 16.
        """
        height, width = x.shape[-2:]
        if height % STRIDE or width % STRIDE:
            raise ValueError(
                f"fwstudy_small takes images whose sides are multiples of {STRIDE} pixels, "
                f"got {height} x {width} (preprocess.crop_size)"
            )
        return self.norm(self.stages(self.unshuffle(x)))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Maps to logits (N, num_classes), or to what the classifier reads (N, 128)."""
        return self.head(x, pre_logits=pre_logits)

    def forward(self, x: Tensor) -> Tensor:
        """Images to logits (N, num_classes)."""
        return self.forward_head(self.forward_features(x))


default_cfgs = generate_default_cfgs(
    {
        "fwstudy_small": {
            "num_classes": 1,
            "input_size": (3, 128, 128),
            "mean": (0.5, 0.5, 0.5),
            "std": (0.5, 0.5, 0.5),
            "first_conv": "stages.0.0.conv",
            "classifier": "head.fc",
        }
    }
)


@register_model
def fwstudy_small(pretrained: bool = False, **kwargs) -> SmallBackbone:
    """215,249 parameters with one output; see `SmallBackbone` for the arguments."""
    return build_model_with_cfg(SmallBackbone, "fwstudy_small", pretrained, **kwargs)
