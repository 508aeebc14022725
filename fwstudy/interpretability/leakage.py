"""Does the detector reveal who is in the picture? A linear probe that names the person."""

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fwstudy.evaluation.metrics import Measure, with_interval

MEASURES = {
    "identity_accuracy": Measure(
        "share of images whose person is named by a linear probe fitted to the person's other "
        "clips; chance is 1 / number of people",
        "Alain and Bengio 2016",
        "lower",
    ),
}


def identity_probe(activations: np.ndarray, manifest: pd.DataFrame) -> pd.DataFrame:
    """Whether a linear probe names the person on each image, having seen other clips of them.

    Alain and Bengio 2016: logistic regression on standardised activations. Each clip is left out
    once, the first ones of all people together, then the second ones: none is on both sides. Two
    photographs of a person are two clips. Anything in a crop may identify a person, also hair.

    Args:
        activations: (N, C), pooled.
        manifest: N rows, columns row, group, identity, clip. Pass originals: in a forgery the face
            may be another's.

    Returns:
        columns row, group, identity, clip, correct (0 or 1). It is NaN for people with one clip,
        who are no candidates either, and for all where fewer than two people have several.
    """
    clips = manifest.groupby("identity")["clip"]
    several = (clips.transform("nunique") > 1).to_numpy()
    number = clips.transform(lambda names: pd.factorize(names, sort=True)[0]).to_numpy()
    people = manifest["identity"].to_numpy(dtype=object)
    correct = np.full(len(manifest), np.nan)
    if len(set(people[several])) > 1:
        probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        named = cross_val_predict(
            probe, activations[several], people[several], cv=PredefinedSplit(number[several])
        )
        correct[several] = named == people[several]
    return manifest[["row", "group", "identity", "clip"]].assign(correct=correct)


def identity_leakage(activations: dict[str, np.ndarray], manifest: pd.DataFrame) -> pd.DataFrame:
    """How well people are named from each kind of activations; more axes name more.

    Args:
        activations: name to (N, C): of the concept axes, as many others, all axes, the baseline.
        manifest: see `identity_probe`.

    Returns:
        a row for each: features, num_axes, identity_accuracy, identity_accuracy_low and _high (over
        groups of people), chance, num_images, num_identities, num_undefined (images of people with
        one clip).
    """
    rows = []
    for name, values in activations.items():
        table = identity_probe(values, manifest)
        probed = table.dropna(subset="correct")
        count = probed["identity"].nunique()
        row = {"features": name, "num_axes": values.shape[1]}
        row |= with_interval("identity_accuracy", probed, lambda part: part["correct"].mean())
        row |= {"chance": 1 / count if count else np.nan, "num_images": len(probed)}
        rows.append(row | {"num_identities": count, "num_undefined": len(table) - len(probed)})
    return pd.DataFrame(rows)
