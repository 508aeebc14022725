"""What the study measures of its own models, of detectors that were not trained here.

The rows have the columns of `fwstudy.interpretability.measures`, and a remark. What a detector cannot
give is a row without a value, whose remark says why. A detector or a topic that fails does not keep
others from being measured.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from fwstudy.crops.cropset import CropSet
from fwstudy.evaluation.metrics import detection_table
from fwstudy.interpretability import faithfulness, localization
from fwstudy.interpretability.calibration import Calibration, calibrate, calibration_table
from fwstudy.interpretability.explainers import EXPLAINERS, NEEDS
from fwstudy.interpretability.measures import (
    COLUMNS,
    codec_topic,
    deletion_topic,
    localization_topic,
    part_topic,
    randomization_topic,
    restoration_topic,
    row,
    stability_topic,
)
from fwstudy.interpretability.model import QUICK, Method, Subject
from fwstudy.labels import ORIGINAL
from fwstudy.outside.adapters import adapted, lacking, present
from fwstudy.outside.files import coverage, crop_ids, list_maps, read_maps, read_scores, some
from fwstudy.params import OutsideDetector, Params
from fwstudy.runtime import default_device
from fwstudy.training.runs import PREDICTION_COLUMNS, Detector, score

OUTSIDE_COLUMNS = [*COLUMNS, "remark"]
HANDED_BACK = "own maps"
CHECKED = ("Grad-CAM", "integrated gradients", "occlusion")  # the first there is: sanity is dear
REVERSED = 0.35  # below this AUC on every family, the labels are likely to be the other way round
NOT_RUN = "only what it handed back is known: it cannot be run on other images"
NO_MAPS = "it handed back no maps of forged test images"
NO_VALUE = "there is no image on which it is defined"
NO_VALIDATION = "no scores of originals and forgeries of the split validation"
NO_TEST = "no scores of originals and forgeries of the split test"


@dataclass(frozen=True)
class Recorded(Subject):
    """A detector of which maps alone are known; its crops are those that have one.

    Args:
        paths: of the maps, by row of the crop set.
    """

    paths: dict[int, Path] = field(default_factory=dict)

    @cached_property
    def methods(self) -> dict[Method, None]:
        """The maps it came with."""
        return {(self.name, HANDED_BACK): None}

    def maps(self, key: Method, crops: CropSet) -> np.ndarray:
        """See `Subject.maps`."""
        return read_maps([self.paths[n] for n in crops.manifest["row"]], crops.images.shape[1])


@dataclass(frozen=True)
class Known:
    """What is known of a detector.

    Args:
        subject: what maps are made by, or read from.
        further: its test crops of the other qualities, by quality.
        predictions: from `fwstudy.training.runs.score`, of whole faces of validation and test.
        lacks: what it cannot be asked for, ``gradients``, ``layer``, ``maps``, ``runs``, ``weights``,
            and why.
        quality: the study's, at which validation is.
        covered: rows on what was handed back.
        refused: explainers that it cannot be asked for, and why.
    """

    subject: Subject
    further: dict[str, CropSet]
    predictions: pd.DataFrame
    lacks: dict[str, str]
    quality: str
    covered: list[dict] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)

    @property
    def validation(self) -> pd.DataFrame:
        """Predictions on the split validation; none where a class is missing."""
        found = self.predictions[self.predictions["split"] == "validation"]
        return found if found["label"].nunique() == 2 else found[:0]


def whole_faces(crops: CropSet, quality: str) -> CropSet:
    """Whole faces of validation at the study's quality, and of test at every quality."""
    whole = crops.select(kind="whole", split=["validation", "test"])
    kept = (whole.manifest["split"] == "test") | (whole.manifest["quality"] == quality)
    return whole.take(np.flatnonzero(kept))


def qualities(crops: CropSet, params: Params) -> dict[str, CropSet]:
    """Test crops of the further qualities, by quality."""
    further = params.preprocess.further_test_qualities
    return {quality: crops.select(split="test", quality=quality) for quality in further}


def paired(crops: CropSet, quality: str, lacks: dict[str, str]) -> CropSet:
    """Crops of a quality that have their original; where a split has none, ``lacks`` then says so."""
    chosen = crops.select(quality=quality)
    try:
        return chosen.paired()
    except ValueError as error:
        lacks["maps"] = str(error)
        return chosen.take(slice(0))


