"""``params.yaml`` as frozen, checked objects: the only place for a number a user may tweak.

Every section is one stage's settings. An unknown, missing, mistyped or out-of-range key is an error
that names the file and the key. ``python -m fwstudy.params`` also tries the settings on the backbone,
before anything runs; with ``--resolve FOLDER`` it writes what DVC is to compare, see `write_settings`.
"""

import argparse
import copy
import difflib
import json
import re
import reprlib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

RESERVED = "baseline|batch_norm|whitened|true|false|yes|no|on|off|none|null|nan|inf|infinity"


def rule(holds: Callable[[Any], Any], message: str) -> AfterValidator:
    """A condition on a value of a section, and what is said where it does not hold."""

    def validate(value: Any) -> Any:
        if not holds(value):
            raise ValueError(message)
        return value

    return AfterValidator(validate)


def regular_expression(text: str) -> str:
    """The text, if it is one."""
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from None
    return text


Name = Annotated[
    str,
    rule(
        re.compile(rf"(?!({RESERVED})$)[a-z][a-z0-9_-]*", re.IGNORECASE).fullmatch,
        "a name begins with a letter, holds letters, digits, _ and - alone, and is none of "
        + RESERVED.replace("|", ", "),
    ),
]
"""What DVC, a shell, a path, papermill and the study all take for a name."""
Distinct = rule(lambda values: len(set(values)) == len(values), "something is listed twice")
Fraction = Annotated[float, Field(gt=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Seeds = Annotated[list[Seed], Field(min_length=1), Distinct]
Workers = Annotated[int, rule(lambda n: n > 0 or n == -1, "-1 (one per core) or at least 1")]
Names = Annotated[list[Name], Distinct]
Quality = Literal["raw", "c23", "c40"]
Qualities = Annotated[list[Quality], Distinct]
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
"""The readers of `fwstudy.faces.videos`, by name."""
SOURCES = Literal["rendered", "photos", VIDEO_SOURCES]


class Section(BaseModel):
    """A section of params.yaml: immutable, no unknown keys, no defaults hidden in code."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Rendered(Section):
    """The embedded data set: people rendered from CC0 assets.

    People lend each other their faces in pairs, and each of the three splits needs a pair of its own.
    """

    num_identities: Annotated[int, Field(ge=6, multiple_of=2)]
    clips_per_identity: Count
    frames_per_clip: Count
    part_frames: Count


class Photos(Section):
    """A folder of face photographs; relative to the project's root."""

    root: str
    identity_pattern: Annotated[str, AfterValidator(regular_expression)]


class Videos(Section):
    """A benchmark's videos; ``qualities``: the study's, then others for the test split."""

    root: str
    methods: Annotated[list[str], Distinct]
    qualities: Annotated[Qualities, Field(min_length=1)]
    frames_per_video: Count
    crop_scale: Annotated[float, Field(ge=1)]


class Faces(Section):
    """Stage ``faces``: where faces come from and how they are forged."""

    source: SOURCES
    seed: Seed
    size: Annotated[int, Field(ge=64)]
    num_workers: Workers
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
    further_test_qualities: Qualities
    crop_scale: Annotated[float, Field(ge=1)]
    crop_size: Annotated[int, Field(ge=32)]
    split: Annotated[
        Split,
        rule(
            lambda of: abs(of.train + of.validation + of.test - 1) < 1e-6,
            "train + validation + test must be 1",
        ),
    ]
    seed: Seed
    num_workers: Workers
    storage: Literal["npy", "zarr"]

    @model_validator(mode="after")
    def _each_quality_once(self) -> Self:
        if self.quality in self.further_test_qualities:
            raise ValueError(
                f"further_test_qualities: {self.quality} is preprocess.quality already"
            )
        return self


class Backbone(Section):
    """Any timm model; ``options`` go to ``timm.create_model``. ``weights``: file, ``hub`` or ``package``.

    ``options: null`` are none: DVC's ``-S`` cannot empty a mapping.
    """

    name: str
    options: Annotated[dict[str, Any], BeforeValidator(lambda given: given or {})]
    weights: str | None


class Schedule(Section):
    """One run of the optimizer; see `fwstudy.training.trainer.OPTIMIZERS` and `learning_rate_factor`."""

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

    seeds: Seeds
    batch_size: Annotated[int, Field(ge=2, multiple_of=2)]
    partial_forgery_ratio: Share
    self_blended_ratio: Share
    launch: Launch
    backbone: Backbone
    baseline: Schedule
    fine_tune: Schedule

    @model_validator(mode="after")
    def _processes_share_the_batch(self) -> Self:
        pairs, processes = self.batch_size // 2, self.launch.num_processes
        if pairs % processes:
            raise ValueError(
                f"launch.num_processes: {processes} processes cannot share the {pairs} pairs of a "
                "batch (train.batch_size) evenly"
            )
        return self


class Whitening(Section):
    """The feature whitening module that replaces one norm layer, and its rotation."""

    norm: Literal["batch", "whitening", "iternorm"]
    layer: str
    num_groups: Count
    solver: Literal["eigh", "cholesky", "newton_schulz"]
    newton_steps: Count
    shrinkage: Share | Literal["oas"]
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

    @model_validator(mode="after")
    def _no_conflict(self) -> Self:
        if self.layer != "last" and (self.bottleneck or self.concept_weight):
            raise ValueError(
                "bottleneck and concept_weight must be 0 unless layer is `last`: "
                "no verdict is read there"
            )
        if self.norm == "batch" and self.rotation != "none":
            raise ValueError("norm: batch has no axes to turn, so rotation must be none")
        if self.bottleneck and not self.named:
            raise ValueError(
                "bottleneck needs concept axes: rotation: aligned, or concept_weight above 0"
            )
        return self


class Ablations(Section):
    """Stage ``variant@name-seed``: each variant lists what differs from `Whitening`'s values.

    ``base`` in it names another variant, whose values it has where it gives none of its own.
    """

    seeds: Seeds
    run: Names
    variants: dict[Name, dict[str, Any]]

    @field_validator("run", mode="before")
    @classmethod
    def _list(cls, given: Any) -> Any:
        if isinstance(given, str):  # of which DVC makes no stage, and says no key
            raise ValueError("must be a list; `python -m fwstudy.profiles full` writes it")  # noqa: TRY004
        return given

    @model_validator(mode="after")
    def _known(self) -> Self:
        unknown = [name for name in self.run if name not in self.variants]
        if unknown:
            raise ValueError(f"run: {unknown} are not among ablations.variants")
        return self


class Generalization(Section):
    """Stages ``leave_one_out@family-seed`` and ``generalization``: families and sources never trained on."""

    families: Names
    seeds: Seeds
    other_crops: str | None


class CrossDataset(Section):
    """Stages ``other_crops@source``, ``cross_train@…`` and ``cross_dataset``: a second data set."""

    sources: Annotated[list[SOURCES], Distinct]
    trainings: Annotated[list[Literal["other", "both", "self_blended"]], Distinct]
    seed: Seed


class Interpretability(Section):
    """How many images every method explains; curves of deletion take half of them."""

    num_images: Annotated[int, Field(ge=2)]


class Network(Section):
    """An architecture of timm, with the dotted name of the layer before its pooling."""

    layer: str
    options: Annotated[dict[str, Any], BeforeValidator(lambda given: given or {})]


class Explanations(Section):
    """Stage ``explanations``: what explainers are ranked on. ``networks``: by name; trained from scratch."""

    num_images: Count
    num_attacked: Count
    networks: dict[str, Network]
    schedule: Schedule


def file_of(*suffixes: str) -> Any:
    """The name of a file that ends in one of these, or None."""
    message = f"a file that ends in {' or '.join(suffixes)}; nothing else is read, no pickle either"
    return Annotated[str, rule(lambda name: Path(name).suffix in suffixes, message)] | None


Channels = Annotated[list[float], Field(min_length=3, max_length=3)] | None


class OutsideDetector(Section):
    """Stage ``score``: a detector that was not trained here; files are relative to ``data/detectors``.

    It is one of ``module`` (``package.module:function``, which returns a torch module), ``timm`` (the name
    of an architecture) with its ``weights``, ``onnx``, or ``scores`` for exported crops, with ``maps``.
    Networks see images of ``size`` pixels, (x - mean) / std of x in [0, 1]; without these keys, what the
    study's own models see: its crops, in [-1, 1]. ``layer``: dotted name, for maps of a layer.
    """

    name: Name
    module: (
        Annotated[str, rule(re.compile(r"[\w.]+:\w+").fullmatch, "must be package.module:function")]
        | None
    ) = None
    timm: str | None = None
    weights: file_of(".safetensors") = None
    onnx: file_of(".onnx") = None
    scores: file_of(".csv") = None
    maps: str | None = None
    layer: str | None = None
    size: Count | None = None
    mean: Channels = None
    std: Annotated[list[Positive], Field(min_length=3, max_length=3)] | None = None

    @property
    def kind(self) -> str:
        """Which of `KINDS` it is."""
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    @property
    def source(self) -> str:
        """What it was read from, for messages: detector and file."""
        return f"detector {self.name} ({self.weights or getattr(self, self.kind)})"

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = {name for name, value in self if value is not None} - {"name"}
        kinds = [kind for kind in KINDS if kind in given]
        if len(kinds) != 1:
            found = " and ".join(kinds) or "none"
            raise ValueError(f"must have exactly one of {', '.join(KINDS)}; it has {found}")
        unused = sorted(given - KINDS[kinds[0]] - {*kinds})
        if unused:
            raise ValueError(f"{', '.join(unused)}: of no use beside {kinds[0]}")
        if self.timm and not self.weights:
            raise ValueError("timm needs weights, a .safetensors file")
        return self


NETWORK = {"size", "mean", "std"}
KINDS = {
    "module": NETWORK | {"layer"},
    "timm": NETWORK | {"layer", "weights"},
    "onnx": NETWORK,
    "scores": {"maps"},
}
"""The kinds of `OutsideDetector`, and which further keys each has a use for."""


class Params(Section):
    """All of params.yaml."""

    faces: Faces
    preprocess: Preprocess
    train: Train
    whitening: Whitening
    ablations: Ablations
    generalization: Generalization
    cross_dataset: CrossDataset
    interpretability: Interpretability
    explanations: Explanations
    detectors: list[OutsideDetector]
    profiles: dict[str, dict[str, Any]]

    @property
    def of_videos(self) -> bool:
        """Whether the faces come from videos, which are neither forged nor compressed here."""
        return self.faces.source in get_args(VIDEO_SOURCES)

    @property
    def crop_scale(self) -> float:
        """Side of a face crop ÷ longer side of the box around its landmarks."""
        return self.faces.videos.crop_scale if self.of_videos else self.preprocess.crop_scale

    def other_faces(self, source: str) -> Faces:
        """The settings of a second data set: another source, or rendered people where it is the study's."""
        other = "rendered" if source == self.faces.source else source
        return self.faces.model_copy(update={"source": other})

    def variant(self, name: str) -> Whitening:
        """The whitening settings of one ablation variant: its own, its bases', the section's.

        Raises:
            KeyError: no such variant; the message lists those there are.
        """
        variants = self.ablations.variants
        if name not in variants:
            known = ", ".join(variants)
            raise KeyError(f"params.yaml: no variant ablations.variants.{name}; there are: {known}")
        changes = inherited(variants, name, "ablations.variants")
        try:
            return Whitening(**self.whitening.model_dump() | changes)
        except ValidationError as error:
            problems = describe(error, Whitening, "ablations", "variants", name)
            raise ValueError(problems) from None

    def profile(self, name: str) -> dict[str, Any]:
        """The values of one profile, by dotted key; ``ablations.run: full`` is all variants.

        Raises:
            ValueError: no such profile; the message lists those there are.
        """
        if name not in self.profiles:
            known = ", ".join(self.profiles)
            raise ValueError(f"params.yaml: no profile {name!r}; there are: {known}")
        values = inherited(self.profiles, name, "profiles")
        if values.get("ablations.run") == "full":
            values["ablations.run"] = list(self.ablations.variants)
        return values

    @model_validator(mode="after")
    def _frames_fit_their_codec(self) -> Self:
        if not self.of_videos and self.faces.size % 2:
            raise ValueError(
                f"faces.size: {self.faces.size}; frames that H.264 encodes here must be even"
            )
        given = self.faces.videos.qualities
        wanted = [self.preprocess.quality, *self.preprocess.further_test_qualities]
        if self.of_videos and wanted != given:
            raise ValueError(
                f"faces.videos.qualities: {given}; videos (faces.source) are not compressed again, so "
                "preprocess.quality must be the first and preprocess.further_test_qualities the rest "
                f"(they are {wanted})"
            )
        return self

    @model_validator(mode="after")
    def _default_model_and_variants(self) -> Self:
        default = self.whitening
        if (default.norm, default.rotation, default.layer) != ("whitening", "aligned", "last"):
            raise ValueError(
                "whitening: the study's default model needs norm: whitening, rotation: aligned and "
                "layer: last; declare anything else under ablations.variants"
            )
        variants = self.ablations.variants
        for name in variants:
            self.variant(name)
        for name in ("ablations", "generalization"):
            missing = sorted(set(getattr(self, name).seeds) - set(self.train.seeds))
            if missing:
                raise ValueError(f"{name}.seeds: {missing} are not among train.seeds")
        if self.cross_dataset.seed not in self.train.seeds:
            raise ValueError(
                f"cross_dataset.seed: {self.cross_dataset.seed} is not among train.seeds"
            )
        others = [self.other_faces(source).source for source in self.cross_dataset.sources]
        if len({self.faces.source, *others}) <= len(others):
            raise ValueError(
                f"cross_dataset.sources: {self.cross_dataset.sources} name a data set twice, or the study's "
                f"own (faces.source: {self.faces.source}); the study's own stands for rendered people"
            )
        names = [detector.name for detector in self.detectors]
        twice = sorted({name for name in names if names.count(name) > 1} | {*names} & {*variants})
        if twice:
            raise ValueError(f"detectors: {twice}: a detector or a variant has that name already")
        return self


def inherited(table: dict[str, dict], name: str, place: str) -> dict[str, Any]:
    """The values of an entry of a table, and those of its bases where it has none of its own.

    Args:
        table: by name; ``base`` in an entry is the name of another.
        place: dotted key of the table, for messages.

    Raises:
        ValueError: a base that is not there, or a circle of bases; names the key.
    """
    chain = [name]
    while (base := table[chain[-1]].get("base")) is not None:
        key = f"{place}.{chain[-1]}.base"
        if not isinstance(base, str) or base not in table:
            raise ValueError(f"{key}: {base!r} is not among {place}: {', '.join(table)}")
        if base in chain:
            raise ValueError(f"{key}: a circle, {' -> '.join([*chain, base])}")
        chain.append(base)
    values = {key: value for entry in reversed(chain) for key, value in table[entry].items()}
    return {key: value for key, value in values.items() if key != "base"}


def describe(error: ValidationError, model: type[BaseModel], *place: str) -> str:
    """One line a problem: the dotted key and what is wrong with it.

    Args:
        model: that the values were checked by.
        place: where in params.yaml they stand.
    """
    return "\n  ".join(_line(problem, model, place) for problem in error.errors())


def _line(problem: dict, model: Any, place: tuple) -> str:
    *sections, name = problem["loc"] or [""]
    key = ".".join(map(str, (*place, *problem["loc"])))
    if problem["type"] == "extra_forbidden":
        for section in sections:
            fields = getattr(model, "model_fields", {})  # a list or a table of sections has none
            model = fields[section].annotation if section in fields else get_args(model)[-1]
        close = difflib.get_close_matches(str(name), model.model_fields, 1)
        there_are = f"did you mean {close[0]}?" if close else ", ".join(model.model_fields)
        return f"{key}: there is no such key; {there_are}"
    if problem["type"] == "value_error":
        message = str(problem["ctx"]["error"])
        of_section = isinstance(problem["input"], dict)
        joint = "." if re.match(r"[\w.]+: ", message) and of_section else ": "
        return joint.join(filter(None, [key, message]))
    got = "" if isinstance(problem["input"], dict) else f" (got {reprlib.repr(problem['input'])})"
    return f"{key}: {problem['msg']}{got}"


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


def read(text: str) -> Any:
    """YAML as DVC reads it: version 1.2, no key twice."""
    return YAML(typ="safe", pure=True).load(text)


def load_params(path: Path | str = "params.yaml") -> Params:
    """Read and check params.yaml, every variant and every profile included.

    Raises:
        ValueError: naming the file and every key that is unknown, missing or has an illegal value.
    """
    try:
        content = read(Path(path).read_text(encoding="utf-8"))
    except YAMLError as error:
        mark, problem = (getattr(error, f"problem{end}", None) for end in ("_mark", ""))
        line = f"line {mark.line + 1}" if mark else "no YAML"
        problem = problem or " ".join(str(error).split())
        raise ValueError(f"{path}: {line}: {problem} (indent with blanks, no tabs)") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: no text in UTF-8: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a mapping of sections, got {type(content).__name__}")  # noqa: TRY004
    params = checked(content, str(path))
    for name in params.profiles:
        place, alone = f"{path}: profiles.{name}", {"train.launch.num_processes": 1}
        try:  # not against the number of GPUs of this machine
            checked(applied(copy.deepcopy(content), alone | params.profile(name)), place)
        except KeyError as error:
            raise ValueError(f"{place}: there is no key {error}") from None
    return params


def checked(content: dict, path: str) -> Params:
    """The sections as objects, if all is well.

    Raises:
        ValueError: see `load_params`.
    """
    try:
        return Params(**content)
    except ValidationError as error:
        raise ValueError(f"{path}:\n  {describe(error, Params)}") from None


def write_settings(params: Params, folder: Path) -> None:
    """One file for each variant that is run, of all its settings, inherited ones included.

    DVC compares these: it cannot see in params.yaml what a variant inherits.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in params.ablations.run:
        text = json.dumps(params.variant(name).model_dump(), indent=1)
        (folder / f"{name}.json").write_text(f"{text}\n", encoding="utf-8")


def main() -> None:
    """Check params.yaml, or write what it means for each variant."""
    parser = argparse.ArgumentParser(description="Check params.yaml against the backbone.")
    parser.add_argument("--resolve", metavar="FOLDER", type=Path, help="write variants there")
    folder = parser.parse_args().resolve
    try:
        params = load_params()
        if folder:
            write_settings(params, folder)
        else:
            from fwstudy.training.check import check_models  # takes seconds

            check_models(params)
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
