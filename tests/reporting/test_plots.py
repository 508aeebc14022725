"""Every plot draws, and colors say the sign."""

import numpy as np
import pandas as pd

from fwstudy.reporting import plots


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
