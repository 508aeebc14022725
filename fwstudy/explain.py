"""Explain your own: ``python -m fwstudy.explain PHOTO|CLIP|FOLDER`` leaves an HTML page.

The verdict on a face is divided exactly among the concept axes and all the rest; each concept axis has a
heat map; and the distance of the face from the training data says how much the verdict is worth.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.covariance import LedoitWolf
from torch import nn
from tqdm import tqdm

from fwstudy.crops.cropset import CropSet, to_tensor
from fwstudy.execute import execute
from fwstudy.faces.inputs import FaceCrop, find_faces, list_inputs, smallest_face
from fwstudy.faces.videos.footage import Frames, InputError, read_frames
from fwstudy.interpretability.calibration import Calibration, calibrate
from fwstudy.interpretability.decomposition import capture, decompose, resize
from fwstudy.params import Params, load_params
from fwstudy.reporting.pages import notebook_body, write_page
from fwstudy.runtime import project_root
from fwstudy.training.concept_sets import CONCEPT_SETS
from fwstudy.training.runs import load_variant, manifest_path, weights_path
from fwstudy.whitening.concepts import BATCH_SIZE, layer_inputs
from fwstudy.whitening.surgery import find_classifier

LEVEL = 0.99  # share of unseen faces of the study's own kind that count as like the training data
EDGE = 0.95  # share of them beyond which a face is told to be at the edge
REFERENCE_IMAGES = 1024  # training faces that make the reference
FRAMES = 16  # of a clip
RESIDUAL = "residual axes"
KINDS = {"photos": "photographed"}  # what to call the faces of a source


@dataclass(frozen=True)
class MahalanobisOOD:
    """Where the layer's pooled features of known faces lie.

    Args:
        mean: (C,) float64, of training faces.
        precision: (C, C) float64, inverse of their covariance.
        distances: (M,) float64, sorted, of validation faces from that mean.
    """

    mean: np.ndarray
    precision: np.ndarray
    distances: np.ndarray

    @property
    def limit(self) -> float:
        """The distance within which 99 % of the validation faces lie."""
        return float(np.quantile(self.distances, LEVEL))

    def share_nearer(self, ood_score: float) -> float:
        """Share of the validation faces nearer than so many times the limit."""
        return float(np.mean(self.distances < ood_score * self.limit))

    def distance(self, features: np.ndarray) -> np.ndarray:
        """Mahalanobis distance of features (N, C) from the training faces: (N,) float64."""
        return mahalanobis(features, self.mean, self.precision)


@dataclass(frozen=True)
class TrainedExplainer:
    """A trained whitened model with what is needed to explain it.

    Args:
        model: gives one logit an image.
        layer: the `FeatureWhitening` before the pooling; its first axes are the named ones.
        names: of the concept axes, in plain language.
        calibration: has ``probability(logits)``.
        reference: of the training data.
        crop_size, crop_scale: how its faces were cut, see `fwstudy.faces.inputs.find_face`.
        data: what it was trained on, e.g. "rendered faces".
        seed: of its training.
        typical: (k,) mean evidence of the concept axes on originals; evidence is told relative to it.
        typical_maps: (k + 1, S, S) the same of the maps, the last of all residual axes.
    """

    model: nn.Module
    layer: nn.Module
    names: tuple[str, ...]
    calibration: Calibration
    reference: MahalanobisOOD
    crop_size: int
    crop_scale: float
    data: str
    seed: int
    typical: np.ndarray | float = 0.0
    typical_maps: np.ndarray | float = 0.0


@dataclass(frozen=True)
class Explanation:
    """N faces: ``logits = evidence.sum(axis=1) + rest``, to 1e-4 relative to their size.

    Args:
        names: of the k concept axes.
        logits: (N,) float32, above 0 speaks for a forgery.
        probability: (N,) float64, calibrated.
        evidence: (N, k) float32, of each concept axis, signed: beyond that of a typical original.
        rest: (N,) float32, of the residual axes, the bias and the typical evidence.
        maps: (N, k, S, S) float32, what each position adds to the evidence of each concept axis.
        rest_maps: (N, S, S) float32, the same of all residual axes; both beyond those of typical originals.
        ood_score: (N,) float64, distance from the training data; above 1 is beyond 99 % of unseen
            faces of the same kind.
    """

    names: tuple[str, ...]
    logits: np.ndarray
    probability: np.ndarray
    evidence: np.ndarray
    rest: np.ndarray
    maps: np.ndarray
    rest_maps: np.ndarray
    ood_score: np.ndarray


@dataclass(frozen=True)
class FileReport:
    """One file explained.

    Args:
        name: of the file.
        footage: its frames.
        faces: the face in each frame; None where there is none.
        explanation: of the frames with a face, in order.
        table: a row for each frame: time, has_face, and where it has one logit, probability, the
            names of the axes, ``residual axes`` (with the bias), ood_score, notes.
        summary: what `explain_all` tells of the file.
    """

    name: str
    footage: Frames
    faces: list[FaceCrop | None]
    explanation: Explanation
    table: pd.DataFrame
    summary: dict


def mahalanobis(features: np.ndarray, mean: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """Distance of features (N, C) from a mean (C,) under a precision (C, C): (N,) float64."""
    away = features.astype(np.float64) - mean
    return np.sqrt(np.einsum("nc,cd,nd->n", away, precision, away).clip(0))


@torch.inference_mode()
def pooled_features(model: nn.Module, layer: nn.Module, crops: np.ndarray) -> np.ndarray:
    """Whitened, rotated features of a layer, averaged over positions: (N, C) float32.

    Whitening is affine, so the mean of whitened features is the whitened mean.

    Args:
        crops: (N, S, S, 3) uint8.
    """
    model.eval()
    parts = [
        layer.normalize(layer_inputs(model, layer, to_tensor(batch))[..., None, None])
        for batch in np.array_split(crops, len(crops) // BATCH_SIZE + 1)
    ]
    return torch.cat(parts).flatten(1).numpy(force=True)


def reference_statistics(
    model: nn.Module, layer: nn.Module, training: np.ndarray, validation: np.ndarray
) -> MahalanobisOOD:
    """Where known faces lie, by which `explain_crops` tells faces unlike them.

    Lee et al., "A Simple Unified Framework for Detecting Out-of-Distribution Samples", NeurIPS 2018:
    Mahalanobis distance of pooled features. Departures: one mean for originals and forgeries, since
    the class of a new face is not known; the covariance shrunk as by Ledoit and Wolf, since the mean
    over positions of white features is not white; one layer; no perturbation of the input; the
    limit from unseen people. It sees what the layer sees, and misses what that ignores.

    Args:
        training, validation: (N, S, S, 3) uint8 crops of different people.
    """
    fitted = LedoitWolf().fit(pooled_features(model, layer, training).astype(np.float64))
    held_out = pooled_features(model, layer, validation)
    distances = mahalanobis(held_out, fitted.location_, fitted.precision_)
    return MahalanobisOOD(fitted.location_, fitted.precision_, np.sort(distances))


@torch.inference_mode()
def axis_maps(
    model: nn.Module, layer: nn.Module, crops: np.ndarray, num_concept_axes: int
) -> np.ndarray:
    """What each position adds to the logit, at input resolution: (N, k + 1, S, S) float32.

    A map for each of the k concept axes, and one for all others together.

    Args:
        crops: (N, S, S, 3) uint8.
    """
    weight = find_classifier(model).weight.reshape(-1)
    size, maps = crops.shape[1], []
    for batch in np.array_split(crops, len(crops) // BATCH_SIZE + 1):
        activations, _ = capture(model, layer, to_tensor(batch, weight.device))
        shares = activations * weight[:, None, None] / activations[0, 0].numel()
        shares = torch.cat(
            [shares[:, :num_concept_axes], shares[:, num_concept_axes:].sum(1, True)], dim=1
        )
        maps.append(resize(shares.flatten(0, 1), size).reshape(len(batch), -1, size, size))
    return np.concatenate(maps)


@torch.inference_mode()
def explain_crops(trained: TrainedExplainer, crops: np.ndarray) -> Explanation:
    """Verdict, evidence, heat maps and ood_score of face crops.

    Args:
        crops: (N, S, S, 3) uint8, N >= 1, cut as in training.

    Raises:
        ValueError: named and residual evidence miss the logit by more than 1e-4: the layer is not
            the one before the pooling.
    """
    model, layer, num_concept_axes = trained.model, trained.layer, len(trained.names)
    rows = pd.DataFrame({"row": np.arange(len(crops))})
    parts = decompose(model, layer, CropSet(rows, crops, mask=None, parsing=None))
    named = parts.evidence[:, :num_concept_axes] - np.float32(trained.typical)
    maps = axis_maps(model, layer, crops, num_concept_axes) - np.float32(trained.typical_maps)
    distances = trained.reference.distance(pooled_features(model, layer, crops))
    return Explanation(
        names=trained.names,
        logits=parts.logits,
        probability=trained.calibration.probability(parts.logits),
        evidence=named,
        rest=parts.bias + parts.evidence.sum(axis=1) - named.sum(axis=1),
        maps=maps[:, :num_concept_axes],
        rest_maps=maps[:, num_concept_axes],
        ood_score=distances / trained.reference.limit,
    )


def explain_path(trained: TrainedExplainer, path: Path, frames: int = FRAMES) -> FileReport:
    """Find the face in a photograph, or follow it through a clip, and explain the verdict on it.

    Of a clip the logit, the evidence and the ood_score are means over its frames with a face.

    Raises:
        InputError: the file cannot be read, or has no face; the message names it.
    """
    footage = read_frames(path, frames)
    faces = find_faces(footage, trained.crop_size, trained.crop_scale)
    found = [face for face in faces if face is not None]
    if not found:
        where = f"any of {len(faces)} frames" if footage.is_clip else "the photograph"
        least = max(smallest_face(image) for image in footage.images)
        raise InputError(
            f"{path}: no face found in {where}; it should be upright, seen from the front and "
            f"at least {least} px wide"
        )
    explanation = explain_crops(trained, np.stack([face.crop for face in found]))
    values = pd.DataFrame(explanation.evidence, columns=list(explanation.names))
    values.insert(0, "logit", explanation.logits)
    values.insert(1, "probability", explanation.probability)
    values[RESIDUAL], values["ood_score"] = explanation.rest, explanation.ood_score
    seen = np.array([face is not None for face in faces])
    table = pd.DataFrame({"time": footage.times, "has_face": seen})
    table = table.join(values.set_index(np.flatnonzero(seen)))
    table["notes"] = ["no face found" if f is None else "; ".join(f.notes) for f in faces]
    summary = _summary(trained, path, footage, found, values)
    return FileReport(path.name, footage, faces, explanation, table, summary)


def _summary(
    trained: TrainedExplainer,
    path: Path,
    footage: Frames,
    found: list[FaceCrop],
    values: pd.DataFrame,
) -> dict:
    """One row of `explain_all`."""
    mean = values.mean()
    probability = float(trained.calibration.probability(mean[["logit"]].to_numpy())[0])
    notes = list(footage.notes)
    if len(found) < len(footage.times):
        notes.append(f"no face in {len(footage.times) - len(found)} of {len(footage.times)} frames")
    counts = pd.Series([note for face in found for note in face.notes]).value_counts(sort=False)
    often = f" (in {{}} of {len(found)} frames with a face)" if footage.is_clip else ""
    notes += [note + often.format(count) for note, count in counts.items()]
    return {
        "file": str(path),
        "problem": "",
        "verdict": "forged" if probability >= 0.5 else "not forged",
        "probability": probability,
        **mean.drop(["probability", "ood_score"]).to_dict(),
        "ood_score": float(mean["ood_score"]),
        "ood_percentile": trained.reference.share_nearer(mean["ood_score"]),
        "is_ood": bool(mean["ood_score"] > 1),
        "frames": len(footage.times),
        "frames_with_face": len(found),
        "faces": max(face.num_faces for face in found),
        "eye_distance": float(np.median([face.interocular for face in found])),
        "notes": "; ".join(notes),
    }


def explain_all(
    trained: TrainedExplainer, paths: Sequence[Path], frames: int = FRAMES, keep: int = 12
) -> tuple[pd.DataFrame, list[FileReport]]:
    """Explain files one after the other; what cannot be explained becomes a row that says why.

    Args:
        keep: of how many files the details are returned, the first that could be explained.

    Returns:
        a row for each file: file, problem (empty where there is none), verdict, probability, logit,
        the names of the axes, ``residual axes``, ood_score (1 is the limit), ood_percentile (share of
        unseen faces of the training's kind), unlike, frames, frames_with_face, faces, eye_distance
        (pixels), notes; and the details.
    """
    rows, kept = [], []
    for path in tqdm(paths, desc="files", disable=len(paths) < 2):
        try:
            explained = explain_path(trained, Path(path), frames)
        except InputError as error:
            rows.append({"file": str(path), "problem": str(error).removeprefix(f"{path}: ")})
            continue
        rows.append(explained.summary)
        if len(kept) < keep:
            kept.append(explained)
    return pd.DataFrame(rows), kept


def describe(trained: TrainedExplainer, explained: FileReport, most: int = 3) -> str:
    """The verdict on one file in plain language, with all that speaks against relying on it.

    Args:
        most: how many parts are named that speak for a forgery, and against.
    """
    row, evidence = explained.summary, pd.Series(explained.summary)[list(trained.names)]
    text = (
        f"{explained.name}: {row['verdict']}; probability of a forgery {row['probability']:.0%} "
        f"(logit {row['logit']:+.2f}).\n"
    )
    if explained.footage.is_clip:
        low, high = explained.table["logit"].min(), explained.table["logit"].max()
        text += (
            f"This is the mean of {row['frames_with_face']} frames with a face, out of "
            f"{row['frames']}; single frames range from {low:+.2f} to {high:+.2f}.\n"
        )
    for_forgery = evidence[evidence > 0].astype(float).nlargest(most)
    against = evidence[evidence < 0].astype(float).nsmallest(most)
    for words, parts in (("For a forgery speak", for_forgery), ("; against it", against)):
        named = ", ".join(f"{name} ({value:+.2f})" for name, value in parts.items())
        text += f"{words} {named or 'no concept axis'}"
    text += (
        f". Together the concept axes give {evidence.sum():+.2f}, what has no name (other axes and "
        f"the bias) {row[RESIDUAL]:+.2f}.\n"
    )
    if row["is_ood"]:
        text += (
            f"UNLIKE THE TRAINING DATA ({trained.data}): {row['ood_score']:.1f} times as far away "
            f"as {LEVEL:.0%} of unseen faces of that kind. Do not rely on this verdict."
        )
    else:
        edge = "At the edge of" if row["ood_percentile"] > EDGE else "Not found to be unlike"
        text += (
            f"{edge} the training data ({trained.data}): farther away than "
            f"{row['ood_percentile']:.0%} of unseen faces of that kind."
        )
    return text + (f"\nNote: {row['notes']}." if row["notes"] else "")


def panels(explained: FileReport, most: int = 4) -> dict:
    """What `fwstudy.reporting.panels.face_sheet` shows: frames with a face, evenly spaced.

    Args:
        most: of this many frames at most.
    """
    seen = np.flatnonzero([face is not None for face in explained.faces])
    chosen = np.unique(np.linspace(0, len(seen) - 1, min(most, len(seen))).round().astype(int))
    faces = [explained.faces[frame] for frame in seen[chosen]]
    clip = explained.footage.is_clip
    return {
        "pictures": [explained.footage.images[frame] for frame in seen[chosen]],
        "boxes": [face.box for face in faces],
        "crops": [face.crop for face in faces],
        "maps": explained.explanation.maps[chosen],
        "rest_maps": explained.explanation.rest_maps[chosen],
        "names": explained.explanation.names,
        "labels": [f"{explained.footage.times[n]:.2f} s" if clip else "" for n in seen[chosen]],
    }


def check_trained(params: Params) -> None:
    """Make sure that there is a trained model.

    Raises:
        ValueError: a file is missing; the message says how to make it.
    """
    for path in (weights_path("whitened", params.train.seeds[0]), manifest_path()):
        if not path.is_file():
            place = path.relative_to(project_root())
            raise ValueError(f"no trained model yet ({place} is missing): run `make repro` first")


def make_trained(
    model: nn.Module, layer: nn.Module, names: Sequence[str], crops: CropSet, **about
) -> TrainedExplainer:
    """Calibrate a model on the validation faces of a crop set, and take its reference.

    Args:
        names: of the first axes of the layer; underscores become blanks.
        crops: of the quality that the model has learned from.
        about: the further fields of `Trained`.
    """
    rows = crops.select(split="train", kind="whole").manifest["row"].to_numpy()
    rows = rows[np.linspace(0, len(rows) - 1, min(REFERENCE_IMAGES, len(rows))).astype(int)]
    validation = crops.select(split="validation", kind="whole")
    labels, held_out = (validation.manifest[name].to_numpy() for name in ("label", "row"))
    parts = decompose(model, layer, validation)
    return TrainedExplainer(
        model=model,
        layer=layer,
        names=tuple(name.replace("_", " ") for name in names),
        calibration=calibrate(labels, parts.logits),
        typical=parts.evidence[labels == 0, : len(names)].mean(axis=0),
        typical_maps=axis_maps(model, layer, crops.images[held_out[labels == 0]], len(names)).mean(
            axis=0
        ),
        reference=reference_statistics(model, layer, crops.images[rows], crops.images[held_out]),
        **about,
    )


def load_trained(params: Params) -> TrainedExplainer:
    """The study's whitened model, of the first training seed.

    Raises:
        ValueError: it has not been trained.
    """
    check_trained(params)
    settings, preprocess, seed = params.whitening, params.preprocess, params.train.seeds[0]
    detector = load_variant(params, settings, "whitened", seed)
    crops = CropSet.open(project_root() / "data" / "crops").select(quality=preprocess.quality)
    training = crops.select(split="train")
    concepts = CONCEPT_SETS[settings.concepts].images(training, 1, seed, settings.grid_size)
    return make_trained(
        detector.model,
        detector.layer,
        [concept.name for concept in concepts],
        crops,
        crop_size=preprocess.crop_size,
        crop_scale=params.crop_scale,
        data=f"{KINDS.get(params.faces.source, params.faces.source)} faces, {preprocess.quality}",
        seed=seed,
    )


def explain(path: Path, output: Path | None, frames: int = FRAMES) -> Path:
    """Execute the notebook on a file or folder, and write the page.

    Args:
        output: folder for page.html, the executed notebook and, for a folder, evidence.csv;
            ``data/explained/<name>`` by default.

    Returns:
        the page.

    Raises:
        ValueError: nothing to explain, or no trained model.
    """
    path = Path(path)
    if frames < 1:
        raise ValueError(f"the number of frames must be at least 1, not {frames}")
    list_inputs(path)
    if not path.is_dir():
        read_frames(path, 1)
    root = project_root()
    check_trained(load_params(root / "params.yaml"))
    path = path.resolve()
    folder = Path(output or root / "data" / "explained" / path.name).resolve()
    executed, page = folder / "explain.ipynb", folder / "page.html"
    parameters = {"input": str(path), "output": str(folder), "frames": frames}
    execute(root / "notebooks" / "08_explain.ipynb", executed, parameters)
    write_page(page, f"{path.name}, explained", notebook_body(executed, code=False))
    return page


def main(words: Sequence[str] | None = None) -> None:
    """Read the command line, explain, and say where the page is."""
    parser = argparse.ArgumentParser(prog="fwstudy.explain", description=__doc__.splitlines()[0])
    parser.add_argument("input", type=Path, help="photograph, clip, or folder of them")
    parser.add_argument("--output", type=Path, help="folder; data/explained/<name> by default")
    parser.add_argument("--frames", type=int, default=FRAMES, help="of each clip")
    arguments = parser.parse_args(words)
    try:
        page = explain(arguments.input, arguments.output, arguments.frames)
    except (ValueError, FileNotFoundError) as error:
        raise SystemExit(f"error: {error}") from None
    print(f"page: {page}")


if __name__ == "__main__":
    main()
