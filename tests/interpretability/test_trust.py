"""Calibration, slices and identity probe, on planted predictions of people in pairs."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import logit
from sklearn.calibration import calibration_curve

from fwstudy.evaluation import metrics
from fwstudy.interpretability import calibration, leakage, slices
from fwstudy.interpretability.calibration import (
    BINS,
    Calibration,
    balanced_weights,
    calibrate,
    calibration_table,
    expected_calibration_error,
    reliability_curve,
)
from fwstudy.interpretability.leakage import identity_leakage, identity_probe
from fwstudy.interpretability.slices import (
    attribute_slices,
    gap_table,
    permutation_p_value,
    slice_table,
)
from fwstudy.reporting.plots import Figure, intervals, reliability_diagram

TONES = ("dark", "medium", "light")


def people_table(num_people=24, num_clips=2, num_frames=2):
    """Pairs of people alike in skin tone, two originals and forgeries a frame, scores apart."""
    rng = np.random.default_rng(0)
    shape = num_people, num_clips, num_frames, 4
    person, clip, _, number = (axis.ravel() for axis in np.indices(shape))
    table = pd.DataFrame({"group": person // 2, "identity": person, "label": number // 2})
    table = table.astype({"group": str, "identity": str}).assign(
        clip=person * num_clips + clip,
        skin_tone=np.array(TONES)[person // 2 % 3],
        sex=np.where(person % 2, "female", "male"),
        age_years=20 + 2 * person,
    )
    noise = rng.normal(size=len(table))
    mass = np.where(table["label"] == 1, rng.uniform(0.4, 0.6, len(table)), np.nan)
    return table.assign(row=range(len(table)), score=3 * table["label"] + noise, mass=mass)


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    monkeypatch.setattr(metrics.measured, "__defaults__", (0, 60))


@pytest.fixture(scope="module")
def people():
    return people_table()


def gaussian_scores(num_pristine, num_forged):
    """Scores whose log likelihood ratio is twice the score."""
    labels = np.repeat([0, 1], [num_pristine, num_forged])
    return labels, np.random.default_rng(0).normal(2 * labels - 1, 1)


def test_calibration_recovers_the_likelihood_ratio_whatever_the_share_of_forgeries():
    for counts in ((5000, 20000), (20000, 5000)):
        found = calibrate(*gaussian_scores(*counts))
        assert found.slope == pytest.approx(2, abs=0.06)
        assert found.intercept == pytest.approx(0, abs=0.06)


@pytest.mark.parametrize("scale", [1e-4, 1, 1e4])
def test_calibration_does_not_depend_on_the_unit_of_the_logit(scale):
    labels, scores = gaussian_scores(50, 200)
    found, plain = calibrate(labels, scale * (scores + 5)), calibrate(labels, scores)
    np.testing.assert_allclose(
        found.probability(scale * (scores + 5)), plain.probability(scores), atol=1e-3
    )


def test_calibration_of_separated_classes_is_finite_golden():
    # Two values, two parameters: the fit meets the targets 1 / (1 + 2) and (2 + 1) / (2 + 2).
    found = calibrate([0, 1, 1], [-1.0, 1, 1])
    np.testing.assert_allclose(found.probability([-1, 1]), [1 / 3, 3 / 4], atol=1e-3)


def test_calibration_of_a_constant_says_nothing():
    found = calibrate([0, 1, 1], np.full(3, 7.0))
    assert found.probability([7.0])[0] == pytest.approx(0.5, abs=0.06)  # softened


def test_calibration_weights_and_errors():
    np.testing.assert_allclose(Calibration().probability(logit([0.2, 0.9])), [0.2, 0.9])
    np.testing.assert_allclose(balanced_weights([0, 1, 1]), [0.5, 0.25, 0.25])
    with pytest.raises(ValueError, match="needs originals and forgeries"):
        calibrate([1, 1], [0.0, 1.0])
    with pytest.raises(ValueError, match="NaN"):
        calibrate([0, 1], [0.0, np.nan])


def test_expected_calibration_error_golden():
    labels, probability = [0, 0, 1, 1], [0.1, 0.3, 0.7, 1.0]
    # Lower half: mean 0.2, share 0; upper half: mean 0.85, share 1; half of the images each.
    error = expected_calibration_error(labels, probability, bins=2)
    assert error == pytest.approx(0.5 * 0.2 + 0.5 * 0.15)
    assert expected_calibration_error(labels, np.full(4, 0.5)) == 0
    assert expected_calibration_error(labels, labels) == 0
    assert expected_calibration_error(labels, 1 - np.array(labels)) == 1


def test_expected_calibration_error_planted():
    labels, scores = gaussian_scores(4000, 16000)
    errors = {
        slope: expected_calibration_error(labels, Calibration(slope).probability(scores))
        for slope in (0.5, 2, 8)
    }
    assert errors[2] < 0.02 and errors[0.5] > 0.1 and errors[8] > 0.05


def test_expected_calibration_error_of_one_class_error_is_not_hidden():
    """Confidence is right on average where each class is wrong: the probability is not."""
    labels = np.repeat([0, 1], 100)
    always_sure_of_forgery = np.full(200, 0.9)
    assert expected_calibration_error(labels, always_sure_of_forgery) == pytest.approx(0.4)
    with pytest.raises(ValueError, match=r"lie in \[0, 1\]"):
        expected_calibration_error(labels, np.full(200, np.nan))
    with pytest.raises(ValueError, match="one class is missing"):
        expected_calibration_error(np.ones(2, int), [0.5, 0.5])


def test_reliability_curve_against_scikit_learn():
    labels, scores = gaussian_scores(300, 300)
    probability = Calibration(2).probability(scores)
    curve = reliability_curve(labels, probability)
    forged, mean = calibration_curve(labels, probability, n_bins=BINS)
    np.testing.assert_allclose(curve["forged"], forged)
    np.testing.assert_allclose(curve["probability"], mean)
    assert curve["forged_low"].isna().all()  # nobody said who is who
    gaps = curve["share"] * (curve["forged"] - curve["probability"]).abs()
    assert gaps.sum() == pytest.approx(expected_calibration_error(labels, probability))


def test_reliability_curve_weighs_classes_alike():
    curve = reliability_curve([0, 1, 1, 1, 1], np.full(5, 0.55), list("abcde"))
    assert curve["forged"].tolist() == [0.5] and curve["share"].tolist() == [1]
    assert (curve["forged_low"] < 0.5).all() and (curve["forged_high"] > 0.5).all()


def test_calibration_table(people):
    labels, scores = people["label"].to_numpy(), people["score"].to_numpy()
    fitted = calibrate(labels, scores)
    table = calibration_table(people, {"as trained": Calibration(), "fitted": fitted})
    table = table.set_index("calibration")
    for value in ("ece", "brier"):
        assert value in calibration.MEASURES
        assert table.loc["fitted", value] < table.loc["as trained", value]
        assert (table[f"{value}_low"] < table[f"{value}_high"]).all()
    plain = np.mean((fitted.probability(scores) - labels) ** 2)  # here classes are balanced
    assert table.loc["fitted", "brier"] == pytest.approx(plain)
    constant = calibration_table(people, {"constant": Calibration(0, 0)})
    assert constant["brier"].item() == calibration.MEASURES["brier"].chance


def test_attribute_slices_keep_the_unknown():
    manifest = pd.DataFrame({"skin_tone": ["light", None, "dark", "medium"]}, index=[7, 3, 5, 9])
    manifest["age_years"] = [29.9, np.nan, 30, 80]
    manifest["ethnicity"] = ["white", "east_asian/white", None, "black"]
    slices = attribute_slices(manifest)
    assert slices.index.tolist() == [7, 3, 5, 9]
    assert slices["skin_tone"].tolist() == ["light", "unknown", "dark", "medium"]
    assert slices["age_band"].tolist() == ["under 30", "unknown", "30 to 49", "50 and over"]
    assert slices["ethnicity"].tolist() == ["white", "east_asian/white", "unknown", "black"]
    assert slices["skin_tone"].sort_values().tolist() == ["dark", "medium", "light", "unknown"]
    assert "sex" not in slices  # there is no such column
    nothing = attribute_slices(manifest[[]])
    assert nothing["people"].tolist() == ["unknown"] * 4


def test_slice_table(people):
    people = people.assign(skin_tone=people["skin_tone"].where(people["group"] != "0"))
    table = slice_table(people, 1.5, ["mass"])
    assert set(table.groupby("attribute")["num_images"].sum()) == {len(people)}
    assert table["value"].tolist()[:4] == ["dark", "medium", "light", "unknown"]
    unknown = table.set_index("value").loc["unknown"]
    assert unknown["num_identities"] == 2 and unknown["auc"] > 0.9
    assert np.isnan(unknown["auc_low"]) and np.isnan(unknown["false_positive_rate_high"])
    men = people[people["sex"] == "male"]
    row = table.set_index("value").loc["male"]
    originals = men[men["label"] == 0]
    assert row["false_positive_rate"] == pytest.approx((originals["score"] >= 1.5).mean())
    assert row["mass"] == pytest.approx(men["mass"].mean())
    assert row["mass_low"] < row["mass"] < row["mass_high"]
    assert row["auc_low"] <= row["auc"] <= row["auc_high"]
    assert {"auc", "false_positive_rate"} <= set(slices.MEASURES)


def test_planted_gap_is_found_and_others_are_not(people):
    """The score of dark people's forgeries is lowered: skin tone matters for AUC alone."""
    worse = (people["skin_tone"] == "dark") & (people["label"] == 1)
    biased = people.assign(score=people["score"] - 2.5 * worse)
    table = gap_table(biased, 1.5, ["mass"], repeats=199)
    assert len(table) == 9 and (table["p_holm"] >= table["p_value"]).all()
    gap = table.set_index(["attribute", "measure"])
    found = gap.loc[("skin_tone", "auc")]
    assert found["p_value"] <= 0.01 and found["p_holm"] <= 0.03 and found["gap_low"] > 0.1
    by_tone = slice_table(biased, 1.5).set_index("value")["auc"]
    assert found["gap"] == pytest.approx(by_tone[[*TONES]].max() - by_tone["dark"])
    for other in (("sex", "auc"), ("skin_tone", "false_positive_rate"), ("skin_tone", "mass")):
        assert gap.loc[other, "p_value"] > 0.05
    assert {"gap", "p_value", "p_holm"} <= set(slices.MEASURES)


