"""Small video files whose frames tell their number, for the tests of what reads videos."""

import av
import numpy as np

SIDE = (48, 64)
STEP = 4
"""Difference in brightness from one frame to the next."""


def numbered(count, size=SIDE, first=0):
    """Give frames whose brightness is their number: u8[count, H, W, 3]."""
    frames = np.zeros((count, *size, 3), np.uint8)
    frames[:] = (np.arange(first, first + count) * STEP % 248)[:, None, None, None]
    return frames


def numbers_of(pictures):
    """Read the numbers back."""
    return np.rint(pictures.mean(axis=(1, 2, 3)) / STEP).astype(int)


def write_film(path, frames, codec="libx264", gop=12, rate=10, options=None, container=None):
    """Write u8[n, H, W, 3]; H.264 has B-frames here."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=container or {}) as file:
        stream = file.add_stream(codec, rate=rate)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.gop_size = gop
        stream.options = {"crf": "18", **({"bf": "2"} if codec == "libx264" else {}), **(options or {})}
        for frame in frames:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        file.mux(stream.encode())
    return path
