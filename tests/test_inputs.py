"""Files of every kind that people have, made from the astronaut of scikit-image."""

from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from fwstudy.faces import inputs
from fwstudy.faces.inputs import find_face, find_faces, list_inputs
from fwstudy.faces.mesh import NO_MESH
from fwstudy.faces.videos import footage as videos
from fwstudy.faces.videos.footage import InputError, open_video, read_frames, spread

SIZE, SCALE = 64, 1.3
# Of each orientation of EXIF the display matrix a, b, c, d: x' = a x + c y, y' = b x + d y.
SIDES = [(1, 0, 0, 1), (-1, 0, 0, 1), (-1, 0, 0, -1), (1, 0, 0, -1)]
SIDES += [(0, 1, 1, 0), (0, 1, -1, 0), (0, -1, -1, 0), (0, -1, 1, 0)]
MATRICES = dict(enumerate(SIDES, 1))


def stored_as(orientation, upright):
    """The pixels of a picture that is upright only once it is turned."""
    a, b, c, d = MATRICES[orientation]
    return upright[::d, ::a] if a else upright[::b, ::c].swapaxes(0, 1)


def gray_frames(levels, height=48, width=64):
    return [np.full((height, width, 3), level, np.uint8) for level in levels]


def write_clip(path, images, times=None, codec="libx264", pixels="yuv420p", options=None, **stream):
    """A clip of the given frames at the given milliseconds (25 a second by default)."""
    with av.open(str(path), "w", options=options or {}) as container:
        video = container.add_stream(codec, rate=25, options=stream.pop("codec_options", {}))
        video.height, video.width = images[0].shape[:2]
        video.pix_fmt = pixels
        video.codec_context.time_base = Fraction(1, 1000)
        for name, value in stream.items():
            setattr(video.codec_context, name, value)
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts, frame.time_base = (times or range(0, 10**6, 40))[number], Fraction(1, 1000)
            container.mux(video.encode(frame))
        container.mux(video.encode())
    return path


def turn(path, orientation):
    """Write a display matrix into an mp4 file."""
    content = bytearray(path.read_bytes())
    start = content.index(b"tkhd") + 44  # ISO 14496-12: the matrix in a track header, version 0
    a, b, c, d = (65536 * value for value in MATRICES[orientation])
    matrix = np.array([a, b, 0, c, d, 0, 0, 0, 1 << 30], ">i4")
    assert content[start : start + 4] == np.array(65536, ">i4").tobytes()
    content[start : start + 36] = matrix.tobytes()
    path.write_bytes(content)


def sound(path, cover=False):
    """A file of silence, with a picture of its cover or without."""
    with av.open(str(path), "w") as container:
        silent = container.add_stream("aac", rate=44100)
        if cover:
            picture = container.add_stream("mjpeg", rate=1)
            picture.width = picture.height = 64
            picture.pix_fmt = "yuvj420p"
            picture.disposition = av.stream.Disposition.attached_pic
        for number in range(20):
            silence = np.zeros((2, 1024), np.float32)
            frame = av.AudioFrame.from_ndarray(silence, format="fltp", layout="stereo")
            frame.sample_rate, frame.pts = 44100, 1024 * number
            container.mux(silent.encode(frame))
        if cover:
            image = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
            container.mux([*picture.encode(image), *picture.encode()])
        container.mux(silent.encode())


def levels_of(footage):
    return [int(image.mean().round()) for image in footage.images]


