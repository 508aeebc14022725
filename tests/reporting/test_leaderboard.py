"""The leaderboard's order, matrix, figure and page, from rows whose ranks are known."""

import pandas as pd
import pytest

from fwstudy.evaluation.metrics import Measure
from fwstudy.reporting import leaderboard

from ..test_report import assert_offline

COLUMNS = ["topic", "model", "method", "subset", "measure", "value", "low", "high", "num_images"]
NAN = float("nan")


@pytest.fixture
def table():
    everyone = "all detectors"
    rows = [
        ("localization", "one & two", "slow", "all", "mass", 0.2, 0.1, 0.3, 9),
        ("localization", "one & two", "quick", "all", "mass", 0.6, 0.5, 0.7, 9),
        ("localization", "one & two", "axes", "all", "mass", 0.8, 0.7, 0.9, 9),
        *[
            ("cost", "one & two", method, "all", name, value, NAN, NAN, 9)
            for method, passes in (("slow", 200.0), ("quick", 1.0), ("axes", 1.0))
            for name, value in (("forward_passes", passes), ("core_seconds", passes / 100))
        ],
        ("ranks", everyone, "slow", "all", "explainer_rank", 1.75, 1.5, 2.0, 9),
        ("ranks", everyone, "quick", "all", "explainer_rank", 1.25, 1.0, 1.5, 9),
        ("ranks", everyone, "slow", "mass", "explainer_rank", 2.0, 2.0, 2.0, 9),
        ("ranks", everyone, "quick", "mass", "explainer_rank", 1.0, 1.0, 1.0, 9),
        ("ranks", everyone, "slow", "fall", "explainer_rank", 1.5, 1.0, 2.0, 9),
        ("ranks", everyone, "quick", "fall", "explainer_rank", 1.5, 1.0, 2.0, 9),
        ("agreement", everyone, "mass", "fall", "rank_agreement", -0.4, -0.5, 0.1, 9),
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def test_the_best_comes_first_with_its_cost(table):
    found = leaderboard.board(table)
    assert found["method"].tolist() == ["quick", "slow"]
    assert found["forward_passes"].tolist() == [1, 200]
    assert found["low"].tolist() == [1.0, 1.5]
    assert leaderboard.rank_table(table).loc["quick"].tolist() == [1.25, 1.0, 1.5]


def test_agreement_is_symmetric(table):
    found = leaderboard.agreement_matrix(table)
    assert found.loc["fall", "mass"] == found.loc["mass", "fall"] == -0.4
    assert found.loc["mass", "mass"] == 1


def test_the_figure_names_what_it_shows(table):
    cost, by_measure, agreed = leaderboard.leaderboard_figure(table).axes
    labels = [label.get_text() for label in cost.get_yticklabels()]
    assert labels == ["quick (1)", "slow (200)"] and cost.yaxis_inverted()
    assert [label.get_text() for label in by_measure.get_yticklabels()] == ["quick", "slow"]
    assert "-0.40" in {text.get_text() for text in agreed.texts}


def test_the_page_is_sorted_complete_and_offline(table):
    known = {"mass": Measure("share < 1", "ours", "higher")}
    page = leaderboard.leaderboard_body(table, known)
    assert_offline(page)
    assert page.index("quick") < page.index("slow") and "1.25 (1.00 to 1.50)" in page
    assert "<h2>one &amp; two</h2>" in page and "0.80 (0.70 to 0.90)" in page
    assert "share &lt; 1" in page and "nan" not in page.lower()
