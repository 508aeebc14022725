"""Crops as plain files for a detector in any other environment, and the scores and maps it hands back."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from scipy.special import logit
from tqdm import tqdm

from fwstudy.crops.cropset import CropSet
from fwstudy.interpretability.decomposition import resize
from fwstudy.labels import FORGED_PARTS, PARTS

NAMED = 5  # of the images that something is wrong with, so many are named
TOLD = [
    "split", "quality", "kind", "variant", "label", "identity", "source", "group", "clip", "frame",
]  # fmt: skip
README = """# {count} face crops to be scored by a detector

{size} x {size} pixels, of the split{s} {splits}. No file here needs the project that wrote it.

- `manifest.csv`: a row for each crop. `id`; `label`, 1 for forged; `variant`, the family of the forgery,
  the one part that was forged (where `kind` is part), or original; `quality` of the codec; `split`;
  `identity`, who is seen; `source`, who lent the face; `group` of people who lend each other faces, on which
  intervals rest; `original`, the id of the same frame without forgery. Of videos, `family` is that of the
  forgery that a part was taken from, and `mask_source` tells how the changed pixels are known. The rest names
  frame and person.
- `images/ID.png`: RGB, 8 bits.
- `masks/ID.png`: 255 where the forgery changed the pixel, before the codec; of forgeries alone.
- `parts/ID.png`: what each pixel shows, in the original: {parts}.

## What to hand back

1. `scores.csv` with the columns `id` and `score` (log-odds: the higher, the more likely forged, above 0 for
   forged), or `id` and `probability` (of a forgery, from 0 to 1). One row for each id, in any order. Without
   scores of the split validation there is no threshold, hence no accuracy, and no calibration.
2. If the detector can say where: `maps/ID.npy`, as NumPy saves it, one square array of floats for each id of
   a forgery (any number of them), higher where a pixel speaks for a forgery. It may be coarser than the
   crop, and is then enlarged bilinearly.

