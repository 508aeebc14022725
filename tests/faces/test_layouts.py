"""Readers of the official layouts: names, lists and JSON; most files here are empty."""

from pathlib import Path
from typing import get_args

import pytest

from fwstudy.faces.videos import layouts
from fwstudy.faces.videos.celebdf import celeb_df, celeb_people
from fwstudy.faces.videos.deepfakebench import deepfakebench, people_of
from fwstudy.faces.videos.layouts import TEST, TRAIN, VALIDATION, VideoGroup, accounted
from fwstudy.faces.videos.openforensics import openforensics
from fwstudy.params import VIDEO_SOURCES

from .trees import write_json

METHODS = ["Deepfakes", "FaceShifter"]


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def summary(video_groups) -> dict:
    """Name to split, original's file, and the forgeries' family, file and lender."""
    return {
        video_group.name: (
            video_group.split,
            video_group.original and video_group.original.name,
            [(f.family, f.path.name, f.source) for f in video_group.forgeries],
        )
        for video_group in video_groups
    }


def reasons(report) -> list[tuple]:
    return [(row["file"], row["reason"], row["left_out"]) for row in report]


def told(report) -> list[tuple]:
    """`reasons` without what was not asked for."""
    return [row for row in reasons(report) if "not asked for" not in row[1]]


def not_read(report) -> dict[str, str]:
    """Files and folders that no group and no other row holds, to how many files they are."""
    rows = [row for row in report if "not asked for" in row["reason"]]
    return {row["file"]: row["reason"].split(":")[0] for row in rows}


def assert_nobody_is_in_two_splits(video_groups):
    split_of = {}
    for group in video_groups:
        for person in (group.identity, *(forgery.source for forgery in group.forgeries)):
            assert split_of.setdefault(person, group.split) == group.split, person


@pytest.fixture
def faceforensics(tmp_path):
    pairs = {"train": ("000", "003"), "val": ("001", "870"), "test": ("002", "054")}
    for name, pair in pairs.items():
        write_json(tmp_path / f"{name}.json", [list(pair)])
        for one, other in (pair, pair[::-1]):
            for quality in ("c23", "c40"):
                touch(tmp_path, f"original_sequences/youtube/{quality}/videos/{one}.mp4")
                for method in METHODS:
                    place = f"manipulated_sequences/{method}"
                    touch(tmp_path, f"{place}/{quality}/videos/{one}_{other}.mp4")
            touch(tmp_path, f"manipulated_sequences/Deepfakes/masks/videos/{one}_{other}.mp4")
    return tmp_path


def test_faceforensics(faceforensics):
    video_groups, report = layouts.faceforensics(faceforensics, METHODS, ["c23"])
    assert told(report) == []
    assert not_read(report) == {
        f"{place}/c40/videos": f"{count} files not read, e.g. {name}.mp4"
        for place, count, name in (
            ("original_sequences/youtube", 6, "000"),
            ("manipulated_sequences/Deepfakes", 6, "000_003"),
            ("manipulated_sequences/FaceShifter", 6, "000_003"),
        )
    }
    made = [(method, "000_003.mp4", "youtube-003") for method in METHODS]
    assert summary(video_groups)["youtube-000"] == (TRAIN, "000.mp4", made)
    assert {g.name.removeprefix("youtube-"): g.split for g in video_groups} == {
        "000": TRAIN, "003": TRAIN, "001": VALIDATION, "870": VALIDATION, "002": TEST, "054": TEST,
    }  # fmt: skip
    deepfake, shifted = video_groups[0].forgeries
    assert deepfake.mask.relative_to(faceforensics).as_posix() == (
        "manipulated_sequences/Deepfakes/masks/videos/000_003.mp4"
    )
    assert shifted.mask is None
    assert {g.quality for g in video_groups} == {"c23"}
    assert_nobody_is_in_two_splits(video_groups)


def test_faceforensics_at_further_qualities_is_for_the_test_split_alone(faceforensics):
    video_groups, _ = layouts.faceforensics(faceforensics, ["Deepfakes"], ["c23", "c40"])
    assert [g.split for g in video_groups if g.quality == "c40"] == [TEST, TEST]
    assert len([g for g in video_groups if g.quality == "c23"]) == 6
    with pytest.raises(FileNotFoundError, match=r"youtube.raw: no such folder"):
        layouts.faceforensics(faceforensics, ["Deepfakes"], ["raw"])
    for folder in ("original_sequences/youtube", "manipulated_sequences/Deepfakes"):
        (faceforensics / folder / "c40").rename(faceforensics / folder / "c0")
    video_groups, _ = layouts.faceforensics(faceforensics, ["Deepfakes"], ["raw"])
    assert len(video_groups) == 6 and video_groups[0].quality == "raw"