def test_gap_leaves_out_and_counts_the_unknown(people):
    """The one person of unknown sex is told apart from nobody."""
    odd = people["identity"] == "0"
    people = people.assign(
        sex=people["sex"].mask(odd), score=people["score"].mask(odd, -9.0), skin_tone="dark"
    )
    table = gap_table(people, 1.5, repeats=9).set_index(["attribute", "measure"])
    sex, tone = table.loc[("sex", "auc")], table.loc[("skin_tone", "auc")]
    assert sex["gap"] < 0.05 and sex["num_unknown"] == 1 and sex["num_slices"] == 2
    assert tone["num_slices"] == 1 and np.isnan([tone["gap"], tone["p_value"]]).all()
    assert sex["p_holm"] <= 2 * sex["p_value"]  # an attribute without a test does not count


def test_a_slice_without_originals_has_no_auc_and_no_part_in_a_gap(people):
    people = people[(people["sex"] == "male") | (people["label"] == 1)]
    table = slice_table(people, 1.5).set_index("value")
    assert np.isnan(table.loc["female", ["auc", "false_positive_rate"]].astype(float)).all()
    gap = gap_table(people, 1.5, repeats=9).set_index(["attribute", "measure"])
    assert np.isnan(gap.loc[("sex", "auc"), "gap"])


