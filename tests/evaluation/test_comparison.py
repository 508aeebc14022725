"""Models compared in pairs, over seeds."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fwstudy.evaluation import comparison
from fwstudy.params import load_params

from .tables import images_of


def predictions(shift=0.0, seeds=(0,)):
    tables = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        table = images_of(8, 3).assign(seed=seed)
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
    assert good["p_value"] == good["p_holm"] == 2 / 2**8  # all exchanges of eight groups
    assert 0 < good["detectable"] < 0.5
    assert good["difference_least"] <= good["difference"] <= good["difference_most"]
    assert good["num_images"] == 48 and good["num_identities"] == 8 and good["num_seeds"] == 2


def test_a_model_of_fewer_seeds_is_compared_on_its_own():
    both = {"reference": predictions(1, (0, 1, 2)), "one": predictions(1, (1,))}
    table = comparison.compare(both, "reference", "c23").set_index("variant")
    assert table.loc["one", "difference"] == 0 and table.loc["one", "num_seeds"] == 1


def test_contrasts_ask_only_of_models_that_were_run():
    both = {"good": predictions(4), "blind": predictions(0)}
    questions = {"is it good?": ("good", "blind"), "is it new?": ("new", "good")}
    found = comparison.contrasts(questions, both, "c23")
    assert found["question"].tolist() == ["is it good?"] and found.loc[0, "difference"] > 0.3
    assert found.loc[0, "p_holm"] == found.loc[0, "p_value"]
    none = comparison.contrasts({"is it new?": ("new", "good")}, both, "c23")
    assert none.empty and list(none) == list(found)


def test_image_difference_is_paired():
    """Images differ much, the variants by 0.1 in each."""
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"row": range(40), "group": np.repeat(list("abcd"), 10), "measure": "m"})
    hard = rng.normal(size=40)
    tables = [
        rows.assign(variant=name, seed=seed, value=hard + gain + 0.01 * rng.normal(size=40))
        for name, gain in (("a", 0.1), ("b", 0.0))
        for seed in (0, 1)
    ]
    found = comparison.image_difference(pd.concat(tables), "m", "a", "b")
    assert found["value"] == pytest.approx(0.1, abs=0.01) and 0.08 < found["low"] < found["high"]
    assert np.isnan(comparison.image_difference(pd.concat(tables), "m", "a", "c")["value"])


def test_compare_refuses_other_images():
    with pytest.raises(ValueError, match="b and a: not scored on the same images"):
        comparison.compare({"a": predictions(), "b": predictions()[4:]}, "a", "c23")


def test_predictions_are_read_with_their_seed(tmp_path):
    for seed in (0, 1):
        (tmp_path / f"seed{seed}").mkdir()
        predictions(seeds=(seed,)).drop(columns="seed").assign(split="test").to_csv(
            tmp_path / f"seed{seed}" / "model.csv", index=False
        )
    table = comparison.read_predictions(tmp_path, "model", [0, 1])
    assert table["seed"].value_counts().to_dict() == {0: 48, 1: 48}
    assert table["identity"].map(type).eq(str).all()


def test_mean_over_seeds_golden():
    rows = [(0, "a", 0.5, 0.4), (1, "a", 0.7, 0.6), (0, "b", 0.9, 0.8)]
    table = pd.DataFrame(rows, columns=["seed", "model", "auc", "auc_low"])
    found = comparison.mean_over_seeds(table, ["model"], ["auc"]).set_index("model")
    a = {"auc": 0.6, "auc_low": 0.5, "auc_least": 0.5, "auc_most": 0.7, "num_seeds": 2}
    assert found.loc["a"].to_dict() == pytest.approx(a)
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


def test_varied_finds_what_differs_in_nothing_else():
    params = load_params(Path(__file__).parents[1] / "params.yaml")
    names = ["bottleneck_none", "bottleneck_full", "cholesky", "whitening_only", "iternorm_steps_2"]
    settings = {name: params.variant(name) for name in names}
    found = comparison.varied(settings, params.whitening, ["bottleneck"])
    assert found.to_dict("list") == {"variant": names[:2], "bottleneck": [0, 1]}
    found = comparison.varied(settings, params.whitening, ["solver", "bottleneck"])
    assert found["solver"].tolist() == ["eigh", "eigh", "cholesky"]
    assert comparison.varied({}, params.whitening, ["bottleneck"]).empty


@pytest.mark.parametrize(
    ("low", "high", "p_holm", "verdict"),
    [
        (-0.02, 0.01, 0.01, "not told from 0"),
        (-0.02, -0.01, 0.04, "lower"),
        (0.001, 0.01, 0.04, "higher"),
        (0.001, 0.01, 0.5, "not told from 0"),
        (0.001, 0.01, np.nan, "not told from 0"),
    ],
)
def test_sentence_needs_interval_and_test(low, high, p_holm, verdict):
    row = {"question": "Q?", "variant": "a", "reference": "b", "difference": low / 2 + high / 2}
    row |= {"difference_low": low, "difference_high": high, "p_value": 0.2, "p_holm": p_holm}
    found = comparison.sentence(row | {"num_seeds": 3, "detectable": 0.01})
    assert found.startswith("Q? a less b: ") and f"), {verdict};" in found


def test_left_out_table_looks_at_one_family():
    """The unseen family is not told from originals, the other perfectly; both perfectly if seen."""
    seen = images_of(8, 3, families=("FaceSwap", "Deepfakes")).assign(seed=0)
    seen["score"] = seen["label"] * 1.0
    unseen = seen.assign(score=seen["variant"].eq("Deepfakes") * 1.0)
    found = comparison.leave_one_out_table({"m": seen}, {"FaceSwap": {"m": unseen}}, "c23")
    assert found["training"].tolist() == ["all families", "without it"]
    assert found["auc"].tolist() == [1.0, 0.5] and found["difference"].tolist() == [0, -0.5]
    assert found["num_images"].tolist() == [48, 48]
    none = comparison.leave_one_out_table({"m": seen}, {}, "c23")
    assert none.empty and list(none) == list(found)


def test_worth_lays_the_numbers_side_by_side():
    """A family and a number that is not compared are left out; what a model lacks is undefined."""
    rows = [("concepts", "m", "concept axes", "all", "purity", 0.9, 0.8, 1.0),
            ("concepts", "m", "concept axes", "transplants", "purity", 0.6, 0.5, 0.7),
            ("concepts", "m", "best axes", "all", "hit_at_1", 0.1, 0.0, 0.2),
            ("whitening", "n", "eval", "all", "mean_correlation", 0.3, 0.2, 0.4)]  # fmt: skip
    columns = ["topic", "model", "method", "subset", "measure", "value", "low", "high"]
    found = comparison.worth(pd.DataFrame(rows, columns=columns).assign(seed=1))
    found = found.set_index(["variant", "seed"])
    assert found.loc[("m", 1), ["purity", "purity_low", "purity_high"]].tolist() == [0.9, 0.8, 1.0]
    assert found.loc[("n", 1), "mean_correlation"] == 0.3 and found.notna().sum().sum() == 6


def test_operating_point_is_the_purest_that_is_cheap_else_the_cheapest():
    curve = pd.DataFrame(
        {"variant": list("abc"), "bottleneck": [0.0, 0.5, 1.0], "difference": [0.0, -0.009, -0.05],
         "concept_share": [0.5, 0.9, 1.0], "purity": [0.7, 0.8, 0.9], "part_top1": 0.9}
    ).assign(difference_low=-0.1, difference_high=0.1)  # fmt: skip
    assert "bottleneck 0.5 (b), the purest" in comparison.operating_point(curve)
    none = comparison.operating_point(curve.drop(index=1))
    assert "bottleneck 0 (a), the least costly" in none


def test_measures_and_costs_of_several_seeds_are_put_together(tmp_path):
    for seed, value in ((0, 0.4), (1, 0.6)):
        (tmp_path / f"seed{seed}").mkdir()
        row = {"topic": "t", "model": "m", "method": "x", "subset": "all", "measure": "purity"}
        row |= {"value": value, "low": value - 0.1, "high": value + 0.1, "seed": seed}
        pd.DataFrame([row]).to_csv(tmp_path / f"seed{seed}" / "measures.csv", index=False)
        for name in (f"seed{seed}", f"fast_seed{seed}"):
            table = pd.DataFrame({"model": [name], "minutes": [1.0]})
            table.to_csv(tmp_path / f"{name}.csv", index=False)
    found = comparison.measures_over_seeds(tmp_path, [0, 1]).iloc[0]
    assert (found["value"], found["value_low"], found["num_seeds"]) == pytest.approx((0.5, 0.4, 2))
    models = {"baseline": [0, 1], "whitened": [0, 1], "variants/fast": [1]}
    cost = comparison.training_cost(tmp_path, models)
    assert cost["model"].tolist() == ["seed0", "seed1", "fast_seed1"]
