"""Animated WebP, which FFmpeg does not read: rewritten without loss for it, by Pillow."""

from __future__ import annotations

import tempfile
from fractions import Fraction
from pathlib import Path
from typing import IO

import av
from PIL import Image

_MS = Fraction(1, 1000)


def is_animated_webp(path: Path) -> bool:
    """Tell whether a file begins as an animated WebP does."""
    try:
        with path.open("rb") as file:
            head = file.read(21)
    except OSError:
        return False
    return head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X" and bool(head[20] & 2)


def as_video(path: Path) -> IO[bytes]:
    """Return a temporary video file, open at its beginning, with the frames of an animated WebP; raises OSError."""
    file = tempfile.TemporaryFile(prefix="imagesr-")  # noqa: SIM115, closed by `close_input`
    with Image.open(path) as picture:
        clear = picture.mode == "RGBA"
        durations = []
        for i in range(picture.n_frames):
            picture.seek(i)
            picture.load()
            durations.append(max(1, int(picture.info.get("duration", 100))))
        rate = Fraction(1000, sorted(durations)[len(durations) // 2])
        with av.open(file, "w", format="matroska") as target:
            stream = target.add_stream("ffv1", rate=rate, time_base=_MS)
            stream.width, stream.height, stream.pix_fmt = *picture.size, "bgra" if clear else "bgr0"
            at = 0
            for i, duration in enumerate(durations):
                picture.seek(i)
                frame = av.VideoFrame.from_image(picture.convert("RGBA" if clear else "RGB"))
                frame = frame.reformat(format=stream.pix_fmt)
                frame.pts, frame.time_base, frame.duration = at, _MS, duration
                at += duration
                for packet in stream.encode(frame):
                    packet.duration = duration
                    target.mux(packet)
            target.mux(stream.encode())
    file.seek(0)
    return file
