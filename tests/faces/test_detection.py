"""Faces found, turned and divided into parts, on five photographs of the London set (see tests/data/london)."""

from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from skimage import data

from benchmarks.detection import MARKED, overlaps, read_image, read_marked
from benchmarks.mean_face import TEMPLATE, landmarks_from_points
from fwstudy.faces import detection, mesh, networks
from fwstudy.faces.detection import detect_faces, turn_upright
from fwstudy.faces.inputs import find_face, find_faces
from fwstudy.faces.mesh import NO_MESH, fit_first, fit_shape
from fwstudy.faces.photos import five_points, load_face
from fwstudy.faces.videos.cutting import find_boxes
from fwstudy.faces.videos.footage import Frames, InputError

LONDON = Path(__file__).parents[1] / "data" / "london"
PHOTOGRAPHS = sorted(LONDON.glob("*.jpg"))


@pytest.fixture(scope="module")
def marked() -> dict[str, np.ndarray]:
    return read_marked(LONDON / "landmarks.csv")


def photograph(*images: np.ndarray) -> Frames:
    return Frames([0.0] * len(images), list(images), False, ["as it was"])


def test_parts_lie_where_they_were_marked_by_hand(marked):
    found = []
    for path in PHOTOGRAPHS:
        image = read_image(path)
        (face,) = detect_faces(image)
        shape, presence = fit_shape(image, face)
        assert presence > 25
        assert shape.landmarks.shape == (68, 2) and shape.landmarks.dtype == np.float32
        found.append(overlaps(shape, marked[path.stem], image))
    mean = {part: np.mean([one[part] for one in found]) for part in MARKED}
    worst = {part: min(one[part] for one in found) for part in MARKED}
    assert mean["mouth"] > 0.68 and worst["mouth"] > 0.52, (mean, worst)
    assert mean["nose"] > 0.7 and worst["nose"] > 0.62, (mean, worst)
    for eye in ("left_eye", "right_eye"):
        assert mean[eye] > 0.75 and worst[eye] > 0.65, (mean, worst)
    for brow in ("left_brow", "right_brow"):
        assert mean[brow] > 0.52, (mean, worst)


def test_eyes_of_a_mirrored_face_are_mirrored():
    """Pixels have their centers at whole numbers; only one of the two eyes is looked at mirrored."""
    gaps = []
    for image in map(read_image, PHOTOGRAPHS):
        shapes = (fit_first(one, detect_faces(one)) for one in (image, image[:, ::-1].copy()))
        middles = [
            [s.outlines[f"{side}_eye"].mean(0) for side in ("left", "right")] for s in shapes
        ]
        there, mirrored = np.array(middles)[..., 0]
        gaps.append(there - (image.shape[1] - 1 - mirrored[::-1]))
    assert abs(np.mean(gaps)) < 0.4, gaps


@pytest.mark.parametrize("turns", range(4))
def test_photographs_are_turned_upright_and_it_is_said(turns):
    image = read_image(PHOTOGRAPHS[0])
    given = photograph(np.ascontiguousarray(np.rot90(image, -turns)))
    back = turn_upright(given)
    assert np.array_equal(back.images[0], image)
    words = ("", "90° anticlockwise", "180°", "90° clockwise")[turns]
    notes = ["as it was"] + [f"turned by {words}, so that the face is upright"] * (turns > 0)
    assert back.notes == notes and given.notes == ["as it was"]


def test_a_clip_is_turned_as_a_whole():
    image = cv2.resize(read_image(PHOTOGRAPHS[0]), (128, 128), interpolation=cv2.INTER_AREA)
    wall = np.full_like(image, 90)
    given = photograph(np.ascontiguousarray(np.rot90(image)), wall, wall, wall)
    assert np.array_equal(turn_upright(given).images[0], image)
    assert turn_upright(photograph(wall, wall)).notes == ["as it was"]


def test_a_tilted_face_keeps_its_parts(marked):
    """By 30 degrees: the crop is levelled by the eyes before the mesh is fitted."""
    path = PHOTOGRAPHS[1]
    tilt = cv2.getRotationMatrix2D((128, 128), 30, 0.8)
    image = cv2.warpAffine(read_image(path), tilt, (256, 256), borderMode=cv2.BORDER_REPLICATE)
    shape = fit_first(image, detect_faces(image))
    points = marked[path.stem] @ tilt[:, :2].T + tilt[:, 2]
    found = overlaps(shape, points, image)
    assert min(found[part] for part in ("left_eye", "right_eye", "mouth", "nose")) > 0.6, found


def test_faces_are_found_at_any_size_and_sorted_by_it():
    image = read_image(PHOTOGRAPHS[2])
    (face,) = detect_faces(image)
    assert face.points.shape == (5, 2) and face.box.dtype == np.float32 and 0.9 < face.score <= 1
    right_eye, left_eye, nose, *_ = face.points
    assert right_eye[0] < nose[0] < left_eye[0] and nose[1] > right_eye[1]
    left, top, right, bottom = face.box.astype(int)
    close = cv2.resize(image[top:bottom, left:right], None, fx=8, fy=8)
    (large,) = detect_faces(close)
    assert large.box[2] - large.box[0] > 0.7 * close.shape[1]
    canvas = np.full((256, 384, 3), 90, np.uint8)
    canvas[:, 128:] = image
    canvas[:128, :128] = cv2.resize(image, (128, 128), interpolation=cv2.INTER_AREA)
    first, second = detect_faces(canvas)
    assert first.box[0] > 128 > second.box[0]


