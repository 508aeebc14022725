"""What params.yaml asks of the backbone and of other networks, tried before anything runs.

``python -m fwstudy.params`` does it. Names of networks, layers and options are strings that other
libraries read, so that nothing short of building the model tells whether they mean something.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import timm
import torch
from torch import nn

from fwstudy.labels import FAMILIES, FORGED_PARTS
from fwstudy.params import Params, Whitening
from fwstudy.runtime import project_root
from fwstudy.training.models import HUB, new_model
from fwstudy.training.variants import NORMS, layer_name, norm_factory
from fwstudy.whitening.surgery import replace_norm


@contextmanager
def blamed_on(key: str) -> Iterator[None]:
    """Whatever a library raises, as one line that names the setting it comes from.

    Raises:
        ValueError: instead of any exception.
    """
    try:
        yield
    except Exception as error:
        message = " ".join(str(error).split()).removeprefix("params.yaml: ")  # of one within
        message = message.removeprefix(f"{key}: ")
        raise ValueError(f"params.yaml:\n  {key}: {message or type(error).__name__}") from error


def check_models(params: Params) -> None:
    """Build the backbone and each layer that is to be trained, once and untrained.

    Raises:
        ValueError: one is impossible; the message names its key and says what is possible.
    """
    train = params.train
    backbone = train.backbone
    with blamed_on(f"train.backbone (name: {backbone.name}, options: {backbone.options})"):
        plain = backbone.model_copy(update={"weights": None})
        model = new_model(train.model_copy(update={"backbone": plain})).eval()
    check_size(model, params.preprocess.crop_size)
    with blamed_on("train.backbone.weights"):
        if backbone.weights == HUB and not timm.is_model_pretrained(backbone.name):
            raise ValueError(f"timm has none for {backbone.name}")
        if backbone.weights not in (None, HUB):
            new_model(train)
    with blamed_on(f"train.backbone.name: {backbone.name} cannot be whitened"):
        layer_name(model, params.whitening)
    check_layer(model, params.whitening, "whitening")
    for name in params.ablations.run:
        check_layer(model, params.variant(name), f"ablations.variants.{name}")
    for name, network in params.explanations.networks.items():
        with blamed_on(f"explanations.networks.{name}"):
            other = plain.model_copy(update={"name": name, "options": network.options})
            built = new_model(train.model_copy(update={"backbone": other})).eval()
            built.get_submodule(network.layer)
            check_size(built, params.preprocess.crop_size)
    check_data(params)


@torch.inference_mode()
def check_size(model: nn.Module, size: int) -> None:
    """Show the model a crop.

    Raises:
        ValueError: it takes none of that size, or of three channels.
    """
    with blamed_on(f"preprocess.crop_size: {size}"):
        model(torch.zeros(1, 3, size, size).to(next(model.parameters())))


def check_layer(model: nn.Module, settings: Whitening, key: str) -> None:
    """Put the layer of the settings into the model, and take it out again.

    Raises:
        ValueError: no such layer, groups that do not divide its channels, or too many concepts.
    """
    with blamed_on(key):
        name = layer_name(model, settings)
        norm = dict(model.named_modules()).get(name)
        factory = norm_factory(settings) if settings.norm in NORMS else lambda given: given
        replace_norm(model, name, factory)
        model.set_submodule(name, norm)
        grid = settings.concepts == "grid"
        concepts = settings.grid_size**2 if grid else len(FORGED_PARTS)
        if settings.named and concepts > norm.num_features:
            raise ValueError(
                f"concepts: {settings.concepts} are {concepts} axes, but {name} has "
                f"{norm.num_features} channels"
            )


def check_data(params: Params) -> None:
    """Families and folders that stages would look for in vain.

    DVC takes away a stage's outputs before it runs it, those that git keeps as well: a folder that is
    not there should be told before.

    Raises:
        ValueError: a family that the source does not have, or a folder that is not there.
    """
    faces, chosen = params.faces, params.generalization
    known = {"rendered": FAMILIES, "photos": FAMILIES, "faceforensics": faces.videos.methods}
    families = known.get(faces.source, chosen.families)
    unknown = [family for family in chosen.families if family not in families]
    with blamed_on("generalization.families"):
        if unknown:
            raise ValueError(f"{faces.source} has no {unknown}; there are: {', '.join(families)}")
    with blamed_on("generalization.other_crops"):
        if chosen.other_crops and not (project_root() / chosen.other_crops).is_dir():
            raise ValueError(f"{chosen.other_crops}: no such folder")
    others = map(params.other_faces, params.cross_dataset.sources)
    for source in dict.fromkeys(each.source for each in (faces, *others)):
        section = source if source in ("rendered", "photos") else "videos"
        root = getattr(getattr(faces, section), "root", ".")
        with blamed_on(f"faces.{section}.root"):
            if not (project_root() / Path(root).expanduser()).is_dir():
                raise ValueError(f"{root}: no such folder")