def test_faceforensics_reports_what_is_missing_and_what_is_too_much(faceforensics):
    folder = faceforensics / "original_sequences/youtube/c23/videos"
    (folder / "003.mp4").unlink()
    touch(folder, "999.mp4", "notes.txt")
    forged = faceforensics / "manipulated_sequences/Deepfakes/c23/videos"
    (forged / "002_054.mp4").unlink()
    touch(forged, "998_999.mp4")
    video_groups, report = layouts.faceforensics(faceforensics, ["Deepfakes"], ["c23"])
    found = summary(video_groups)
    assert "youtube-003" not in found and found["youtube-002"][2] == []
    forged, originals = "manipulated_sequences/Deepfakes", "original_sequences/youtube/c23/videos"
    assert set(told(report)) == {
        (f"{forged}/c23/videos/998_999.mp4", "named in no split file", True),
        ("Deepfakes/002", "a forgery of this video is missing at c23", True),
        (f"{originals}/999.mp4", "named in no split file", True),
        ("003", "original missing at c23; its forgeries are left out too", True),
        (f"{forged}/c23/videos/003_000.mp4", "its original is missing", True),
    }
    assert {f"{forged}/masks/videos", "manipulated_sequences/FaceShifter/c23/videos"} < set(
        not_read(report)
    )


def test_actors_are_test_films_paired_by_scene(tmp_path):
    originals = "original_sequences/actors/c23/videos"
    forged = "manipulated_sequences/DeepFakeDetection/c23/videos"
    touch(tmp_path, f"{originals}/01__exit_phone_room.mp4", f"{originals}/02__walking.mp4")
    touch(tmp_path, f"{forged}/01_02__exit_phone_room__YVGY8LOK.mp4")
    touch(tmp_path, f"{forged}/01_02__kitchen__ABCDEFGH.mp4")
    video_groups, report = layouts.faceforensics(tmp_path, ["DeepFakeDetection"], ["c23"])
    made = [("DeepFakeDetection", "01_02__exit_phone_room__YVGY8LOK.mp4", "actor-02")]
    found = summary(video_groups)["actor-01__exit_phone_room"]
    assert found == (TEST, "01__exit_phone_room.mp4", made)
    assert len(video_groups) == 3
    assert {g.identity for g in video_groups} == {"actor-01", "actor-02"}
    assert reasons(report) == [
        (f"{forged}/01_02__kitchen__ABCDEFGH.mp4", "its original is missing", False)
    ]


@pytest.fixture
def celeb(tmp_path):
    names = ["id0_0000", "id1_0000", "id2_0000", "id3_0000", "id3_0001"]
    touch(tmp_path, *(f"Celeb-real/{name}.mp4" for name in names), "YouTube-real/00170.mp4")
    fakes = ["id0_id1_0000", "id1_id0_0000", "id2_id3_0000", "id2_id0_0000", "id3_id2_0001"]
    touch(tmp_path, *(f"Celeb-synthesis/{name}.mp4" for name in fakes))
    lines = ["1 Celeb-real/id0_0000.mp4", "0 Celeb-synthesis/id0_id1_0000.mp4"]
    lines += ["0 Celeb-synthesis/id1_id0_0000.mp4", "1 YouTube-real/00170.mp4"]
    (tmp_path / "List_of_testing_videos.txt").write_text(
        "\n".join([*lines, "1 YouTube-real/9.mp4"])
    )
    return tmp_path


def test_celeb_df(celeb):
    video_groups, report = celeb_df(celeb, [], ["c23"])
    found = summary(video_groups)
    assert found["id0_0000"] == (TEST, "id0_0000.mp4", [("CelebDF", "id0_id1_0000.mp4", "id1")])
    # Listed, but its original is not: the original is no test video.
    assert found["CelebDF-id1_id0_0000"] == (TEST, None, [("CelebDF", "id1_id0_0000.mp4", "id0")])
    assert found["00170"] == (TEST, "00170.mp4", [])
    # id1 lends a face in the test list, id0 is in it: neither is trained on.
    assert "id1_0000" not in found
    assert found["id2_0000"] == (None, "id2_0000.mp4", [("CelebDF", "id2_id3_0000.mp4", "id3")])
    assert found["id3_0001"] == (None, "id3_0001.mp4", [("CelebDF", "id3_id2_0001.mp4", "id2")])
    assert_nobody_is_in_two_splits(video_groups)
    apart = "not in the test list, but a person of it is seen or lends a face"
    assert set(reasons(report)) == {
        ("Celeb-real/id1_0000.mp4", apart, True),
        ("Celeb-synthesis/id2_id0_0000.mp4", apart, True),
        ("YouTube-real/9", "named in List_of_testing_videos.txt, but missing", True),
    }


