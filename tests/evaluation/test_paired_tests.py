"""Two detectors compared: pairing, hierarchical bootstrap, exchange of models, Holm, power."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from fwstudy.evaluation import paired_tests

from .tables import images_of


def scored(strength, seed, seeds=(0,), num_groups=8, num_clips=2):
    rng = np.random.default_rng(seed)
    table = images_of(num_groups, 4, num_clips)
    return pd.concat(
        [table.assign(seed=s, score=rng.normal(strength * table["label"])) for s in seeds]
    )


def test_pair_lays_images_side_by_side_in_any_order():
    model, reference = scored(1, 0, (0, 1)), scored(1, 1, (0, 1, 2))
    found = paired_tests.pair(model, reference.sample(frac=1, random_state=0))
    assert found.scores.shape == found.reference.shape == (128, 2)
    expected = [roc_auc_score(t["label"], t["score"]) for _, t in model.groupby("seed")]
    np.testing.assert_allclose(paired_tests.auc_by_seed(found)[0], expected)


def test_a_family_may_have_forged_a_clip_twice():
    """As in Celeb-DF and DFDC; the video tells the two apart."""
    table = scored(1, 0)
    twice = pd.concat([table.assign(video="a"), table[table["label"] == 1].assign(video="b")])
    assert len(paired_tests.pair(twice, twice).labels) == len(twice)


def test_pair_refuses_other_images():
    with pytest.raises(ValueError, match="not scored on the same images"):
        paired_tests.pair(scored(1, 0), scored(1, 0).iloc[1:])
    holes = pd.concat([scored(1, 0), scored(1, 0, (1,)).iloc[1:]])
    with pytest.raises(ValueError, match="not scored on the same images"):
        paired_tests.pair(holes, scored(1, 0, (0, 1)))


def test_bootstrap_draw_is_the_auc_of_the_drawn_clips():
    """One draw, by hand: its clips laid below each other, each as often as it was drawn."""
    table = scored(1, 0, num_groups=4)
    both = paired_tests.pair(table, table)
    draw = paired_tests.hierarchical_bootstrap(both, seed=5, repeats=1)[0, 0]
    rng = np.random.default_rng(5)
    clips = [np.unique(both.clips[both.groups == g]) for g in range(4)]
    drawn = [c for g in rng.integers(4, size=4) for c in rng.choice(clips[g], len(clips[g]))]
    rows = np.concatenate([np.flatnonzero(both.clips == c) for c in drawn])
    expected = roc_auc_score(both.labels[rows], both.scores[rows, 0])
    assert draw == pytest.approx(expected, abs=1e-12)


def test_seeds_are_drawn_too():
    """One seed good, one blind: without images to vary, only the seeds make the spread."""
    good, blind = scored(100, 0), scored(100, 0, (1,))
    blind["score"] = -blind["score"]
    found = paired_tests.pair(pd.concat([good, blind]), pd.concat([good, blind]))
    draws = paired_tests.hierarchical_bootstrap(found, repeats=400)[:, 0]
    assert set(draws.round(6)) == {0.0, 0.5, 1.0}
    assert 0.4 < np.mean(draws == 0.5) < 0.6


def test_exchange_p_value_exact():
    good, blind = scored(9, 0), scored(0, 1)
    assert paired_tests.exchange_p_value(paired_tests.pair(good, blind)) == 2 / 2**8
    assert paired_tests.exchange_p_value(paired_tests.pair(good, good)) == 1


def test_exchange_p_value_ignores_scale():
    one, other = scored(2, 0), scored(1, 1)
    found = paired_tests.exchange_p_value(paired_tests.pair(one, other))
    scaled = other.assign(score=1000 + 50 * other["score"])
    assert paired_tests.exchange_p_value(paired_tests.pair(one, scaled)) == found


def test_minimum_detectable_golden():
    draws = np.random.default_rng(0).normal(0.3, 0.01, 100_000)
    assert paired_tests.minimum_detectable(draws) == pytest.approx(0.028016, rel=0.01)  # 2.8016 SE


def test_holm_golden():
    np.testing.assert_allclose(paired_tests.holm([0.01, 0.04, 0.03]), [0.03, 0.06, 0.06])
    np.testing.assert_allclose(paired_tests.holm([0.04, np.nan, 0.6]), [0.08, np.nan, 0.6])
    np.testing.assert_allclose(paired_tests.holm([0.5, 0.9]), [1, 1])
