"""Rows of measures, topic by topic, on the tiny data."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from fwstudy.evaluation.comparison import WORTH, image_difference, worth
from fwstudy.interpretability import measures
from fwstudy.interpretability.concept_metrics import concept_summary, measured_rows
from fwstudy.interpretability.model import BATCH_NORM, CONCEPT_AXES, WHITENED
from fwstudy.training.runs import find_run
from fwstudy.whitening.statistics import whiteness

from ..models import some_params

KEYS = ["topic", "model", "method", "subset", "measure"]
ONE_SEED = {"train.seeds": [0], "ablations.seeds": [0]}


@pytest.fixture(scope="module", autouse=True)
def few_draws():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measures, "WHITENESS_REPEATS", 3)
        for function in (measures.measured, measured_rows, concept_summary):
            patch.setattr(function, "__defaults__", (0, 10))
        yield


@pytest.mark.parametrize("topic", measures.TOPICS)
def test_every_topic_gives_rows_of_one_form(pair, topic):
    table = pd.concat([measures.explain_model(subject, [topic]) for subject in pair.values()])
    assert list(table) == measures.COLUMNS and len(table)
    assert set(table["measure"]) <= set(measures.GLOSSARY)
    assert not table.duplicated(KEYS).any()
    assert set(table["model"]) <= {"BatchNorm", "whitened", "no model"}
    numbers = table[["value", "low", "high"]].astype(float)
    assert not np.isinf(numbers).any(axis=None)
    assert numbers[numbers["value"].isna()].isna().all(axis=None)  # undefined: no interval either
    means = table[table["topic"].isin(["localization", "parts"])].dropna()
    assert (means["low"] <= means["value"] + 1e-9).all()
    assert (means["value"] <= means["high"] + 1e-9).all()


def test_whitening_lowers_the_correlation_and_the_concepts_are_found(pair):
    """Known orders: whitened below BatchNorm, and purity of seen concepts above chance."""
    found = {
        name: measures.explain_model(subject, ["whitening", "concepts"])
        for name, subject in pair.items()
    }
    keys = ["measure", "subset", "model", "method"]
    table = pd.concat(found.values()).set_index(keys)["value"].sort_index()
    correlation = table["mean_correlation", "all"]
    assert correlation[WHITENED, "eval"] < correlation[BATCH_NORM, "eval"]
    assert table["purity", "all"][WHITENED, CONCEPT_AXES] > 0.6
    single = table["purity"].drop("all")[:, WHITENED, CONCEPT_AXES]
    assert single.mean() == pytest.approx(table["purity", "all"][WHITENED, CONCEPT_AXES])


def test_a_quantity_has_one_value_in_every_table(pair):
    """The essential topics of the concept axes alone give what all topics give."""
    full = measures.explain_model(pair[WHITENED], measures.ESSENTIAL)
    few = measures.explain_model(replace(pair[WHITENED], shown=(CONCEPT_AXES,)), measures.ESSENTIAL)
    both = few.merge(full, on=KEYS, suffixes=("", "_full"))
    assert len(both) == len(few) < len(full)
    for column in ("value", "low", "high", "num_images"):
        np.testing.assert_allclose(both[column], both[f"{column}_full"], rtol=1e-4)
    numbers = worth(few.assign(seed=0)).iloc[0]
    assert numbers[list(WORTH)].notna().all()
    hits = measures.part_hits(pair[WHITENED], (WHITENED, CONCEPT_AXES))
    assert numbers["part_top1"] == pytest.approx(hits["part_top1"].mean())
    assert len(hits) == len(pair[WHITENED].faces("test", kind="part")) > pair[WHITENED].num_images


def test_codec_topic_pairs_the_same_frames(pair, crops):
    same = crops.select(split=["test", "validation"], quality="c23")
    shuffled = same.take(np.random.default_rng(0).permutation(len(same))[:-9])
    rows = pd.DataFrame(measures.codec_topic(pair[WHITENED], shuffled, "c23"))
    assert (rows["value"].dropna() > 0.999).all() and set(rows["subset"]) == {"c23"}
    assert len(rows) == 2


def test_whiteness_interval_is_that_of_a_bootstrap_that_computes_all_anew(monkeypatch):
    monkeypatch.setattr(measures, "WHITENESS_REPEATS", 1000)
    generator = torch.Generator().manual_seed(0)
    mix, groups = torch.randn(8, 8, generator=generator), np.repeat(np.arange(24), 4)
    own = mix + 0.3 * torch.randn(24, 8, 8, generator=generator).repeat_interleave(4, dim=0)
    features = torch.einsum("ncd,ndhw->nchw", own, torch.randn(96, 8, 4, 4, generator=generator))
    found = measures.whiteness_interval(features, groups)
    rng, draws = np.random.default_rng(1), []
    for _ in range(300):
        places = np.concatenate([np.flatnonzero(groups == g) for g in rng.integers(0, 24, 24)])
        draws.append(whiteness(features[places]))
    assert len(found) == 3
    for name, (value, low, high) in found.items():
        assert value == pytest.approx(whiteness(features)[name])
        expected = np.quantile([draw[name] for draw in draws], [0.025, 0.975])
        assert high - low == pytest.approx(np.ptp(expected), rel=0.2)


def test_whiteness_of_groups_that_are_alike_has_a_narrow_interval():
    """The same features in every group: no draw of groups differs from the whole."""
    features = torch.randn(4, 6, 3, 3, generator=torch.Generator().manual_seed(0))
    found = measures.whiteness_interval(features.repeat(3, 1, 1, 1), np.repeat(list("abc"), 4))
    for value, low, high in found.values():
        assert low == pytest.approx(high) and value == pytest.approx(low, rel=0.02)
    alone = measures.whiteness_interval(features, np.repeat("a", 4))
    assert np.isnan([ends for _, *ends in alone.values()]).all()


def test_all_variants(pair, crops, monkeypatch):
    """Variants without concept axes come first; what is told image by image can be compared still."""
    found = {"batch": pair[BATCH_NORM].detector, "whitening": pair[WHITENED].detector}
    monkeypatch.setattr(measures, "load", lambda run, params: found[run.settings.norm])
    monkeypatch.setattr(measures, "PURITY_IMAGES", 4)
    changes = {"ablations.run": ["whitening_only", "random_rotation"]} | ONE_SEED
    params = some_params(changes | {"interpretability.num_images": 4})
    rows, images = measures.explain_variants(params, crops)
    table = worth(rows).set_index("variant")
    assert set(table.index) == {"batch_norm", "whitened", "whitening_only", "random_rotation"}
    assert table.loc["batch_norm", ["purity", "relevance_mass"]].isna().all()
    assert table["best_purity"].notna().all()
    for measure in ("relevance_mass", "part_top1"):
        shown = images[(images["measure"] == measure) & (images["variant"] == "whitened")]
        assert shown["value"].mean() == pytest.approx(table.loc["whitened", measure])
    assert set(images["variant"]) == {"whitened", "random_rotation"}
    assert image_difference(images, "part_top1", "whitened", "random_rotation")["value"] == 0


def test_a_variant_is_measured_once(pair, crops, monkeypatch, project):
    """Measured again is what has other weights, logits or settings; all, where a mask changed."""
    monkeypatch.setattr(measures, "load", lambda run, params: pair[BATCH_NORM].detector)
    table = pd.DataFrame({"measure": ["part_top1"], "row": [7], "group": ["007"], "value": [1 / 3]})
    values = ["verdict", "m", "axes", "all", "x", 0.1, np.nan, 2.0, 3]
    rows = pd.DataFrame([values], columns=measures.COLUMNS)
    asked = []
    monkeypatch.setattr(
        measures, "_of_variant", lambda subject: asked.append(subject.name) or [rows, table]
    )
    params = some_params({"ablations.run": ["whitening_only"]} | ONE_SEED)
    runs = [find_run(params, name, 0) for name in ("batch_norm", "whitened", "whitening_only")]
    mask = project / "data" / "crops" / "mask.npy"
    for path in [mask, *(path for run in runs for path in (run.weights, run.predictions))]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("one")
    first, again = (measures.explain_variants(params, crops) for _ in range(2))
    assert asked == ["batch_norm", "whitened", "whitening_only"]
    for one, other in zip(first, again, strict=True):
        pd.testing.assert_frame_equal(one, other, check_exact=True)
    runs[1].weights.write_text("another")
    measures.explain_variants(params, crops)
    assert asked[3:] == ["whitened"]
    mask.write_text("another")  # neither weights nor logits tell
    measures.explain_variants(params, crops)
    assert asked[4:] == asked[:3]


def test_restoration_counts_images_not_parts(pair):
    rows = pd.DataFrame(measures.restoration_topic(pair[WHITENED]))
    assert set(rows["num_images"]) == {len(pair[WHITENED].explained("whole"))}


def test_trust_tables(pair):
    tables = {name: measures.trust_tables(subject) for name, subject in pair.items()}
    for name, found in tables.items():
        assert set(found) == {"calibration", "reliability", "slices", "gaps", "leakage"}
        assert all(set(table["model"]) == {name} for table in found.values())
    assert len(tables[WHITENED]["leakage"]) == 3 and len(tables[BATCH_NORM]["leakage"]) == 1
    assert "relevance_mass" in tables[WHITENED]["slices"]
    assert "relevance_mass" not in tables[BATCH_NORM]["slices"]


def test_without_any_map_at_a_quality_its_stability_is_empty(pair, crops):
    none = crops.select(split="test", quality="c40").take(np.array([], int))
    rows = list(measures.codec_topic(pair[BATCH_NORM], none, "c40"))
    assert rows and all(np.isnan(row["value"]) and row["num_images"] == 0 for row in rows)