@pytest.mark.parametrize("store", ["{}/videos/{}.mp4", "{}/{}.avi", "{}/{}/0000.png"])
def test_celeb_df_however_it_is_stored(celeb, tmp_path_factory, store):
    """The list names .mp4 files directly in the folder; people have folders, frames, other suffixes."""
    root, expected = tmp_path_factory.mktemp("stored"), celeb_df(celeb, [], ["c23"])[0]
    for file in celeb.glob("*/*.mp4"):
        touch(root, store.format(file.parent.name, file.stem))
    (root / "List_of_testing_videos.txt").write_text(
        (celeb / "List_of_testing_videos.txt").read_text()
    )
    video_groups, _ = celeb_df(root, [], ["c23"])
    assert [(g.name, g.split, g.identity, len(g.forgeries)) for g in video_groups] == [
        (g.name, g.split, g.identity, len(g.forgeries)) for g in expected
    ]


def test_celeb_df_doubts_a_label(celeb):
    lines = ["1 Celeb-real/id0_0000.mp4", "0 YouTube-real/00170.mp4"]
    lines += ["0 Celeb-synthesis/id0_id1_0000.mp4"]
    (celeb / "List_of_testing_videos.txt").write_text("\n".join(lines))
    video_groups, report = celeb_df(celeb, [], ["c23"])
    assert summary(video_groups)["00170"] == (TEST, "00170.mp4", [])
    (row,) = (row for row in report if row["file"] == "YouTube-real/00170.mp4")
    assert "contradicts its folder" in row["reason"]


def test_celeb_df_plus_plus(tmp_path):
    """One name recurs under each method; crops of 256 px are not laid on their originals."""
    touch(tmp_path, *(f"Celeb-real/id{n}_0000.mp4" for n in range(6)))
    swap, reenact = "Celeb-synthesis/FaceSwap", "Celeb-synthesis/FaceReenact"
    fakes = [f"{swap}/{method}/id0_id1_0000.mp4" for method in ("BlendFace", "SimSwap")]
    fakes += [f"{reenact}/{method}/id2_id3_0000.mp4" for method in ("LIA", "LivePortrait")]
    fakes += ["Celeb-synthesis/TalkingFace/SadTalker/id4_0000_test_7.mp4"]
    touch(tmp_path, *fakes)
    listed = ["1 Celeb-real/id0_0000.mp4", f"0 {fakes[0]}", f"0 {fakes[1]}"]
    (tmp_path / "List_of_testing_videos.txt").write_text("\n".join(listed))
    video_groups, report = celeb_df(tmp_path, [], ["c23"])
    found = summary(video_groups)
    made = [(method, "id0_id1_0000.mp4", "id1") for method in ("BlendFace", "SimSwap")]
    assert found["id0_0000"][::2] == (TEST, made)
    assert found["id2_0000"][2] == [("LivePortrait", "id2_id3_0000.mp4", "id3")]
    assert found["FaceReenact-LIA-id2_id3_0000"][2] == [("LIA", "id2_id3_0000.mp4", "id3")]
    talking = next(group for group in video_groups if group.name.startswith("TalkingFace"))
    assert (talking.identity, talking.original) == ("id4", None)
    # Lends a face in the test list.
    assert {row["file"] for row in report} == {"Celeb-real/id1_0000.mp4"}
    video_groups, report = celeb_df(tmp_path, ["SimSwap"], ["c23"])
    assert {f.family for group in video_groups for f in group.forgeries} == {"SimSwap"}
    assert len(not_read(report)) == 4


