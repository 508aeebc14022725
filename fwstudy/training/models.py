"""Models of the study: made anew, and their weights read and written."""

from pathlib import Path
from textwrap import shorten

import safetensors
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from fwstudy.params import Backbone, Train
from fwstudy.runtime import default_device, project_root
from fwstudy.training.packaged import package_weights
from fwstudy.whitening.surgery import absorb_activation, create_model, find_classifier

HUB = "hub"  # of train.backbone.weights: timm's own, by network
PACKAGE = "package"  # of train.backbone.weights: see `fwstudy.training.packaged`
MESSAGE_LENGTH = 300  # of PyTorch's list of keys that do not fit, characters


def placed(model: nn.Module) -> nn.Module:
    """The model on the device and in the memory format of the study."""
    return model.to(default_device(), memory_format=torch.channels_last)


def empty_model(train: Train) -> nn.Module:
    """The backbone of the study, into which weights are still to be read."""
    model = create_model(train.backbone.name, num_classes=1, **train.backbone.options)
    return placed(absorb_activation(model))


def new_model(train: Train) -> nn.Module:
    """The backbone of the study: untrained, or with the weights of ``backbone.weights``.

    The classifier starts at zero, that is undecided: training is then several times faster.

    Raises:
        OSError, ValueError: the weights cannot be fetched or read; the message says what to do.
    """
    backbone = train.backbone
    if backbone.weights == HUB:
        model = placed(absorb_activation(from_hub(backbone.name, backbone.options)))
    else:
        model = empty_model(train)
        if backbone.weights:
            fill_body(model, *backbone_weights(backbone))
    nn.init.zeros_(find_classifier(model).weight)
    return model


def from_hub(name: str, options: dict) -> nn.Module:
    """A timm model with the weights timm has for it, e.g. from ImageNet.

    Raises:
        OSError: there are none, or no network; the message says both ways to get them.
    """
    try:
        return create_model(name, num_classes=1, pretrained=True, **options)
    except (OSError, RuntimeError, ValueError) as error:
        raise OSError(
            f"train.backbone.weights: {HUB}: timm's weights of {name} cannot be fetched ({error}). "
            "With a network, run `make repro HF_HUB_OFFLINE=0`; without one, copy a .safetensors file of "
            "this backbone from a machine that has one and set train.backbone.weights to its path"
        ) from error


def save_weights(
    state: dict[str, torch.Tensor], path: Path, metadata: dict[str, str] | None = None
) -> None:
    """Write tensors by name, as of ``model.state_dict()``, to a safetensors file, in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    state = {name: tensor.clone().contiguous() for name, tensor in state.items()}
    safetensors.torch.save_file(state, partial, metadata)
    partial.replace(path)


def read_weights(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tensors of a safetensors file by name, and its metadata.

    Raises:
        FileNotFoundError, ValueError: missing or truncated; the message names it.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with safetensors.safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(
            f"{path} is truncated or not safetensors ({error}); "
            "put a whole copy in its place, or delete it"
        ) from error


def load_weights(model: nn.Module, path: Path) -> nn.Module:
    """Read what `save_weights` wrote into a model of the same architecture.

    Raises:
        ValueError: a truncated file, or see `fill`; the message names it.
    """
    return fill(model, read_weights(path)[0], path)


def fill(model: nn.Module, state: dict[str, torch.Tensor], path: Path) -> nn.Module:
    """Put tensors that were read from a file into a model.

    Raises:
        ValueError: they are of another architecture, or not finite; the message names the file.
    """
    wrong = [name for name, value in state.items() if not value.isfinite().all()]
    if wrong:
        raise ValueError(f"{path} holds values that are not finite, e.g. in {wrong[0]}")
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(
            f"{path} does not fit this model: {shorten(str(error), MESSAGE_LENGTH)}"
        ) from error
    return model


def backbone_weights(backbone: Backbone) -> tuple[dict[str, torch.Tensor], Path]:
    """The tensors of ``backbone.weights`` by timm's names, and the file they come from.

    Raises:
        ValueError: no such file, not safetensors, truncated, or see `package_weights`; the message
            names it.
    """
    if backbone.weights == PACKAGE:
        return package_weights(backbone.name)
    path = backbone_file(backbone)
    return read_weights(path)[0], path


def backbone_file(backbone: Backbone) -> Path:
    """The file that ``backbone.weights`` names.

    Raises:
        ValueError: no such file, or not safetensors.
    """
    path = project_root() / Path(backbone.weights).expanduser()
    if not path.is_file() or path.suffix != ".safetensors":
        raise ValueError(f"train.backbone.weights: {path} is not a .safetensors file that exists")
    return path


def fill_body(model: nn.Module, state: dict[str, torch.Tensor], path: Path) -> None:
    """Put all but the classifier's tensors into a model of the same architecture.

    Not by timm's ``pretrained_cfg_overlay``, which only logs the keys that a file lacks or has too
    many, and takes a missing body for a model that starts untrained.

    Raises:
        ValueError: see `fill`.
    """
    classifier = find_classifier(model)
    head = next(name for name, module in model.named_modules() if module is classifier) + "."
    own = {name: value for name, value in model.state_dict().items() if name.startswith(head)}
    body = {name: value for name, value in state.items() if not name.startswith(head)}
    fill(model, body | own, path)
