"""The photographs are the astronaut of scikit-image, bundled and in the public domain, in disguise."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from fwstudy.clips import load_clip
from fwstudy.faces import people, photos, sources
from fwstudy.faces.forging import families, warp
from fwstudy.labels import FAMILIES, FORGED_PARTS, ORIGINAL, PARTS
from fwstudy.params import load_params

SIZE = 96
LONDON = Path(__file__).parents[1] / "data" / "photos"
EVERYTHING = {ORIGINAL, *FAMILIES, *(f"part:{part}" for part in FORGED_PARTS)}
OWN = {"Face2Face", "NeuralTextures"}


@pytest.fixture(scope="module")
def folder(astronaut, tmp_path_factory):
    """Two people with two photographs, one with one, and all that can go wrong."""
    root = tmp_path_factory.mktemp("photographs")
    (root / "deeper").mkdir()
    flipped = astronaut[:, ::-1]
    tinted = (astronaut * (0.8, 0.9, 1.0)).astype(np.uint8)
    Image.fromarray(astronaut).save(root / "ann_1.png")
    Image.fromarray(np.roll(astronaut, 9, axis=1)).save(root / "ann_2.jpg", quality=95)
    Image.fromarray(flipped).convert("L").save(root / "bob_1.png")
    orientation = Image.Exif()
    orientation[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to see it
    Image.fromarray(np.rot90(flipped).copy()).save(
        root / "deeper" / "bob_2.jpg", exif=orientation, quality=95
    )
    Image.fromarray(tinted).save(root / "eve_1.webp")
    Image.fromarray(np.hstack([astronaut, tinted])).save(root / "zoe_1.png")
    Image.fromarray(np.full((200, 200, 3), 90, np.uint8)).save(root / "wall_1.png")
    Image.fromarray(astronaut).save(root / "_nobody.png")
    whole = (root / "ann_2.jpg").read_bytes()
    (root / "cut_1.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "text_1.jpg").write_text("not a photograph")
    (root / "notes.txt").write_text("ignored")
    (root / "people.csv").write_text(
        "face_id,face_age,face_gender,face_eth\nann,31,female,white\nbob,NA,male,white\n"
        "eve,29,female,black\nzoe,60,male,white\n"
    )
    return root


@pytest.fixture(scope="module")
def dataset(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("clips")
    return photos.photo_dataset(folder, out, SIZE, seed=3), out


def test_every_usable_photograph_becomes_a_clip(dataset):
    (paths, _), _ = dataset
    assert [p.stem for p in paths] == ["ann_1", "ann_2", "bob_1", "bob_2", "eve_1", "zoe_1"]
    for path in paths:
        clip = load_clip(path)
        expected = EVERYTHING if clip.identity in ("ann", "bob") else EVERYTHING - OWN
        assert set(clip.variants) == expected
        assert clip.name == path.stem and clip.identity == path.stem.split("_")[0]
        for name, variant in clip.variants.items():
            assert variant.frames.shape == (1, SIZE, SIZE, 3)
            if name != ORIGINAL:
                assert 0.002 < variant.mask.mean() < 0.5
                assert not (variant.mask & (variant.region == 0)).any()
                assert (variant.source == clip.identity) == (name in OWN)


def test_nothing_is_left_out_silently(dataset, folder):
    (paths, report), _ = dataset
    reasons = {(row["file"], row["left_out"]): row["reason"] for row in report}
    assert "truncated" in reasons["cut_1.jpg", True]
    assert "cannot be read" in reasons["text_1.jpg", True]
    assert "suffix" in reasons["notes.txt", True]
    assert reasons["wall_1.png", True] == "no face found"
    assert "no identity" in reasons["_nobody.png", True]
    assert "2 faces" in reasons["zoe_1.png", False] or "only" in reasons["zoe_1.png", False]
    assert "only photograph" in reasons["eve_1.webp", False]
    assert any("2 faces found" in row["reason"] for row in report)
    left_out = {row["file"] for row in report if row["left_out"]}
    files = [p for p in folder.rglob("*") if p.is_file() and p.suffix != ".csv"]
    assert len(left_out) + len(paths) == len(files)


def test_attributes_and_partners(dataset):
    (paths, _), _ = dataset
    clips = {path.stem: load_clip(path) for path in paths}
    assert clips["ann_1"].attributes == {"age_years": 31, "sex": "female", "ethnicity": "white"}
    assert clips["bob_2"].attributes == {"sex": "male", "ethnicity": "white"}
    sources = {clip.identity: clip.variants["FaceSwap"].source for clip in clips.values()}
    assert sources == {"ann": "eve", "eve": "ann", "bob": "zoe", "zoe": "bob"}


def test_frames_are_upright_and_of_standard_scale(dataset):
    (paths, _), _ = dataset
    for path in paths:
        clip = load_clip(path)
        landmarks = clip.landmarks[0] / SIZE
        eyes = (landmarks[36:42].mean(0) + landmarks[42:48].mean(0)) / 2
        assert np.allclose(eyes, (0.5, photos.EYE_HEIGHT), atol=0.03)
        assert abs(warp.interocular(landmarks) - photos.INTEROCULAR) < 0.02
        assert landmarks[8, 1] > eyes[1] + 0.3
        assert (clip.parsing == PARTS.index("nose")).any()
    upright, turned = (load_clip(p).variants[ORIGINAL].frames[0] for p in paths[2:4])
    gray = turned.mean(-1)
    assert np.abs(upright.mean(-1) - gray).mean() < 12  # bob_2 is bob_1 in color, and turned


def test_finished_clips_are_kept_and_broken_ones_made_again(dataset, folder):
    (paths, report), out = dataset
    before = {path: path.read_bytes() for path in paths}
    times = {path: path.stat().st_mtime_ns for path in paths}
    paths[0].write_bytes(before[paths[0]][:1000])
    again, report_again = photos.photo_dataset(folder, out, SIZE, seed=3)
    assert again == paths and report_again == report
    assert all(path.stat().st_mtime_ns == times[path] for path in paths[1:])
    assert {path: path.read_bytes() for path in paths} == before  # deterministic


def test_clips_of_a_photograph_are_not_kept_under_its_new_name(project, monkeypatch):
    work = []
    monkeypatch.setitem(
        sources.SOURCES, "photos", lambda _, folder: (work.append(folder), [])[1:] * 2
    )
    faces = load_params(LONDON.parents[1] / "params.yaml").faces
    own = faces.photos.model_copy(update={"root": str(project / "in")})
    (project / "in").mkdir()
    path = project / "in" / "ann_2.jpg"
    for person in ("ann", "eve"):
        path = path.rename(path.with_stem(f"{person}_2")) if path.exists() else path
        path.write_bytes(b"the same picture")
        sources.build_faces(faces.model_copy(update={"source": "photos", "photos": own}))
    assert work[0] != work[1]


def test_same_stems_in_two_folders_and_a_pattern_with_a_group(astronaut, tmp_path):
    source = tmp_path / "in"
    for mood in ("calm", "glad"):
        (source / mood).mkdir(parents=True)
        Image.fromarray(astronaut).save(source / mood / "face-ann.png")
    paths, report = photos.photo_dataset(source, tmp_path / "out", SIZE, 0, 1, r"-(\w+)$")
    assert len(paths) == 2
    clips = [load_clip(path) for path in paths]
    assert {clip.identity for clip in clips} == {"ann"}
    assert set(clips[0].variants) == {ORIGINAL, *OWN}
    (remark, *others) = [row["reason"] for row in report]
    assert remark == (
        "'ann' is in 2 folders (calm, glad ...) and taken for one person, as the identity pattern says"
    )
    assert all("no other person" in reason for reason in others)
    assert not any(row["left_out"] for row in report)


# Whose photograph it is


def people_of(root, names, pattern=photos.IDENTITY_PATTERN, known=()):
    paths = [root / name for name in names]
    found, remarks = photos.find_identities(paths, root, pattern, known)
    return [found[path] for path in paths], remarks


def test_numbered_photographs_in_a_folder_a_person_belong_to_the_folder(tmp_path):
    names = ["n01/0001_01.jpg", "n01/0002_01.jpg", "n02/0001_01.jpg", "ann_1.jpg"]
    people, (remark,) = people_of(tmp_path, names)
    assert people == [("n01", "0001_01"), ("n01", "0002_01"), ("n02", "0001_01"), ("ann", "_1")]
    assert remark.startswith("'0001' is in 2 folders (n01, n02 ...): the folder is taken")
    by_name = remark.split("identity_pattern to ")[1].strip("'")  # the remedy works
    people, remarks = people_of(tmp_path, names, by_name)
    assert [name for name, _ in people] == ["0001", "0002", "0001", "ann"] and not remarks


def test_a_person_called_na_is_known_by_that_name(tmp_path):
    (tmp_path / "people.csv").write_text("face_id,face_age,face_gender\nNA,31,NA\n007,40,male\n")
    known = {"NA": {"age_years": 31.0}, "007": {"age_years": 40.0, "sex": "male"}}
    assert people.read_attributes(tmp_path) == known


def test_hidden_files_are_nobodys_photographs(monkeypatch, tmp_path):
    """As macOS leaves on foreign disks: ``.`` in two folders made every folder a person."""
    for name in ("a/ann_1.jpg", "a/._ann_1.jpg", "b/bob_1.jpg", "b/._bob_1.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "._people.csv").write_bytes(b"\xb0")  # was read as a table of people
    asked = []
    monkeypatch.setattr(photos, "find_identities", lambda *given: asked.extend(given[0]) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        photos.photo_dataset(tmp_path, tmp_path / "out", SIZE, 0)
    assert [path.name for path in asked] == ["ann_1.jpg", "bob_1.jpg"]


def test_names_that_a_table_lists_or_that_stay_in_one_folder_are_the_persons(tmp_path):
    moods = ["neutral/001_03.jpg", "smiling/001_08.jpg"]
    assert people_of(tmp_path, moods, known={"001": {}}) == ([("001", "_03"), ("001", "_08")], [])
    apart = ["a/ann_1.jpg", "b/bob_1.jpg"]
    assert people_of(tmp_path, apart) == ([("ann", "_1"), ("bob", "_1")], [])


def test_folders_in_folders_are_an_error_whose_remedy_works(tmp_path):
    names = ["ann/day1/01.jpg", "ann/day2/01.jpg", "bob/day1/01.jpg"]
    with pytest.raises(
        ValueError, match=r"'01' is in 3 folders \(ann/day1, .*to '\^\(\[\^/\]\+\)/'"
    ):
        people_of(tmp_path, names)
    people, remarks = people_of(tmp_path, names, "^([^/]+)/")
    assert people == [("ann", "day1/01"), ("ann", "day2/01"), ("bob", "day1/01")] and not remarks


def test_files_of_one_name_get_clips_of_their_own(tmp_path):
    names = ["a/b-c.jpg", "x/b-c.jpg", "a-b/c.jpg", "x/c.jpg", "x/c.png", "d.jpg"]
    clips = photos._clip_names([tmp_path / name for name in names], tmp_path)
    assert clips == ["a-b-c.jpg", "x-b-c.jpg", "a-b-c.jpg_", "x-c.jpg", "x-c.png", "d"]


def test_a_folder_whose_name_is_no_text_is_refused_before_anything_is_read(tmp_path):
    """A folder may be the person, whose name is written to tables."""
    for name in ("ann\udcfc/1.jpg", "bob/1.jpg"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=r"ann\\udcfc.1\.jpg: its name is no text in UTF-8"):
        photos.photo_dataset(tmp_path, tmp_path / "out", SIZE, 0)


def test_errors_name_the_folder_and_the_pattern(folder, tmp_path):
    with pytest.raises(ValueError, match=rf"no photographs .* in {tmp_path}"):
        photos.photo_dataset(tmp_path, tmp_path / "out", SIZE, 0)
    with pytest.raises(ValueError, match=r"illegal identity pattern '\('"):
        photos.photo_dataset(folder, tmp_path / "out", SIZE, 0, 1, "(")
    only_wall = tmp_path / "wall"
    only_wall.mkdir()
    shutil.copy(folder / "wall_1.png", only_wall)
    with pytest.raises(ValueError, match="no usable face .*no face found"):
        photos.photo_dataset(only_wall, tmp_path / "out", SIZE, 0)


def test_pairs_without_attributes_and_with_an_odd_number():
    assert photos.pair_identities("dcba", {}) == {"a": "b", "b": "a", "c": "d", "d": "c"}
    assert photos.pair_identities("abc", {})["c"] == "a"
    assert photos.pair_identities("a", {}) == {}


def fine_detail(image: np.ndarray, where: np.ndarray) -> float:
    """Energy of the finest octaves in a mask."""
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return float(np.mean((gray - cv2.GaussianBlur(gray, (0, 0), 1.2))[where] ** 2))


@pytest.mark.parametrize("family", ["Face2Face", "Deepfakes"])
def test_forgers_of_photographs_leave_fine_detail(family):
    """By fine detail alone the forger of rendered faces was told from a camera (AUC 0.96 and 0.99)."""
    people = {
        name: {key: photos.load_face(LONDON / f"{name}_{key}.jpg", 192)[0] for key in ("03", "08")}
        for name in ("001", "002", "003", "004")
    }
    partners = {"001": "002", "002": "001", "003": "004", "004": "003"}
    kept = {families.RENDERED: [], families.PHOTOGRAPHS: []}
    for name in people:
        target = people[name]["03"]
        donor, _ = photos.choose_donors(people, partners, name, "03")[family]
        for skill, shares in kept.items():
            rng = np.random.default_rng(0)
            image, region = families.forge(family, target, donor, rng, skill)
            where = (region > 0.5) & warp.is_part(target.parsing, "skin", "nose", "mouth")
            shares.append(fine_detail(image, where) / fine_detail(target.image, where))
    careless, careful = map(np.mean, kept.values())
    assert careless < 0.6 and careful > careless + 0.05
