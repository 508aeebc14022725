"""A tiny data set of smooth blobs: eight people in four pairs, forged by drawing over a square."""

import os

from fwstudy.execute import ENVIRONMENT

os.environ.update({key: os.environ.get(key, value) for key, value in ENVIRONMENT.items()})

import cv2  # after the line above: OpenMP reads it when it is loaded
import numpy as np
import pytest
from hypothesis import settings

from fwstudy.clips import Clip, Variant, load_clip, pristine, save_clip
from fwstudy.labels import FAMILIES, FORGED_PARTS, ORIGINAL, PART_PREFIX, PARTS

SIZE = 80
NUM_PEOPLE = 8
settings.register_profile("suite", derandomize=True, deadline=None, database=None)
settings.register_profile("random", deadline=None, print_blob=True)  # of `make test-sources`
settings.load_profile("suite")


def pytest_collection_modifyitems(items):
    """What takes longest comes first, so that two processes end together."""
    first = ["test_pipeline.py", "test_graph.py", "test_launch.py", "test_real_benchmarks.py"]
    places = {name: place for place, name in enumerate(first)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


def smooth(rng, *shape):
    noise = rng.normal(0, 40, (*shape, 3)).astype(np.float32)
    return np.clip(cv2.GaussianBlur(noise, (0, 0), 4) * 6 + 128, 0, 255)


def make_clip(person: int, number: int, num_frames: int = 2) -> Clip:
    """A clip whose forgeries are a visible checkerboard in a square that tells the part."""
    rng = np.random.default_rng([person, number])
    frames = np.stack([smooth(rng, SIZE, SIZE)] * num_frames).astype(np.uint8)
    landmarks = np.stack([rng.uniform(20, 60, (68, 2))] * num_frames).astype(np.float32)
    parts = np.zeros(frames.shape[:3], np.uint8)
    parts[:, 20:60, 20:60] = PARTS.index("skin")
    squares = {name: (20 + 6 * i, 20 + 6 * i) for i, name in enumerate(FORGED_PARTS)}
    for name, (y, x) in squares.items():
        parts[:, y : y + 8, x : x + 8] = PARTS.index(name)
    partner = f"{person ^ 1:03d}"
    variants = {ORIGINAL: pristine(frames, f"{person:03d}")}
    boards = np.indices((SIZE, SIZE)).sum(0) % 2
    for i, name in enumerate([*FAMILIES, *(PART_PREFIX + part for part in FORGED_PARTS)]):
        y, x = squares.get(name.removeprefix(PART_PREFIX), (20, 20))
        side = 8 if name.startswith(PART_PREFIX) else 26 + i
        region = np.zeros(frames.shape[:3], np.uint8)
        region[:, y : y + side, x : x + side] = 255
        drawn = np.where(boards == 1, 40, 215)[None, ..., None]
        forged = np.where(region[..., None] > 0, drawn, frames).astype(np.uint8)
        changed = (forged != frames).any(axis=-1)
        variants[name] = Variant(forged, changed, region, partner)
    attributes = {"sex": "female" if person % 2 else "male", "age_years": 20 + person}
    return Clip(f"{person:03d}_{number}", f"{person:03d}", landmarks, parts, variants, attributes)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project without data in the working folder; training in it is deterministic, what follows is not."""
    import torch

    for name in ("params.yaml", "dvc.yaml"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="session")
def clip_paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    return [save_clip(folder, make_clip(person, 0)) for person in range(NUM_PEOPLE)]


@pytest.fixture(scope="session")
def crops(clip_paths, tmp_path_factory):
    from fwstudy.preprocess.build import build_crops

    built, left_out = build_crops(
        clip_paths,
        tmp_path_factory.mktemp("crops"),
        ["c23", "c40"],
        {"train": 0.5, "validation": 0.25, "test": 0.25},
        seed=0,
        settings={"crop_scale": 1.3, "crop_size": 64},
        num_workers=1,
    )
    assert left_out == 0
    return built


@pytest.fixture(scope="session")
def training(crops):
    return crops.select(split="train", quality="c23")


@pytest.fixture(scope="session")
def baseline(crops):
    from .models import tiny_baseline  # timm, which few tests need

    return tiny_baseline(crops)


@pytest.fixture(scope="session")
def aligned(baseline, training):
    from .models import aligned_detector

    return aligned_detector(baseline, training)


@pytest.fixture(scope="session")
def astronaut() -> np.ndarray:
    """A photograph of a face."""
    from skimage import data

    return data.astronaut()[:320, 60:380]


def rendered(folder, count: int) -> list[Clip]:
    """Clips of rendered people, two by two lending each other faces, whom a detector finds."""
    from fwstudy.faces.rendering.dataset import render_dataset  # numba, which few tests need

    paths = render_dataset(folder, count, 1, 2, 112, 7, 1, part_frames=1)
    return [load_clip(path) for path in paths]


@pytest.fixture(scope="session")
def people(tmp_path_factory):
    """Clips of twelve rendered people."""
    return rendered(tmp_path_factory.mktemp("people"), 12)


@pytest.fixture(scope="session")
def person(tmp_path_factory):
    """The first of `people`, who takes a sixth of the time."""
    return rendered(tmp_path_factory.mktemp("person"), 2)[0]