def test_dfdc(tmp_path):
    part = tmp_path / "dfdc_train_part_0"
    touch(part, "a.mp4", "b.mp4", "c.mp4", "lonely.mp4", "unknown.mp4")
    fakes = {"b.mp4": "a.mp4", "c.mp4": "a.mp4", "lonely.mp4": "gone.mp4"}
    known = {fake: {"label": "FAKE", "original": original} for fake, original in fakes.items()}
    known |= {name: {"label": "REAL"} for name in ("a.mp4", "lost.mp4")}
    write_json(part / "metadata.json", {n: {"split": "train", **row} for n, row in known.items()})
    touch(tmp_path, "test/x.mp4", "test/y.mp4")
    (tmp_path / "test/labels.csv").write_text("filename,label\nx.mp4,1\ny.mp4,0\n")
    video_groups, report = layouts.dfdc(tmp_path, [], ["c23"])
    assert summary(video_groups) == {
        "dfdc_train_part_0-a": (None, "a.mp4", [("DFDC", "b.mp4", "a"), ("DFDC", "c.mp4", "a")]),
        "DFDC-lonely": (None, None, [("DFDC", "lonely.mp4", "gone")]),
        "test-x": (TEST, None, [("DFDC", "x.mp4", "test-x")]),
        "test-y": (TEST, "y.mp4", []),
    }
    assert {g.group for g in video_groups if g.split is None} == {"dfdc_train_part_0"}
    assert set(reasons(report)) == {
        ("dfdc_train_part_0/lost", "named in metadata.json, but missing", True),
        ("dfdc_train_part_0/unknown.mp4", "not named in metadata.json", True),
        ("dfdc_train_part_0/lonely.mp4", "its original is missing", False),
    }
    touch(tmp_path, "dfdc_train_part_1/z.mp4")
    assert not_read(layouts.dfdc(tmp_path, [], ["c23"])[1]) == {
        "dfdc_train_part_1/z.mp4": "not read"
    }


def test_dfdc_takes_labels_in_words(tmp_path):
    touch(tmp_path, "test/x.mp4")
    (tmp_path / "test/labels.csv").write_text("filename,label\nx.mp4,Fake\n")
    assert len(layouts.dfdc(tmp_path, [], ["c23"])[0][0].forgeries) == 1


def test_dfdc_preview(tmp_path):
    content = {}
    for person, lender, part in (("1", "2", "test"), ("3", "4", "train"), ("5", "1", "train")):
        real = f"original_videos/{person}/{person}_A_001.mp4"
        fake = f"method_B/{person}_{lender}/{person}_{lender}_A_001.mp4"
        touch(tmp_path, real, fake)
        known = {"target_id": person, "swapped_id": None, "set": part, "augmentations": []}
        content[real] = {"label": "real", **known}
        content[fake] = {
            "label": "fake", **known, "swapped_id": lender, "source_video": f"{person}_A",
        }  # fmt: skip
    content["original_videos/9/9_A_001.mp4"] = content[real]
    write_json(tmp_path / "dataset.json", content)
    video_groups, report = layouts.dfdc_preview(tmp_path, [], ["c23"])
    assert summary(video_groups) == {
        "1_A_001": (TEST, "1_A_001.mp4", [("DFDCP-B", "1_2_A_001.mp4", "2")]),
        "3_A_001": (None, "3_A_001.mp4", [("DFDCP-B", "3_4_A_001.mp4", "4")]),
        "5_A_001": (None, "5_A_001.mp4", []),
    }
    assert_nobody_is_in_two_splits(video_groups)
    assert len(report) == 2


def test_deepfakebench_finds_frames_by_the_end_of_foreign_paths(tmp_path):
    data = "FaceForensics++"
    real = f"{data}/original_sequences/youtube/c23/frames/000/000.png"
    fake = f"{data}/manipulated_sequences/Deepfakes/c23/frames/000_003/000.png"
    strong, mask = fake.replace("c23", "c40"), fake.replace("frames", "masks")
    landmarks = real.replace("frames", "landmarks").replace(".png", ".npy")
    touch(tmp_path, real, landmarks, fake, mask, strong)

    def shown(name: str, path: str) -> dict:
        return {name: {"label": "x", "frames": [path]}}

    foreign = shown("000_003", "E:\\bench\\" + fake.replace("/", "\\"))
    tree = {
        "FF-real": {"test": {"c23": shown("000", f"/data/x/{real}")}},
        "FF-DF": {
            "test": {"c23": foreign, "c40": shown("000_003", strong)},
            "train": {"c23": shown("001_870", "/gone/001_870/0.png")},
        },
    }
    write_json(tmp_path / "preprocessing/dataset_json/FaceForensics++.json", {data: tree})
    video_groups, report = deepfakebench(tmp_path, [data], ["c23", "c40"])
    assert summary(video_groups) == {
        f"{data}-000": (TEST, "000", [("Deepfakes", "000_003", "youtube-003")]),
        f"{data}-FF-DF-000_003": (TEST, None, [("Deepfakes", "000_003", "youtube-003")]),
    }
    paired, alone = sorted(video_groups, key=lambda video_group: video_group.original is None)
    assert paired.landmarks.name == "000" and paired.landmarks.parent.name == "landmarks"
    assert paired.forgeries[0].mask == alone.forgeries[0].mask  # the masks of c23 serve all
    assert alone.quality == "c40"
    missing = "its frames are missing or lie among those of others"
    told = [("FF-DF/001_870", f"named in FaceForensics++.json, but {missing}", True)]
    assert reasons(report) == told


