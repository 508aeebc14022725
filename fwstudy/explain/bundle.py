"""The bundle: a trained detector as three files, and which detector a project explains with.

``detector.json`` holds the architecture, the names of the concept axes, the calibration, how faces are
cut and what it was trained on; ``detector.safetensors`` the weights (``model.``), the reference of the
training data (``reference.``) and the typical evidence; ``SHA256SUMS`` the checksums of both, as
``sha256sum --check`` reads them.
"""

import hashlib
import json
from dataclasses import fields
from pathlib import Path

import safetensors.torch
import torch

from fwstudy.explain.detector import MahalanobisOOD, TrainedExplainer, build, make_trained
from fwstudy.params import Params, load_params
from fwstudy.runtime import partial_folder

ROOMS = ("crops", "explain", "interpretability/calibration.py", "labels.py", "runtime.py")
ROOMS += ("training", "whitening")

SHIPPED = Path("data", "assets", "detector")
SETTINGS, TENSORS, SUMS = "detector.json", "detector.safetensors", "SHA256SUMS"
WHITENING = ("num_groups", "solver", "shrinkage", "whiten_every")
IN_WORDS = (
    "architecture", "names", "slope", "intercept", "crop_size", "crop_scale", "data", "seed",
)  # fmt: skip
REFERENCE = tuple(field.name for field in fields(MahalanobisOOD))
KINDS = {"photos": "photographed"}  # what to call the faces of a source


def write(trained: TrainedExplainer, folder: Path) -> None:
    """Write a detector as a bundle; the checksums come last, so that without them it is unfinished."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"model.{name}": value for name, value in trained.model.state_dict().items()}
    tensors |= {
        f"reference.{name}": torch.from_numpy(getattr(trained.reference, name))
        for name in REFERENCE
    }
    tensors["typical"] = torch.from_numpy(trained.typical)
    tensors = {name: value.cpu().contiguous() for name, value in tensors.items()}
    (folder / TENSORS).write_bytes(safetensors.torch.save(tensors))
    settings = {name: getattr(trained, name) for name in IN_WORDS}
    (folder / SETTINGS).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    sums = "".join(f"{_sum(folder / name)}  {name}\n" for name in (SETTINGS, TENSORS))
    (folder / SUMS).write_text(sums, encoding="utf-8")


def read(folder: Path, origin: str = "") -> TrainedExplainer:
    """Read a bundle; what it gives is what was written.

    Raises:
        ValueError: a file is missing, truncated or altered, or does not fit this version; the message
            names it.
    """
    for name in (SUMS, SETTINGS, TENSORS):
        if not (folder / name).is_file():
            raise ValueError(f"{folder / name} is missing: restore it, or write the detector anew")
    known = (folder / SUMS).read_text(encoding="utf-8").splitlines()
    for name in (SETTINGS, TENSORS):
        if f"{_sum(folder / name)}  {name}" not in known:
            raise ValueError(
                f"{folder / name} is truncated or altered (its checksum is not that of {SUMS}): "
                "restore it, or write the detector anew"
            )
    settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    tensors = safetensors.torch.load_file(folder / TENSORS)
    try:
        model, layer = build(settings["architecture"])
        state = {name: value for name, value in tensors.items() if name.startswith("model.")}
        model.load_state_dict({name.removeprefix("model."): state[name] for name in state})
        reference = {name: tensors[f"reference.{name}"].numpy() for name in REFERENCE}
        about = {name: settings[name] for name in IN_WORDS} | {"names": tuple(settings["names"])}
        typical = tensors["typical"].numpy()
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{folder / SETTINGS} does not fit this version: {error}") from error
    return TrainedExplainer(
        model, layer, reference=MahalanobisOOD(**reference), typical=typical, origin=origin, **about
    )


def find(root: Path, own: bool = False) -> TrainedExplainer:
    """The detector a project explains with: its own where it has trained one, else the shipped one.

    Its own is calibrated once and kept as a bundle in ``data/partial``, until its weights, its crops,
    its settings or the code change.

    Args:
        own: the shipped one does not count.

    Raises:
        ValueError: there is none; or a file cannot be used (named).
    """
    params = load_params(root / "params.yaml")
    weights = root / "data" / "models" / f"seed{params.train.seeds[0]}" / "whitened.safetensors"
    manifest = root / "data" / "crops" / "manifest.csv"
    if not weights.is_file():
        if (root / SHIPPED / SUMS).is_file() and not own:
            return read(root / SHIPPED, f"the one that comes with the study ({SHIPPED})")
        raise ValueError(
            f"no trained model yet ({weights.relative_to(root)} is missing): run `make repro` first"
        )
    if not manifest.is_file():
        raise ValueError(f"{manifest} is missing, by which the model is calibrated: `make repro`")
    what = {name: getattr(params, name).model_dump() for name in ("whitening", "preprocess")}
    what |= {"backbone": params.train.backbone.model_dump(), "seed": params.train.seeds[0]}
    what |= {"source": params.faces.source, "crop_scale": params.crop_scale}
    folder = partial_folder("detector", what, [weights, manifest], rooms=ROOMS)
    if not (folder / SUMS).is_file():
        write(of_study(root, params), folder)
    return read(folder, f"your own ({weights.relative_to(root)})")


def of_study(root: Path, params: Params) -> TrainedExplainer:
    """The study's whitened model of the first training seed, calibrated on its validation faces.

    Raises:
        ValueError: weights or crops cannot be used (named).
    """
    from fwstudy.crops.cropset import CropSet
    from fwstudy.training.concept_sets import CONCEPT_SETS
    from fwstudy.training.runs import WHITENED, find_run, load  # slow to import, and needed once

    settings, preprocess, seed = params.whitening, params.preprocess, params.train.seeds[0]
    detector = load(find_run(params, WHITENED, seed), params)
    crops = CropSet.open(root / "data" / "crops").select(quality=preprocess.quality)
    images = CONCEPT_SETS[settings.concepts].images
    concepts = images(crops.select(split="train"), 1, seed, settings.grid_size)
    architecture = {
        "backbone": params.train.backbone.name,
        "options": params.train.backbone.options or {},
        "layer": detector.layer_name,
        "whitening": {name: getattr(detector.layer, name) for name in WHITENING},
        "activation": None
        if settings.activation == "backbone"
        else type(detector.layer.act).__name__,
    }
    return make_trained(
        detector.model,
        detector.layer,
        [concept.name for concept in concepts],
        crops,
        architecture=architecture,
        crop_size=preprocess.crop_size,
        crop_scale=params.crop_scale,
        data=f"{KINDS.get(params.faces.source, params.faces.source)} faces, {preprocess.quality}",
        seed=seed,
    )


def _sum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