def run_network(about: OutsideDetector, params: Params, crops: CropSet, folder: Path) -> Known:
    """A network, scored on the crops.

    Raises:
        ValueError: it cannot be made or run, or returns what is no number; names detector and file.
    """
    quality, adapter = params.preprocess.quality, adapted(about, folder).to(default_device())
    with torch.inference_mode():
        adapter(crops.evenly(2).tensor(default_device()))  # another shape is told before all is run
    lacks = lacking(adapter, about, crops.images.shape[1])
    layer = f"model.{about.layer}" if about.layer else "model"
    detector = Detector(adapter, layer, pd.DataFrame())
    cannot = refused(detector, lacks, crops)
    quick = {name: explain for name, explain in QUICK.items() if name not in cannot}
    predictions = score(detector, whole_faces(crops, quality))
    wrong = predictions.loc[~np.isfinite(predictions["score"]), "row"]
    if len(wrong):
        ids = crop_ids(crops.manifest[crops.manifest["row"].isin(wrong)])
        raise ValueError(f"{about.source} returned NaN or infinity for {some(ids)} images")
    subject = Subject(
        about.name,
        detector,
        None,
        paired(crops, quality, lacks),
        seed=0,
        num_images=params.interpretability.num_images,
        explainers=quick,
        checked=tuple(name for name in CHECKED if name in quick)[:1],
    )
    return Known(subject, qualities(crops, params), predictions, lacks, quality, refused=cannot)


def refused(detector: Detector, lacks: dict[str, str], crops: CropSet) -> dict[str, str]:
    """Explainers that a network lacks something for, or that fail on a crop, and why."""
    one, found = crops.take(slice(1)).tensor(default_device()), {}
    for name, needs in NEEDS.items():
        why = [lacks[need] for need in sorted(needs & lacks.keys())]
        try:
            if needs and not why:
                EXPLAINERS[name](detector.model, detector.layer, one)
        except Exception as error:  # noqa: BLE001  a layer without maps, pixels that lose their gradient
            why = [f"{type(error).__name__}: {error}"]
        if why:
            found[name] = why[0]
    return found


def read_recorded(about: OutsideDetector, params: Params, crops: CropSet, folder: Path) -> Known:
    """A detector of which scores, and perhaps maps, were handed back for exported crops.

    Raises:
        ValueError: files that cannot be used, or no id in them that a crop has; names detector and file.
    """
    path = present(about, folder, about.scores)
    try:
        scores = read_scores(path)
    except ValueError as error:
        raise ValueError(f"detector {about.name}: {error}") from error
    named = crops.manifest.assign(id=crop_ids(crops.manifest))
    if not named["id"].isin(scores.index).any():
        raise ValueError(
            f"detector {about.name}: {path}: no id is one of this crop set, e.g. {scores.index[:1].tolist()}"
            f" where {named['id'].iloc[0]} is wanted; export the crops anew"
        )
    every, quality = set(named["id"]), params.preprocess.quality
    asked = named.loc[whole_faces(crops, quality).manifest.index]
    covered = covering("scored", about.name, coverage("score", asked, scores.index, every))
    columns = [*PREDICTION_COLUMNS, *({"video"} & set(named))]
    predictions = asked[columns].assign(score=asked["id"].map(scores)).dropna(subset="score")
    lacks, maps = {"runs": NOT_RUN, "maps": NO_MAPS}, {}
    try:
        if about.maps:
            place = folder / Path(about.maps).expanduser()
            maps, remark = list_maps(place, crops.images.shape[1])
    except ValueError as error:
        lacks["maps"] = f"{about.source}: {error}"
    forged = named[(named["variant"] != ORIGINAL) & (named["split"] == "test")]
    paths = {
        place: maps[name]
        for place, name in zip(forged["row"], forged["id"], strict=True)
        if name in maps
    }
    if paths:
        del lacks["maps"]
    if maps:
        covered += covering("mapped", about.name, coverage("map", forged, maps, every), remark)
    subject = Recorded(
        about.name,
        None,
        None,
        paired(crops, quality, lacks).select(row=[*paths]),
        seed=0,
        num_images=params.interpretability.num_images,
        checked=(HANDED_BACK,),
        paths=paths,
    )
    further = qualities(crops.select(row=[*paths]), params)
    return Known(subject, further, predictions, lacks, quality, covered)