def test_p_value_keeps_its_level_where_pairs_are_alike():
    """Pairs share attribute and luck: permuting it among single people finds gaps in noise."""
    rng = np.random.default_rng(0)
    person = np.arange(24)
    rejected = {"by group": 0, "by person": 0}
    for trial in range(60):
        kind = np.repeat(rng.permutation(12) % 2, 2)
        luck = np.repeat(rng.normal(size=12), 2) + 0.1 * rng.normal(size=24)
        table = pd.DataFrame({"identity": person, "kind": kind, "value": luck})
        for name, group in (("by group", person // 2), ("by person", person)):
            p_value = permutation_p_value(
                table.assign(group=group), lambda part: part["value"].mean(), trial, repeats=99
            )
            rejected[name] += p_value <= 0.05
    assert rejected["by group"] <= 7  # 3 of 60 expected
    assert rejected["by person"] >= 9


def test_p_value_where_nothing_can_be_exchanged():
    """Groups of one, two and three people: no two can change places."""
    table = pd.DataFrame(
        {"group": list("abbccc"), "identity": range(6), "kind": [0, 1, 1, 0, 0, 0], "value": range(6)}
    )  # fmt: skip
    p_value = permutation_p_value(table, lambda part: part["value"].mean(), 0, repeats=9)
    assert p_value == 1


def test_identity_leakage_planted(people):
    originals = people[people["label"] == 0]
    rng = np.random.default_rng(0)
    person, clip = (pd.factorize(originals[name])[0] for name in ("identity", "clip"))
    noise = rng.normal(size=(len(originals), 8))
    table = identity_leakage(
        {"person": np.eye(24)[person], "noise": noise, "clip": np.eye(48)[clip]}, originals
    ).set_index("features")
    assert table.loc["person", "identity_accuracy"] == 1
    assert (table["chance"] == 1 / 24).all() and (table["num_images"] == len(originals)).all()
    noise = table.loc["noise"]
    assert noise["identity_accuracy_low"] <= 1 / 24 + 0.02 and noise["identity_accuracy"] < 0.12
    # What names the clip names the person only if a clip is on both sides.
    assert table.loc["clip", "identity_accuracy"] < 2 / 24
    assert "identity_accuracy" in leakage.MEASURES


def test_identity_probe_of_photographs():
    """One image a clip: neutral and smiling; one person has three, one a single photograph."""
    names = ["a_1", "a_2", "b_1", "b_2", "c_1", "c_2", "c_3", "d_1"]
    manifest = pd.DataFrame({"clip": names, "identity": [name[0] for name in names]})
    manifest = manifest.assign(row=range(8), group=manifest["identity"])
    activations = np.eye(4)[pd.factorize(manifest["identity"])[0]]
    table = identity_probe(activations, manifest)
    assert table["correct"][:7].tolist() == [1] * 7 and np.isnan(table["correct"][7])
    summary = identity_leakage({"all": activations}, manifest).iloc[0]
    assert (summary["num_identities"], summary["num_undefined"]) == (3, 1)
    single = identity_leakage({"all": activations[[0, 2]]}, manifest.iloc[[0, 2]]).iloc[0]
    assert np.isnan([single["identity_accuracy"], single["chance"]]).all()
    assert (single["num_images"], single["num_undefined"]) == (0, 2)


def test_figures(people):
    curves = pd.concat(
        reliability_curve(
            people["label"], calibration.probability(people["score"]), people["group"]
        ).assign(calibration=name)
        for name, calibration in {"as trained": Calibration(), "other": Calibration(2, -3)}.items()
    )
    figure = reliability_diagram(curves)
    assert isinstance(figure, Figure) and figure._repr_png_().startswith(b"\x89PNG")
    curve = figure.axes[0]
    assert curve.get_legend_handles_labels()[1] == ["as trained", "other"]
    first = curves[curves["calibration"] == "as trained"]
    drawn = curve.containers[0].lines[0].get_xydata()
    np.testing.assert_allclose(drawn, first[["probability", "forged"]])
    lonely = people.assign(sex=people["sex"].where(people["group"] != "0"))
    table = slice_table(lonely, 1.5).assign(model="one")
    assert table["auc_low"].isna().any()  # drawn as a point without an interval
    table["slice"] = table["attribute"] + ": " + table["value"]
    assert intervals(table, "auc", "slice", "model", 0.5, "AUC")._repr_png_()


def test_people_of_whom_nothing_is_known_are_one_slice():
    rows = pd.DataFrame(
        {
            "identity": np.repeat([f"p{n}" for n in range(6)], 4),
            "group": np.repeat([f"p{n}" for n in range(6)], 4),
            "label": np.tile([0, 1], 12),
            "score": np.tile([-1.0, 1.0], 12),
        }
    )
    slices = slice_table(rows, 0.0)
    assert slices[["attribute", "value"]].to_numpy().tolist() == [["people", "unknown"]]
    assert slices["auc"].item() == 1 and slices["num_identities"].item() == 6
    gaps = gap_table(rows, 0.0)
    assert gaps["gap"].isna().all() and set(gaps["num_unknown"]) == {6}
