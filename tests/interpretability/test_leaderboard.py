"""Explainers ranked over detectors, on the tiny data and on tables whose ranks are known."""

from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch

from fwstudy.interpretability import leaderboard, networks
from fwstudy.interpretability.agreement import mean_ranks
from fwstudy.interpretability.explainers import EXPLAINERS, occlusion
from fwstudy.interpretability.measures import COLUMNS, GLOSSARY
from fwstudy.interpretability.model import CONCEPT_AXES, WHITENED
from fwstudy.reporting import leaderboard as text
from fwstudy.runtime import partial_folder

from ..models import some_params

QUICK = {
    "Grad-CAM": EXPLAINERS["Grad-CAM"],
    "occlusion": partial(occlusion, window=0.5, stride=0.5),
}


def known_table(groups=4):
    """Method a is better than b in the first detector, as good in the second; by a measure of each kind."""
    values = {
        ("one", "a", "mass"): 0.9, ("one", "b", "mass"): 0.1,
        ("two", "a", "mass"): 0.5, ("two", "b", "mass"): 0.5,
        ("one", "a", "fall"): 0.1, ("one", "b", "fall"): 0.9,
        ("two", "a", "fall"): 0.2, ("two", "b", "fall"): 0.1,
    }  # fmt: skip
    rows = [(*key, str(group), value) for key, value in values.items() for group in range(groups)]
    return pd.DataFrame(rows, columns=["model", "method", "measure", "group", "value"])


BETTER = {"mass": "higher", "fall": "lower"}


def test_ranks_are_means_over_detectors_and_measures():
    found = mean_ranks(known_table(), BETTER).set_index(["measure", "method"])
    assert found.loc[("mass", "a"), "value"] == pytest.approx((1 + 1.5) / 2)
    assert found.loc[("fall", "a"), "value"] == pytest.approx((1 + 2) / 2)
    assert found.loc[("all", "a"), "value"] == pytest.approx((1.25 + 1.5) / 2)
    np.testing.assert_allclose(found["value"].unstack().sum(axis=1), 3)
    np.testing.assert_allclose(found["low"], found["high"])  # all groups are alike
    assert mean_ranks(known_table(1), BETTER)["low"].isna().all()


def test_undefined_values_take_no_part_in_ranks():
    table = known_table()
    table.loc[(table["group"] == "0") & (table["method"] == "a"), "value"] = np.nan
    found, whole = (mean_ranks(one, BETTER)["value"] for one in (table, known_table()))
    np.testing.assert_allclose(found, whole)
    with pytest.raises(KeyError, match="fall"):
        mean_ranks(table, {"mass": "higher"})


def fresh_folder(factory, stage, *_, **__):
    return factory.mktemp(stage.replace("/", "-"))


@pytest.fixture(scope="module")
def board(pair, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leaderboard, "RANKED", QUICK)
        patch.setattr(leaderboard, "ATTACK", {"counts": (1,), "steps": 1, "pairs": 2})
        patch.setattr(text, "RANKED", QUICK)
        patch.setattr(leaderboard, "array_stamps", lambda folders: [])
        patch.setattr(leaderboard, "partial_folder", partial(fresh_folder, tmp_path_factory))
        subjects = {name: leaderboard.with_explainers(one) for name, one in pair.items()}
        found = leaderboard.score_explainers(subjects, num_attacked=2)
        yield subjects, *found, leaderboard.leaderboard(*found)


def test_every_method_of_every_detector_has_every_measure(board):
    _, scores, costs, table = board
    methods = {*QUICK, *leaderboard.CONTROLS}
    assert set(scores["measure"]) == set(leaderboard.MEASURED) <= set(GLOSSARY)
    assert set(scores["method"]) == methods | {CONCEPT_AXES} == set(costs["method"])
    assert list(table) == COLUMNS and set(table["measure"]) <= set(GLOSSARY)
    assert not table.duplicated(COLUMNS[:5]).any()
    assert set(table.loc[table["topic"] == "ranks", "method"]) == methods
    assert (table["topic"] == "agreement").sum() == 21
    same = scores.groupby(["measure", "model", "method"])["row"].agg(tuple)
    assert same["relevance_mass"].nunique() == 1  # the same images for all


def test_passes_are_counted(board):
    cost = board[2].set_index(["model", "method"])["forward_passes"]
    assert cost[WHITENED, "occlusion"] == 1 + 4  # the image, and 2 x 2 squares
    assert cost[WHITENED, "random map"] == 0 and cost[WHITENED, "Grad-CAM"] == 1
    assert (board[2]["core_seconds"] > 0).all()