def covering(what: str, name: str, found: list[dict], remark: str = "") -> list[dict]:
    """Rows on what was handed back, from `coverage`."""
    rows = []
    for of in found:
        numbers = of["share"], np.nan, np.nan, of["num_images"]
        about = row("coverage", (name, what), of["split"], f"share_{what}", *numbers)
        rows.append(about | {"remark": "; ".join(filter(None, [of["remark"], remark]))})
    return rows


def detection_rows(known: Known) -> Iterator[dict]:
    """Detection on every quality and family, by frame and by video."""
    test = known.predictions[known.predictions["split"] == "test"]
    both = test.groupby("quality")["label"].transform("nunique") == 2
    if not both.all() or not len(test):
        at = ", ".join(test.loc[~both, "quality"].unique()) or known.quality
        yield from empty(known.subject.name, "detection", TOPICS[0].measures, f"{NO_TEST} at {at}")
    if not both.any():
        return
    threshold = None if len(known.validation) else np.inf
    kept = both.reindex(known.predictions.index, fill_value=True)
    table = detection_table(known.predictions[kept], threshold)
    of_study = table["quality"] == known.quality  # another codec may hide what is seen
    remark = labels_reversed(table[of_study])
    for found in table.to_dict("records"):
        key, subset = (known.subject.name, found["level"]), f"{found['quality']} {found['family']}"
        interval, count = (found["auc_low"], found["auc_high"]), found["num_images"]
        values = {"auc": (found["auc"], *interval, count)}
        values |= {name: (found[name], np.nan, np.nan, count) for name in ("ap", "eer", "accuracy")}
        remarks = dict.fromkeys(values, remark)
        if threshold is not None:
            values["accuracy"], remarks["accuracy"] = (np.nan, np.nan, np.nan, 0), NO_VALIDATION
        for measure, numbers in values.items():
            named = row("detection", key, subset, measure, *numbers)
            yield named | {"remark": remarks[measure]}


def labels_reversed(table: pd.DataFrame) -> str:
    """A remark where the AUC is far below one half on every family; empty otherwise.

    Args:
        table: from `detection_table`.
    """
    families = table[(table["level"] == "frame") & (table["family"] != "all")]
    if not len(families) or families["auc"].max() >= REVERSED:
        return ""
    return (
        f"AUC is {families['auc'].max():.2f} at most on every family: the labels look the other way round; "
        "a higher score must mean forged. Nothing was turned"
    )


def calibration_rows(known: Known) -> Iterator[dict]:
    """Calibration at the study's quality, as it is and fitted on the split validation."""
    name, validation, predictions = known.subject.name, known.validation, known.predictions
    test = predictions[(predictions["split"] == "test") & (predictions["quality"] == known.quality)]
    if test["label"].nunique() < 2:
        yield from empty(name, "calibration", ("ece", "brier"), NO_TEST)
        return
    fitted = {"as trained": Calibration()}
    if len(validation):
        values = validation["label"].to_numpy(), validation["score"].to_numpy()
        fitted["calibrated"] = calibrate(*values)
    else:
        yield from empty(name, "calibration", ("ece", "brier"), NO_VALIDATION, "calibrated")
    for found in calibration_table(test, fitted).to_dict("records"):
        for measure in ("ece", "brier"):
            numbers = [found[f"{measure}{end}"] for end in ("", "_low", "_high")]
            key = name, found["calibration"]
            yield row("calibration", key, "all", measure, *numbers, found["num_images"])


def codec_rows(known: Known) -> Iterator[dict]:
    """How alike maps stay at the other qualities."""
    for quality, crops in known.further.items():
        yield from codec_topic(known.subject, crops, quality)


@dataclass(frozen=True)
class Topic:
    """What can be measured, and what of a detector it needs.

    Args:
        name: in the column ``topic``.
        measures: what it gives.
        needs: some of ``maps``, ``runs``, ``weights``; scores are always there.
        rows: that it gives.
    """

    name: str
    measures: tuple[str, ...]
    needs: tuple[str, ...]
    rows: Callable[[Known], Iterable[dict]]


def of_subject(topic: Callable[[Subject], Iterable[dict]]) -> Callable[[Known], Iterable[dict]]:
    """A topic of `fwstudy.interpretability.measures` as one of `TOPICS`."""
    return lambda known: topic(known.subject)


