"""A clip file: what is written is read, what is damaged is named."""

import zipfile

import numpy as np
import pytest

from fwstudy.clips import is_finished, load_clip, load_header, save_clip

from .conftest import make_clip


def test_clip_round_trip(tmp_path):
    clip = make_clip(3, 1)
    path = save_clip(tmp_path, clip)
    read = load_clip(path)
    assert (read.name, read.identity, read.attributes) == (clip.name, "003", clip.attributes)
    np.testing.assert_array_equal(read.parsing, clip.parsing)
    for name, variant in clip.variants.items():
        np.testing.assert_array_equal(read.variants[name].frames, variant.frames)
        np.testing.assert_array_equal(read.variants[name].mask, variant.mask)
        np.testing.assert_array_equal(read.variants[name].region, variant.region)
        assert load_header(path)["sources"][name] == variant.source
    assert [file.name for file in tmp_path.iterdir()] == ["003_1.npz"]
    written = path.read_bytes()
    assert save_clip(tmp_path, read).read_bytes() == written
    with zipfile.ZipFile(path) as archive:  # no time in it; ZIP counts in steps of two seconds
        assert {one.date_time for one in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_damaged_clip_is_named(tmp_path):
    path = save_clip(tmp_path, make_clip(0, 0))
    whole = path.read_bytes()
    in_header = whole[:40] + b"\xff" * 40 + whole[80:]  # what zlib cannot inflate
    for content in (whole[:-400], b"", b"no archive", in_header):
        path.write_bytes(content)
        for read in (load_clip, load_header):
            with pytest.raises(ValueError, match=r"000_0\.npz is not a readable clip"):
                read(path)
        assert not is_finished(path)