`python -m fwstudy.score scores.csv --maps maps`, in the project's folder, says what is missing and what the
detector and its maps are worth. Learn nothing from the split test.
"""


def crop_ids(manifest: pd.DataFrame) -> pd.Series:
    """The name of each crop outside the project: its row and what it shows, in letters a file may have."""
    told = (
        manifest[["quality", "clip", "frame", "kind", "variant"]].astype(str).agg("_".join, axis=1)
    )
    plain = told.map(lambda text: re.sub(r"[^A-Za-z0-9.-]+", "_", text))
    return manifest["row"].map("{:06d}_".format) + plain.str[:200]  # file systems take 255 bytes


def export_crops(crops: CropSet, folder: Path, splits: Sequence[str]) -> int:
    """Write crops with their truth as PNG files, a manifest and a README.

    Args:
        folder: new or empty.
        splits: which are written.

    Returns:
        how many crops were written.

    Raises:
        ValueError: the folder holds something already; there is no crop of these splits.
        OSError: a file cannot be written (named).
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is not empty; name a new folder")
    chosen = crops.select(split=list(splits))
    if not len(chosen):
        raise ValueError(f"there is no crop of the split {', '.join(splits)}")
    table, known = chosen.manifest, crop_ids(crops.manifest)
    known.index = crops.manifest["row"]
    ids = known.reindex(table["row"])
    columns = [*TOLD, *(name for name in ("video", "family", "mask_source") if name in table)]
    manifest = table[columns].reset_index(drop=True)
    manifest.insert(0, "id", ids.to_numpy())
    manifest["original"] = known.reindex(table["original_row"]).to_numpy()
    for name in ("images", "masks", "parts"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for row, name, label in zip(table["row"], ids, tqdm(table["label"], "export"), strict=True):
        pictures = {"images": crops.images[row][..., ::-1], "parts": crops.parsing[row]}
        pictures |= {"masks": np.uint8(crops.mask[row]) * 255} if label else {}
        for place, picture in pictures.items():
            path = folder / place / f"{name}.png"
            if not cv2.imwrite(str(path), np.ascontiguousarray(picture)):
                raise OSError(f"{path}: cannot be written")
    manifest.to_csv(folder / "manifest.csv", index=False)
    text = README.format(
        count=len(manifest),
        size=crops.images.shape[1],
        s="s" * (len(splits) > 1),
        splits=", ".join(splits),
        parts=", ".join(f"{value} {name}" for value, name in enumerate(PARTS))
        + f" (left and right are the person's; {', '.join(FORGED_PARTS)} are forged, eyes with brows)",
    )
    (folder / "README.md").write_text(text, encoding="utf-8")
    return len(manifest)


def some(names: Iterable[str]) -> str:
    """How many there are, and the first of them."""
    names = list(names)
    return f"{len(names)} ({', '.join(map(str, names[:NAMED]))}{', …' * (len(names) > NAMED)})"


def read_scores(path: Path) -> pd.Series:
    """Scores by id, as log-odds; probabilities of 0 and 1 become the nearest that have finite ones.

    Raises:
        ValueError: no such file, no table, other columns, an id twice, or what is not a finite number;
            the message names the file and the ids.
    """
    try:
        table = pd.read_csv(path, dtype={"id": str}, index_col=False)
    except (OSError, ValueError) as error:  # the parser's errors are of the second kind
        raise ValueError(f"{path}: cannot be read as a CSV file: {error}") from error
    kinds = [name for name in ("score", "probability") if name in table]
    if "id" not in table or len(kinds) != 1:
        raise ValueError(
            f"{path}: wanted are the columns id and score, or id and probability, "
            f"not {', '.join(map(str, table))}"
        )
    twice = table.loc[table["id"].duplicated(), "id"]
    if len(twice):
        raise ValueError(f"{path}: ids that stand there twice: {some(twice)}")
    values = pd.to_numeric(table[kinds[0]], errors="coerce").to_numpy(np.float64)
    if not np.isfinite(values).all():
        raise ValueError(
            f"{path}: no number: the {kinds[0]} of {some(table['id'][~np.isfinite(values)])}"
        )
    if kinds[0] == "probability":
        wrong = table["id"][(values < 0) | (values > 1)]
        if len(wrong):
            raise ValueError(f"{path}: not from 0 to 1: the probability of {some(wrong)}")
        values = logit(np.clip(values, np.finfo(float).eps, 1 - np.finfo(float).eps))
    return pd.Series(values, table["id"].fillna(""), name="score")


def coverage(
    kind: str, manifest: pd.DataFrame, given: Iterable[str], known: set[str]
) -> list[dict]:
    """How much of each split has what was handed back, and what was handed back for nothing.

    Args:
        kind: what it is, "score" or "map".
        manifest: with the columns split and id, of the crops that it is asked for.
        given: ids.
        known: ids of all crops there are.

    Returns:
        for each split that anything was given for, and always for ``test``: split, share, num_images,
        remark (empty where nothing is missing); ids that no crop has are told in each.
    """
    given, rows = set(given), []
    unknown = sorted(given - known)
    for split, ids in manifest.groupby("split")["id"]:
        missing = ids[~ids.isin(given)]
        if split != "test" and len(missing) == len(ids):
            continue
        problems = [f"no {kind} of {some(missing)} of {len(ids)} images"] * bool(len(missing))
        problems += [f"{kind}s of {some(unknown)} that are no image of this crop set"] * bool(
            unknown
        )
        found = {"share": 1 - len(missing) / len(ids), "num_images": len(ids)}
        rows.append({"split": split, **found, "remark": "; ".join(problems)})
    return rows


def list_maps(folder: Path, size: int) -> tuple[dict[str, Path], str]:
    """The maps of a folder by id, all of them looked at without being read; hidden files are passed over.

    Args:
        size: of the crops.

    Returns:
        the files, and a remark where maps are of another size.

    Raises:
        ValueError: no such folder; a file that is no square array of real numbers (named).
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder")
    files, others = {path.stem: path for path in sorted(folder.glob("[!.]*.npy"))}, set()
    for path in files.values():
        array = opened(path)
        if array.ndim != 2 or array.shape[0] != array.shape[1] or array.dtype.kind not in "fiub":
            raise ValueError(
                f"{path}: a map is a square array of real numbers, not {array.dtype} {array.shape}"
            )
        others |= {array.shape[0]} - {size}
    sizes = ", ".join(f"{side} x {side}" for side in sorted(others))
    return files, f"maps of {sizes} were made {size} x {size} bilinearly" if others else ""


def opened(path: Path) -> np.ndarray:
    """A NumPy file on disk; nothing is unpickled.

    Raises:
        ValueError: it is none; the message names it.
    """
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path}: not an array as NumPy saves it: {error}") from error


def read_maps(paths: Sequence[Path], size: int) -> np.ndarray:
    """Maps of `list_maps` at the size of the crops: (N, size, size) float32.

    Raises:
        ValueError: a map holds NaN or infinity; the message names the file.
    """
    maps = np.empty((len(paths), size, size), np.float32)
    for place, path in zip(maps, paths, strict=True):
        found = np.array(opened(path), np.float32)
        if not np.isfinite(found).all():
            raise ValueError(f"{path}: holds NaN or infinity")
        same = found.shape == place.shape
        place[:] = found if same else resize(torch.from_numpy(found)[None], size)[0]
    return maps
