"""A model without its whitening layers, for deployment: standard layers only.

In evaluation a whitening layer is an affine map of the channels, which a convolution before it can
take into its weights, as is done with batch normalisation. Source: Jacob et al., "Quantization and
Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018, section
3.2; here with a matrix in the place of a scale for each channel.
"""

import copy
from contextlib import ExitStack
from functools import partial

import torch
from torch import Tensor, nn

from fwstudy.whitening.layer import FeatureWhitening

TOLERANCE = 1e-4  # greatest difference of logits, as a share of the largest


@torch.no_grad()
def fold(model: nn.Module, images: Tensor) -> nn.Module:
    """A copy of the model, in evaluation mode, in which no FeatureWhitening layer is left.

    A layer that reads the output of a convolution goes into the weights of that convolution. A
    1 x 1 convolution stands in its place where that cannot be: another layer comes before it, the
    convolution is grouped or computes its weights, or its output has a second reader (a shortcut).
    What comes before is seen in a forward pass; a convolution that computes its weights or has a
    second reader, by the logits, which would change. The activation of the layer stays. All is
    done on the CPU (no reduced precision); matrices are multiplied in float64.

    To export the result (the second line needs onnx and onnxscript), with at least two images, so
    that their number may vary::

        torch.export.export(folded, (images,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
        torch.onnx.export(folded, (images,), "x.onnx", dynamo=True, dynamic_shapes=({0: "n"},))

    Args:
        model: returns logits; float32 or float64. It is not changed.
        images: (N, C, H, W) that the model takes, on its device; a few real ones, since logits are
            compared on them.

    Returns:
        The copy, with new parameters where it was folded.

    Raises:
        ValueError: its logits differ from the model's by more than 1e-4 of the largest.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 1), FeatureWhitening(4), nn.Flatten())
        >>> fold(model, torch.randn(2, 3, 5, 5))[1]
        Identity()
    """
    folded = copy.deepcopy(model).cpu().eval()
    images, device = images.cpu(), images.device
    expected = folded(images)
    for name, producer in _find_producers(folded, images).items():
        folded = _remove(folded, name, producer, images)
    difference = _difference(folded(images), expected)
    if not difference <= TOLERANCE:
        raise ValueError(
            f"the logits of the folded model differ by {difference:.1g} of the largest, above "
            f"{TOLERANCE:g}; rounding alone would pass with model.double() and images.double()"
        )
    return folded.to(device)


def _find_producers(model: nn.Module, images: Tensor) -> dict[str, str | None]:
    """Names of the whitening layers, each with that of the convolution whose output it reads.

    None where there is none that takes a matrix. "Reads" means the very tensor; a layer in between
    that changed it in place is found out when logits are compared.
    """
    modules = dict(model.named_modules())
    found = {name: None for name, m in modules.items() if isinstance(m, FeatureWhitening)}
    outputs = []

    def remember(name, module, inputs, output):
        outputs.append((name, output))

    def look_up(name, module, inputs):
        found[name] = next((conv for conv, output in outputs if output is inputs[0]), None)

    with ExitStack() as hooks:
        for name in found:
            hooks.enter_context(modules[name].register_forward_pre_hook(partial(look_up, name)))
        for name in filter(lambda name: _takes_matrix(modules[name]), modules):
            hooks.enter_context(modules[name].register_forward_hook(partial(remember, name)))
        model(images)
    return found


def _takes_matrix(module: nn.Module) -> bool:
    """A dense convolution whose weight is a parameter, not computed from others."""
    own = dict(module.named_parameters(recurse=False))
    return isinstance(module, nn.Conv2d) and module.groups == 1 and "weight" in own


def _remove(model: nn.Module, name: str, producer: str | None, images: Tensor) -> nn.Module:
    """A copy of the model without the layer: merged if its logits stay, else replaced."""
    if producer is not None:
        merged = _merge(model, name, producer)
        if _difference(merged(images), model(images)) <= TOLERANCE:
            return merged
    return _insert(model, name)


def _merge(model: nn.Module, name: str, producer: str) -> nn.Module:
    """A copy of the model with the layer in the weights of the convolution before it."""
    model = copy.deepcopy(model)
    layer = model.get_submodule(name)
    _absorb(model.get_submodule(producer), layer)
    return _replace(model, layer, layer.act)


def _insert(model: nn.Module, name: str) -> nn.Module:
    """A copy of the model with a 1 x 1 convolution in the place of the layer."""
    model = copy.deepcopy(model)
    layer = model.get_submodule(name)
    size, dtype = layer.num_features, layer.running_mean.dtype
    convolution = nn.utils.skip_init(nn.Conv2d, size, size, 1, bias=False, dtype=dtype)
    nn.init.dirac_(convolution.weight)
    _absorb(convolution, layer)
    return _replace(model, layer, nn.Sequential(convolution, layer.act).eval())


def _absorb(convolution: nn.Conv2d, layer: FeatureWhitening) -> None:
    """Let the convolution, with bias, do what it and the layer do, activation excepted."""
    matrix, shift = _affine_map(layer)
    weight, bias = convolution.weight, convolution.bias
    if bias is not None:
        shift = shift + matrix @ bias.double()
    kernels = torch.einsum("dc,cikl->dikl", matrix, weight.double())
    convolution.weight = nn.Parameter(kernels.to(weight))
    convolution.bias = nn.Parameter(shift.to(weight))


def _affine_map(layer: FeatureWhitening) -> tuple[Tensor, Tensor]:
    """A (C, C) and c (C,), float64, of A x + c = weight * R W (x - mean) + bias."""
    matrix = layer.rotation.double() @ torch.block_diag(*layer.whitening.double())
    if layer.weight is not None:
        matrix = layer.weight.double()[:, None] * matrix
    shift = -matrix @ layer.running_mean.double()
    return matrix, shift if layer.bias is None else shift + layer.bias.double()


def _replace(model: nn.Module, old: nn.Module, new: nn.Module) -> nn.Module:
    """The model, with one module put in the place of another under all of its names."""
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if module is old:
            model.set_submodule(name, new)
    return model


def _difference(logits: Tensor, expected: Tensor) -> float:
    """Greatest difference, as a share of the largest logit; NaN if there is one."""
    scale = expected.abs().max().clamp(min=torch.finfo(expected.dtype).tiny)
    return ((logits - expected).abs().max() / scale).item()
