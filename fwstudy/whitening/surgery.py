"""Backbones from timm, and the normalisation layer to replace in them.

Source: timm, https://github.com/huggingface/pytorch-image-models. Layers are known by their dotted
name, as in `model.named_modules()`, for every architecture alike. The verdict can be divided among
the channels of a layer only if the classifier sees their means: `last_norm` looks for that layer.
"""

import copy
from collections.abc import Callable
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from fwstudy.whitening.layer import FeatureWhitening
from fwstudy.whitening.statistics import evaluation_mode
from fwstudy.whitening.sync import bare


def create_model(name: str, num_classes: int = 1, pretrained: bool = False, **options) -> nn.Module:
    """A timm model whose activations are not in place, since attributions hook their inputs.

    Args:
        name: as in `timm.list_models()`.
        num_classes: outputs; 1 for real or fake.
        pretrained: download the weights of timm.
        options: passed to `timm.create_model`, for example output_stride=16.

    Example:
        >>> model = create_model("resnet10t")
    """
    import timm  # slow: it loads torchvision and torch._dynamo

    model = timm.create_model(name, pretrained=pretrained, num_classes=num_classes, **options)
    for module in model.modules():
        if getattr(module, "inplace", False):
            module.inplace = False
    return model


def list_norms(model: nn.Module) -> list[str]:
    """Dotted names of the BatchNorm2d layers, those that can be replaced, as defined in order."""
    return [name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)]


def replace_norm(
    model: nn.Module, name: str, factory: Callable[[nn.BatchNorm2d], nn.Module]
) -> nn.Module:
    """Put factory(norm) in the place of the BatchNorm2d of that name; returns the new layer.

    Raises:
        ValueError: no such BatchNorm2d; the message lists those that there are.

    Example:
        >>> model = create_model("resnet10t")
        >>> layer = replace_norm(model, "layer4.0.bn2", FeatureWhitening.from_batch_norm)
    """
    names = list_norms(model)
    if name not in names:
        known = ", ".join(names) or "none (the architecture has no BatchNorm2d)"
        raise ValueError(f"{name!r} is not a layer that can be replaced; these can: {known}")
    layer = factory(model.get_submodule(name))
    model.set_submodule(name, layer)
    return layer


def find_classifier(model: nn.Module) -> nn.Module:
    """The layer that turns pooled features into the outputs (Linear, or Conv2d 1 x 1).

    That of timm's `get_classifier`, or else the last Linear layer.

    Raises:
        ValueError: there is none, as in a model with num_classes=0.
    """
    model = bare(model)
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    known = [model.get_classifier()] if hasattr(model, "get_classifier") else linear
    if not known or not hasattr(known[-1], "weight"):
        raise ValueError("the model has no classifier (was it made with num_classes=0?)")
    return known[-1]