def test_a_folder_is_searched_and_a_file_taken_whatever_its_name(tmp_path):
    names = ["b.JPG", "sub folder/ünïcode ☃ name.mp4", "a.png", "notes.txt", ".hidden.png"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [path.relative_to(tmp_path).as_posix() for path in list_inputs(tmp_path)]
    assert found == ["a.png", "b.JPG", "sub folder/ünïcode ☃ name.mp4"]
    assert list_inputs(str(tmp_path / "notes.txt")) == [tmp_path / "notes.txt"]


def test_nothing_to_explain_is_an_error_that_names_it(tmp_path):
    with pytest.raises(InputError, match=r"gone\.jpg: no such file or folder"):
        list_inputs(tmp_path / "gone.jpg")


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "RGBA", "LA", "CMYK", "YCbCr", "I;16", "F"])
def test_every_kind_of_pixels_is_read_as_eight_bit_colour(astronaut, tmp_path, mode):
    rgb = Image.fromarray(astronaut)
    deep = np.asarray(rgb.convert("L"), np.uint16) * 257
    special = {"I;16": deep, "F": (deep / 65535).astype(np.float32)}
    photo = Image.fromarray(special[mode]) if mode in special else rgb.convert(mode)
    assert photo.mode == mode
    suffixes = {"CMYK": "jpg", "YCbCr": "jpg", "F": "tif"}
    path = tmp_path / f"photo.{suffixes.get(mode, 'png')}"
    photo.save(path)
    footage = read_frames(path, 16)
    (image,) = footage.images
    assert image.shape == astronaut.shape and image.dtype == np.uint8 and image.flags.writeable
    assert footage.times == [0.0] and not footage.is_clip and not footage.notes
    gray = mode in ("L", "LA", "I;16", "F")
    expected = np.asarray(rgb.convert("L").convert("RGB") if gray else rgb).astype(int)
    blur = 16 if mode == "1" else 1  # black and white dots: only their density is right
    means = [
        values.reshape(320 // blur, blur, 320 // blur, blur, 3).mean((1, 3))
        for values in (image.astype(int), expected)
    ]
    limit = {"1": 30, "P": 20, "CMYK": 4, "YCbCr": 4}.get(mode, 0.6)
    error = np.abs(means[0] - means[1]).mean()
    assert error < limit


def test_a_picture_longer_than_opencv_warps_is_refused(tmp_path):
    Image.new("RGB", (33000, 2)).save(tmp_path / "panorama.png")
    with pytest.raises(InputError, match="shrink it"):
        read_frames(tmp_path / "panorama.png", 1)


def test_transparency_is_laid_on_white(tmp_path):
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[:2] = 10, 20, 30, 255
    Image.fromarray(pixels).save(tmp_path / "alpha.png")
    frames = read_frames(tmp_path / "alpha.png", 1)
    (image,) = frames.images
    assert frames.notes == ["transparent parts laid on white"]
    assert (image[:2] == (10, 20, 30)).all() and (image[2:] == 255).all()
    palette = Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4), "P")
    palette.putpalette([7] * 768)
    palette.save(tmp_path / "palette.png", transparency=5)
    (image,) = read_frames(tmp_path / "palette.png", 1).images
    assert (image[1, 1] == 255).all() and (image == 7).sum() == 45


@pytest.mark.parametrize("orientation", MATRICES)
def test_photographs_and_clips_are_turned_upright(tmp_path, orientation):
    upright = np.full((64, 96, 3), 60, np.uint8)
    upright[:24, :32], upright[:24, 64:], upright[40:, :32] = 200, 20, 120  # three corners differ
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(stored_as(orientation, upright))
    Image.fromarray(stored).save(tmp_path / "photo.png", exif=exif)
    path = write_clip(tmp_path / "clip.mp4", [stored])
    turn(path, orientation)
    for name, limit in (("photo.png", 0), ("clip.mp4", 6)):
        (image,) = read_frames(tmp_path / name, 1).images
        assert image.shape == upright.shape, name
        assert np.abs(image.astype(int) - upright).mean() <= limit, name


