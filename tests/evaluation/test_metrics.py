import numpy as np
import pandas as pd
import pytest
from scipy.optimize import brentq
from sklearn.metrics import roc_auc_score, roc_curve

from fwstudy.evaluation import metrics

from .tables import images_of


def table(scores, labels, identities):
    return pd.DataFrame({"score": scores, "label": labels, "group": identities})


def test_detection_metrics_golden():
    labels, scores = np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8])
    values = metrics.detection_metrics(labels, scores, threshold=0.3)
    assert values["auc"] == 0.75  # 3 of 4 pairs in order
    assert values["ap"] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert values["eer"] == 0.5
    assert values["accuracy"] == 0.75  # one of two originals is above 0.3


def test_equal_error_rate_against_root_finding():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 500)
    scores = rng.normal(labels * 1.5, 1)
    false_positive, true_positive, _ = roc_curve(labels, scores)
    crossing = brentq(lambda x: 1 - x - np.interp(x, false_positive, true_positive), 0, 1)
    assert metrics.equal_error_rate(labels, scores) == pytest.approx(crossing, abs=5e-3)
    assert metrics.equal_error_rate(labels, labels.astype(float)) == 0


def test_score_auc_against_scikit_learn():
    rng = np.random.default_rng(0)
    data = table(rng.integers(0, 9, 200), rng.integers(0, 2, 200), "a")  # with ties
    assert metrics.score_auc(data) == pytest.approx(roc_auc_score(data["label"], data["score"]))
    assert np.isnan(metrics.score_auc(data[data["label"] == 1]))
    assert np.isnan(metrics.score_auc({"label": [0, 1, 1], "score": [0.0, 1.0, np.nan]}))
    columns = rng.normal(size=(200, 3))
    expected = [roc_auc_score(data["label"], column) for column in columns.T]
    positive = data["label"].to_numpy() == 1
    np.testing.assert_allclose(metrics.rank_auc(positive, columns), expected)
    both = np.stack([positive, ~positive, 0 * positive], axis=1)  # the last has no class of its own
    expected = [expected[0], 1 - expected[1], np.nan]
    np.testing.assert_allclose(metrics.rank_auc(both, columns), expected)


def test_balanced_threshold_separates():
    labels = np.array([0, 0, 0, 1, 1])
    threshold = metrics.balanced_threshold(labels, np.array([0.0, 1, 2, 3, 4]))
    assert 2 < threshold <= 3


def test_interval_resamples_whole_identities():
    # Two identities with opposite scores: every resample is one of three cases.
    data = table([0.0, 1, 1, 0], [0, 1, 0, 1], ["a", "a", "b", "b"])
    low, high = metrics.group_interval(data, metrics.score_auc)
    assert (low, high) == (0, 1)
    # The same rows as one image an identity would give a much narrower interval.
    many = pd.concat([data.assign(group=[f"{i}{j}" for j in "aabb"]) for i in range(100)])
    low, high = metrics.group_interval(many, metrics.score_auc)
    assert high - low < 0.3


def test_interval_of_one_identity_is_unknown():
    data = table([0.0, 1], [0, 1], ["a", "a"])
    assert np.isnan(metrics.group_interval(data, metrics.score_auc)).all()


def test_auc_interval_is_that_of_the_bootstrap():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(12), rng.integers(2, 9, 12))
    labels = rng.random(len(groups)) < 0.6
    data = table(rng.normal(labels + groups / 6).round(1), labels.astype(int), groups)
    found = metrics.auc_interval(data)
    assert found["auc"] == pytest.approx(metrics.score_auc(data), abs=1e-12)
    slow = metrics.group_interval(data, metrics.score_auc)
    np.testing.assert_allclose([found["auc_low"], found["auc_high"]], slow, atol=1e-12)


@pytest.mark.parametrize("labels", [[0, 1], [1, 1]])
def test_auc_interval_of_one_group_or_class_is_unknown(labels):
    found = metrics.auc_interval(table([0.0, 1], labels, ["a", "a"]))
    assert np.isnan([found["auc_low"], found["auc_high"]]).all()
    assert found["auc"] == 1 if labels == [0, 1] else np.isnan(found["auc"])


def test_mean_interval_is_that_of_the_bootstrap():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(20), rng.integers(1, 9, 20))
    values = rng.normal(groups / 10, 1)
    data = table(values, 0, groups)
    slow = metrics.group_interval(data, lambda part: part["score"].mean(), repeats=4000)
    quick = metrics.mean_interval(values, groups, repeats=4000)
    np.testing.assert_allclose(quick, slow, atol=0.03)
    assert metrics.mean_interval(np.array([0.0, 0, 1, 1]), np.array([0, 0, 1, 1])) == (0, 1)
    assert np.isnan(metrics.mean_interval(np.ones(3), np.zeros(3))).all()


def test_mean_interval_leaves_out_what_is_undefined():
    values, groups = np.array([1.0, np.nan, 3, np.nan]), np.array(["a", "a", "b", "c"])
    defined = ~np.isnan(values)
    assert metrics.mean_interval(values, groups) == metrics.mean_interval(
        values[defined], groups[defined]
    )
    assert np.isnan(metrics.mean_interval(values[:2], groups[:2])).all()


def test_detection_table_levels_and_families():
    rng = np.random.default_rng(0)
    table = images_of(6, 2, families=("FaceSwap", "Deepfakes"))
    table["score"] = rng.normal(table["label"])
    result = metrics.detection_table(table, 0.5)
    assert set(result["level"]) == {"frame", "video"}
    assert set(result["family"]) == {"all", "FaceSwap", "Deepfakes"}
    frame = result[(result["level"] == "frame")].set_index("family")["num_images"]
    assert frame.to_dict() == {"all": 36, "FaceSwap": 24, "Deepfakes": 24}
    video = result[(result["level"] == "video")].set_index("family")["num_images"]
    assert video["all"] == 18
    assert result["auc"].between(result["auc_low"], result["auc_high"]).all()


def test_draws_of_one_class_alone_are_left_out_of_an_interval():
    """Three groups, of which one holds originals alone: one draw in 27 has no forgery."""
    data = pd.DataFrame({"group": list("aabbcc"), "label": [0, 1, 0, 1, 0, 0]})
    data["score"] = [0.1, 0.9, 0.2, 0.8, 0.3, 0.4]
    assert metrics.group_interval(data, metrics.score_auc) == (1.0, 1.0)
