"""Which models are trained on which data sets, and where they are kept."""

import shutil
from pathlib import Path

import pytest

from fwstudy.training import runs
from fwstudy.training.cross_dataset import TRAININGS, all_studies, cross_study

from ..models import some_params


@pytest.fixture
def params(project, crops):
    """Settings, in a project with the blobs as the study's crops and as the photographs."""
    for folder in ("crops", "cross_dataset/photos/crops"):
        shutil.copytree(Path(crops.images.filename).parent, project / "data" / folder)
    return some_params()


def test_what_each_training_sees(params):
    found = all_studies(params, "photos")
    assert list(found) == ["own", "other", "both", "self_blended"]
    labels = ["rendered", "photos", "rendered + photos", "rendered, self-blended alone"]
    assert [study.label for study in found.values()] == labels
    sets = [{"rendered"}, {"photos"}, {"rendered", "photos"}, {"rendered"}]
    assert [set(study.crops().manifest["dataset"]) for study in found.values()] == sets
    assert [len(study.runs) for study in found.values()] == [3, 3, 3, 1]
    assert found["self_blended"].params.train.self_blended_ratio == 1
    assert {s.params.train.self_blended_ratio for s in list(found.values())[:3]} == {0}
    assert set(TRAININGS) == {"own", *params.cross_dataset.trainings}


def test_the_study_s_quality_alone_is_seen(params):
    crops = cross_study(params, "photos", "both").crops()
    assert set(crops.manifest["quality"]) == {params.preprocess.quality}
    people = crops.manifest.groupby("identity")["split"].nunique()
    assert people.max() == 1


def test_models_have_files_of_their_own(params):
    found = all_studies(params, "photos")
    runs_of = [run for study in found.values() for run in study.runs]
    files = {run.weights.relative_to(Path.cwd() / "data").as_posix() for run in runs_of}
    assert len(files) == 10
    assert "models/seed0/whitened.safetensors" in files
    assert "cross_dataset/photos/both/seed0/batch_norm.safetensors" in files
    assert all(run.baseline.crops == run.crops for run in runs_of)


def test_unfinished_work_is_known_by_both_data_sets(params):
    places = {}
    for changed in (None, "crops", "cross_dataset/photos/crops"):
        if changed:
            path = Path("data") / changed / "manifest.csv"
            path.write_text(path.read_text() + "\n")
        studies = {name: cross_study(params, "photos", name) for name in list(TRAININGS)[1:]}
        places[changed] = {n: runs.partial_of(s.runs[0], s.params) for n, s in studies.items()}
    before, first, other = places.values()
    assert {name for name in before if before[name] != first[name]} == {"both", "self_blended"}
    assert {name for name in before if first[name] != other[name]} == {"other", "both"}


def test_a_study_of_photographs_has_rendered_people_beside_it(params):
    turned = some_params({"faces.source": "photos"})
    assert turned.other_faces("photos").source == "rendered"
    assert params.other_faces("photos").source == "photos"
    study = cross_study(turned, "photos", "both")
    assert study.folders == {"photos": "crops", "rendered": "cross_dataset/photos/crops"}
