"""Bad and odd inputs as recipes: each makes its input in an empty folder; beside it, what is to be said.

A line of what is said is an error (``error: …``), a remark (``FILE: …``), or what was made of the input
(``clip NAME: variants``, ``read``).
"""

import json
import os
import re
import shutil
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from fwstudy.crops.writers import WRITERS
from fwstudy.training.models import save_weights
from fwstudy.whitening.surgery import create_model

from ..faces.test_assemble import LEFT, face, mirrored, moving, scene
from ..faces.test_assemble import write as film
from ..faces.trees import write_json

ROOT = Path(__file__).parents[2]
PARAMS = (ROOT / "tests" / "params.yaml").read_text(encoding="utf-8")
Make = Callable[[Path], object]


def wall(image: np.ndarray | None = None) -> np.ndarray:
    """One frame with that face at the left; the astronaut's by default."""
    return scene((face() if image is None else image, LEFT), count=1)[0]


def picture(path: Path, image: np.ndarray | None = None, **options) -> Path:
    """A picture of `wall`, or of what is given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(wall() if image is None else image).save(path, **options)
    return path


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
    "byte order mark": (params(lambda text: text.encode("utf-8-sig")), "^read$"),
    "line ends of Windows": (params(lambda text: text.replace("\n", "\r\n")), "^read$"),
    "tag of a Python object": (replaced("seed: 0", "seed: !!python/object/apply:os.getcwd []"), r"error: params\.yaml: line \d+: "),
    "control character": (replaced("seed: 0", "seed: 0\0"), r"error: params\.yaml: "),
    "empty section": (params(lambda text: re.sub(r"(?s)interpretability:.*?\n\n", "interpretability:\n\n", text)), r"error: params\.yaml: *interpretability: "),
    "nameless key": (replaced("  seed: 0\n", "  seed: 0\n  : 1\n"), r"error: params\.yaml: "),
    "variants as a list": (params(lambda text: re.sub(r"(?s)  variants:.*?\n\n", "  variants: [a]\n\n", text)), r"error: .*ablations\.variants: "),
    "a variant without values": (replaced("    bottleneck_none:\n      bottleneck: 0.0\n", "    bottleneck_none:\n"), r"error: .*ablations\.variants\.bottleneck_none: "),
    "profiles without values": (params(lambda text: re.sub(r"(?s)\nprofiles:.*", "\nprofiles:\n", text)), r"error: .*profiles: "),
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
    "a bomb": (photo("eve_1.png", bomb), r"eve_1\.png: .*cannot be read.*decompression bomb"),
    "one pixel": (photo("eve_1.png", lambda path: picture(path, wall()[:1, :1])), r"eve_1\.png: no face found"),
    "a strip": (photo("eve_1.png", lambda path: picture(path, np.zeros((4, 9000, 3), np.uint8))), r"eve_1\.png: no face found"),
    "damaged EXIF": (photo("eve_1.jpg", lambda path: picture(path, exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")), "^clip eve_1: "),
    "a clip": (photo("eve_1.jpg", lambda path: film(path.with_suffix(".mp4"), scene()).rename(path)), r"eve_1\.jpg: a clip and no photograph"),
    "a moving picture": (photo("eve_1.webp", pages), r"eve_1\.webp: "),
    "a table that is no UTF-8": (photo("people.csv", lambda path: written(path, b"face_id,face_age\nann,3\xfc\n")), r"error: .*people\.csv"),
    "a table with an age in words": (photo("people.csv", lambda path: written(path, "face_id,face_age\nann,thirty\n")), r"error: .*people\.csv"),
    "an empty table": (photo("people.csv", Path.touch), r"error: .*people\.csv"),
}  # fmt: skip


# Videos


def pair(original: Make, forged: Make | None = None) -> Make:
    """A pair named odd in real/ and fake/swap/, beside one that can be used."""

    def recipe(root: Path) -> None:
        picture(root / "real" / "good.png")
        picture(root / "fake" / "swap" / "good.png", wall(mirrored(face())))
        original(root / "real" / "odd.mp4")
        if forged:
            forged(root / "fake" / "swap" / "odd.mp4")

    return recipe


def of(frames: Callable[[], np.ndarray]) -> Make:
    return lambda path: film(path, frames())


def numbered(path: Path) -> None:
    """A folder of pictures."""
    for number, frame in enumerate(still(), 1):
        picture(path.with_suffix("") / f"{number:04d}.png", frame)


def spoiled(path: Path) -> None:
    """One of them cannot be read."""
    numbered(path)
    written(sorted(path.with_suffix("").iterdir())[1], b"no picture")


def still() -> np.ndarray:
    return scene((face(), LEFT))


def still_forged() -> np.ndarray:
    return scene((mirrored(face()), LEFT))


FRAMES = {
    "a list of other files": (pair(lambda path: written(path, "#EXTM3U\n#EXTINF:9,\nother.mp4\n#EXT-X-ENDLIST\n")), r"real/odd\.mp4: .*cannot be read"),
    "the forgery of what has no face": (pair(of(scene), of(scene)), r"fake/swap/odd\.mp4: not used: no face"),
    "two pixels": (pair(lambda path: film(path, scene()[:, :2, :2])), r"real/odd\.mp4: no face found"),
    "an animated GIF": (pair(lambda path: pages(path.with_suffix(".gif"), 6)), "^clip odd@c23: original$"),
    "a forgery of another shape": (pair(of(still), of(lambda: still_forged()[:, :, :200])), r"fake/swap/odd\.mp4: .*(shape|original)"),
    "nothing forged": (pair(of(still), of(still)), r"fake/swap/odd\.mp4: no pixel of the face differs"),
    "a damaged picture among others": (pair(spoiled), r"real/odd: 1 of 6 frames missing or not decodable"),
    "pictures of several sizes": (pair(lambda path: (numbered(path), picture(path.with_suffix("") / "0003.png", wall()[:, :200]))), "^clip odd@c23: original$"),
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
        "list in latin-1": (tree(**CELEB, **{LIST: b"# \xfc\n" + CELEB_LIST.encode()}), rf"error: .*{LIST}"),
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
    "empty": (weights(lambda path: path.write_bytes(b"")), r"error: .*w\.safetensors is truncated"),
    "not finite": (other_values(lambda state: {k: v * float("nan") if v.is_floating_point() else v for k, v in state.items()}), r"error: .*w\.safetensors .*not finite"),
    "in half precision": (other_values(lambda state: {k: v.half() if v.is_floating_point() else v for k, v in state.items()}), "^read$"),
}  # fmt: skip


# Crop sets


def inside(name: str, make: Make) -> Make:
    return lambda root: make(root / name)


def crop_set(change: Make) -> Make:
    """Two crops, then changed."""

    def recipe(root: Path) -> None:
        writer = WRITERS["npy"](root)
        row = dict.fromkeys(("clip", "identity", "source", "group"), "a")
        row |= {"frame": 0, "quality": "c23", "kind": "whole", "split": "test"}
        for name in ("original", "x"):
            image = np.zeros((8, 8, 3), np.uint8)
            writer.add(row | {"variant": name}, image, image[..., 0], image[..., 0])
        writer.close()
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
    "crops": CROP_RECIPES,
}
"""By what is read, then by what is odd about it: the recipe, and a regular expression of a line said."""
