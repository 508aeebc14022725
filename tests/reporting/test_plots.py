"""Every plot draws, and colors say the sign."""

import numpy as np
import pandas as pd
import pytest

from fwstudy.reporting import comparison_plots, plots


def test_figures_draw():
    table = pd.DataFrame({"g": ["x", "y"], "h": "m", "v": [0.4, 0.6]})
    table = table.assign(v_low=table["v"] - 0.1, v_high=table["v"] + 0.1)
    history = pd.DataFrame({"model": "m", "step": [1, 2], "loss": [1, 0.5], "validation_auc": 0.5})
    names = ("train_mean_correlation", "eval_mean_correlation")
    names += ("train_mean_variance", "eval_mean_variance")
    whiteness = pd.DataFrame({"step": [1, 2], **{name: [0.1, 0.2] for name in names}})
    image = np.zeros((8, 8, 3), np.uint8)
    row = {"label": "f", "image": image, "truth": image, "map": image[..., 0], "evidence": [1, -1]}
    drawn = [
        plots.contact_sheet([[image, None]], ["a", "b"], ["row"]),
        plots.intervals(table, "v", "g", "h", 0.5, "AUC"),
        plots.histories(history),
        plots.whiteness_history(whiteness),
        plots.correlations({"a": np.eye(3)}),
        plots.heat_table(pd.DataFrame(np.eye(2)), "value"),
        plots.evidence_panel([row], ["one", "two"], ["map"]),
    ]
    for figure in drawn:
        assert figure._repr_png_().startswith(b"\x89PNG")


def test_overlay_colours_say_the_sign():
    image = np.full((1, 2, 3), 128, np.uint8)
    red, blue = plots.overlay(image, np.array([[1.0, -1.0]]), 1.0)[0, :, ::2].astype(int).T
    assert red[0] > blue[0] and blue[1] > red[1]


# Of the ablations


@pytest.fixture
def table():
    table = pd.DataFrame({"variant": ["a_b", "c"], "bottleneck": [1, 0], "x": [0.4, 0.6], "y": 0.1})
    for name in ("x", "y"):
        table = table.assign(**{f"{name}_low": table[name] - 0.1, f"{name}_high": table[name]})
    return table


def test_pareto_front_golden():
    """Left out: (2, 1), worse in both than (3, 3), and (1, 5), as high as (2, 5) but to its left."""
    x, y = [3, 2, 1, 2, 0, 4], [3, 1, 5, 5, 4, 0]
    assert comparison_plots.pareto_front(x, y) == [3, 0, 5]
    assert comparison_plots.pareto_front([1, 1], [2, 2]) == [0, 1]


def test_error_bars_are_never_negative(table):
    found = comparison_plots.error_bars(table, "x")
    np.testing.assert_allclose(found, [[0.1, 0.1], [0, 0]], atol=1e-12)
    table["x_high"] = 0.0  # an interval that misses its value
    assert (comparison_plots.error_bars(table, "x") >= 0).all()


def test_figures_show_every_row(table):
    plane = comparison_plots.plane(table, "x", "y", "purity", "AUC")
    labels = [text.get_text() for text in plane.axes[0].get_legend().get_texts()]
    assert set(labels) == {"Pareto front", "a b", "c"}
    curves = comparison_plots.curves(table, "bottleneck", "y", {"x": "purity"}, "bottleneck", "AUC")
    wide = comparison_plots.curves(
        table * 100, "bottleneck", "y", {"x": "purity"}, "bottleneck", "AUC"
    )
    assert [figure.axes[1].get_yscale() for figure in (curves, wide)] == ["linear", "log"]
    assert curves.axes[1].lines[0].get_xydata().tolist() == [[0, 0.6], [1, 0.4]]
    for figure in (plane, curves):
        assert figure._repr_png_().startswith(b"\x89PNG")