def test_a_large_face_of_a_video_is_searched_at_half_the_size(monkeypatch):
    """Its parts lie where they lay; what is too small for that size beside it is overlooked."""
    sizes = []
    search = detection._search
    monkeypatch.setattr(
        detection, "_search", lambda image, scale: sizes.append(scale) or search(image, scale)
    )
    image = read_image(PHOTOGRAPHS[2])
    frame = np.full((480, 640, 3), 90, np.uint8)
    frame[100:356, 300:556] = image
    alone, _ = find_boxes(frame, 1.3)
    frame[20:52, 40:72] = cv2.resize(image, (32, 32), interpolation=cv2.INTER_AREA)
    both, _ = find_boxes(frame, 1.3)
    again, _ = find_boxes(frame, 1.3, both)
    assert sizes == [1.0, 1.0, 0.5]
    assert len(detect_faces(frame)) == 2 and len(again) == 1
    eyes = both[0][1].landmarks[36:48]
    apart = np.linalg.norm(again[0][1].landmarks - alone[0][1].landmarks, axis=1).mean()
    assert apart < 0.04 * np.linalg.norm(eyes[:6].mean(0) - eyes[6:].mean(0))
    # It leaves, the small one stays: searched at the full size again.
    frame[100:356, 300:556] = 90
    find_boxes(frame, 1.3, again)
    assert sizes[-2:] == [0.5, 1.0]


def test_a_face_found_at_one_size_is_kept_where_the_next_finds_none(monkeypatch):
    face = detection.Face(np.float32([0, 0, 60, 60]), np.zeros((5, 2), np.float32), 0.9)
    found = {0.5: [face], 1.0: []}
    monkeypatch.setattr(detection, "_search", lambda image, scale: found[scale])
    assert detect_faces(np.zeros((480, 640, 3), np.uint8), (320, 640), 40) == [face]


def test_nothing_is_found_where_there_is_no_face():
    noise = np.random.default_rng(0).integers(0, 255, (100, 100, 3), dtype=np.uint8)
    for image in (noise, noise[:8, :8], noise[:1], np.zeros((3, 3000, 3), np.uint8)):
        assert detect_faces(image) == []
    cat = data.chelsea()
    assert fit_first(cat, detect_faces(cat)) is None


def test_a_face_that_no_mesh_fits_is_left_out_and_said(monkeypatch):
    from fwstudy.explain.files import explain_path

    path, image = PHOTOGRAPHS[3], read_image(PHOTOGRAPHS[3])
    face, reason = find_face(image, 64, 1.3)
    assert face.num_faces == 1 and reason == ""
    assert load_face(path, 96)[1] == []
    monkeypatch.setattr(mesh, "MIN_PRESENCE", 1000.0)
    assert find_face(image, 64, 1.3) == (None, NO_MESH)
    assert find_faces(photograph(image), 64, 1.3) == ([None], [NO_MESH])
    assert find_boxes(image, 1.3) == ([], 1)
    assert load_face(path, 96) == (None, [NO_MESH])
    settings = SimpleNamespace(crop_size=64, crop_scale=1.3)
    with pytest.raises(InputError, match=rf"{path.name}: a face was found, but no mesh fits it"):
        explain_path(settings, path)


def test_a_face_upside_down_has_no_mesh():
    image = np.ascontiguousarray(read_image(PHOTOGRAPHS[4])[::-1])
    assert fit_first(image, detect_faces(image)) is None


@pytest.mark.parametrize("name", networks.SUMS)
def test_missing_or_altered_weights_are_errors_that_name_the_file(name, tmp_path):
    with pytest.raises(ValueError, match=rf"{name} is missing: restore it, or run `make assets`"):
        networks.read_weights(name, tmp_path)
    content = networks.read_weights(name).tobytes()
    for altered in (content[:-1], content[:500] + b"\0" + content[501:] + b" "):
        (tmp_path / name).write_bytes(altered)
        with pytest.raises(ValueError, match=rf"{name} is truncated or altered"):
            networks.read_weights(name, tmp_path)


def test_the_mean_face_of_the_benchmark_passes_through_the_five_points():
    points = five_points(TEMPLATE) * 40 + 100 + np.random.default_rng(0).normal(0, 2, (5, 2))
    reached = five_points(landmarks_from_points(points))
    assert np.abs(reached[2:] - points[2:]).max() < 1e-3  # these three are landmarks themselves
    assert np.abs(reached - points).max() < 0.5


@pytest.mark.parametrize("scale", [1.0, 0.5, 0.12])
def test_what_is_cut_out_lies_where_its_landmarks_do(scale):
    spot = np.exp(-(np.hypot(*(np.indices((800, 800)) - 400.0)) ** 2) / (32 / scale**2))
    matrix = np.array([[scale, 0, 96 - 400 * scale], [0, scale, 96 - 400 * scale]])
    cut = mesh.cut_out(np.repeat(np.uint8(255 * spot)[..., None], 3, 2), matrix, 192)[..., 0]
    places = np.average(np.indices(cut.shape), axis=(1, 2), weights=np.stack([cut, cut]))
    np.testing.assert_allclose(places, 96, atol=0.02)
