import numpy as np
import pytest

from benchmarks.mean_face import TEMPLATE
from fwstudy.clips import Portrait
from fwstudy.faces.forging import blending, families, warp
from fwstudy.faces.parts import draw_parts, shape_from_landmarks
from fwstudy.labels import FAMILIES, FORGED_PARTS, PARTS

SIZE = 128


def portrait(seed: int, smile: float = 0.0, fringe: bool = False) -> Portrait:
    """A smooth drawn face with noise: an ellipse of skin, darker brows and eyes, red mouth."""
    rng = np.random.default_rng(seed)
    landmarks = TEMPLATE * 0.245 * SIZE + (0.5 * SIZE, 0.45 * SIZE) + rng.normal(0, 0.8, (68, 2))
    landmarks[48:55, 0] += smile * np.linspace(-3, 3, 7)
    landmarks[55:60, 1] += 4 * smile
    parts = draw_parts(shape_from_landmarks(landmarks), (SIZE, SIZE))
    if fringe:
        top = np.indices(parts.shape)[0] < 0.42 * SIZE
        parts[top & (np.indices(parts.shape)[1] < SIZE / 2)] = PARTS.index("hair")
    palette = np.full((len(PARTS), 3), 90.0)
    palette[1:] = rng.uniform(150, 220, 3) * (1, 0.8, 0.7)
    palette[2:6] *= 0.5
    palette[6] *= 0.9
    palette[7] = (170, 70, 80)
    palette[8] = (50, 40, 30)
    light = 1 + 0.1 * np.cos(np.indices(parts.shape)[1] / 30 + seed)
    smooth = blending._blur((palette[parts] * light[..., None]).astype(np.float32), 1.2)
    noisy = smooth + rng.normal(0, 3, smooth.shape)
    return Portrait(noisy.clip(0, 255).astype(np.uint8), landmarks.astype(np.float32), parts)


def all_forgeries(target, other, smiling, seed=0):
    donors = dict(zip(FAMILIES, (other, smiling, other, smiling), strict=True))
    for family, donor in donors.items():
        yield family, families.forge(family, target, donor, np.random.default_rng(seed))
    for part in FORGED_PARTS:
        yield part, families.forge_part(target, other, part, np.random.default_rng(seed))


@pytest.mark.parametrize("seed", range(4))  # both ways of blending FaceSwap occur
def test_pixels_outside_the_region_stay_exactly(seed):
    target, other, smiling = portrait(1), portrait(2), portrait(1, smile=1)
    for name, (image, region) in all_forgeries(target, other, smiling, seed):
        assert image.dtype == np.uint8 and image.shape == target.image.shape, name
        assert region.dtype == np.float32 and region.shape == target.parsing.shape, name
        assert 0 <= region.min() and region.max() <= 1, name
        assert np.array_equal(image[region == 0], target.image[region == 0]), name
        assert np.allclose(region * 255, np.round(region * 255), atol=1e-4), name
        changed = (image != target.image).any(-1)
        assert changed[region > 0.5].mean() > 0.7, name
        assert not region[[0, -1]].any() and not region[:, [0, -1]].any(), name


def test_inputs_are_not_modified_and_results_repeat():
    target, other, smiling = portrait(1), portrait(2), portrait(1, smile=1)
    before = target.image.copy(), other.image.copy(), smiling.landmarks.copy()
    first = dict(all_forgeries(target, other, smiling))
    second = dict(all_forgeries(target, other, smiling))
    for name in first:
        assert np.array_equal(first[name][0], second[name][0]), name
    for old, new in zip(before, (target.image, other.image, smiling.landmarks), strict=True):
        assert np.array_equal(old, new)


@pytest.mark.parametrize("part", FORGED_PARTS)
def test_forged_part_stays_at_its_part(part):
    target, other = portrait(3), portrait(4)
    region = families.forge_part(target, other, part, np.random.default_rng(0))[1]
    own = np.isin(target.parsing, [PARTS.index(label) for label in FORGED_PARTS[part]])
    assert region[own].mean() > 0.6
    for other, labels in FORGED_PARTS.items():
        for label in labels if other != part else ():
            assert region[target.parsing == PARTS.index(label)].max() < 0.05, label
    rows, columns = np.nonzero(region > 0.5)
    inside = np.linalg.norm(
        np.stack([columns, rows], 1).mean(0)
        - target.landmarks[
            [point for label in FORGED_PARTS[part] for point in warp.PART_LANDMARKS[label]]
        ].mean(0)
    )
    assert inside < 0.2 * warp.interocular(target.landmarks)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("fringe_on_target", [True, False])