def bench(root: Path, name: str, tree: dict) -> None:
    """A JSON file of DeepfakeBench, and the frames that it names."""

    def entries(node):
        if isinstance(node, list):
            touch(root, *node)
            return {"label": "x", "frames": [f"/gone/{path}" for path in node]}
        return {key: entries(inner) for key, inner in node.items()}

    write_json(root / f"dataset_json/{name}.json", {name: entries(tree)})


def test_deepfakebench_knows_people_by_their_names_in_df40(tmp_path):
    """Labels are those of a method; names are those of FaceForensics++ and Celeb-DF."""
    place = "DF40/simswap/{}/frames/{}/000.png"
    tree = {
        f"simswap_{kind}": {
            split: {name: [place.format(kind, name)] for name in names}
            for split, names in splits.items()
        }
        for kind, splits in {
            "Real": {"train": ["000", "003"], "test": ["953", "id7_0000"]},
            "Fake": {"train": ["000_003"], "test": ["953_974", "id7_id8_0000"]},
        }.items()
    }
    bench(tmp_path, "simswap_ff", tree)
    touch(tmp_path, "DF40/simswap/Real/frames/000/._000.png")  # as macOS leaves on foreign disks
    video_groups, report = deepfakebench(tmp_path, ["simswap_ff"], ["c23"])
    assert report == []
    assert {(g.identity, f.family, f.source) for g in video_groups for f in g.forgeries} == {
        ("youtube-000", "simswap", "youtube-003"),
        ("youtube-953", "simswap", "youtube-974"),
        ("id7", "simswap", "id8"),
    }
    assert all(group.original is not None for group in video_groups)
    assert_nobody_is_in_two_splits(video_groups)


def test_deepfakebench_reads_the_pictures_that_the_json_names(tmp_path):
    """Entire faces: one picture a video, all in one folder."""
    place = "DF40/e4e/ff/inversions"
    fakes = {f"{n:03d}": [f"{place}/{n:03d}.png"] for n in range(3)}
    bench(
        tmp_path,
        "e4e_ff",
        {"e4e_Fake": {"test": fakes | {"009": [f"{place}/a.png", f"{place}/b.png"]}}},
    )
    video_groups, report = deepfakebench(tmp_path, ["e4e_ff"], ["c23"])
    assert [g.forgeries[0].path.name for g in video_groups] == ["000.png", "001.png", "002.png"]
    assert ("e4e_Fake/009", True) in {(row["file"], row["left_out"]) for row in report}
    assert not_read(report) == {place: "2 files not read, e.g. a.png"}


def test_deepfakebench_descends_to_the_frames_and_counts_what_is_left(tmp_path):
    """As the repository of Celeb-DF++ nests them: by method."""
    place = "Celeb-DF-v3/{}/frames/id0_id1_0000/000.png"
    fakes = {m: {"id0_id1_0000": [place.format(m)]} for m in ("BlendFace", "LIA")}
    tree = {
        "CelebDFv3_real": {"test": {"id0_0000": ["Celeb-DF-v3/real/frames/id0_0000/000.png"]}},
        "CelebDFv3_fake": {"test": fakes | {"empty": {}}},
    }
    bench(tmp_path, "Celeb-DF-v3", tree)
    (group,), report = deepfakebench(tmp_path, ["Celeb-DF-v3"], ["c23"])
    assert [f.family for f in group.forgeries] == ["BlendFace", "LIA"]
    reason = "in Celeb-DF-v3.json, but neither a split nor frames are named"
    assert reasons(report) == [("Celeb-DF-v3/CelebDFv3_fake/test/empty", reason, True)]


def test_deepfakebench_gives_a_film_in_several_splits_to_test(tmp_path):
    place = "Celeb-DF-v2/Celeb-real/frames"
    videos = {name: [f"{place}/{name}/000.png"] for name in ("id0_0000", "id1_0000")}
    tested = {"id0_0000": videos["id0_0000"]}
    splits = {"train": videos, "val": tested, "test": tested}
    bench(tmp_path, "Celeb-DF-v2", {"CelebDFv2_real": splits})
    video_groups, report = deepfakebench(tmp_path, ["Celeb-DF-v2"], ["c23"])
    assert {video_group.name: video_group.split for video_group in video_groups} == {
        "Celeb-DF-v2-id0_0000": TEST,
        "Celeb-DF-v2-id1_0000": None,
    }
    assert report == []


