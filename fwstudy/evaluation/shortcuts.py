"""Could a detector cheat? Linear probes on what no forgery changes, and on cheap cues."""

import cv2
import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fwstudy.crops.cropset import CropSet
from fwstudy.evaluation.metrics import auc_interval
from fwstudy.labels import PARTS

BORDER = 4  # pixels
THUMBNAIL = 8  # pixels; side of what the background probe sees
MAX_IMAGES = 20_000  # that are held in memory at once
FOLDS = 5


def background(images: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """A thumbnail of the background alone: (N, 3 · THUMBNAIL²)."""
    outside = (parts == PARTS.index("background"))[..., None]
    small = [
        cv2.resize(i, (THUMBNAIL,) * 2, interpolation=cv2.INTER_AREA) for i in images * outside
    ]
    return np.stack(small).reshape(len(images), -1)


def border(images: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """Mean and spread of each color in the four outermost strips: (N, 24)."""
    ends = slice(BORDER), slice(-BORDER, None)
    strips = [images[:, end].astype(float) for end in ends]
    strips += [images[:, :, end].astype(float) for end in ends]
    moments = [moment(s, axis=(1, 2)) for s in strips for moment in (np.mean, np.std)]
    return np.concatenate(moments, axis=1)


def mean_color(images: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """Mean color of the crop: (N, 3)."""
    return images.mean(axis=(1, 2))


PIXEL_PROBES = {"background pixels": background, "border pixels": border, "mean color": mean_color}


def probe_auc(features: np.ndarray, table: pd.DataFrame) -> dict:
    """AUC of a logistic regression on features, each person scored by a model that never saw them.

    Args:
        features: (N, D).
        table: N rows with ``label``, ``identity`` and ``group``.
    """
    probe = make_pipeline(
        StandardScaler(), LogisticRegression(C=0.1, class_weight="balanced", max_iter=1000)
    )
    scores = cross_val_predict(
        probe,
        features,
        table["label"],
        groups=table["group"],
        cv=GroupKFold(min(FOLDS, table["group"].nunique())),
        method="decision_function",
    )
    scored = table[["group", "label"]].assign(score=scores)
    counts = {"num_images": len(table), "num_identities": table["identity"].nunique()}
    return auc_interval(scored) | counts


def shortcut_table(crops: CropSet) -> pd.DataFrame:
    """One probe a row: pixels that no forgery changes, mean color, and size of the encoded clip.

    Args:
        crops: whole faces at one quality; all splits. Of more than `MAX_IMAGES`, that many at random.

    Returns:
        columns features, auc, auc_low, auc_high, num_images, num_identities.
    """
    table = crops.manifest
    if len(table) > MAX_IMAGES:
        table = table.sample(MAX_IMAGES, random_state=0).sort_index()
    rows = table["row"].to_numpy()
    images, parts = crops.images[rows], crops.parsing[rows]
    features = {name: describe(images, parts) for name, describe in PIXEL_PROBES.items()}
    if "bytes" in table:  # not of videos: those were encoded elsewhere
        features["file size"] = table[["bytes"]].to_numpy()
    return pd.DataFrame(
        [{"features": name, **probe_auc(values, table)} for name, values in features.items()]
    )