@pytest.mark.parametrize(
    ("name", "make", "reason"),
    [
        ("empty.jpg", lambda whole: b"", "the file is empty"),
        ("empty.mp4", lambda whole: b"", "the file is empty"),
        ("cut.jpg", lambda whole: whole[: len(whole) // 2], "truncated"),
        ("text.jpg", lambda whole: b"this is not a photograph\n" * 40, "cannot be read"),
        ("text.txt", lambda whole: b"this is not a photograph\n" * 40, "it holds no pictures"),
        ("list.m3u8", lambda whole: b"#EXTM3U\n#EXTINF:9,\nclip.mp4\n#EXT-X-ENDLIST\n", "cannot"),
        ("list.mp4", lambda whole: b"ffconcat version 1.0\nfile clip.mp4\n", "cannot be read"),
    ],
)
def test_what_cannot_be_read_is_an_error_that_names_it(astronaut, tmp_path, name, make, reason):
    Image.fromarray(astronaut).save(tmp_path / "whole.jpg")
    write_clip(tmp_path / "clip.mp4", gray_frames([100] * 5))  # what a list must not lead to
    (tmp_path / name).write_bytes(make((tmp_path / "whole.jpg").read_bytes()))
    with pytest.raises(InputError, match=rf"{name}: .*{reason}"):
        read_frames(tmp_path / name, 4)


def test_missing_file_and_no_frames_wanted(tmp_path):
    with pytest.raises(InputError, match=r"gone\.mp4: no such file"):
        read_frames(tmp_path / "gone.mp4", 4)
    with pytest.raises(ValueError, match="must be at least 1, not 0"):
        read_frames(tmp_path / "gone.mp4", 0)


def test_content_decides_not_the_name(astronaut, tmp_path):
    photo, clip = tmp_path / "100% a:b 'ä' %03d.mp4", tmp_path / "clip ☃.jpg"
    Image.fromarray(astronaut).save(photo, format="JPEG", quality=95)
    write_clip(tmp_path / "clip.mp4", gray_frames([50, 150])).rename(clip)
    read = read_frames(photo, 4)
    assert not read.is_clip and np.abs(read.images[0].astype(int) - astronaut).mean() < 4
    assert read_frames(clip, 4).is_clip


def test_pages_and_moving_pictures(tmp_path):
    pages = [Image.fromarray(image) for image in gray_frames([40, 200])]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    footage = read_frames(tmp_path / "pages.tif", 4)
    assert levels_of(footage) == [40] and footage.notes == ["the first of 2 pictures in the file"]
    pages[0].save(tmp_path / "m.gif", save_all=True, append_images=pages[1:], duration=500)
    footage = read_frames(tmp_path / "m.gif", 4)
    assert footage.is_clip and levels_of(footage) == [40, 200] and footage.times == [0, 0.5]


def test_frames_are_evenly_spaced_in_time():
    # Ten frames in the first second, two in the nine seconds after it.
    stamps = np.array([*range(0, 1000, 100), 1000, 5500])
    assert spread(stamps, 10000, 4).tolist() == [1000, 5500]
    assert spread(stamps, 10000, 10).tolist() == [500, 1000, 5500]
    assert spread(stamps, 10000, 1).tolist() == [1000]
    assert spread(np.arange(10), 10, 5).tolist() == [1, 3, 5, 7, 9]
    assert spread(np.arange(3), 3, 99).tolist() == [0, 1, 2]


def test_variable_frame_rate(tmp_path):
    times = [*range(0, 1000, 100), 1000, 5500]
    path = write_clip(tmp_path / "v.mkv", gray_frames(range(20, 240, 18)[:12]), times)
    footage = read_frames(path, 10)  # 6 s: 5.5 and half a second, the mean distance of frames
    assert footage.times == pytest.approx([0.3, 0.9, 1.0, 5.5], abs=0.01)
    assert levels_of(footage) == pytest.approx([74, 182, 200, 218], abs=3)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "mov", "mts"])
@pytest.mark.parametrize("count", [3, 200])
def test_seeking_finds_the_frames_that_decoding_all_finds(tmp_path, suffix, count):
    levels = [20 + 2 * number for number in range(100)]
    options = {"codec_options": {"g": "12"}, "codec": "mpeg4" if suffix == "avi" else "libx264"}
    path = write_clip(tmp_path / f"long.{suffix}", gray_frames(levels), **options)
    footage = read_frames(path, count)
    expected = [levels[n] for n in (16, 50, 83)] if count == 3 else levels
    assert levels_of(footage) == pytest.approx(expected, abs=4)
    assert footage.times == pytest.approx([(level - 20) / 50 for level in expected], abs=0.09)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "mts"])
@pytest.mark.parametrize("options", [{"bf": "3"}, {"bf": "3", "flags": "+ildct+ilme"}, {"bf": "0"}])
def test_frames_that_are_not_wanted_change_no_pixel_of_those_that_are(tmp_path, suffix, options):
    """H.264: frames that no other refers to are not decoded; of AVI frames are taken in order."""
    wall = np.random.default_rng(0).integers(0, 255, (48, 160, 3), dtype=np.uint8)
    moving = [np.ascontiguousarray(wall[:, n : n + 64]) for n in range(90)]
    options = options | {"g": "60", "crf": "10"}
    video = open_video(write_clip(tmp_path / f"v.{suffix}", moving, codec_options=options))
    every = list(video.frames(video.numbers))
    away = [[cv2.norm(one, other, cv2.NORM_L1) for other in moving] for one in every]
    assert np.argmin(away, axis=1).tolist() == list(range(len(moving)))
    for step in (2, 7, 30):
        some = video.frames(video.numbers[1::step])
        np.testing.assert_array_equal(np.stack(list(some)), np.stack(every[1::step]))


