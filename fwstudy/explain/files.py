"""A user's files, explained: the face is found, the verdict divided, and put in words."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit
from tqdm import tqdm

from fwstudy.explain.detector import LEVEL, Explanation, TrainedExplainer, explain_crops
from fwstudy.faces.detection import turn_upright
from fwstudy.faces.inputs import FaceCrop, find_faces, smallest_face
from fwstudy.faces.mesh import NO_MESH
from fwstudy.faces.videos.footage import Frames, InputError, read_frames

EDGE = 0.95  # share of unseen faces beyond which a face is told to be at the edge
RESIDUAL, BOUNDARY = "residual axes", "boundary"
PICTURES = 4  # of a clip, at most
NAMED = 3  # axes that the words name for a forgery, and as many against, at most


@dataclass(frozen=True)
class FileReport:
    """One file explained.

    Args:
        name: of the file; of several, with the folders in which they differ.
        footage: its frames; of a clip with the pictures alone that a page shows, else None.
        faces: the face in each frame; None where there is none.
        explanation: of the frames with a face, in order.
        table: a row for each frame: time, has_face, and where it has one log_odds, probability, the
            names of the axes, ``residual axes``, ood_score, notes.
        summary: what `explain_all` tells of the file.
    """

    name: str
    footage: Frames
    faces: list[FaceCrop | None]
    explanation: Explanation
    table: pd.DataFrame
    summary: dict


def few(count: int) -> np.ndarray:
    """`PICTURES` places of so many, evenly spaced, first and last among them; all if there are no more."""
    return np.unique(np.linspace(0, count - 1, min(PICTURES, count)).round().astype(int))


def explain_path(
    trained: TrainedExplainer, path: Path, frames: int = 16, name: str = ""
) -> FileReport:
    """Find the face in a photograph, or follow it through a clip, and explain the verdict on it.

    Of a clip the log-odds, the evidence and the ood_score are means over its frames with a face.

    Raises:
        InputError: the file cannot be read, or has no face; the message names it.
    """
    footage = turn_upright(read_frames(path, frames))
    faces, reasons = find_faces(footage, trained.crop_size, trained.crop_scale)
    found = [face for face in faces if face is not None]
    if not found:
        where = f"any of {len(faces)} frames" if footage.is_clip else "the photograph"
        if NO_MESH in reasons:
            raise InputError(f"{path}: {NO_MESH}")
        least = max(smallest_face(image) for image in footage.images)
        raise InputError(
            f"{path}: no face found in {where}; it should be seen from the front and "
            f"at least {least} px wide"
        )
    explanation = explain_crops(trained, np.stack([face.crop for face in found]))
    values = pd.DataFrame(explanation.evidence, columns=list(explanation.names))
    values.insert(0, "log_odds", explanation.log_odds)
    values.insert(1, "probability", explanation.probability)
    values[RESIDUAL], values["ood_score"] = explanation.rest, explanation.ood_score
    seen = np.array([face is not None for face in faces])
    table = pd.DataFrame({"time": footage.times, "has_face": seen})
    table = table.join(values.set_index(np.flatnonzero(seen)))
    table["notes"] = [
        reason if face is None else "; ".join(face.notes)
        for face, reason in zip(faces, reasons, strict=True)
    ]
    summary = _summary(trained, path, footage, found, values.mean())
    shown = np.flatnonzero(seen)[few(len(found))]  # all frames of all files are some GB
    pictures = [image if n in shown else None for n, image in enumerate(footage.images)]
    footage = replace(footage, images=pictures)
    return FileReport(name or path.name, footage, faces, explanation, table, summary)


def _summary(
    trained: TrainedExplainer, path: Path, footage: Frames, found: list[FaceCrop], mean: pd.Series
) -> dict:
    """One row of `explain_all`, from the means over frames."""
    shares = {BOUNDARY: trained.boundary, **mean[[*trained.names, RESIDUAL]].to_dict()}
    log_odds = sum(shares.values())
    notes = list(footage.notes)
    if len(found) < len(footage.times):
        notes.append(f"no face in {len(footage.times) - len(found)} of {len(footage.times)} frames")
    counts = pd.Series([note for face in found for note in face.notes]).value_counts(sort=False)
    often = f" (in {{}} of {len(found)} frames with a face)" if footage.is_clip else ""
    notes += [note + often.format(count) for note, count in counts.items()]
    return {
        "file": str(path),
        "problem": "",
        "verdict": "forged" if log_odds > 0 else "not forged",
        "probability": float(expit(log_odds)),
        "log_odds": log_odds,
        **shares,
        **{f"without {name}": float(expit(log_odds - shares[name])) for name in trained.names},
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
    trained: TrainedExplainer, paths: Sequence[Path], frames: int = 16, keep: int = 12
) -> tuple[pd.DataFrame, list[FileReport]]:
    """Explain files one after the other; what cannot be explained becomes a row that says why.

    Args:
        keep: of how many files the details are returned, the first that could be explained.

    Returns:
        a row for each file: file, problem (empty where there is none), verdict, probability, log_odds
        and its shares (boundary, the names of the axes, ``residual axes``), the probability ``without``
        the evidence of each axis, ood_score (1 is the limit),
        ood_percentile (share of unseen faces of the training's kind that are nearer), is_ood, frames,
        frames_with_face, faces, eye_distance (pixels), notes; and the details.
    """
    rows, kept = [], []
    above = os.path.commonpath([path.absolute().parent for path in paths])
    for path in tqdm(paths, desc="files", disable=None if len(paths) > 1 else True, leave=False):
        name = path.absolute().relative_to(above).as_posix()
        try:
            explained = explain_path(trained, path, frames, name)
        except InputError as error:
            rows.append({"file": str(path), "problem": str(error).removeprefix(f"{path}: ")})
            continue
        rows.append(explained.summary)
        if len(kept) < keep:
            kept.append(explained)
    return pd.DataFrame(rows), kept


def describe(trained: TrainedExplainer, explained: FileReport) -> str:
    """The verdict on one file in plain language, with all that speaks against relying on it."""
    row, evidence = explained.summary, pd.Series(explained.summary)[list(trained.names)]
    text = (
        f"{explained.name}: {row['verdict']}; probability of a forgery {row['probability']:.0%} "
        f"(log-odds {row['log_odds']:+.2f}).\n"
    )
    if explained.footage.is_clip:
        low, high = explained.table["log_odds"].min(), explained.table["log_odds"].max()
        text += (
            f"This is the mean of {row['frames_with_face']} frames with a face, out of "
            f"{row['frames']}; single frames range from {low:+.2f} to {high:+.2f}.\n"
        )
    for_forgery = evidence[evidence > 0].astype(float).nlargest(NAMED)
    against = evidence[evidence < 0].astype(float).nsmallest(NAMED)
    for words, parts in (("For a forgery speak", for_forgery), ("; against it", against)):
        named = ", ".join(f"{name} ({value:+.2f})" for name, value in parts.items())
        text += f"{words} {named or 'no concept axis'}"
    text += (
        f". The sum: {row[BOUNDARY]:+.2f} for a typical original (the boundary), "
        f"{evidence.sum():+.2f} from the concept axes, {row[RESIDUAL]:+.2f} from the residual axes, "
        "which have no name.\n"
    )
    if len(for_forgery) + len(against):
        named = (*for_forgery.items(), *against.items())
        changed = ", ".join(f"{name} {expit(row['log_odds'] - value):.0%}" for name, value in named)
        text += f"Without the evidence of one of them the probability would be: {changed}.\n"
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
