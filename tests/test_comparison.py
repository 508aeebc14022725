"""Models compared in pairs, over seeds."""

import numpy as np
import pandas as pd
import pytest

from fwstudy import comparison


def predictions(shift=0.0, seeds=(0,)):
    tables = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        rows = [
            {"seed": seed, "group": f"{i}", "identity": f"{i}", "clip": f"{i}_0", "frame": f,
             "variant": v, "quality": "c23", "label": int(v != "original")}
            for i in range(8) for f in range(3) for v in ("original", "FaceSwap")
        ]  # fmt: skip
        table = pd.DataFrame(rows)
        tables.append(table.assign(score=rng.normal(table["label"] * shift)))
    return pd.concat(tables, ignore_index=True)


def test_compare_with_itself_is_zero():
    table = comparison.compare({"a": predictions(1), "b": predictions(1)}, "a", "c23")
    columns = ["difference", "difference_low", "difference_high"]
    np.testing.assert_array_equal(table[columns], 0)


def test_compare_finds_the_better_model():
    both = {"good": predictions(4, (0, 1)), "blind": predictions(0, (0, 1))}
    good = comparison.compare(both, "blind", "c23").set_index("variant").loc["good"]
    assert 0 < good["difference_low"] <= good["difference"] <= good["difference_high"]
    assert good["difference_least"] <= good["difference"] <= good["difference_most"]
    assert good["num_images"] == 48 and good["num_identities"] == 8 and good["num_seeds"] == 2


def test_auc_is_taken_seed_by_seed():
    """Two seeds on different scales: together the ranks would mix, each alone is perfect."""
    table = predictions(50, (0, 1))
    table.loc[table["seed"] == 1, "score"] += 1000
    assert comparison.mean_auc(table) == 1


def test_a_model_of_fewer_seeds_is_compared_on_its_own():
    both = {"reference": predictions(1, (0, 1, 2)), "one": predictions(1, (1,))}
    table = comparison.compare(both, "reference", "c23").set_index("variant")
    assert table.loc["one", "difference"] == 0 and table.loc["one", "num_seeds"] == 1


def test_compare_refuses_other_images():
    with pytest.raises(ValueError, match="b and a were not scored on the same images"):
        comparison.compare({"a": predictions(), "b": predictions()[4:]}, "a", "c23")


def test_predictions_are_read_with_their_seed(tmp_path):
    for seed in (0, 1):
        (tmp_path / f"seed{seed}").mkdir()
        predictions(seeds=(seed,)).drop(columns="seed").to_csv(
            tmp_path / f"seed{seed}" / "model.csv", index=False
        )
    table = comparison.read_predictions(tmp_path, "model", [0, 1])
    assert table["seed"].value_counts().to_dict() == {0: 48, 1: 48}
    assert table["identity"].map(type).eq(str).all()


def test_mean_over_seeds_golden():
    table = pd.DataFrame(
        {
            "seed": [0, 1, 0],
            "model": ["a", "a", "b"],
            "auc": [0.5, 0.7, 0.9],
            "auc_low": [0.4, 0.6, 0.8],
        }
    )
    found = comparison.mean_over_seeds(table, ["model"], ["auc"]).set_index("model")
    assert found.loc["a"].to_dict() == pytest.approx(
        {"auc": 0.6, "auc_low": 0.5, "auc_least": 0.5, "auc_most": 0.7, "num_seeds": 2}
    )
    assert found.loc["b", "num_seeds"] == 1


def test_detection_summary_names_level_family_and_quality():
    rows = [
        ("m", "frame", "c23", "all", 0.9), ("m", "video", "c23", "all", 0.95),
        ("m", "frame", "c40", "all", 0.7), ("m", "frame", "c23", "FaceSwap", 0.8),
        ("m", "video", "c40", "all", 0.1), ("m", "frame", "c40", "FaceSwap", 0.2),
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["model", "level", "quality", "family", "auc"])
    found = comparison.detection_summary(table.assign(ap=0.5, eer=0.1, accuracy=0.6), "c23")["m"]
    assert found["auc"] == 0.9 and found["video_auc"] == 0.95
    assert found["auc_c40"] == 0.7 and found["auc_FaceSwap"] == 0.8
    assert len(found) == 10