def test_folder_pairs_by_name(tmp_path):
    touch(tmp_path, "real/anna_1.mp4", "real/anna_1_b.mp4", "real/Zoë Ω.png", "real/sub/ben.mp4")
    touch(tmp_path, "fake/swap/anna_1.mov", "fake/anna_1_b-df.mp4", "fake/Zoë Ω 2.jpg")
    touch(tmp_path, "fake/swap/sub/ben.mp4", "fake/nobody.mp4", "masks/anna_1_b-df.png")
    touch(tmp_path, "masks/swap/anna_1.mkv")
    video_groups, report = layouts.folder(tmp_path, [], ["c23"])
    assert summary(video_groups) == {
        "anna_1": (None, "anna_1.mp4", [("swap", "anna_1.mov", "anna")]),
        "anna_1_b": (None, "anna_1_b.mp4", [("fake", "anna_1_b-df.mp4", "anna")]),
        "Zoë Ω": (None, "Zoë Ω.png", [("fake", "Zoë Ω 2.jpg", "Zoë Ω")]),
        "sub-ben": (None, "ben.mp4", [("swap", "ben.mp4", "ben")]),
        "fake-nobody": (None, None, [("fake", "nobody.mp4", "nobody")]),
    }
    masks = {f.path.name: f.mask and f.mask.name for g in video_groups for f in g.forgeries}
    assert masks["anna_1_b-df.mp4"] == "anna_1_b-df.png" and masks["anna_1.mov"] == "anna_1.mkv"
    assert reasons(report) == [
        ("fake/nobody.mp4", "no real video of this name: used without an original", False)
    ]


def test_people_of_names():
    assert people_of("1255229_1003254_A_001")[:2] == ("dfdcp-1255229", "dfdcp-1003254")
    assert people_of("1003254_A_001")[:2] == ("dfdcp-1003254",) * 2
    assert people_of("000_M101") == ("youtube-000", "youtube-M101", "000")
    assert people_of("0000_fake") == ("uadfv-0000", "uadfv-0000", "0000")
    assert people_of("01_02__walking__ABC")[:2] == ("actor-01", "actor-02")
    assert people_of("id0_id1_0000") == celeb_people("id0_id1_0000") == ("id0", "id1", "id0_0000")
    assert people_of("id0_0000_test_3") == ("id0", "id0", "id0_0000")
    assert people_of("00170")[0] == celeb_people("00170")[0] == "youtube-00170"
    assert people_of("aaqaifqrwn") == ("aaqaifqrwn",) * 3


def test_folder_of_numbered_frames_is_one_video(tmp_path):
    """Whatever stands before the number; so that its frames do not end in several splits."""
    for name in ("frame{}.png", "{:04d}.jpg", "eva_{:02d}.png"):
        root = tmp_path / name[:5].strip("{:}")
        videos = [f"{k}/vid{v}" for k in ("real", "fake") for v in "AB"]
        touch(root, *(f"{video}/{name.format(n)}" for video in videos for n in (1, 2)))
        video_groups, report = layouts.folder(root, [], ["c23"])
        assert not report and summary(video_groups) == {
            f"vid{v}": (None, f"vid{v}", [("fake", f"vid{v}", f"vid{v}")]) for v in "AB"
        }


def test_numbered_pictures_of_a_family_are_no_video(tmp_path):
    places = ("real", "fake/swap", "masks/swap")
    touch(tmp_path, *(f"{place}/{n:04d}.png" for place in places for n in (1, 2)))
    video_groups, report = layouts.folder(tmp_path, [], ["c23"])
    assert not report and len(video_groups) == 2
    assert all(g.forgeries[0].family == "swap" and g.forgeries[0].mask for g in video_groups)


def test_where_names_recur_the_folder_is_the_person(tmp_path):
    folders = [f"{k}/{who}" for k in ("real", "fake") for who in ("anna", "ben")]
    touch(tmp_path, *(f"{folder}/{n}.mp4" for folder in folders for n in (1, 2)))
    video_groups, report = layouts.folder(tmp_path, [], ["c23"])
    assert not report and {(g.name, g.identity) for g in video_groups} == {
        (f"{who}-{n}", who) for who in ("anna", "ben") for n in (1, 2)
    }
    assert all(group.forgeries[0].source == group.identity for group in video_groups)


def test_where_folders_are_people_a_forgery_belongs_to_its_folder(tmp_path):
    """Its name begins with the original's; or it has none, and is of the same person all the same."""
    touch(tmp_path, *(f"real/{who}/{n}.mp4" for who in ("anna", "ben") for n in (1, 2)))
    touch(tmp_path, "fake/anna/1_df.mp4", "fake/ben/1_df.mp4", "fake/ben/9.mp4")
    video_groups, _ = layouts.folder(tmp_path, [], ["c23"])
    made = {g.name: [f.source for f in g.forgeries] for g in video_groups if g.forgeries}
    assert made == {"anna-1": ["anna"], "ben-1": ["ben"], "fake-ben-9": ["ben"]}
    assert {group.identity for group in video_groups} == {"anna", "ben"}


