"""Probes for shortcuts find what was planted, and nothing else."""

import numpy as np
import pandas as pd
import pytest

from fwstudy.evaluation import shortcuts


def test_probe_finds_a_planted_shortcut_and_nothing_else():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"label": np.tile([0, 1], 60), "identity": np.repeat(np.arange(12), 10)})
    table["group"] = table["identity"]
    leak = table["label"].to_numpy()[:, None] + rng.normal(0, 0.3, (120, 2))
    assert shortcuts.probe_auc(leak, table)["auc"] > 0.95
    assert abs(shortcuts.probe_auc(rng.normal(size=(120, 2)), table)["auc"] - 0.5) < 0.2


def test_probe_does_not_learn_people():
    """A feature that tells people apart but not forgeries says nothing about unseen people."""
    table = pd.DataFrame({"label": np.tile([0, 1], 60), "identity": np.repeat(np.arange(12), 10)})
    table["group"] = table["identity"]
    people = np.eye(12)[table["identity"]]
    assert shortcuts.probe_auc(people, table)["auc"] == pytest.approx(0.5, abs=0.1)


def test_pixel_probes_see_the_background_alone(crops):
    rows = crops.select(kind="whole", quality="c23").manifest["row"].to_numpy()
    images, parts = np.array(crops.images[rows]), crops.parsing[rows]
    inside = parts != 0
    changed = images.copy()
    changed[inside] = 255 - changed[inside]
    before, after = (shortcuts.background(x, parts) for x in (images, changed))
    np.testing.assert_array_equal(before, after)


def test_shortcut_table(crops):
    table = shortcuts.shortcut_table(crops.select(kind="whole", quality="c23"))
    assert set(table["features"]) == {*shortcuts.PIXEL_PROBES, "file size"}
    assert table["auc"].between(0, 1).all()
