"""Networks of others as modules that the study's measures take: its crops in, one logit out."""

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from textwrap import shorten

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

import fwstudy.training.backbone  # noqa: F401  timm then knows the study's own network
from fwstudy.params import OutsideDetector
from fwstudy.training.models import MESSAGE_LENGTH, load_weights, read_weights
from fwstudy.whitening.surgery import create_model, find_classifier


class Adapter(nn.Module):
    """A network of others behind the interface of the study's models.

    Crops of another size are resized by antialiased bilinear interpolation. Of two classes, the second
    is *forged*, and the logit is the difference of the two.

    Args:
        model: (N, 3, size, size) float32, (x - mean) / std of pixels x in [0, 1], to one logit
            (N,) or (N, 1), or to two classes (N, 2).
        about: size, mean and std; what is None there is as in the study: no resizing, [-1, 1].
    """

    def __init__(self, model: nn.Module, about: OutsideDetector):
        super().__init__()
        self.model, self.source = model, about.source
        self.size = about.size or (model.size if isinstance(model, OnnxModule) else None)
        mean, std = (torch.tensor(v or [0.5] * 3)[:, None, None] for v in (about.mean, about.std))
        self.register_buffer("scale", 0.5 / std, persistent=False)
        self.register_buffer("shift", (0.5 - mean) / std, persistent=False)
        if next(model.parameters(), None) is None:  # which says on what device a model lies
            self.place = nn.Parameter(torch.empty(0), requires_grad=False)

    def forward(self, images: Tensor) -> Tensor:
        """The logit of each image: (N, 3, S, S) float32 in [-1, 1] to (N, 1) float32.

        Raises:
            ValueError: the network returned another shape; the message names detector and file.
        """
        if self.size not in (None, images.shape[-1]):
            shape = (self.size, self.size)
            images = interpolate(images, shape, mode="bilinear", antialias=True)
        return one_logit(self.model(images * self.scale + self.shift), len(images), self.source)


def one_logit(found: Tensor, count: int, source: str) -> Tensor:
    """What a network returned for ``count`` images as (count, 1) float32; see `Adapter`.

    Raises:
        ValueError: it is neither one logit nor two classes an image, or no floats.
    """
    shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
    if isinstance(found, Tensor) and not found.is_floating_point():
        raise ValueError(f"{source} returned {found.dtype}, classes perhaps; wanted is a logit")
    if shape in ((count,), (count, 1)):
        return found.reshape(count, 1).float()
    if shape == (count, 2):
        return (found[:, 1:] - found[:, :1]).float()
    raise ValueError(
        f"{source} returned {shape} for {count} images; wanted is one logit, (N,) or (N, 1), or two "
        "classes, (N, 2), the second for forged"
    )


def present(about: OutsideDetector, folder: Path, name: str) -> Path:
    """A file or folder of a detector.

    Raises:
        ValueError: it is not there; the message names detector and path.
    """
    path = folder / Path(name).expanduser()
    if not path.exists():
        raise ValueError(f"detector {about.name}: {path}: no such file or folder")
    return path


def from_module(about: OutsideDetector, folder: Path) -> nn.Module:
    """What a function of the user's returns; its module is sought in the folder first."""
    name, function = about.module.split(":")
    sys.path.insert(0, str(folder))
    try:
        made = getattr(import_module(name), function)()
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{about.source}: {error}; modules are sought in {folder} too") from error
    finally:
        sys.path.remove(str(folder))
    if not isinstance(made, nn.Module):
        kind = type(made).__name__
        raise ValueError(f"{about.source} returned {kind}, not a torch module")  # noqa: TRY004
    return made