@pytest.mark.parametrize(("suffix", "skippable"), [("mp4", True), ("mkv", True), ("mts", False)])
def test_frames_that_no_other_refers_to_are_passed_over(tmp_path, suffix, skippable):
    """In MPEG-TS a packet may be half a frame: nothing is passed over."""
    path, options = tmp_path / f"v.{suffix}", {"bf": "3", "g": "60"}
    write_clip(path, gray_frames(range(20, 200, 2)), codec_options=options)
    index = videos._index(path)
    assert index.skippable == skippable and len(index.stamps) == 90
    with videos._opened(path) as (container, stream):
        needed = {int(index.stamps[-1])}
        seen = [frame.pts for frame in videos._undamaged(container, stream, needed)]
    assert needed < set(seen) and len(seen) < 75


@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])
def test_frames_that_an_avi_leaves_out_are_none(tmp_path, codec):
    """AVI has a chunk of no bytes for each; FFmpeg 8 passes over them and keeps the others' times."""
    times = [40 * number for number in (0, 1, 2, 5, 6, 9)]
    levels = list(range(20, 140, 20))
    images = [np.full((48, 64, 3), level, np.uint8) for level in levels]
    video = open_video(write_clip(tmp_path / "v.avi", images, times, codec))
    assert [round(frame.mean(), -1) for frame in video.frames(video.numbers)] == levels
    assert video.step == pytest.approx(0.36 / 5, abs=0.021) and not video.notes


def test_behind_damage_frames_of_avi_are_missing_and_not_shifted(tmp_path):
    wall = np.random.default_rng(0).integers(0, 255, (48, 160, 3), dtype=np.uint8)
    moving = [np.ascontiguousarray(wall[:, n : n + 64]) for n in range(90)]
    path = write_clip(tmp_path / "v.avi", moving, codec_options={"bf": "3", "g": "60"})
    sound = list(open_video(path).frames(range(90)))
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packet = [p for p in container.demux(video=0) if p.size][45]
    begin = data.index(bytes(packet))
    data[begin : begin + packet.size] = bytes(packet.size)
    path.write_bytes(data)
    damaged = list(open_video(path).frames(range(90)))
    there = [n for n, image in enumerate(damaged) if image is not None]
    assert 35 <= len(there) < 90 and there == list(range(len(there)))
    np.testing.assert_array_equal(damaged[:35], sound[:35])


def test_odd_sizes_and_pixels_that_are_not_square(tmp_path):
    odd = gray_frames([90, 90], 47, 63)
    for pixels in ("bgr0", "gray"):
        path = write_clip(tmp_path / f"{pixels}.mkv", odd, codec="ffv1", pixels=pixels)
        assert [image.shape for image in read_frames(path, 2).images] == [(47, 63, 3)] * 2
    wide = {"sample_aspect_ratio": Fraction(4, 3)}
    path = write_clip(tmp_path / "wide.mp4", gray_frames([90] * 2), **wide)
    assert [image.shape for image in read_frames(path, 2).images] == [(48, 85, 3)] * 2


@pytest.mark.parametrize("cover", [False, True])
def test_sound_alone_is_no_clip_even_with_a_cover(tmp_path, cover):
    path = tmp_path / "sound.mp4"
    sound(path, cover)
    with pytest.raises(InputError, match=r"sound\.mp4: .*it holds no pictures"):
        read_frames(path, 4)


def test_truncated_clips_are_read_as_far_as_they_go_or_refused(tmp_path):
    rng = np.random.default_rng(0)
    images = list(rng.integers(0, 255, (50, 48, 64, 3), dtype=np.uint8))
    for name, options in (("late", {}), ("early", {"movflags": "faststart"})):
        path = write_clip(tmp_path / f"{name}.mp4", images, options=options)
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"late\.mp4: cannot be read"):  # the index was at the end
        read_frames(tmp_path / "late.mp4", 4)
    footage = read_frames(tmp_path / "early.mp4", 4)
    assert 2 <= len(footage.images) <= 4 and max(footage.times) < 1.3
    assert footage.notes[0].startswith("truncated: the file ends after")
    assert footage.notes[0].endswith("of 2.0 s")


