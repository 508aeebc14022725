"""Changed evidence, against changed activations of the network itself; the curve on planted concepts."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score

from fwstudy.evaluation.metrics import balanced_threshold
from fwstudy.interpretability import measures
from fwstudy.interpretability.decomposition import decompose
from fwstudy.interpretability.interventions import balanced, correction_curve
from fwstudy.interpretability.model import WHITENED
from fwstudy.training.trainer import predict
from fwstudy.whitening.surgery import find_classifier

CHANGES = {
    "removed": (0.0, 0.0, lambda maps: maps * 0),
    "scaled": (2.5, 0.0, lambda maps: maps * 2.5),
    "set": (0.0, 0.75, lambda maps: maps * 0 + 0.75),
}


@pytest.mark.parametrize("name", CHANGES)
def test_evidence_is_changed_as_by_editing_the_activations(aligned, crops, name):
    scale, activation, edit = CHANGES[name]
    axes, faces = [0, 2, 7], crops.select(quality="c23").evenly(8)
    found = decompose(aligned.model, aligned.layer, faces)
    weight = find_classifier(aligned.model).weight.reshape(-1)[axes].numpy(force=True)

    def edited(layer, given, output):
        output[:, axes] = edit(output[:, axes])
        return output

    with torch.inference_mode(), aligned.layer.register_forward_hook(edited):
        expected = aligned.model(faces.tensor())[:, 0].numpy()
    own = found.evidence[:, axes]
    changed = found.logits + (scale * own + activation * weight - own).sum(axis=1)
    np.testing.assert_allclose(changed, expected, atol=1e-4)
    assert np.abs(changed - found.logits).max() > 1e-3


def planted(seed=0, people=20):
    """Two concepts that make the label; the evidence of both is noise, of the first turned round."""
    rng = np.random.default_rng(seed)
    truth = np.repeat(rng.random((people, 1)) < 0.5, 2, axis=1)
    truth[:4, 0] = [True, True, False, False]
    truth[:, 1] = truth[:, 0]
    evidence = np.stack([np.where(truth[:, 0], -3.0, 3.0), rng.normal(size=people)], axis=1)
    manifest = pd.DataFrame({"label": truth[:, 0].astype(int), "group": np.arange(people) // 2})
    return evidence.sum(axis=1), evidence, truth, np.array([[-2.0, -2.0], [2.0, 2.0]]), manifest


def test_correcting_concepts_corrects_the_verdict():
    table = correction_curve(*planted(), threshold=0.0)
    assert table["corrected"].tolist() == [0, 1, 2]
    verdict, _, truth, _, manifest = planted()
    right = pd.DataFrame({"right": (verdict >= 0) == truth[:, 0], "label": manifest["label"] == 1})
    assert table["value"][0] == pytest.approx(balanced(right)) and table["value"][0] < 0.2
    assert table["value"].is_monotonic_increasing and table["value"][2] == 1
    assert (table["low"] <= table["value"]).all() and (table["value"] <= table["high"]).all()
    assert (table["num_images"] == 20).all()


def test_shapes_that_do_not_fit_are_named():
    verdict, evidence, truth, values, manifest = planted()
    with pytest.raises(ValueError, match=r"values \(2, concepts\), not \(1, 2\)"):
        correction_curve(verdict, evidence, truth, values[:1], manifest, 0.0)


def test_the_curve_starts_at_the_accuracy_of_the_model(pair):
    subject = pair[WHITENED]
    table = measures.explain_model(subject, ["interventions"])
    assert table["subset"].tolist() == [f"{number} corrected" for number in range(5)]
    held_out, tested = (subject.faces(split, kind="whole") for split in ("validation", "test"))
    known, logits = (predict(subject.model, faces) for faces in (held_out, tested))
    labels = tested.manifest["label"]
    forged = logits >= balanced_threshold(held_out.manifest["label"], known)
    assert table["value"][0] == pytest.approx(balanced_accuracy_score(labels, forged))