def test_controls_do_not_depend_on_the_model(board):
    scores = board[1].set_index(["measure", "method"])["value"]
    likeness = scores["randomized_absolute_rank"]
    assert likeness[list(leaderboard.CONTROLS)].min() == pytest.approx(1)
    assert likeness["Grad-CAM"].abs().max() < 1


def test_the_answer_has_numbers_of_the_table(board):
    table = board[3]
    told = text.answer(table)
    ranks = text.board(table).set_index("method")["mean_rank"]
    best = ranks[list(QUICK)].idxmin()
    assert told.startswith(f"- {best} ranks best: its mean rank is {ranks[best]:.1f} ")
    assert len(told.splitlines()) == 3 and "nan" not in told.split("\n")[0]
    ranked = table["topic"] == "ranks"
    for width, words in (
        (9, f"- Of the {len(QUICK)} explainers whose"),
        (0, "- No other explainer's"),
    ):
        ends = {"low": table["value"] - width, "high": table["value"] + width}
        third = text.answer(table.assign(**{k: v.where(ranked, table[k]) for k, v in ends.items()}))
        assert third.splitlines()[2].startswith(words)
    beside = text.beside_concept_axes(table)
    assert len(beside) == 7 and beside["which"].nunique() == 1
    values = table.set_index(["model", "method", "measure"])["value"]
    for (model, measure), row in beside.iterrows():
        expected = [values[model, name, measure] for name in (CONCEPT_AXES, row["which"])]
        assert [row[CONCEPT_AXES], row["best explainer"]] == expected
    undefined = table["method"].isin([*QUICK]) & (table["measure"] == "randomized_absolute_rank")
    holes = table.assign(value=table["value"].mask(undefined))
    assert len(text.beside_concept_axes(holes)) == 7  # the axes' value is shown all the same
    accuracy = leaderboard.detector_accuracy(board[0])
    assert accuracy["auc"].between(0, 1).all() and len(accuracy) == 2


def test_detectors_are_named_ones_first():
    chosen = ["whitening_only", "random_labels", "bottleneck_full", "concept_loss_only"]
    found = leaderboard.compared_models(some_params({"ablations.run": chosen}))
    variants = ["variants/random_labels", "variants/concept_loss_only"]
    assert found == ["batch_norm", "whitened", *variants]


def small_networks(project, layer):
    """Settings with one tiny network, and a list of crops."""
    (project / "data" / "crops").mkdir(parents=True)
    (project / "data" / "crops" / "manifest.csv").touch()
    network = next(iter(some_params().explanations.networks.values())).model_dump()
    changes = {
        "networks": {"test_efficientnet": network | {"layer": layer}},
        "schedule.steps": 2,
        "schedule.evaluation_interval": 1,
    }
    return some_params({f"explanations.{key}": value for key, value in changes.items()})


def test_a_network_is_trained_once(project, crops):
    params = small_networks(project, "blocks")
    first = networks.train_network(params, "test_efficientnet", 0, crops)
    assert len(first.history) == 2 and first.layer_name == "blocks"
    again = networks.train_network(params, "test_efficientnet", 0, crops)
    pd.testing.assert_frame_equal(first.history, again.history)
    for one, other in zip(first.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert (project / "data/networks/test_efficientnet/seed0/baseline.safetensors").exists()


def test_networks_that_cannot_be_made_are_named(project, crops):
    params = small_networks(project, "layer9")
    with pytest.raises(ValueError, match=r"explanations\.networks\.test_efficientnet.*layer9"):
        networks.train_network(params, "test_efficientnet", 0, crops)


def test_other_weights_have_another_fingerprint(pair):
    one, other = (leaderboard.fingerprint(subject.model) for subject in pair.values())
    assert one != other and one == leaderboard.fingerprint(next(iter(pair.values())).model)


def test_scores_are_kept_by_weights_and_layer(pair, project, monkeypatch):
    """Another layer of the same network is another subject; people keep their names."""
    calls = []
    tables = (
        pd.DataFrame({"row": [3], "group": ["007"], "measure": ["deletion"], "value": [0.1]}),
        pd.DataFrame({"model": ["whitened"], "forward_passes": [1.0]}),
    )
    monkeypatch.setattr(leaderboard, "partial_folder", partial_folder)  # `board` has another
    monkeypatch.setattr(leaderboard, "score_subject", lambda *given: calls.append(given) or tables)
    subject = pair[WHITENED]
    other = replace(subject, detector=replace(subject.detector, layer_name="elsewhere"))
    for one in (subject, subject, other):
        for found, made in zip(leaderboard.kept_scores(one, 2), tables, strict=True):
            pd.testing.assert_frame_equal(found, made)
    assert [given[0] is other for given in calls] == [False, True]
