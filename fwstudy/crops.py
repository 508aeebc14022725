"""The crop set: face crops with their truth, one row of the manifest each."""

import shutil
from dataclasses import dataclass
from mmap import mmap
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from fwstudy.faces.clips import ORIGINAL

ARRAYS = ("images", "changed", "parts")
SHARD = 512  # crops in one file of a sharded array
FRAME_KEYS = ["clip", "frame", "quality"]


def open_array(folder: Path, name: str):
    """An array of a crop set, on disk until rows of it are asked for.

    Raises:
        FileNotFoundError: it is neither there as ``.npy`` nor as ``.zarr``; the message names it.
    """
    path = folder / f"{name}.npy"
    if path.is_file():
        return np.load(path, mmap_mode="r")
    if not path.with_suffix(".zarr").is_dir():
        raise FileNotFoundError(f"{path}: no such file; run the stage `preprocess`")
    import zarr  # slow to import, and seldom needed

    return zarr.open_array(path.with_suffix(".zarr"), mode="r")


@dataclass(frozen=True)
class CropSet:
    """Face crops in arrays on disk and a table that says what each row is.

    Args:
        manifest: one row a crop. ``clip, frame, quality`` name the frame; ``kind`` is ``whole`` or
            ``part``; ``variant`` is ``original``, a forgery family or (for ``part``) the one part
            forged; ``label`` 1 for forged; ``identity`` and ``source`` (who lent the face);
            ``group`` of people who lend each other faces; ``split``; attributes of the person. ``row`` indexes the arrays and ``original_row``
            points to the pristine crop of the same frame (missing where there is none). Of films, ``frame``
            counts the film's own, ``film`` names it, and ``truth`` says how the changed pixels are known
            (`fwstudy.faces.clips.TRUTHS`).
        images: (N, S, S, 3) uint8, RGB.
        changed: (N, S, S) bool, pixels that the forgery changed, before the codec.
        parts: (N, S, S) uint8, indices into `fwstudy.faces.clips.PARTS`, of the original.
    """

    manifest: pd.DataFrame
    images: np.ndarray
    changed: np.ndarray
    parts: np.ndarray

    @staticmethod
    def open(folder: Path) -> "CropSet":
        """Open a crop set; the arrays stay on disk until they are used.

        Raises:
            FileNotFoundError: the folder lacks one of the files.
            ValueError: the manifest and an array differ in length (named).
        """
        folder = Path(folder)
        names = dict.fromkeys(("identity", "source", "clip", "group", "film"), str)
        manifest = pd.read_csv(folder / "manifest.csv", dtype=names)
        arrays = {name: open_array(folder, name) for name in ARRAYS}
        for name, array in arrays.items():
            if array.shape[0] != len(manifest):
                raise ValueError(
                    f"{folder / name} has {array.shape[0]} rows, the manifest {len(manifest)}; "
                    "run the stage `preprocess` again"
                )
        manifest["row"] = np.arange(len(manifest))
        originals = manifest[manifest["variant"] == ORIGINAL].set_index(FRAME_KEYS)["row"]
        frames = pd.MultiIndex.from_frame(manifest[FRAME_KEYS])
        manifest["original_row"] = originals.reindex(frames).to_numpy()
        return CropSet(manifest, **arrays)

    def select(self, **values) -> "CropSet":
        """The rows whose columns have the given values (a value or a list of values)."""
        keep = np.ones(len(self.manifest), bool)
        for column, value in values.items():
            wanted = value if isinstance(value, (list, tuple)) else [value]
            keep &= self.manifest[column].isin(wanted).to_numpy()
        return CropSet(self.manifest[keep], self.images, self.changed, self.parts)

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
        return CropSet(kept.astype({"original_row": int}), self.images, self.changed, self.parts)

    def __len__(self) -> int:
        return len(self.manifest)

    def __reduce__(self):
        """To another process goes where the arrays lie, not what is in them."""
        arrays = [getattr(self, name) for name in ARRAYS]
        places = [Path(a.filename) if _is_whole_file(a) else a for a in arrays]
        return _reopened, (self.manifest, *places)


