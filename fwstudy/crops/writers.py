"""Writers of a crop set: one array a file, or compressed shards for large data sets."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from fwstudy.crops.cropset import ARRAYS, CropSet

SHARD = 512  # crops in one file of a sharded array


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
