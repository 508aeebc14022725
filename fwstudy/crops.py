"""The crop set: face crops with their truth, one row of the manifest each."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from fwstudy.faces.clips import ORIGINAL

FRAME_KEYS = ["clip", "frame", "quality"]


@dataclass(frozen=True)
class CropSet:
    """Face crops in memory-mapped arrays and a table that says what each row is.

    Args:
        manifest: one row a crop. ``clip, frame, quality`` name the frame; ``kind`` is ``whole`` or
            ``part``; ``variant`` is ``original``, a forgery family or (for ``part``) the one part
            forged; ``label`` 1 for forged; ``identity`` and ``source`` (who lent the face);
            ``group`` of people who lend each other faces; ``split``; attributes of the person. ``row`` indexes the arrays and ``original_row``
            points to the pristine crop of the same frame.
        images: (N, S, S, 3) uint8, RGB.
        changed: (N, S, S) bool, pixels that the forgery changed, before the codec.
        parts: (N, S, S) uint8, indices into `fwstudy.faces.clips.PARTS`, of the original.
    """

    manifest: pd.DataFrame
    images: np.ndarray
    changed: np.ndarray
    parts: np.ndarray

    @staticmethod
    def write(folder: Path, manifest, images, changed, parts) -> "CropSet":
        """Write the four files of a crop set to a folder, and open it."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name, array in (("images", images), ("changed", changed), ("parts", parts)):
            np.save(folder / f"{name}.npy", array)
        manifest.to_csv(folder / "manifest.csv", index=False)
        return CropSet.open(folder)

    @staticmethod
    def open(folder: Path) -> "CropSet":
        """Open a crop set; the arrays stay on disk until they are used.

        Raises:
            FileNotFoundError: the folder lacks one of the files.
            ValueError: the manifest and an array differ in length (named).
        """
        folder = Path(folder)
        names = {"identity": str, "source": str, "clip": str, "group": str}
        manifest = pd.read_csv(folder / "manifest.csv", dtype=names)
        arrays = {
            name: np.load(folder / f"{name}.npy", mmap_mode="r")
            for name in ("images", "changed", "parts")
        }
        for name, array in arrays.items():
            if len(array) != len(manifest):
                raise ValueError(
                    f"{folder / name}.npy has {len(array)} rows, the manifest {len(manifest)}; "
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

    def __len__(self) -> int:
        return len(self.manifest)


def to_tensor(images: np.ndarray, device: torch.device | None = None) -> torch.Tensor:
    """Images as a network takes them.

    Args:
        images: (B, S, S, 3) uint8, RGB.

    Returns:
        (B, 3, S, S) float32 in [-1, 1], channels last in memory.
    """
    tensor = torch.from_numpy(np.array(images)).to(device)
    return tensor.permute(0, 3, 1, 2).float().div(127.5).sub(1)