def test_two_files_of_one_name_are_not_dropped_in_silence(tmp_path):
    touch(tmp_path, "real/a.avi", "real/a.mp4", "fake/a.mp4", "masks/b.png")
    touch(tmp_path, "notes.txt", "spare/c.mp4")
    video_groups, report = layouts.folder(tmp_path, [], ["c23"])
    assert len(video_groups) == 1
    assert not_read(report) == dict.fromkeys(
        ("real/a.mp4", "masks/b.png", "spare/c.mp4"), "not read"
    )


def test_ffiw(tmp_path):
    for kind in ("source", "target", "target_mask"):
        touch(tmp_path, f"{kind}/train/train_00000001.mp4", f"{kind}/val/val_00000001.mp4")
        touch(tmp_path, f"test/{kind}/test_00000001.mp4")
    touch(tmp_path, "target/train/train_00000002.mp4")
    video_groups, report = layouts.ffiw(tmp_path, [], ["c23"])
    assert {g.name: (g.split, len(g.forgeries)) for g in video_groups} == {
        "train_00000001": (TRAIN, 1),
        "train_00000002": (TRAIN, 1),
        "val_00000001": (VALIDATION, 1),
        "test_00000001": (TEST, 1),
    }
    assert video_groups[0].forgeries[0].mask.parent.parent.name == "target_mask"
    assert reasons(report) == [
        ("target/train/train_00000002.mp4", "its original is missing", False)
    ]


def test_openforensics(tmp_path):
    touch(tmp_path, "Images/Train/a.jpg", "Images/Val/spare.jpg", "._Train_poly.json")
    faces = [
        {"id": n, "image_id": 7, "category_id": n, "segmentation": [[n, 0, n + 9, 0, n, 9]]}
        for n in (0, 1)
    ]
    faces.append({"id": 2, "image_id": 7, "category_id": 1, "segmentation": []})
    names = {7: "Images/Train/a.jpg", 8: "Images/Train/gone.jpg"}
    images = [{"id": n, "file_name": f, "height": 20, "width": 30} for n, f in names.items()]
    write_json(tmp_path / "Train_poly.json", {"images": images, "annotations": faces})
    (real, fake), report = openforensics(tmp_path, [], ["c23"])
    assert (real.name, real.original.name, real.forgeries) == ("Train-a-0", "a.jpg", ())
    assert (fake.name, fake.original, fake.split) == ("Train-a-1", None, TRAIN)
    assert fake.forgeries[0].mask == fake.face != real.face and fake.face.shape == (20, 30)
    assert set(told(report)) == {
        ("Train/gone.jpg", "named in Train_poly.json, but missing", True),
        ("Train/a.jpg: face 2", "a face without a polygon", True),
    }
    assert not_read(report) == {"Images/Val/spare.jpg": "not read"}


@pytest.mark.parametrize("outline", [[1, 2, 3, 4, 5, 6], [[1, 2, 3, 4, 5, None]], [["1"] * 6]])
def test_an_outline_of_another_form_is_a_row_of_the_report(tmp_path, outline):
    touch(tmp_path, "a.jpg")
    face = {"id": 4, "image_id": 7, "category_id": 1, "segmentation": outline}
    image = {"id": 7, "file_name": "a.jpg", "height": 20, "width": 30}
    write_json(tmp_path / "Val_poly.json", {"images": [image], "annotations": [face]})
    video_groups, report = openforensics(tmp_path, [], ["c23"])
    assert not video_groups
    assert ("Val/a.jpg: face 4", "a face without a polygon", True) in told(report)


def test_every_reader_accounts_for_all_files():
    modules = vars(layouts) | {f.__name__: f for f in (celeb_df, deepfakebench, openforensics)}
    codes = {modules[name].__code__ for name in get_args(VIDEO_SOURCES)}
    assert codes == {accounted(layouts.folder).__code__}


def test_of_a_folder_of_pictures_the_pictures_are_read_and_the_rest_reported(tmp_path):
    names = ("1.png", "2.png", "extra.mp4", "old/1.png", "old/2.png")
    touch(tmp_path, "fake/a.mp4", *(f"real/eva/{name}" for name in names))
    inside = layouts.videos_in(tmp_path / "real")["eva"]
    group = VideoGroup("eva", "eva", inside)
    reader = accounted(lambda root, methods, qualities: ([group], []))
    _, report = reader(tmp_path, [], [])
    assert not_read(report) == {
        "fake/a.mp4": "not read",
        "real/eva/extra.mp4": "not read",
        "real/eva/old": "2 files not read, e.g. 1.png",
    }


