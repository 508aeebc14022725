"""Bad and odd inputs as recipes: each makes its input in an empty folder; beside it, what is to be said.

A line of what is said is an error (``error: …``), a remark (``FILE: …``), or what was made of the input
(``clip NAME: variants``, ``page``, ``read``).
"""

import json
import os
import re
import shutil
import struct
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import av
import numpy as np
import pandas as pd
import torch
from PIL import Image
from skimage import data

from fwstudy.crops.cropset import ARRAYS
from fwstudy.training.models import save_weights
from fwstudy.whitening.surgery import create_model

from ..faces.test_assemble import LEFT, RIGHT, mask_of, mirrored, moving, scene
from ..faces.test_pictures import SKIN, write_tagged
from ..faces.trees import write_json
from ..test_inputs import ORIENTATIONS, sound, turn, write_clip

ROOT = Path(__file__).parents[2]
PARAMS = (ROOT / "tests" / "params.yaml").read_text(encoding="utf-8")
Make = Callable[[Path], object]
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)


@cache
def face() -> np.ndarray:
    """The astronaut of scikit-image."""
    return np.array(Image.fromarray(data.astronaut()[45:195, 150:300]).resize((112, 112)))


def wall(image: np.ndarray | None = None) -> np.ndarray:
    """One frame with that face at the left; the astronaut's by default."""
    return scene((face() if image is None else image, LEFT), count=1)[0]


def picture(path: Path, image: np.ndarray | None = None, mode: str = "RGB", **options) -> Path:
    """A picture of `wall`, or of what is given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(wall() if image is None else image).convert(mode).save(path, **options)
    return path


def film(path: Path, frames: np.ndarray, **options) -> Path:
    """A video."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_clip(path, list(frames), **{"codec_options": {"crf": "8"}, **options})


def written(path: Path, content: str | bytes) -> Path:
    """A file of that content; text in UTF-8."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def cut(path: Path, share: float = 0.5) -> None:
    """A file that breaks off."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


# params.yaml


def params(change: Callable[[str], str | bytes]) -> Make:
    """The settings of the tests, changed as text."""
    return lambda root: written(root / "params.yaml", change(PARAMS))


def replaced(old: str, new: str) -> Make:
    assert old in PARAMS
    return params(lambda text: text.replace(old, new, 1))