def pooled_and_logits(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """What the classifier reads (n, C), and the logits (n,) of a model with one output."""
    found = []
    with find_classifier(model).register_forward_pre_hook(
        lambda module, inputs: found.append(inputs[0].flatten(1))
    ):
        logits = model(images)[:, 0]
    return found[0], logits


@torch.no_grad()
def last_norm(model: nn.Module, images: Tensor | None = None) -> str:
    """Dotted name of the norm whose output, once activated, is averaged into the classifier input.

    Found by a forward pass in evaluation mode: the norm called last, followed at most by layers
    without parameters that read its very output (an activation). The mean of the result over space
    must equal the input of the classifier. In that pass each norm gives random numbers, so
    that the answer depends on the architecture and not on its weights: zeros of an untrained block
    would hide what is added to it, and a trained bias may leave nothing after an activation.

    Args:
        model: as from `create_model`, with BatchNorm2d or FeatureWhitening layers.
        images: (N, C, H, W), large enough for a last map above 1 x 1; random 96 x 96 by default.

    Raises:
        ValueError: the architecture has none: a shortcut is added after the norm (resnet, regnet),
            a layer follows the pooling (mobilenetv3), or there is no such norm (convnext).

    Example:
        >>> last_norm(create_model("mobilenetv2_035"))
        'bn2'
    """
    found, _ = _last_norm_and_followers(model, images)
    if found is None:
        raise ValueError(
            f"no norm layer of {type(model).__name__} is averaged into the classifier input; "
            f"name one of {', '.join(list_norms(model)) or 'none (it has no BatchNorm2d)'}"
        )
    return found


@torch.no_grad()
def _last_norm_and_followers(
    model: nn.Module, images: Tensor | None = None
) -> tuple[str | None, list[str]]:
    """See `last_norm`: names of the norm (None: there is none) and of the layers between it and the mean.

    A layer that is called elsewhere as well is named as often as it is called.
    """
    generator = torch.Generator().manual_seed(0)
    if images is None:
        channels = getattr(model, "pretrained_cfg", {}).get("input_size", (3,))[0]
        images = torch.rand(2, channels, 96, 96, generator=generator)
    model = copy.deepcopy(model)
    names = {module: name for name, module in model.named_modules()}
    norms = {m for m in names if isinstance(m, (nn.BatchNorm2d, FeatureWhitening))}
    found = maps = pooled = None
    continues = False
    called: list[nn.Module] = []
    followers: list[nn.Module] = []

    def before(module, inputs):  # an activation in place would overwrite what it reads
        nonlocal continues
        called.append(module)
        continues = module in norms or maps is not None and torch.equal(inputs[0], maps)

    def after(module, _, output):
        nonlocal found, maps
        if module in norms:
            output = torch.randn(output.shape, generator=generator).to(output)
            found = module
            followers.clear()
        if module in norms or continues and output.shape == maps.shape:
            maps = output.clone()
            followers.append(module)
        return output

    def at_classifier(_, inputs):
        nonlocal pooled
        pooled = inputs[0].flatten(1)

    with ExitStack() as hooks, evaluation_mode(model):
        for module in model.modules():
            if module in norms or not list(module.parameters()) and not list(module.children()):
                hooks.callback(module.register_forward_pre_hook(before).remove)
                hooks.callback(module.register_forward_hook(after).remove)
        hooks.callback(find_classifier(model).register_forward_pre_hook(at_classifier).remove)
        model(images.to(next(model.parameters())))
    means = pooled.new_empty(0) if maps is None else maps.mean((2, 3))
    if means.shape != pooled.shape or not (means - pooled).norm() < 1e-4 * pooled.norm():
        return None, []
    return names[found], [names[module] for module in called if module in followers[1:]]


def absorb_activation(model: nn.Module) -> nn.Module:
    """Make the activation after the last norm part of it, as in timm's BatchNormAct2d; returns the model.

    So that the output of the norm is what is averaged into the classifier input, and the verdict a sum
    over its channels, also where the architecture keeps the two apart, as Xception does. Names of weights
    stay. Where no activation follows (ConvMixer), or one that is called elsewhere too, the part is the
    identity. A model without such a norm stays as it is.

    Example:
        >>> absorb_activation(create_model("legacy_xception")).bn4.act
        ReLU()
    """
    from timm.layers import BatchNormAct2d

    name, followers = _last_norm_and_followers(model)
    moved = [n for n in followers if not isinstance(model.get_submodule(n), nn.Identity)]
    if name is None or type(model.get_submodule(name)) != nn.BatchNorm2d:
        return model
    if len(set(moved)) < len(moved):  # called elsewhere too
        moved = []
    norm = model.get_submodule(name)
    options = norm.eps, norm.momentum, norm.affine, norm.track_running_stats
    fused = BatchNormAct2d(norm.num_features, *options, apply_act=False)
    fused.load_state_dict(norm.state_dict())
    if moved:
        found = [model.get_submodule(each) for each in moved]
        fused.act = nn.Sequential(*found) if found[1:] else found[0]
    model.set_submodule(name, fused.to(norm.running_mean.device).train(norm.training))
    for each in moved:
        model.set_submodule(each, nn.Identity())
    return model