FF = {"original_sequences/youtube/c40/videos/000.mp4": ""}
FF |= {f"{name}.json": "[]" for name in ("train", "val", "test")}
LIST = "List_of_testing_videos.txt"
CELEB = {"Celeb-real/id0_0000.mp4": "", "Celeb-synthesis/id0_id1_0000.mp4": ""}
CELEB_LIST = "1 Celeb-real/id0_0000.mp4\n"
DFDC = {"test/x.mp4": "", "part_0/a.mp4": ""}
LABELS, METADATA = "test/labels.csv", "part_0/metadata.json"
FAKES = {f"Celeb-synthesis/FaceSwap/{name}/id0_id1_0000.mp4": "" for name in ("BlendFace", "LIA")}


@pytest.mark.parametrize(
    ("reader", "methods", "files", "error"),
    [
        (layouts.faceforensics, "Deepfakes", FF | {"val.json": None}, r"val\.json: no such file.*dataset/splits"),
        (layouts.faceforensics, "Deepfakes", FF | {"val.json": None, "splits/val.json": ""}, r"splits.val\.json is not readable JSON"),
        (layouts.faceforensics, "Nonsense", FF | {"original_sequences/youtube/c23/videos/000.mp4": ""}, "manipulated_sequences.Nonsense: no such folder"),
        (layouts.faceforensics, "Deepfakes", FF, "youtube.c23: no such folder"),
        (celeb_df, "", CELEB, rf"{LIST}: no such file"),
        (celeb_df, "", {"id0_0000.mp4": ""}, "Celeb-real: no such folder"),
        (celeb_df, "", CELEB | {LIST: f"{CELEB_LIST}Celeb-real/id0_0000.mp4\n"}, rf"{LIST}: line 2: 'Celeb-real/id0_0000.mp4' is"),
        (celeb_df, "", CELEB | {LIST: f"{CELEB_LIST}real Celeb-real/id0_0000.mp4\n"}, rf"{LIST}: line 2: .* no label \(0 or 1\)"),
        (celeb_df, "", CELEB | {LIST: "1 Celeb-real/id77_0000.mp4\n"}, "none of its 1 videos is in this folder.*id77_0000"),
        (celeb_df, "Deepfakes", CELEB | FAKES | {LIST: CELEB_LIST}, r"none of Deepfakes; there are \['BlendFace', 'LIA'"),
        (layouts.dfdc, "", {"x.mp4": ""}, r"no metadata\.json in a folder below it"),
        (layouts.dfdc, "", DFDC | {METADATA: "{"}, r"part_0.metadata\.json is not readable JSON"),
        (layouts.dfdc, "", DFDC | {METADATA: '{"a.mp4": {"split": "train"}}'}, r"metadata\.json: a: label is None"),
        (layouts.dfdc, "", DFDC | {LABELS: "filename,label\nx.mp4,FORGED\n"}, r"labels\.csv: line 2: label is 'FORGED'; expected one of 0, 1, real"),
        (layouts.dfdc, "", DFDC | {LABELS: "filename,label\nx.mp4\n"}, r"labels\.csv: line 2: label is None"),
        (layouts.dfdc, "", DFDC | {LABELS: "video,label\nx.mp4,1\n"}, r"labels\.csv: line 1: expected the columns filename and label"),
        (deepfakebench, "UADFV", {}, r"dataset_json.UADFV\.json: no such file, nor"),
        (openforensics, "", {"a.jpg": "", "Val_poly.json": '{"images": []}'}, r"Val_poly\.json: not in COCO's form: 'annotations'"),
        (layouts.folder, "", {"real/a.png": "", "fake/": None}, "fake: no such folder, or nothing in it"),
        (layouts.folder, "", {"fake/a.png": "", "real/": None}, "real: no such folder, or nothing in it"),
    ],
)  # fmt: skip
def test_what_a_reader_cannot_use_is_named(tmp_path, reader, methods, files, error):
    for name, content in files.items():
        if content is not None:
            (touch(tmp_path, name) / name).write_text(content)
        elif name.endswith("/"):
            (tmp_path / name).mkdir()
    with pytest.raises(FileNotFoundError if "no such" in error else ValueError, match=error):
        reader(tmp_path, methods.split(), ["c23"])


def test_a_long_report_is_counted_not_cut():
    rows = layouts.shortened(layouts.rows_for([f"{number:03d}" for number in range(50)], "gone"))
    assert len(rows) == layouts.MAX_ROWS + 1 and rows[-1]["file"] == "and 30 more"
