"""``params.yaml`` as frozen, checked objects: the only place for a number a user may tweak.

Every section is one stage's settings. An unknown, missing, mistyped or out-of-range key is an error
that names the file and the key, before anything runs.
"""

import copy
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

Fraction = Annotated[float, Field(gt=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Quality = Literal["raw", "c23", "c40"]
VIDEO_SOURCES = Literal[
    "faceforensics",
    "celeb_df",
    "dfdc",
    "dfdc_preview",
    "deepfakebench",
    "ffiw",
    "openforensics",
    "folder",
]


class Section(BaseModel):
    """A section of params.yaml: immutable, no unknown keys, no defaults hidden in code."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Rendered(Section):
    """The embedded data set: people rendered from CC0 assets."""

    num_identities: Annotated[int, Field(ge=2, multiple_of=2)]
    clips_per_identity: Count
    frames_per_clip: Count
    part_frames: Count


class Photos(Section):
    """A folder of face photographs; relative to the project's root."""

    root: str
    identity_pattern: str


class Videos(Section):
    """A benchmark's videos; ``qualities``: the study's, then others for the test split."""

    root: str
    methods: list[str]
    qualities: Annotated[list[Quality], Field(min_length=1)]
    frames_per_video: Count
    crop_scale: Annotated[float, Field(ge=1)]


class Faces(Section):
    """Stage ``faces``: where faces come from and how they are forged."""

    source: Literal["rendered", "photos", VIDEO_SOURCES]
    seed: int
    size: Annotated[int, Field(ge=64)]
    num_workers: int
    scheduler: str | None
    rendered: Rendered
    photos: Photos
    videos: Videos


class Split(Section):
    """Shares of the identities (connected through swaps) in each split."""

    train: Fraction
    validation: Fraction
    test: Fraction


class Preprocess(Section):
    """Stage ``preprocess``: codec, face crop, split."""

    quality: Quality
    further_test_qualities: list[Quality]
    crop_scale: Annotated[float, Field(ge=1)]
    crop_size: Annotated[int, Field(ge=32)]
    split: Split
    seed: int
    num_workers: int
    storage: Literal["npy", "zarr"]


class Backbone(Section):
    """Any timm model; ``options`` go to ``timm.create_model``. ``weights``: a safetensors file, or ``hub``."""

    name: str
    options: dict
    weights: str | None


class Schedule(Section):
    """One run of the optimiser; see `fwstudy.training.trainer.OPTIMIZERS` and `learning_rate_factor`."""

    steps: Count
    optimizer: Literal["adamw", "adam", "sgd"]
    learning_rate: Positive
    decay: Literal["cosine", "none"] | Annotated[list[Fraction], Field(min_length=1)]
    weight_decay: Annotated[float, Field(ge=0)]
    evaluation_interval: Count


class Launch(Section):
    """Processes that train one model together; workers that fail are started anew."""

    num_processes: Count
    max_restarts: Annotated[int, Field(ge=0)]


class Train(Section):
    """Stage ``train``: the BatchNorm baseline and the schedule of every fine-tuned model."""

    seeds: Annotated[list[int], Field(min_length=1)]
    batch_size: Annotated[int, Field(ge=2, multiple_of=2)]
    partial_forgery_ratio: Share
    launch: Launch
    backbone: Backbone
    baseline: Schedule
    fine_tune: Schedule


class Whitening(Section):
    """The feature whitening module that replaces one norm layer, and its rotation."""

    norm: Literal["batch", "whitening", "iternorm"]
    layer: str
    num_groups: Count
    solver: str
    newton_steps: Count
    shrinkage: float | str
    whiten_every: Count
    rotation: Literal["none", "random", "aligned"]
    rotate_every: Count
    concepts: Literal["grid", "parts", "forged_parts"]
    grid_size: Annotated[int, Field(ge=2)]
    activation: Literal["softplus", "backbone"]
    concept_weight: Annotated[float, Field(ge=0)]
    bottleneck: Share
    random_labels: bool

    @property
    def named(self) -> bool:
        """Whether the first axes stand for concepts."""
        return self.concept_weight > 0 or self.norm != "batch" and self.rotation == "aligned"


class Ablations(Section):
    """Stage ``ablation@variant-seed``: each variant lists what differs from `Whitening`'s values.

    ``essential`` and ``full`` are lists to choose ``run`` from.
    """

    seeds: Annotated[list[int], Field(min_length=1)]
    essential: list[str]
    full: list[str]
    run: list[str]
    variants: dict[str, dict]


class Generalization(Section):
    """Stages ``leave_one_out@family-seed`` and ``generalization``: families and sources never trained on."""

    families: list[str]
    seeds: Annotated[list[int], Field(min_length=1)]
    other_crops: str | None


class Interpretability(Section):
    """Stage ``interpretability``: how much is shown."""

    faces_per_axis: Count
    num_images: Count


class Params(Section):
    """All of params.yaml."""

    faces: Faces
    preprocess: Preprocess
    train: Train
    whitening: Whitening
    ablations: Ablations
    generalization: Generalization
    interpretability: Interpretability
    profiles: dict[str, dict[str, Any]]

    @property
    def crop_scale(self) -> float:
        """Side of a face crop ÷ longer side of the box around its landmarks."""
        of_videos = self.faces.source in get_args(VIDEO_SOURCES)
        return self.faces.videos.crop_scale if of_videos else self.preprocess.crop_scale

    def variant(self, name: str) -> Whitening:
        """The whitening settings of one ablation variant.

        Raises:
            KeyError: no such variant; the message lists those there are.
        """
        if name not in self.ablations.variants:
            known = ", ".join(self.ablations.variants)
            raise KeyError(f"params.yaml: no variant ablations.variants.{name}; there are: {known}")
        return Whitening(**{**self.whitening.model_dump(), **self.ablations.variants[name]})


def describe(error: ValidationError, prefix: str = "") -> str:
    """One line a problem: the dotted key and what is wrong with it."""
    return "\n".join(
        f"  {prefix}{'.'.join(map(str, problem['loc']))}: {problem['msg']} (got {problem['input']!r})"
        for problem in error.errors()
    )


def conflicts(settings: Whitening) -> str:
    """Which settings exclude each other, in words that name the keys; empty where none do."""
    if settings.layer != "last" and (settings.bottleneck or settings.concept_weight):
        return "bottleneck and concept_weight must be 0 unless layer is `last`: no verdict is read there"
    if settings.norm == "batch" and settings.rotation != "none":
        return "norm: batch has no axes to turn, so rotation must be none"
    if settings.bottleneck and not settings.named:
        return "bottleneck needs concept axes: rotation: aligned, or concept_weight above 0"
    return ""


def applied(content: dict, values: dict[str, Any]) -> dict:
    """Set dotted keys of nested mappings, in place.

    Raises:
        KeyError: a key that is not there already (named).
    """
    for key, value in values.items():
        *sections, name = key.split(".")
        place = content
        for section in sections:
            place = place[section] if isinstance(place, dict) and section in place else None
        if not isinstance(place, dict) or (name not in place and sections[:1] != ["ablations"]):
            raise KeyError(key)
        place[name] = value
    return content


def load_params(path: Path | str = "params.yaml") -> Params:
    """Read and check params.yaml, every ablation variant included.

    Raises:
        ValueError: naming the file and every key that is unknown, missing or has an illegal value.
    """
    with open(path, encoding="utf-8") as file:
        content = yaml.safe_load(file)
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a mapping of sections, got {type(content).__name__}")  # noqa: TRY004
    params = checked(content, str(path))
    for name, values in params.profiles.items():
        place = f"{path}: profiles.{name}"
        try:
            checked(applied(copy.deepcopy(content), values), place)
        except KeyError as error:
            raise ValueError(f"{place}: there is no key {error}") from None
    return params


def checked(content: dict, path: str) -> Params:
    """The sections as objects, if all is well.

    Raises:
        ValueError: see `load_params`.
    """
    try:
        params = Params(**content)
    except ValidationError as error:
        raise ValueError(f"{path}:\n{describe(error)}") from None
    total = params.preprocess.split.train + params.preprocess.split.validation
    if abs(total + params.preprocess.split.test - 1) > 1e-6:
        raise ValueError(f"{path}:\n  preprocess.split: train + validation + test must be 1")
    pairs, processes = params.train.batch_size // 2, params.train.launch.num_processes
    if pairs % processes:
        raise ValueError(
            f"{path}:\n  train.launch.num_processes: {processes} processes cannot share the {pairs} "
            "pairs of a batch (train.batch_size) evenly"
        )
    if params.faces.source not in get_args(VIDEO_SOURCES) and params.faces.size % 2:
        raise ValueError(
            f"{path}:\n  faces.size: {params.faces.size}; frames that H.264 encodes here must be even"
        )
    videos, preprocess = params.faces.videos, params.preprocess
    wanted = [preprocess.quality, *preprocess.further_test_qualities]
    if params.faces.source in get_args(VIDEO_SOURCES) and wanted != videos.qualities:
        raise ValueError(
            f"{path}:\n  faces.videos.qualities: {videos.qualities}; videos are not compressed again, so "
            "preprocess.quality must be the first and preprocess.further_test_qualities the rest "
            f"(they are {wanted})"
        )
    default = params.whitening
    if (default.norm, default.rotation, default.layer) != ("whitening", "aligned", "last"):
        raise ValueError(
            f"{path}:\n  whitening: the study's default model needs norm: whitening, rotation: "
            "aligned and layer: last; declare anything else under ablations.variants"
        )
    for name in ("ablations", "generalization"):
        missing = sorted(set(getattr(params, name).seeds) - set(params.train.seeds))
        if missing:
            raise ValueError(f"{path}:\n  {name}.seeds: {missing} are not among train.seeds")
    for key in ("essential", "full", "run"):
        names = getattr(params.ablations, key)
        unknown = [name for name in names if name not in params.ablations.variants]
        if unknown:
            raise ValueError(
                f"{path}:\n  ablations.{key}: {unknown} are not among ablations.variants"
            )
        if len(set(names)) < len(names):
            raise ValueError(f"{path}:\n  ablations.{key}: a variant is named twice")
    for name in params.ablations.variants:
        try:
            impossible = conflicts(params.variant(name))
        except ValidationError as error:
            raise ValueError(f"{path}:\n{describe(error, f'ablations.variants.{name}.')}") from None
        if impossible:
            raise ValueError(f"{path}:\n  ablations.variants.{name}: {impossible}")
    return params


if __name__ == "__main__":
    try:
        load_params()
    except ValueError as error:
        raise SystemExit(f"error: {error}") from None
