"""Several crop sets as one, to train one model on all of them; no array is copied."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from fwstudy.crops.cropset import ARRAYS, CropSet, array_at, place_of

NAMES = ("identity", "source", "group", "clip")  # columns that name something within one data set


class Stack:
    """Arrays one behind the other along their first axis, each left where it lies.

    Only what a crop set needs of an array: ``shape``, ``dtype``, and rows by a whole number, an array
    of them or a slice. To another process goes where the arrays lie, not what is in them.

    Args:
        arrays: of one shape but for the first axis, and of one type.

    Raises:
        ValueError: they differ in shape or type.
    """

    def __init__(self, arrays: Sequence):
        self.arrays = tuple(arrays)
        kinds = {(array.shape[1:], np.dtype(array.dtype)) for array in self.arrays}
        if len(kinds) != 1:
            found = " and ".join(sorted(f"{shape} of {dtype}" for shape, dtype in kinds))
            raise ValueError(f"arrays differ: {found or 'there are none'}")
        self.starts = np.cumsum([0, *(array.shape[0] for array in self.arrays)])
        ((rest, self.dtype),) = kinds
        self.shape = (int(self.starts[-1]), *rest)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: int | slice | np.ndarray) -> np.ndarray:
        rows = np.asarray(range(len(self))[rows] if isinstance(rows, slice) else rows)
        if rows.size and not -len(self) <= rows.min() <= rows.max() < len(self):
            raise IndexError(f"rows {rows.min()} to {rows.max()} of {len(self)}")
        rows = np.asarray(rows % len(self))  # negative ones count from the end
        which = np.searchsorted(self.starts, rows, side="right") - 1
        found = np.empty((*rows.shape, *self.shape[1:]), self.dtype)
        for number, array in enumerate(self.arrays):
            here = which == number
            if here.any():
                found[here] = array[rows[here] - self.starts[number]]
        return found

    def __reduce__(self):
        return _stacked, tuple(place_of(array) for array in self.arrays)


def _stacked(*places) -> Stack:
    return Stack([array_at(place) for place in places])


def join(crop_sets: Mapping[str, CropSet]) -> CropSet:
    """One crop set of several, whose people are strangers to each other.

    Names of people, of groups of them and of clips are told apart by the name of their data set
    (``photos:001``), so that two data sets may use the same ones. Every crop stays in its split: where
    splits are disjoint by person in each data set, they are in the joined one.

    Args:
        crop_sets: by the name of their data set; crops of one size.

    Returns:
        their crops in this order, with a column ``dataset``. The arrays stay on disk.

    Raises:
        ValueError: crops of different sizes; the message names the data sets.
    """
    sizes = {name: crops.images.shape[1] for name, crops in crop_sets.items()}
    if len(set(sizes.values())) > 1:
        found = ", ".join(f"{name} {size} pixels" for name, size in sizes.items())
        raise ValueError(f"crops of different sizes cannot be joined: {found}")
    tables, start = [], 0
    for name, crops in crop_sets.items():
        table = crops.manifest.assign(dataset=name)
        for column in NAMES:
            table[column] = (f"{name}:" + table[column].astype(str)).where(table[column].notna())
        table[["row", "original_row"]] += start
        tables.append(table)
        start += crops.images.shape[0]
    arrays = {
        kind: Stack([getattr(crops, kind) for crops in crop_sets.values()]) for kind in ARRAYS
    }
    return CropSet(pd.concat(tables, ignore_index=True), **arrays)
