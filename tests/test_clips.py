"""A clip file: what is written is read, what is damaged is named."""

import zipfile
import zlib
from unittest.mock import Mock

import numpy as np
import pytest
from isal import isal_zlib

from fwstudy.clips import is_finished, load_clip, load_header, save_clip, write_arrays

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


def test_arrays_are_compressed_by_isa_l_and_read_by_numpy(tmp_path, monkeypatch):
    """Through a private place of zipfile, Python 3.11: `isal` 1.9.1 takes a fifth of zlib's time."""
    values = np.random.default_rng(0).normal(0, 3, (64, 64, 3)).round().astype(np.int8)
    used = Mock(wraps=isal_zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS))
    monkeypatch.setattr(isal_zlib, "compressobj", lambda *_: used)
    with open(tmp_path / "x.npz", "wb") as file:
        write_arrays(file, {"values": values})
    assert used.compress.called and used.flush.called
    with np.load(tmp_path / "x.npz") as read:
        np.testing.assert_array_equal(read["values"], values)
    packed = zipfile.ZipFile(tmp_path / "x.npz").getinfo("values.npy").compress_size
    assert packed < 1.1 * len(zlib.compress(values.tobytes(), 1))
