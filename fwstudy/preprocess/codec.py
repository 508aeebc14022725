"""Real H.264 compression in memory, by the rate factors of the c23 and c40 sets of FaceForensics++.

FaceForensics++ (Rössler et al., ICCV 2019) compresses with libx264 at constant rate factors 23 and
40 and, for "raw", does not compress visibly at all; here raw frames are left exactly as they are.
Departures from its public script: chroma is halved in both directions (4:2:0, as most videos have it; the
script keeps it whole), and all clips are of 25 frames a second (the script keeps the video's rate).
"""

import io

import av
import cv2
import numpy as np

QUALITIES: dict[str, int | None] = {"raw": None, "c23": 23, "c40": 40}
"""Constant rate factor of libx264 for each quality; None leaves the frames as they are."""

FRAME_RATE = 25  # frames per second; it moves the rate control a little
OPTIONS = {"preset": "medium", "threads": "1", "x264-params": "asm=0"}
"""Without assembly: on processors with AVX-512, libx264's was seen to write one of several different
files for the same frames. Plain C also gives the same file on all processors."""

# ITU-R BT.601, limited range: rows give Y, Cb, Cr from R, G, B, all 0..255
TO_YUV = (
    np.array([[65.481, 128.553, 24.966], [-37.797, -74.203, 112], [112, -93.786, -18.214]]) / 255
)
OFFSET = np.array([16.0, 128.0, 128.0])


def to_planes(frame: np.ndarray) -> np.ndarray:
    """RGB to planar 4:2:0, chroma averaged over 2 x 2 pixels.

    Not left to FFmpeg's converter, whose results for one and the same frame were seen to differ
    from call to call, with the alignment of its buffers.

    Args:
        frame: (H, W, 3) uint8, H and W even.

    Returns:
        (3 H / 2, W) uint8, the layout of PyAV's "yuv420p" arrays.
    """
    height, width = frame.shape[:2]
    yuv = (frame.astype(np.float64) @ TO_YUV.T + OFFSET).astype(np.float32)
    half = cv2.resize(yuv[..., 1:], (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    chroma = half.reshape(height // 2, width // 2, 2).transpose(2, 0, 1).reshape(-1, width)
    return np.clip(np.round(np.concatenate([yuv[..., 0], chroma])), 0, 255).astype(np.uint8)


def from_planes(planes: np.ndarray) -> np.ndarray:
    """Inverse of `to_planes`, chroma interpolated linearly: (H, W, 3) uint8, RGB."""
    height, width = planes.shape[0] * 2 // 3, planes.shape[1]
    chroma = planes[height:].reshape(2, height // 2, width // 2).transpose(1, 2, 0)
    full = cv2.resize(chroma.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    yuv = np.dstack([planes[:height].astype(np.float32), full])
    rgb = (yuv - OFFSET) @ np.linalg.inv(TO_YUV).T
    return np.clip(np.round(rgb), 0, 255).astype(np.uint8)


def encode(frames: np.ndarray, rate_factor: int) -> bytes:
    """Compress frames to an MP4 file in memory: libx264, yuv420p, preset medium, one thread.

    Args:
        frames: (F, H, W, 3) uint8, RGB, F >= 1. Odd sizes are padded by repeating the border.
        rate_factor: constant rate factor, 0..51; higher is coarser.

    Returns:
        The bytes of the file; the same for the same frames and the same library.

    Raises:
        ValueError: `frames` is not a non-empty stack of RGB uint8 frames.
    """
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not frames.size:
        raise ValueError(f"expected (F, H, W, 3) uint8, got {frames.shape} {frames.dtype}")
    height, width = frames.shape[1:3]
    padded = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        options = {"crf": str(rate_factor), **OPTIONS}
        stream = container.add_stream("libx264", rate=FRAME_RATE, options=options)
        stream.height, stream.width = padded.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for number, frame in enumerate(padded):
            planes = av.VideoFrame.from_ndarray(to_planes(frame), format="yuv420p")
            planes.pts = number
            container.mux(stream.encode(planes))
        container.mux(stream.encode())  # flush
    return file.getvalue()


def decode(video: bytes) -> np.ndarray:
    """All frames of a yuv420p video file in memory, (F, H, W, 3) uint8, RGB."""
    with av.open(io.BytesIO(video)) as container:
        container.streams.video[0].thread_count = 1
        return np.stack([from_planes(frame.to_ndarray()) for frame in container.decode(video=0)])


def compress(frames: np.ndarray, quality: str) -> tuple[np.ndarray, int]:
    """What is left of the frames after one of `QUALITIES`, and the size of the file.

    Args:
        frames: (F, H, W, 3) uint8, RGB, any size.
        quality: "raw", "c23" or "c40".

    Returns:
        The same shape, uint8, and the number of bytes; for "raw" `frames` itself and its size.

    Raises:
        ValueError: unknown quality; the message names the known ones.

    Example:
        >>> compress(np.zeros((2, 33, 31, 3), np.uint8), "c40")[0].shape
        (2, 33, 31, 3)
    """
    if quality not in QUALITIES:
        raise ValueError(f"unknown quality {quality!r}; known: {', '.join(QUALITIES)}")
    rate_factor = QUALITIES[quality]
    if rate_factor is None:
        return frames, frames.nbytes
    height, width = frames.shape[1:3]
    video = encode(frames, rate_factor)
    return decode(video)[:, :height, :width], len(video)