def test_hair_is_neither_forged_nor_lent(family, fringe_on_target):
    plain, fringed = portrait(5), portrait(6, fringe=True)
    target, donor = (fringed, plain) if fringe_on_target else (plain, fringed)
    forehead = slice(0, 48), slice(0, SIZE // 2 - 6)
    region = families.forge(family, target, donor, np.random.default_rng(1))[1]
    assert region.any()
    assert not region[forehead].any()
    bare = families.forge(family, plain, plain, np.random.default_rng(1))[1]
    assert bare[forehead].any() or family == "NeuralTextures"


def test_neural_textures_changes_the_mouth_only():
    target, smiling = portrait(1), portrait(1, smile=1)
    region = families.neural_textures(target, smiling, np.random.default_rng(0))[1]
    assert region[target.parsing == PARTS.index("mouth")].mean() > 0.9
    for part in ("left_eye", "right_eye", "left_brow", "right_brow"):
        assert not region[target.parsing == PARTS.index(part)].any()


@pytest.mark.parametrize(("competence", "lowest"), [((1, 1), 0.6), ((0, 0), 0.2)])
def test_forged_skin_keeps_the_cameras_noise(competence, lowest):
    """A competent forger restores the noise; a careless one leaves less of it, the trace."""
    skill = families.Skill(competence)
    target, other, smiling = portrait(1), portrait(2), portrait(1, smile=1)
    donors = dict(zip(FAMILIES, (other, smiling, other, smiling), strict=True))
    skin = target.parsing == PARTS.index("skin")
    for family, donor in donors.items():
        image, region = families.forge(family, target, donor, np.random.default_rng(2), skill)
        where = skin & (region == 1)
        levels = [
            blending._robust_std((i - blending._blur(i, 1.0))[where]) for i in (target.image, image)
        ]
        assert lowest < levels[1] / levels[0] < 1.3, family


def test_unknown_names_are_errors_that_list_the_known():
    face, rng = portrait(0), np.random.default_rng(0)
    with pytest.raises(ValueError, match="'Faceswap'; known: FaceSwap, Face2Face, Deepfakes"):
        families.forge("Faceswap", face, face, rng)
    with pytest.raises(ValueError, match="'ear'; known: left_eye"):
        families.forge_part(face, face, "ear", rng)


def test_similarity_recovers_a_known_one():
    points = np.random.default_rng(0).normal(0, 10, (5, 2))
    truth = np.array([[0.8, -0.6, 3], [0.6, 0.8, -2]]) * [[2, 2, 1]]
    assert np.allclose(warp.similarity(points, warp.transform(points, truth)), truth)
    with pytest.raises(ValueError, match="two different"):
        warp.similarity(np.ones((3, 2)), points[:3])


def test_piecewise_map_is_exact_at_the_landmarks_and_identity_for_equal_points():
    source, target = portrait(1).landmarks[:60], portrait(2).landmarks[:60]
    columns, rows = warp.piecewise_affine_map(source, source, (SIZE, SIZE))
    grid = np.indices((SIZE, SIZE))
    assert np.allclose(columns, grid[1], atol=1e-2) and np.allclose(rows, grid[0], atol=1e-2)
    target = np.round(target)
    columns, rows = warp.piecewise_affine_map(source, target, (SIZE, SIZE))
    at = target.astype(int)
    reached = np.stack([columns[at[:, 1], at[:, 0]], rows[at[:, 1], at[:, 0]]], 1)
    assert np.abs(reached - source).max() < 0.2


def test_feathers_are_zero_outside_and_one_deep_inside():
    core = np.zeros((40, 40), bool)
    core[10:30, 10:30] = True
    inside, outside = warp.feather_inside(core, 4), warp.feather_outside(core, 4)
    assert not inside[~core].any() and inside[20, 20] == 1
    assert outside[core].min() == 1 and outside[20, 35] == 0 and 0 < outside[20, 31] < 1
    assert not warp.feather_outside(np.zeros((4, 4), bool), 2).any()


def test_colour_transfer_matches_the_mean():
    rng = np.random.default_rng(0)
    mask = np.ones((32, 32), bool)
    forged = rng.normal((120, 110, 100), 10, (32, 32, 3)).clip(0, 255).astype(np.uint8)
    image = rng.normal((180, 150, 130), 10, (32, 32, 3)).clip(0, 255).astype(np.uint8)
    moved = blending.transfer_color(forged, image, mask, mask)
    assert np.abs(moved.mean((0, 1)) - image.mean((0, 1))).max() < 3
    nothing = np.zeros_like(mask)
    assert np.array_equal(blending.transfer_color(forged, image, nothing, mask), forged)


@pytest.mark.parametrize("sigma", [2.0, 6.0])
def test_missing_noise_is_restored(sigma):
    rng = np.random.default_rng(0)
    clean = np.full((128, 128, 3), 128.0)
    noisy = (clean + rng.normal(0, sigma, clean.shape)).round().astype(np.uint8)
    mask = np.ones((128, 128), bool)
    result = blending.match_noise(clean, noisy, mask, 1.0, rng)
    assert abs(result.std() / noisy.std() - 1) < 0.15
    same = blending.match_noise(noisy, noisy, mask, 1.0, rng)
    assert np.abs(same - noisy).max() < 1e-3


def test_part_map_names_every_part_on_its_side():
    parts = draw_parts(shape_from_landmarks(TEMPLATE * 30 + 64), (SIZE, SIZE))
    assert {PARTS[index] for index in np.unique(parts)} == {
        "background", "skin", *(label for labels in FORGED_PARTS.values() for label in labels)
    }  # fmt: skip
    assert parts[64, 64 + 15] == PARTS.index("left_eye")
    assert parts[64, 64 - 15] == PARTS.index("right_eye")


def test_colour_transfer_leaves_black_black():
    rng = np.random.default_rng(0)
    mask = np.zeros((32, 32), bool)
    mask[:, :20] = True
    forged = rng.normal((230, 170, 120), 6, (32, 32, 3)).clip(0, 255)
    forged[:, 24:] = 8
    image = rng.normal((120, 90, 90), 6, (32, 32, 3)).clip(0, 255)
    moved = blending.transfer_color(forged, image, mask, mask)
    dark = moved[:, 24:].mean((0, 1))
    assert np.ptp(dark) < 6 and dark.max() < 20