def test_the_face_is_cut_out_as_in_training(astronaut):
    face = find_face(astronaut, SIZE, SCALE)[0]
    assert face.crop.shape == (SIZE, SIZE, 3) and face.crop.dtype == np.uint8
    assert face.num_faces == 1 and face.notes == []
    left, top, right, bottom = face.box
    extent = np.ptp(face.landmarks, axis=0).max()
    assert right - left == bottom - top == pytest.approx(SCALE * extent, abs=1)
    assert 30 < face.interocular < 60
    assert left < face.landmarks[:, 0].min() and face.landmarks[:, 0].max() < right


def test_doubtful_faces_are_noted(astronaut):
    gray = np.repeat(astronaut.mean(axis=2, keepdims=True).astype(np.uint8), 3, axis=2)
    assert find_face(gray, SIZE, SCALE)[0].notes == ["gray-scale: the model has learned from color"]
    tiny = np.array(Image.fromarray(astronaut).resize((80, 80)))
    small = find_face(tiny, 128, SCALE)[0]
    assert small.notes == ["small face: enlarged more than 2 times"]
    assert small.interocular == pytest.approx(
        find_face(astronaut, SIZE, SCALE)[0].interocular / 4, 0.1
    )
    corner_of_eye = int(find_face(astronaut, SIZE, SCALE)[0].landmarks[36, 0])
    (note,) = find_face(astronaut[:, corner_of_eye - 4 :], SIZE, SCALE)[0].notes
    assert note.startswith("the border of the picture cuts the face")


def test_of_several_faces_the_largest_or_the_nearest(astronaut):
    small = np.array(Image.fromarray(astronaut).resize((200, 200)))
    canvas = np.zeros((320, 520, 3), np.uint8)
    canvas[:200, :200], canvas[:, 200:] = small, astronaut
    largest = find_face(canvas, SIZE, SCALE)[0]
    assert largest.num_faces == 2 and largest.box[0] > 200
    assert largest.notes == ["2 faces found, the largest clear one taken"]
    other = find_face(small, SIZE, SCALE)[0]
    near = find_face(canvas, SIZE, SCALE, near=other.box)[0]
    assert np.abs(near.box - other.box).max() < 12 and near.notes == []
    (note,) = find_face(astronaut, SIZE, SCALE, near=np.array([900, 900, 950, 950]))[0].notes
    assert "perhaps another person" in note


def test_a_face_that_turns_away_is_not_taken_for_another_one(astronaut, monkeypatch):
    """The nearest face, which no mesh fits, is a gap; the other face is of somebody else."""
    canvas = np.hstack([astronaut, astronaut[:, ::-1]])
    left, fit = find_face(astronaut, SIZE, SCALE)[0], inputs.fit_first
    away = [face for face in inputs.detect_faces(canvas) if face.box[0] > 300]
    monkeypatch.setattr(
        inputs, "fit_first", lambda image, faces: fit(image, [f for f in faces if f.box[0] > 300])
    )
    assert len(away) == 1 and find_face(canvas, SIZE, SCALE, left.box) == (None, NO_MESH)


def test_one_face_is_followed_through_a_clip_with_gaps(astronaut, tmp_path):
    """It shrinks below the other one, is gone for a while, and is still the one that is followed."""
    followed, images = [160, 150, 0, 100], []
    for side in followed:
        canvas = np.full((240, 400, 3), 90, np.uint8)
        if side:
            canvas[:140, 200:340] = np.array(Image.fromarray(astronaut).resize((140, 140)))
            canvas[:side, :side] = np.array(Image.fromarray(astronaut).resize((side, side)))
        images += [canvas] * 3
    path = write_clip(tmp_path / "two.mp4", images, codec_options={"crf": "10"})
    faces, reasons = find_faces(read_frames(path, 4), SIZE, SCALE)
    assert [face is not None for face in faces] == [True, True, False, True]
    assert reasons == ["", "", "no face found", ""]
    found = [face for face in faces if face]
    assert all(face.num_faces == 2 and face.box[2] < 200 for face in found)
    assert np.ptp([face.box[2] - face.box[0] for face in found]) > 10