PARTS = ("part_top1", *localization.SCORES)
RUNS = ("maps", "runs")
TOPICS = (
    Topic("detection", ("auc", "ap", "eer", "accuracy"), (), detection_rows),
    Topic("calibration", ("ece", "brier"), (), calibration_rows),
    Topic("localization", (*localization.SCORES,), ("maps",), of_subject(localization_topic)),
    Topic("parts", PARTS, ("maps",), of_subject(part_topic)),
    Topic("faithfulness", (*faithfulness.STATISTICS,), RUNS, of_subject(restoration_topic)),
    Topic("faithfulness", ("deletion", "insertion"), RUNS, of_subject(deletion_topic)),
    Topic(
        "randomization",
        ("randomized_absolute_rank",),
        (*RUNS, "weights"),
        of_subject(randomization_topic),
    ),
    Topic("stability", ("stability_rank", "verdict_flips"), RUNS, of_subject(stability_topic)),
    Topic("stability", ("stability_rank",), ("maps",), codec_rows),
)


def empty(
    name: str, topic: str, measures: Iterable[str], remark: str, method: str = "-"
) -> Iterator[dict]:
    """Rows without a value, and why there is none."""
    for measure in measures:
        numbers = (np.nan, np.nan, np.nan, 0)
        yield row(topic, (name, method), "all", measure, *numbers) | {"remark": remark}


def rows_of(known: Known) -> Iterator[dict]:
    """All rows of a detector, those without a value included.

    Explainers that it cannot be asked for stand under localization alone, once for all topics.
    """
    name = known.subject.name
    yield from known.covered
    for method, why in known.refused.items():
        yield from empty(name, "localization", localization.SCORES, f"no {method}: {why}", method)
    for topic in tqdm(TOPICS, name, leave=False):
        named = name, topic.name, topic.measures
        why = [known.lacks[need] for need in topic.needs if need in known.lacks]
        if why:
            yield from empty(*named, why[0])
            continue
        try:
            yield from list(topic.rows(known))
        except Exception as error:  # noqa: BLE001  code of others may raise anything; go on
            yield from empty(*named, f"{type(error).__name__}: {error}")


def measure_detector(
    about: OutsideDetector, params: Params, crops: CropSet, folder: Path
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All that can be measured of one detector.

    Args:
        crops: all of them, of every split and quality.
        folder: that the detector's files are relative to.

    Returns:
        rows with the columns of `OUTSIDE_COLUMNS`, and its predictions.

    Raises:
        ValueError: the detector or its files cannot be used (named).
    """
    read = read_recorded if about.kind == "scores" else run_network
    known = read(about, params, crops, folder)
    return as_table(rows_of(known)), known.predictions


def as_table(rows: Iterable[dict]) -> pd.DataFrame:
    """Rows with the columns of `OUTSIDE_COLUMNS`; what two topics leave empty stands there once."""
    table = pd.DataFrame(rows, columns=OUTSIDE_COLUMNS).fillna({"remark": ""})
    none = table["value"].isna() & (table["num_images"] == 0) & (table["remark"] == "")
    table.loc[none, "remark"] = NO_VALUE
    return table.drop_duplicates(["topic", "model", "method", "subset", "measure"])


def measure_detectors(
    params: Params, crops: CropSet, folder: Path
) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    """`measure_detector` of all of params.yaml; of one that fails there are rows that say why.

    Returns:
        rows of all, and the predictions of those that could be used, by name.
    """
    tables, predictions = [pd.DataFrame(columns=OUTSIDE_COLUMNS)], {}
    for about in tqdm(params.detectors, "detectors"):
        try:
            table, predictions[about.name] = measure_detector(about, params, crops, folder)
        except Exception as error:  # noqa: BLE001  as above
            told = str(error).startswith(f"detector {about.name}")
            remark = str(error) if told else f"{about.source}: {type(error).__name__}: {error}"
            topics = [empty(about.name, topic.name, topic.measures, remark) for topic in TOPICS]
            table = as_table(chain.from_iterable(topics))
        tables.append(table)
    none, *found = tables
    return pd.concat(found or [none], ignore_index=True), predictions


def remarks(table: pd.DataFrame) -> pd.DataFrame:
    """Each remark once: columns model, remark, and the topics that it is about."""
    told = table[table["remark"] != ""]
    found = told.groupby(["model", "remark"], sort=False)["topic"].unique().map(", ".join)
    return found.rename("topics").reset_index()
