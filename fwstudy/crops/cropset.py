"""The crop set: face crops with their truth, one row of the manifest each."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from mmap import mmap
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from fwstudy.labels import ONLY_EMPTY, ORIGINAL

ARRAYS = ("images", "mask", "parsing")
FRAME_KEYS = ["clip", "frame", "quality"]


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turns whatever fails while a file is read into a `ValueError` that names it.

    Raises:
        FileNotFoundError: it is not there; the message says which stage makes it.
    """
    try:
        yield
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file; run the stage `preprocess`") from None
    except (ValueError, EOFError, KeyError, IndexError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{path}: cannot be read ({reason}); run the stage `preprocess`"
        ) from error


def open_array(folder: Path, name: str):
    """An array of a crop set, on disk until rows of it are asked for.

    Raises:
        FileNotFoundError: it is neither there as ``.npy`` nor as ``.zarr``; the message names it.
    """
    path = folder / f"{name}.npy"
    if path.with_suffix(".zarr").is_dir() and not path.is_file():
        import zarr  # slow to import, and seldom needed

        return zarr.open_array(path.with_suffix(".zarr"), mode="r")
    with naming(path):
        return np.load(path, mmap_mode="r")


@dataclass(frozen=True)
class CropSet:
    """Face crops in arrays on disk and a table that says what each row is.

    A selection keeps the arrays and has fewer rows in its table. "Places" count the rows of the table.

    Args:
        manifest: one row a crop. ``clip, frame, quality`` name the frame; ``kind`` is ``whole`` or
            ``part``; ``variant`` is ``original``, a forgery family or (for ``part``) the one part
            forged; ``label`` 1 for forged; ``identity`` and ``source`` (who lent the face);
            ``group`` of people who lend each other faces; ``split``; attributes of the person.
            ``row`` indexes the arrays and ``original_row`` points to the pristine crop of the same
            frame (missing where there is none). Of videos, ``frame`` counts the video's own,
            ``video`` names it, ``family`` is that of the forgery that a part was taken from, and
            ``mask_source`` says how the changed pixels are known (`fwstudy.labels.MASK_SOURCES`).
        images: (N, S, S, 3) uint8, RGB.
        mask: (N, S, S) bool, pixels that the forgery changed, before the codec.
        parsing: (N, S, S) uint8, indices into `fwstudy.labels.PARTS`, of the original.
    """

    manifest: pd.DataFrame
    images: np.ndarray
    mask: np.ndarray
    parsing: np.ndarray

    @staticmethod
    def open(folder: Path) -> "CropSet":
        """Open a crop set; the arrays stay on disk until they are used.

        Raises:
            FileNotFoundError: the folder lacks one of the files.
            ValueError: a file is damaged, or the manifest and an array differ in length (named).
        """
        folder = Path(folder)
        names = dict.fromkeys(("identity", "source", "clip", "group", "video"), str)
        path = folder / "manifest.csv"
        with naming(path):
            manifest = pd.read_csv(path, dtype=names, **ONLY_EMPTY)
            manifest["row"] = np.arange(len(manifest))
            originals = manifest[manifest["variant"] == ORIGINAL].set_index(FRAME_KEYS)["row"]
            frames = pd.MultiIndex.from_frame(manifest[FRAME_KEYS])
            manifest["original_row"] = originals.reindex(frames).to_numpy()
            if manifest[[*FRAME_KEYS, "variant", "split"]].isna().any(axis=None):
                raise ValueError("a row breaks off")
        arrays = {name: open_array(folder, name) for name in ARRAYS}
        for name, array in arrays.items():
            if array.shape[:1] != (len(manifest),):
                raise ValueError(
                    f"{folder / name} has {array.shape[0] if array.ndim else 'no'} rows, the manifest "
                    f"{len(manifest)}; run the stage `preprocess` again"
                )
        return CropSet(manifest, **arrays)

    def select(self, **values) -> "CropSet":
        """The rows whose columns have the given values (a value or a list of values)."""
        keep = np.ones(len(self.manifest), bool)
        for column, value in values.items():
            wanted = value if isinstance(value, (list, tuple)) else [value]
            keep &= self.manifest[column].isin(wanted).to_numpy()
        return replace(self, manifest=self.manifest[keep])

    def take(self, places: np.ndarray) -> "CropSet":
        """The crops at these places, in this order.

        Args:
            places: (n,) int, from 0 to ``len(self) - 1``; or a slice.
        """
        return replace(self, manifest=self.manifest.iloc[places])

    def evenly(self, count: int | None) -> "CropSet":
        """At most ``count`` crops, evenly spaced, the first and the last among them; all if None."""
        if count is None or count >= len(self):
            return self
        return self.take(np.linspace(0, len(self) - 1, count).astype(int))

    def tensor(self, device: torch.device | None = None) -> torch.Tensor:
        """All images at once, see `to_tensor`: (len(self), 3, S, S)."""
        return to_tensor(self.images[self.manifest["row"].to_numpy()], device)

    def batches(self, size: int, device: torch.device | None = None) -> Iterator[torch.Tensor]:
        """The images in their order, in as few batches of at most ``size`` as there can be.

        The batches differ in length by one at most. Without crops there is one, which is empty.
        """
        places = np.arange(len(self))
        for part in np.array_split(places, max(1, math.ceil(len(self) / size))):
            yield self.take(part).tensor(device)

    def paired(self) -> "CropSet":
        """The rows that have their original beside them.

        Raises:
            ValueError: no forgery of some split has (named).
        """
        kept = self.manifest[self.manifest["original_row"].notna()]
        forged = kept.loc[kept["label"] == 1, "split"]
        without = sorted(set(self.manifest["split"]) - set(forged))
        if without:
            raise ValueError(
                f"no forgery of the split {', '.join(without)} has its original beside it: what the axes "
                "mean cannot be measured on this data set, only detection can (`dvc repro train`)"
            )
        return replace(self, manifest=kept.astype({"original_row": int}))

    def __len__(self) -> int:
        return len(self.manifest)

    def __reduce__(self):
        """To another process goes where the arrays lie, not what is in them."""
        return _reopened, (self.manifest, *(place_of(getattr(self, name)) for name in ARRAYS))


def place_of(array):
    """What stands for an array on its way to another process: its file, if it is the whole of one."""
    is_whole_file = isinstance(array, np.memmap) and isinstance(array.base, mmap)
    return Path(array.filename) if is_whole_file else array


def array_at(place):
    """The array that `place_of` stands for."""
    return np.load(place, mmap_mode="r") if isinstance(place, Path) else place


def _reopened(manifest: pd.DataFrame, *places) -> CropSet:
    return CropSet(manifest, *map(array_at, places))


def to_tensor(images: np.ndarray, device: torch.device | None = None) -> torch.Tensor:
    """Images as a network takes them.

    Args:
        images: (B, S, S, 3) uint8, RGB.

    Returns:
        (B, 3, S, S) float32 in [-1, 1], channels last in memory.
    """
    tensor = torch.from_numpy(np.array(images)).to(device)
    return tensor.permute(0, 3, 1, 2).float().div(127.5).sub(1)
