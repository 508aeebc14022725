import numpy as np
import pandas as pd
import pytest
from scipy.optimize import brentq
from sklearn.metrics import roc_auc_score, roc_curve

from fwstudy import metrics


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
    columns = rng.normal(size=(200, 3))
    expected = [roc_auc_score(data["label"], column) for column in columns.T]
    np.testing.assert_allclose(metrics.rank_auc(data["label"] == 1, columns), expected)


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


def test_interval_covers():
    """Of 40 samples of 30 people the 95 % interval of the mean holds the truth nearly always."""
    rng, hits = np.random.default_rng(1), 0
    for trial in range(40):
        people = np.repeat(rng.normal(size=30), 4)
        data = table(people + rng.normal(size=120) * 0.1, 0, np.repeat(np.arange(30), 4))
        low, high = metrics.group_interval(data, lambda part: part["score"].mean(), trial, 200)
        hits += low <= 0 <= high
    assert hits >= 34


def test_relevance_mass_planted():
    relevance = np.zeros((4, 2, 2))
    relevance[0, 0] = 1  # all inside
    relevance[1, 1] = 1  # all outside
    relevance[2] = [[1, 1], [1, -5]]  # negative relevance does not count
    relevance[3] = [[1, 1], [0, 0]]
    mask = np.zeros((4, 2, 2), bool)
    mask[:3, 0] = True
    mass = metrics.relevance_mass(relevance, mask)
    np.testing.assert_allclose(mass[:3], [1, 0, 2 / 3])
    assert np.isnan(mass[3])  # an empty mask is no hit and no miss
    assert metrics.relevance_mass(-np.ones((1, 2, 2)), mask[:1]) == 0  # nothing positive


def test_concept_purity_planted():
    concepts = np.repeat([0, 1, 2], 10)
    perfect = np.eye(3)[concepts]
    np.testing.assert_array_equal(metrics.concept_purity(perfect, concepts), 1)
    np.testing.assert_array_equal(metrics.concept_purity(0 * perfect, concepts), 0.5)
    assert np.isnan(metrics.concept_purity(np.ones((4, 2)), np.zeros(4, int))[1])


def test_detection_table_levels_and_families():
    rng = np.random.default_rng(0)
    rows = [
        {"group": f"{i}", "identity": f"{i}", "clip": f"{i}_0", "frame": f, "variant": v, "quality": "c23",
         "label": int(v != "original"), "score": rng.normal(v != "original")}
        for i in range(6) for f in range(2) for v in ("original", "FaceSwap", "Deepfakes")
    ]  # fmt: skip
    result = metrics.detection_table(pd.DataFrame(rows), 0.5)
    assert set(result["level"]) == {"frame", "video"}
    assert set(result["family"]) == {"all", "FaceSwap", "Deepfakes"}
    frame = result[(result["level"] == "frame")].set_index("family")["num_images"]
    assert frame.to_dict() == {"all": 36, "FaceSwap": 24, "Deepfakes": 24}
    video = result[(result["level"] == "video")].set_index("family")["num_images"]
    assert video["all"] == 18
    assert (result["auc_low"] <= result["auc"]).all() and (
        result["auc"] <= result["auc_high"]
    ).all()
