"""Pictures and clips whose colors, streams or layout are not the usual ones."""

from fractions import Fraction
from io import BytesIO

import av
import numpy as np
import pytest
from av.video.reformatter import Colorspace
from PIL import Image, ImageCms

from fwstudy.faces.photos import load_face
from fwstudy.faces.pictures import InputError, read_picture
from fwstudy.faces.videos.footage import open_video, read_frames
from tests.test_inputs import gray_frames, write_clip

SKIN = np.array([224, 172, 150])
TO_BT2020 = [[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]]
WHITE = 203  # cd/m2 of the white of an ordinary picture in HDR, ITU-R BT.2408


def pq(light):
    """ITU-R BT.2100: display light in cd/m2 to signal."""
    power = (light / 10000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375


def hlg(light):
    """ITU-R BT.2100, of a display of 1000 cd/m2."""
    light = light / 1000
    scene = light * (light @ [0.2627, 0.6780, 0.0593]) ** (1 / 1.2 - 1)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    dark, bright = np.sqrt(3 * scene), a * np.log(np.maximum(12 * scene - b, 1e-9)) + c
    return np.where(scene <= 1 / 12, dark, bright)


def write_tagged(path, color, transfer, primaries, matrix, pixels="yuv420p10le"):
    """Three frames of one color (RGB signal in 0..1) with these tags (ITU-T H.273)."""
    image = np.full((64, 96, 3), np.round(np.asarray(color) * 65535), np.uint16)
    with av.open(str(path), "w") as container:
        options = {"x265-params": "log-level=none"}
        stream = container.add_stream("libx265", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 96, 64, pixels
        codec = stream.codec_context
        codec.color_trc, codec.color_primaries, codec.colorspace = transfer, primaries, matrix
        codec.color_range = 1
        space = Colorspace.BT2020 if matrix == 9 else Colorspace.ITU709
        for number in range(3):
            frame = av.VideoFrame.from_ndarray(image, format="rgb48le")
            frame = frame.reformat(format=pixels, dst_colorspace=space, dst_color_range=1)
            frame.color_trc, frame.color_primaries = transfer, primaries
            frame.colorspace, frame.pts, frame.time_base = matrix, number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize(("name", "encode", "transfer"), [("PQ", pq, 16), ("HLG", hlg, 18)])
def test_hdr_clips_are_converted_and_it_is_noted(tmp_path, name, encode, transfer):
    light = WHITE * np.array(TO_BT2020) @ (SKIN / 255) ** 2.4
    path = write_tagged(tmp_path / "hdr.mov", encode(light), transfer, 9, 9)
    frames = read_frames(path, 1)
    assert frames.notes == [f"colors converted from {name} to BT.709"]
    assert frames.images[0].mean((0, 1)) == pytest.approx(SKIN, abs=4)  # read flat: 33 to 91 off


def test_a_color_matrix_that_is_not_read_is_named(tmp_path):
    path = write_tagged(tmp_path / "odd.mov", SKIN / 255, 1, 1, 14)
    with pytest.raises(InputError, match=r"odd\.mov: .*matrix \(ICtCp\) is not read.*zscale"):
        open_video(path)


def display_p3() -> bytes:
    """The sRGB profile with the primaries of Display P3 (adapted to D50) in their places."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    primaries = {
        b"rXYZ": (0.51512, 0.24120, -0.00105),
        b"gXYZ": (0.29198, 0.69225, 0.04189),
        b"bXYZ": (0.15710, 0.06657, 0.78407),
    }
    for number in range(int.from_bytes(profile[128:132], "big")):
        entry = 132 + 12 * number
        tag, start = bytes(profile[entry : entry + 4]), profile[entry + 4 : entry + 8]
        if tag in primaries:
            start = int.from_bytes(start, "big") + 8
            values = np.round(np.array(primaries[tag]) * 65536).astype(">i4")
            profile[start : start + 12] = values.tobytes()
    return bytes(profile)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_wide_gamut_photographs_are_converted_and_it_is_noted(tmp_path, mode):
    stored = Image.new("RGB", (8, 8), (215, 175, 154)).convert(mode)  # (224, 173, 151) in sRGB
    stored.save(tmp_path / "p3.png", icc_profile=display_p3())
    image, notes = read_picture(tmp_path / "p3.png")
    assert image[0, 0].tolist() == pytest.approx([224, 173, 151], abs=2)
    assert len(notes) == 1 and notes[0].startswith("colors converted from ")
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    stored.save(tmp_path / "srgb.png", icc_profile=srgb)
    image, notes = read_picture(tmp_path / "srgb.png")
    assert image[0, 0].tolist() == [215, 175, 154] and notes == []
    stored.save(tmp_path / "bad.png", icc_profile=b"nonsense")
    image, notes = read_picture(tmp_path / "bad.png")
    assert image[0, 0].tolist() == [215, 175, 154]
    assert notes == ["its color profile is damaged: taken for sRGB"]


@pytest.mark.parametrize("brand", [b"heic", b"mif1"])
def test_heic_is_refused_with_the_way_to_convert_it(tmp_path, brand):
    path = tmp_path / "phone.jpg"  # the content decides, not the name
    path.write_bytes(b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0mif1heic" + b"\0" * 100)
    for read in (lambda: read_frames(path, 1), lambda: open_video(path)):
        with pytest.raises(InputError, match=r"phone\.jpg: .*HEIC.*heif-convert"):
            read()
    portrait, (reason,) = load_face(path, 64)
    assert portrait is None and "HEIC" in reason and str(tmp_path) not in reason
    Image.new("RGB", (16, 16), (9, 99, 199)).save(tmp_path / "fine.avif", quality=100)
    assert read_picture(tmp_path / "fine.avif")[0].shape == (16, 16, 3)


@pytest.mark.parametrize(("default", "size"), [(0, (64, 48)), (1, (128, 96)), (None, (128, 96))])
def test_of_several_streams_the_default_or_the_largest_is_read(tmp_path, default, size):
    path = tmp_path / "two.mkv"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("libx264", rate=25) for _ in range(2)]
        for number, (stream, side) in enumerate(zip(streams, (64, 128), strict=True)):
            stream.width, stream.height, stream.pix_fmt = side, side * 3 // 4, "yuv420p"
            kinds = av.stream.Disposition
            stream.disposition = kinds.default if number == default else kinds.forced
        for stream in streams:
            for image in gray_frames([90] * 3, stream.height, stream.width):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode())
    frames = read_frames(path, 1)
    assert frames.images[0].shape[1::-1] == size
    assert frames.notes[0].startswith("2 streams of pictures: number ")
    assert f"({size[0]} x {size[1]}) is read" in frames.notes[0]


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, -1), (8, 1)])
def test_clips_of_photographs_with_exif_data_are_turned(tmp_path, orientation, turns):
    """PyAV 18.1 cannot pass the side data of such frames, but knows how they are turned."""
    stored = np.full((64, 96, 3), 60, np.uint8)
    stored[:24, :32], stored[:24, 64:], stored[40:, :32] = 200, 20, 120
    exif, content = Image.Exif(), BytesIO()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(content, "JPEG", exif=exif, quality=95)
    with av.open(str(tmp_path / "exif.avi"), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuvj420p"
        for number in range(3):
            packet = av.Packet(content.getvalue())
            packet.pts = packet.dts = number
            packet.time_base, packet.stream, packet.is_keyframe = Fraction(1, 25), stream, True
            container.mux(packet)
    frames = read_frames(tmp_path / "exif.avi", 1)
    (image,), expected = frames.images, np.rot90(stored, turns)
    assert image.shape == expected.shape and np.abs(image.astype(int) - expected).mean() < 3
    assert frames.notes == [
        "its frames carry EXIF data: turned by it, a mirrored one stays mirrored"
    ]


def test_transparent_clips_are_laid_on_white_and_interlaced_ones_noted(tmp_path):
    pixels = np.zeros((48, 64, 4), np.uint8)
    pixels[:24] = 10, 20, 30, 255  # below: green, and hidden
    pixels[24:] = 0, 255, 0, 0
    with av.open(str(tmp_path / "alpha.mov"), "w") as container:
        stream = container.add_stream("qtrle", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "argb"
        frame = av.VideoFrame.from_ndarray(pixels, format="rgba")
        container.mux([*stream.encode(frame), *stream.encode()])
    frames = read_frames(tmp_path / "alpha.mov", 1)
    assert (frames.images[0][:24] == (10, 20, 30)).all() and (frames.images[0][24:] == 255).all()
    assert frames.notes == ["transparent parts laid on white"]
    options = {"codec_options": {"x264-params": "interlaced=1:log-level=none"}}
    path = write_clip(tmp_path / "i.mp4", gray_frames([90] * 3), **options)
    assert open_video(path).notes == ["interlaced and read as it is: each frame mixes two moments"]


def test_the_remarks_of_numbered_pictures_and_hidden_files(tmp_path):
    image = Image.new("RGBA", (8, 8), (10, 20, 30, 0))
    image.save(tmp_path / "1.png")
    (tmp_path / "._1.png").write_bytes(b"what macOS leaves on foreign disks")
    assert open_video(tmp_path).numbers.tolist() == [0]
    assert open_video(tmp_path).notes == ["transparent parts laid on white"]
    (tmp_path / "0.png").write_bytes(b"no picture")
    video = open_video(tmp_path)
    assert "0.png" in video.notes[0]
    first, second = video.frames([0, 1])
    assert first is None and (second == 255).all()