def from_timm(about: OutsideDetector, folder: Path) -> nn.Module:
    """An architecture of timm with weights of one logit or two classes, which must fit exactly."""
    path = present(about, folder, about.weights)
    model = create_model(about.timm)
    classifier = find_classifier(model)
    head = next(name for name, module in model.named_modules() if module is classifier)
    try:
        classes = len(read_weights(path)[0].get(f"{head}.weight", [None]))
        return load_weights(create_model(about.timm, num_classes=classes), path)
    except ValueError as error:
        raise ValueError(f"detector {about.name}: {error}") from error


class OnnxModule(nn.Module):
    """An ONNX file run by onnxruntime: no gradients, and weights that nobody can randomize.

    A fixed batch is filled up with copies of the last image, which are dropped again.

    Raises:
        ValueError: onnxruntime is missing or cannot read the file, or it takes anything but one float32
            tensor (N, 3, S, S); the message names detector and file.
    """

    def __init__(self, about: OutsideDetector, folder: Path):
        super().__init__()
        path = present(about, folder, about.onnx)
        try:
            import onnxruntime
        except ImportError as error:
            needed = "an ONNX file needs onnxruntime: pip install -e '.[onnx]'"
            raise ValueError(f"{about.source}: {needed}") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            self.session = onnxruntime.InferenceSession(
                path, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its classes share no base but this one
            reason = shorten(str(error), MESSAGE_LENGTH)
            raise ValueError(f"{about.source} cannot be read by onnxruntime: {reason}") from error
        given, *others = self.session.get_inputs()
        fixed = [length if isinstance(length, int) else None for length in given.shape]
        wanted = len(fixed) == 4 and fixed[1] in (3, None) and fixed[2] == fixed[3]
        if others or given.type != "tensor(float)" or not wanted:
            raise ValueError(
                f"{about.source} takes {given.type} {given.shape}"
                + f" and {len(others)} more inputs" * bool(others)
                + "; wanted is one float32 tensor (N, 3, S, S)"
            )
        self.name, self.batch, self.size = given.name, fixed[0], fixed[2]
        if self.size and about.size not in (None, self.size):
            raise ValueError(
                f"{about.source} takes images of {self.size} pixels, not of size: {about.size}"
            )

    def forward(self, images: Tensor) -> Tensor:
        """The file's first output."""
        array = images.numpy(force=True)
        step = self.batch or len(array)
        rows = np.minimum(np.arange(-len(array) // step * -step), len(array) - 1)
        parts = [np.ascontiguousarray(array[r]) for r in np.split(rows, len(rows) // step)]
        found = np.concatenate([self.session.run(None, {self.name: part})[0] for part in parts])
        return torch.from_numpy(found[: len(array)]).to(images.device)


NETWORKS: dict[str, Callable[[OutsideDetector, Path], nn.Module]] = {
    "module": from_module,
    "timm": from_timm,
    "onnx": OnnxModule,
}
"""How a network of each kind is made."""


def adapted(about: OutsideDetector, folder: Path) -> Adapter:
    """A network of others, ready to be run on the study's crops.

    Args:
        folder: that its files are relative to.

    Raises:
        ValueError: it cannot be made, or has no such layer; the message names detector and file.
    """
    adapter = Adapter(NETWORKS[about.kind](about, folder), about).eval()
    if about.layer and about.layer not in dict(adapter.model.named_modules()):
        raise ValueError(f"{about.source} has no layer {about.layer}")
    return adapter


def lacking(adapter: Adapter, about: OutsideDetector, size: int) -> dict[str, str]:
    """What a network cannot be asked for, and why: ``gradients``, ``layer``, ``weights``.

    Args:
        size: of the crops, on one of which it is tried.
    """
    lacks = {}
    gray = torch.zeros(1, 3, size, size, device=adapter.scale.device, requires_grad=True)
    with torch.enable_grad():
        if not adapter(gray).requires_grad:
            lacks["gradients"] = "its logit has no gradients"
    if about.layer is None:
        lacks["layer"] = "no layer is named for it"
    if not any(value.numel() for value in adapter.parameters()):
        lacks["weights"] = "its weights cannot be randomized: they are out of reach"
    return lacks