SETTINGS_RECIPES = {
    "missing": (lambda root: None, r"error: .*params\.yaml"),
    "a folder": (lambda root: (root / "params.yaml").mkdir(), r"error: .*directory: 'params\.yaml'"),
    "comments alone": (params(lambda text: "# nothing\n"), r"error: params\.yaml: expected a mapp"),
    "a list": (params(lambda text: "- faces\n"), r"error: params\.yaml: .* got list"),
    "merge conflict": (
        replaced("  seed: 0", "<<<<<<< HEAD\n  seed: 0\n=======\n  seed: 1\n>>>>>>> b"),
        r"error: params\.yaml: line \d+: ",
    ),
    "cut off": (params(lambda text: text[: len(text) // 3]), r"error: params\.yaml:.* (train|ablations|profiles)"),
    "utf-16": (params(lambda text: text.encode("utf-16")), r"error: params\.yaml: no text in UTF-8"),
    "byte order mark": (params(lambda text: text.encode("utf-8-sig")), "^read$"),
    "line ends of Windows": (params(lambda text: text.replace("\n", "\r\n")), "^read$"),
    "two documents": (params(lambda text: f"{text}---\n{text}"), r"error: params\.yaml: "),
    "tag of a Python object": (
        replaced("seed: 0", "seed: !!python/object/apply:os.getcwd []"),
        r"error: params\.yaml: line \d+: ",
    ),
    "alias of nothing": (replaced("seed: 0", "seed: *seed"), r"error: params\.yaml: line \d+: .*alias"),
    "control character": (replaced("seed: 0", "seed: 0\0"), r"error: params\.yaml: "),
    "empty section": (
        params(lambda text: re.sub(r"(?s)interpretability:.*?\n\n", "interpretability:\n\n", text)),
        r"error: params\.yaml: *interpretability: ",
    ),
    "comma for a point": (replaced("0.002", "0,002"), r"error: .*train\.fine_tune\.learning_rate: "),
    "number for a list": (replaced("  seeds:\n  - 0\n  - 1\n  - 2\n", "  seeds: 0\n"), r"error: .*train\.seeds: "),
    "list that lost its dashes": (replaced("    - Deepfakes\n", "    Deepfakes\n"), r"error: params\.yaml: line \d+"),
    "a path that is a number": (replaced("root: data/videos ", "root: 2024 "), r"error: .*faces\.videos\.root: "),
    "no number": (replaced("size: 192 ", "size: .nan "), r"error: .*faces\.size: "),
    "a date for a number": (replaced("size: 192 ", "size: 2024-01-31 "), r"error: .*faces\.size: "),
    "nameless key": (replaced("  seed: 0\n", "  seed: 0\n  : 1\n"), r"error: params\.yaml: "),
    "variants as a list": (
        params(lambda text: re.sub(r"(?s)  variants:.*?\n\n", "  variants: [a]\n\n", text)),
        r"error: .*ablations\.variants: ",
    ),
    "a variant without values": (
        replaced("    bottleneck_none:\n      bottleneck: 0.0\n", "    bottleneck_none:\n"),
        r"error: .*ablations\.variants\.bottleneck_none: ",
    ),
    "profiles without values": (
        params(lambda text: re.sub(r"(?s)\nprofiles:.*", "\nprofiles:\n", text)),
        r"error: .*profiles: ",
    ),
}  # fmt: skip


# Photographs


def people(root: Path) -> None:
    """Two photographs that can be used, so that something is made of the folder."""
    picture(root / "ann_1.png")
    picture(root / "bob_1.png", wall(face()[:, ::-1]))


def photo(name: str, make: Make) -> Make:
    def recipe(root: Path) -> None:
        people(root)
        make(root / name)

    return recipe


def bomb(path: Path) -> None:
    """A PNG that claims to have 60 000 x 60 000 pixels."""
    picture(path, face())
    content = bytearray(path.read_bytes())
    content[16:24] = struct.pack(">II", 60000, 60000)
    import zlib

    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    path.write_bytes(content)


def pages(path: Path, count: int = 2) -> None:
    first, *others = map(Image.fromarray, moving(face(), count=count))
    first.save(path, save_all=True, append_images=others, duration=100)


PHOTO_RECIPES = {
    "no folder": (shutil.rmtree, r"error: .*no photographs .* in .*photos"),
    "empty": (photo("eve_1.jpg", Path.touch), r"eve_1\.jpg: the file is empty"),
    "a bomb": (photo("eve_1.png", bomb), r"eve_1\.png: .*cannot be read.*decompression bomb"),
    "one pixel": (photo("eve_1.png", lambda path: picture(path, wall()[:1, :1])), r"eve_1\.png: no face found"),
    "a strip": (photo("eve_1.png", lambda path: picture(path, np.zeros((4, 9000, 3), np.uint8))), r"eve_1\.png: no face found"),
    "damaged EXIF": (photo("eve_1.jpg", lambda path: picture(path, exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")), "^clip eve_1: "),
    "a clip": (photo("eve_1.jpg", lambda path: film(path.with_suffix(".mp4"), scene()).rename(path)), r"eve_1\.jpg: a clip and no photograph"),
    "a moving picture": (photo("eve_1.webp", pages), r"eve_1\.webp: "),
    "no UTF-8 in its name": (lambda root: (people(root), os.rename(picture(root / "eve_1.png"), os.fsencode(root) + b"/eve_\xff.png")), r"error: .*eve_\\udcff\.png: its name is no text in UTF-8"),
    "a table that is no UTF-8": (photo("people.csv", lambda path: written(path, b"face_id,face_age\nann,3\xfc\n")), r"error: .*people\.csv"),
    "a table with an age in words": (photo("people.csv", lambda path: written(path, "face_id,face_age\nann,thirty\n")), r"error: .*people\.csv"),
    "an empty table": (photo("people.csv", Path.touch), r"error: .*people\.csv"),
}  # fmt: skip


# Videos


def pair(original: Make | None, forged: Make | None = None, mask: Make | None = None) -> Make:
    """A pair named odd in real/ and fake/swap/, its mask in masks/swap/, beside one that can be used."""

    def recipe(root: Path) -> None:
        picture(root / "real" / "good.png")
        picture(root / "fake" / "swap" / "good.png", wall(mirrored(face())))
        places = (root / "real", root / "fake" / "swap", root / "masks" / "swap")
        for place, make in zip(places, (original, forged, mask), strict=True):
            place.mkdir(parents=True, exist_ok=True)
            if make:
                make(place / "odd.mp4")

    return recipe


def of(frames: Callable[[], np.ndarray], **options) -> Make:
    return lambda path: film(path, frames(), **options)


def numbered(frames: Callable[[], np.ndarray], first: int) -> Make:
    def make(path: Path) -> None:
        for number, frame in enumerate(frames(), first):
            picture(path.with_suffix("") / f"{number:04d}.png", frame)

    return make


def renamed(make: Make, suffix: str) -> Make:
    """Written under a suffix by which the container is chosen."""
    return lambda path: make(path.with_suffix(suffix))


def dashed(make: Make) -> Make:
    """A picture folder of which something else is left."""

    def recipe(path: Path) -> None:
        make(path)
        film(path.with_suffix("") / "extra.mp4", scene())

    return recipe


def spoiled(make: Make) -> Make:
    """A folder of pictures one of which cannot be read."""

    def recipe(path: Path) -> None:
        make(path)
        written(sorted(path.with_suffix("").iterdir())[1], b"no picture")

    return recipe


def streams(path: Path) -> None:
    with av.open(str(path.with_suffix(".mkv")), "w") as container:
        added = [container.add_stream("libx264", rate=25) for _ in range(2)]
        for stream, side in zip(added, (1, 2), strict=True):
            stream.height, stream.width = (s * side // 2 // 2 * 2 for s in wall().shape[:2])
            stream.pix_fmt = "yuv420p"
        for stream in added:
            for image in scene((face(), LEFT)):
                small = np.array(Image.fromarray(image).resize((stream.width, stream.height)))
                container.mux(stream.encode(av.VideoFrame.from_ndarray(small, format="rgb24")))
            container.mux(stream.encode())


def still() -> np.ndarray:
    return scene((face(), LEFT))


def still_forged() -> np.ndarray:
    return scene((mirrored(face()), LEFT))


def real(count: int = 12) -> np.ndarray:
    return moving(face(), count=count)


def fake(shift: int = 0, count: int = 12) -> np.ndarray:
    return moving(mirrored(face()), shift, count)


def masks() -> np.ndarray:
    return mask_of(real(), fake())


def turned(path: Path) -> None:
    film(path, np.stack([ORIENTATIONS[6](frame) for frame in still()]))
    turn(path, 6)


FRAMES = {
    "nothing at all": (lambda root: shutil.rmtree(root), r"error: faces\.videos\.root: .*no such folder"),
    "no real/": (lambda root: picture(root / "fake" / "a.png"), r"error: .*real: no such folder"),
    "no face in any": (lambda root: [picture(root / k / "a.png", scene()[0]) for k in ("real", "fake")], r"error: no usable face"),
    "empty": (pair(Path.touch, of(still)), r"real/odd\.mp4: the file is empty"),
    "its forgery is told of": (pair(Path.touch, of(still)), r"fake/swap/odd\.mp4: its original odd\.mp4 cannot be read"),
    "text": (pair(lambda path: written(path, "<html>404</html>" * 99)), r"real/odd\.mp4: .*cannot be read"),
    "a list of other files": (pair(lambda path: written(path, "#EXTM3U\n#EXTINF:9,\nother.mp4\n#EXT-X-ENDLIST\n")), r"real/odd\.mp4: .*cannot be read"),
    "sound alone": (pair(sound), r"real/odd\.mp4: .*it holds no pictures"),
    "index lost": (pair(lambda path: cut(film(path, still()), 0.9)), r"real/odd\.mp4: .*cannot be read"),
    "cut off": (pair(lambda path: cut(film(path, np.maximum(scene((face(), LEFT), count=60), np.random.default_rng(0).integers(0, 60, (60, *wall().shape), np.uint8)), options={"movflags": "faststart"}))), r"real/odd\.mp4: truncated: the file ends after"),
    "no face": (pair(of(scene), of(scene)), r"real/odd\.mp4: no face found in 6 frames"),
    "the forgery of what has no face": (pair(of(scene), of(scene)), r"fake/swap/odd\.mp4: not used: no face"),
    "one frame": (pair(lambda path: film(path, still()[:1])), r"real/odd\.mp4: short: 1 of 6 frames"),
    "two pixels": (pair(lambda path: film(path, scene()[:, :2, :2])), r"real/odd\.mp4: no face found"),
    "PQ": (pair(lambda path: write_tagged(path, SKIN / 255, 16, 9, 9)), r"real/odd\.mp4: colors converted from PQ to BT\.709"),
    "HLG": (pair(lambda path: write_tagged(path, SKIN / 255, 18, 9, 9)), r"real/odd\.mp4: colors converted from HLG to BT\.709"),
    "ICtCp": (pair(lambda path: write_tagged(path, SKIN / 255, 1, 1, 14)), r"real/odd\.mp4: .*matrix \(ICtCp\) is not read"),
    "several streams": (pair(streams), r"real/odd\.mkv: 2 streams of pictures: number 1 "),
    "interlaced": (pair(of(lambda: still()[:, :144], codec_options={"x264-params": "interlaced=1:log-level=none"})), r"real/odd\.mp4: interlaced"),
    "turned": (pair(turned), "^clip odd@c23: original$"),
    "an animated GIF": (pair(lambda path: pages(path.with_suffix(".gif"), 6)), "^clip odd@c23: original$"),
    "HEIC": (pair(lambda path: written(path, HEIC)), r"real/odd\.mp4: .*HEIC.*heif-convert"),
    "another rate than its original": (pair(of(real), of(fake, times=range(0, 960, 80))), "^clip odd@c23: original swap$"),
    "in milliseconds": (pair(of(real, times=[n * 50 // 3 for n in range(12)]), renamed(of(fake, times=[n * 50 // 3 for n in range(12)]), ".mkv")), "^clip odd@c23: original swap$"),
    "a frame late": (pair(of(real), of(partial(fake, 1))), r"fake/swap/odd\.mp4: frames shifted by \+1"),
    "pictures numbered from 1": (pair(of(real), numbered(fake, 1)), r"fake/swap/odd: frames shifted by \+1"),
    "another scene": (pair(of(still), of(lambda: scene((face(), RIGHT)))), r"fake/swap/odd\.mp4: .*around the face is not its original's"),
    "a shorter forgery": (pair(of(real), of(lambda: fake()[:6])), r"fake/swap/odd\.mp4: 6 frames, its original 12"),
    "a forgery of another shape": (pair(of(still), of(lambda: still_forged()[:, :, :200])), r"fake/swap/odd\.mp4: .*(shape|original)"),
    "nothing forged": (pair(of(still), of(still)), r"fake/swap/odd\.mp4: no pixel of the face differs"),
    "a short mask": (pair(of(real), of(fake), of(lambda: masks()[:4])), r"masks/swap/odd\.mp4: only 2 of 6 frames have a mask: not used"),
    "a black mask": (pair(of(real), of(fake), of(lambda: 0 * masks())), r"masks/swap/odd\.mp4: nothing is marked"),
    "a white mask": (pair(of(real), of(fake), of(lambda: 0 * masks() + 255)), r"masks/swap/odd\.mp4: all is marked"),
    "an inverted mask": (pair(of(real), of(fake), of(lambda: 255 - masks())), r"masks/swap/odd\.mp4: it marks what is as in the original"),
    "masks numbered from 1, one fewer": (pair(of(real), of(fake), numbered(lambda: masks()[1:], 1)), r"masks/swap/odd: numbered from 1, its video from 0"),
    "a mask of another shape": (pair(of(real), of(fake), of(lambda: masks()[:, :, :200])), r"masks/swap/odd\.mp4: mask of 200x150"),
    "a mask that is no video": (pair(of(real), of(fake), lambda path: written(path, "x" * 99)), r"masks/swap/odd\.mp4: .*cannot be read"),
    "a mask of nobody": (pair(None, None, of(masks)), r"masks/swap/odd\.mp4: not read"),
    "a damaged picture among others": (pair(spoiled(numbered(still, 1))), r"real/odd: 1 of 6 frames missing or not decodable"),
    "a folder of pictures and a video": (pair(dashed(numbered(still, 1))), r"real/odd/extra\.mp4: "),
    "a folder in a folder of pictures": (pair(lambda path: (numbered(still, 1)(path), picture(path.with_suffix("") / "old" / "1.png"))), r"real/odd/old/1\.png: "),
    "pictures of several sizes": (pair(lambda path: (numbered(still, 1)(path), picture(path.with_suffix("") / "0003.png", wall()[:, :200]))), "^clip odd@c23: original$"),
    "two files of one stem": (pair(lambda path: (film(path, still()), picture(path.with_suffix(".png")))), r"real/odd\.png: not read|real/odd\.mp4: not read"),
    "a name that is no UTF-8": (pair(lambda path: os.rename(film(path, still()), os.fsencode(path.parent) + b"/odd\xff.mp4")), r"error: .*odd\\udcff\.mp4: its name is no text in UTF-8"),
}  # fmt: skip


# Trees of benchmarks


def tree(**files) -> Make:
    """Files by path with content: text, bytes, JSON values, or True for a picture of a face."""

    def recipe(root: Path) -> None:
        for name, content in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if content is True:
                picture(path)
            elif isinstance(content, (str, bytes)):
                written(path, content)
            else:
                write_json(path, content)

    return recipe


FF_LISTS = {"train.json": [["000", "003"]], "val.json": [["001", "004"]], "test.json": [["002", "005"]]}  # fmt: skip
FF = {f"original_sequences/youtube/c23/videos/{n:03d}.png": True for n in range(2)}
FF |= {"manipulated_sequences/Deepfakes/c23/videos/000_003.png": True}
CELEB = {"Celeb-real/id0_0000.png": True, "Celeb-synthesis/id0_id1_0000.png": True}
LIST = "List_of_testing_videos.txt"
CELEB_LIST = "1 Celeb-real/id0_0000.mp4\n0 Celeb-synthesis/id0_id1_0000.mp4\n"
DFDC = {"part_0/a.png": True, "part_0/metadata.json": {"a.png": {"label": "REAL"}}}
PREVIEW = {"a.png": True}
BENCH = "dataset_json/FaceForensics++.json"


def bench(
    label: str = "FF-real", split: str = "train", frames: object = ("x/f/000/0.png",)
) -> dict:
    return {BENCH: {"FF": {label: {split: {"c23": {"000": {"frames": frames}}}}}}}


def coco(**changes) -> dict:
    image = {"id": 1, "file_name": "a.png", "height": 150, "width": 330}
    outline = {
        "id": 1,
        "image_id": 1,
        "category_id": 0,
        "segmentation": [[30, 20, 120, 20, 75, 120]],
    }
    return {"Train_poly.json": {"images": [image], "annotations": [outline]} | changes}


OUTLINE = {"id": 1, "image_id": 1, "category_id": 0}
TREE_RECIPES = {
    "faceforensics": {
        "list of names": (tree(**FF, **FF_LISTS | {"val.json": ["001", "004"]}), r"error: .*val\.json: not a list of pairs"),
        "list of numbers": (tree(**FF, **FF_LISTS | {"train.json": [[0, 3]]}), "^clip youtube-000@c23: original Deepfakes$"),
        "list in UTF-16": (tree(**FF, **FF_LISTS | {"val.json": json.dumps([["001", "004"]]).encode("utf-16")}), r"error: .*val\.json: no text in UTF-8"),
        "list with a byte order mark": (tree(**FF, **FF_LISTS | {"val.json": json.dumps([["001", "004"]]).encode("utf-8-sig")}), "^clip youtube-001@c23: original$"),
    },
    "celeb_df": {
        "a line of one word": (tree(**CELEB, **{LIST: CELEB_LIST + "Celeb-real\n"}), rf"error: .*{LIST}: line 3: "),
        "list in latin-1": (tree(**CELEB, **{LIST: b"# \xfc\n" + CELEB_LIST.encode()}), rf"error: .*{LIST}"),
        "list in UTF-16": (tree(**CELEB, **{LIST: CELEB_LIST.encode("utf-16")}), rf"error: .*{LIST}"),
        "an empty list": (tree(**CELEB, **{LIST: ""}), rf"error: .*{LIST}"),
    },
    "dfdc": {
        "metadata of names": (tree(**DFDC | {"part_0/metadata.json": ["a.png"]}), r"error: .*metadata\.json: expected a dict"),
        "metadata of labels alone": (tree(**DFDC | {"part_0/metadata.json": {"a.png": "REAL"}}), r"error: .*metadata\.json: a\.png: expected a dict"),
        "an original that is a number": (tree(**DFDC, **{"part_1/b.png": True, "part_1/metadata.json": {"b.png": {"label": "FAKE", "original": 7}}}), r"b\.png: its original is missing"),
        "labels in UTF-16": (tree(**DFDC, **{"test/b.png": True, "test/labels.csv": "filename,label\nb.png,1\n".encode("utf-16")}), r"error: .*labels\.csv"),
        "an empty line of labels": (tree(**DFDC, **{"test/b.png": True, "test/labels.csv": "filename,label\n,1\nb.png,1\n"}), r"labels\.csv: line 2|^clip test-b@c23: "),
    },
    "dfdc_preview": {
        "entries that are lists": (tree(**PREVIEW, **{"dataset.json": {"a.png": ["real"]}}), r"error: .*dataset\.json: a\.png: "),
        "entries that are numbers": (tree(**PREVIEW, **{"dataset.json": {"a.png": 1}}), r"error: .*dataset\.json: a\.png: "),
        "no label": (tree(**PREVIEW, **{"dataset.json": {"a.png": {"set": "test"}}}), r"error: .*dataset\.json: a\.png: no label"),
        "a path out of the folder": (tree(**PREVIEW, **{"dataset.json": {"a.png": {"label": "real", "set": "test"}, "../../x.png": {"label": "fake", "set": "test"}}}), r"\.\./x\.png: named in dataset\.json, but missing"),
    },
    "deepfakebench": {
        "no video in it": (tree(**{BENCH: {"FF": {}}}), r"error: .*FaceForensics\+\+\.json: no video in it"),
        "a split of another name": (tree(**bench(split="training")), r"error: .*FaceForensics\+\+\.json: no video in it"),
        "frames that are no paths": (tree(**bench(frames=[1, 2])), r"error: .*FaceForensics\+\+\.json"),
        "no landmarks can be read": (tree(**bench(frames=["x/c23/frames/000/000.png"]) | {"x/c23/frames/000/000.png": True, "x/c23/landmarks/000/000.npy": b"no array"}), r"error: no usable face.*no landmarks can be read"),
    },
    "ffiw": {
        "no source": (tree(**{"target/train/train_0.png": True}), "error: .*source: no such folder"),
        "a mask of nothing": (tree(**{"source/train/train_0.png": True, "target_mask/train/train_1.png": True}), r"target_mask/train/train_1\.png: not read"),
    },
    "openforensics": {
        "no list": (tree(**{"a.png": True}), r"error: .*Train_poly\.json: no such file"),
        "another part's name": (tree(**{"a.png": True, "My_poly.json": coco()["Train_poly.json"]}), r"error: .*My_poly\.json: the name begins with none of"),
        "images that are names": (tree(**{"a.png": True}, **coco(images=["a.png"])), r"error: .*Train_poly\.json: not in COCO's form"),
        "a mask by run lengths": (tree(**{"a.png": True, "b.png": True}, **coco(annotations=[OUTLINE | {"segmentation": [[30, 20, 120, 20, 75, 120]]}, OUTLINE | {"id": 2, "segmentation": {"counts": [1], "size": [1, 1]}}])), r"Train/a\.png: face 2: a face without a polygon"),
        "an odd number of coordinates": (tree(**{"a.png": True}, **coco(annotations=[OUTLINE | {"segmentation": [[30, 20, 120, 20, 75, 120]]}, OUTLINE | {"id": 2, "segmentation": [[1, 2, 3]]}])), r"Train/a\.png: face 2: a face without a polygon"),
        "an outline beyond the picture": (tree(**{"a.png": True}, **coco(annotations=[OUTLINE | {"segmentation": [[30, 20, 120, 20, 75, 120]]}, OUTLINE | {"id": 2, "segmentation": [[900, 900, 990, 900, 990, 990]]}])), r"a\.png: "),
        "a size that is not the picture's": (tree(**{"a.png": True, "b.png": True}, **{"Train_poly.json": {"images": [{"id": n, "file_name": f"{name}.png", "height": h, "width": 330} for n, name, h in ((1, "a", 150), (2, "b", 999))], "annotations": [OUTLINE | {"image_id": n, "id": n, "category_id": 1, "segmentation": [[30, 20, 120, 20, 75, 120]]} for n in (1, 2)]}}), r"b\.png: mask of 330x999"),
        "a face in no picture": (tree(**{"a.png": True}, **coco(annotations=[OUTLINE | {"segmentation": [[30, 20, 120, 20, 75, 120]]}, OUTLINE | {"id": 2, "image_id": 9, "segmentation": [[1, 1, 9, 9, 9, 1]]}])), r"Train: face 2: .*picture"),
        "a category of its own": (tree(**{"a.png": True}, **coco(annotations=[OUTLINE | {"segmentation": [[30, 20, 120, 20, 75, 120]]}, OUTLINE | {"id": 2, "category_id": 7, "segmentation": [[30, 20, 120, 20, 75, 120]]}])), r"(error: .*|Train/a\.png: face 2: ).*category"),
    },
}  # fmt: skip


# Files of weights


def weights(change: Make) -> Make:
    def recipe(root: Path) -> None:
        save_weights(
            create_model("test_efficientnet", num_classes=1).state_dict(), root / "w.safetensors"
        )
        change(root / "w.safetensors")

    return recipe


def other_values(change: Callable[[dict], dict]) -> Make:
    return weights(
        lambda path: save_weights(
            change(create_model("test_efficientnet", num_classes=1).state_dict()), path
        )
    )


WEIGHT_RECIPES = {
    "missing": (weights(Path.unlink), r"error: .*w\.safetensors"),
    "a folder": (weights(lambda path: (path.unlink(), path.mkdir())), r"error: .*w\.safetensors"),
    "empty": (weights(lambda path: path.write_bytes(b"")), r"error: .*w\.safetensors is truncated"),
    "a pickle": (weights(lambda path: torch.save({"a": torch.zeros(1)}, path)), r"error: .*w\.safetensors is truncated or not safetensors"),
    "a pointer of git-lfs": (weights(lambda path: path.write_text("version https://git-lfs\noid sha256:0\n")), r"error: .*w\.safetensors is truncated or not"),
    "with a prefix": (other_values(lambda state: {f"module.{k}": v for k, v in state.items()}), r"error: .*w\.safetensors does not fit this model"),
    "half a network": (other_values(lambda state: dict(list(state.items())[::2])), r"error: .*w\.safetensors does not fit this model"),
    "not finite": (other_values(lambda state: {k: v * float("nan") if v.is_floating_point() else v for k, v in state.items()}), r"error: .*w\.safetensors .*not finite"),
    "in half precision": (other_values(lambda state: {k: v.half() if v.is_floating_point() else v for k, v in state.items()}), "^read$"),
}  # fmt: skip


# Explain your own


def inside(name: str, make: Make) -> Make:
    return lambda root: make(root / name)


EXPLAIN_RECIPES = {
    "HEIC": (inside("input/a.heic", lambda path: written(path, HEIC)), r"error: .*a\.heic: .*heif-convert"),
    "one of two": (inside("input", lambda path: (picture(path / "a.png"), written(path / "b.jpg", "x" * 99))), r"warning: .*b\.jpg: cannot be read"),
    "no UTF-8 in its name": (inside("input", lambda path: (picture(path / "a.png"), os.rename(path / "a.png", os.fsencode(path) + b"/a\xff.png"))), r"error: .*a\\udcff\.png: its name is no text in UTF-8"),
}  # fmt: skip


# Crop sets


def crop_set(change: Make) -> Make:
    """Two crops, then changed."""

    def recipe(root: Path) -> None:
        row = {
            "clip": "a",
            "frame": 0,
            "quality": "c23",
            "identity": "a",
            "source": "a",
            "group": "a",
        }
        rows = [
            row | {"variant": name, "kind": "whole", "split": "test"} for name in ("original", "x")
        ]
        pd.DataFrame(rows).to_csv(root / "manifest.csv", index=False)
        for name in ARRAYS:
            np.save(
                root / f"{name}.npy",
                np.zeros((2, 8, 8, 3)[: 4 if name == "images" else 3], np.uint8),
            )
        change(root)

    return recipe


CROP_RECIPES = {
    "two crops": (crop_set(lambda root: None), "^read$"),
    "nothing": (lambda root: None, r"error: .*manifest\.csv"),
    "an empty manifest": (crop_set(inside("manifest.csv", lambda path: path.write_text(""))), r"error: .*manifest\.csv"),
    "a manifest without columns": (crop_set(inside("manifest.csv", lambda path: path.write_text("a,b\n1,2\n3,4\n"))), r"error: .*manifest\.csv"),
    "a manifest that breaks off": (crop_set(inside("manifest.csv", lambda path: cut(path, 0.9))), r"error: .*manifest"),
    "a manifest in UTF-16": (crop_set(inside("manifest.csv", lambda path: path.write_text(path.read_text(), "utf-16"))), r"error: .*manifest\.csv"),
    "pixels cut off": (crop_set(inside("images.npy", partial(cut, share=0.7))), r"error: .*images\.npy"),
    "an empty array": (crop_set(inside("images.npy", lambda path: path.write_bytes(b""))), r"error: .*images\.npy"),
    "objects": (crop_set(inside("images.npy", lambda path: np.save(path, np.array([{}, {}])))), r"error: .*images\.npy"),
    "a scalar": (crop_set(inside("images.npy", lambda path: np.save(path, np.uint8(3)))), r"error: .*images"),
    "a folder that is no Zarr": (crop_set(lambda root: ((root / "images.npy").unlink(), (root / "images.zarr").mkdir())), r"error: .*images\.zarr"),
}  # fmt: skip

RECIPES: dict[str, dict[str, tuple[Make, str]]] = {
    "settings": SETTINGS_RECIPES,
    "photos": PHOTO_RECIPES,
    "folder": FRAMES,
    **TREE_RECIPES,
    "weights": WEIGHT_RECIPES,
    "explain": EXPLAIN_RECIPES,
    "crops": CROP_RECIPES,
}
"""By what is read, then by what is odd about it: the recipe, and a regular expression of a line said."""