def _is_whole_file(array) -> bool:
    return isinstance(array, np.memmap) and isinstance(array.base, mmap)


def _reopened(manifest: pd.DataFrame, *places) -> CropSet:
    arrays = [np.load(a, mmap_mode="r") if isinstance(a, Path) else a for a in places]
    return CropSet(manifest, *arrays)


class ArrayWriter:
    """Writes a crop set whose arrays are mapped into memory: the fastest to read, uncompressed.

    All crops are held in memory until `close`.
    """

    suffix = "npy"

    def __init__(self, folder: Path):
        self.folder, self.rows, self.tables = Path(folder), [], []
        self.arrays: dict[str, list[np.ndarray]] = {name: [] for name in ARRAYS}
        self.folder.mkdir(parents=True, exist_ok=True)
        for stale in [path for name in ARRAYS for path in self.folder.glob(f"{name}.*")]:
            shutil.rmtree(stale) if stale.is_dir() else stale.unlink()

    def add(self, row: dict, *arrays: np.ndarray) -> None:
        """One crop: its row of the manifest, image, changed pixels and parts."""
        self.rows.append(row)
        for name, array in zip(ARRAYS, arrays, strict=True):
            self.arrays[name].append(array)

    def close(self) -> CropSet:
        """Write what is not yet on disk, and open the crop set.

        Raises:
            ValueError: no crop was added.
        """
        if not self.rows and not self.tables:
            raise ValueError(f"{self.folder}: there is no crop to write")
        self.flush()
        tables = [*self.tables, *([pd.DataFrame(self.rows)] if self.rows else [])]
        pd.concat(tables, ignore_index=True).to_csv(self.folder / "manifest.csv", index=False)
        return CropSet.open(self.folder)

    def flush(self) -> None:
        """Write the arrays."""
        for name, arrays in self.arrays.items():
            np.save(self.folder / f"{name}.npy", np.stack(arrays))


class ShardWriter(ArrayWriter):
    """Writes a crop set as Zarr arrays: compressed without loss, in shards, one crop a chunk.

    Memory grows with the manifest alone, not with the pixels.
    """

    suffix = "zarr"

    def add(self, row: dict, *arrays: np.ndarray) -> None:
        """See `ArrayWriter.add`."""
        super().add(row, *arrays)
        if len(self.arrays["images"]) == SHARD:
            self.flush()

    def flush(self) -> None:
        """Append the crops in memory to the arrays on disk, and forget them."""
        import zarr
        from zarr.codecs import BloscCodec

        if self.rows:
            self.tables.append(pd.DataFrame(self.rows))
            self.rows = []
        for name, arrays in self.arrays.items():
            if not arrays:
                continue
            block, path = np.stack(arrays), self.folder / f"{name}.zarr"
            if path.exists():
                zarr.open_array(path, mode="r+").append(block)
            else:
                zarr.create_array(
                    path,
                    shape=block.shape,
                    dtype=block.dtype,
                    chunks=(1, *block.shape[1:]),
                    shards=(SHARD, *block.shape[1:]),
                    compressors=BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle"),
                )[:] = block
            self.arrays[name] = []


WRITERS = {writer.suffix: writer for writer in (ArrayWriter, ShardWriter)}
"""Ways to store a crop set, as named in params.yaml."""


def to_tensor(images: np.ndarray, device: torch.device | None = None) -> torch.Tensor:
    """Images as a network takes them.

    Args:
        images: (B, S, S, 3) uint8, RGB.

    Returns:
        (B, 3, S, S) float32 in [-1, 1], channels last in memory.
    """
    tensor = torch.from_numpy(np.array(images)).to(device)
    return tensor.permute(0, 3, 1, 2).float().div(127.5).sub(1)
