"""Container formats: which ones are written, and how files are opened; the first module that loads PyAV."""

from __future__ import annotations

import os
from pathlib import Path

import av

from imagesr.errors import InputError

# Errors are told in our own words. PyAV is silent by itself; av.logging.set_level, at any level, would make decoder
# threads call into Python to log, and deadlock against the thread that closes the decoder.
os.environ.setdefault("SVT_LOG", "1")

# Containers that can hold frames of varying duration beside copied sound.
FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm", ".ts": "mpegts"}


def open_input(path: Path):
    # Absolute: libav takes what stands before a colon in a relative name for a protocol.
    return av.open(str(path.absolute()))


def is_cover(stream) -> bool:
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def reason(error: Exception) -> str:
    """Say in a few words what an exception of PyAV or the system means."""
    text = getattr(error, "strerror", None) or str(error)
    return text.splitlines()[0] if text else type(error).__name__


def first_frames_repeated(clip: Path, frames: int, target: Path) -> None:
    """Copy the video of a clip into a Matroska file, packet for packet, as often as it takes to have `frames` frames.

    Raises InputError for a clip that cannot be read or has no timestamps.
    """
    offset = written = 0
    try:
        with av.open(str(target.absolute()), "w", format="matroska") as output:
            copy = None
            while written < frames:
                with open_input(clip) as source:
                    video = source.streams.video[0]
                    copy = copy or output.add_stream_from_template(video, opaque=True)
                    start, end = None, 0
                    for packet in source.demux(video):
                        if not packet.size or packet.dts is None:
                            continue
                        start = packet.dts if start is None else start
                        length = packet.duration or round(1 / (video.average_rate * packet.time_base))
                        end = max(end, packet.dts - start + length)
                        packet.pts, packet.dts = packet.pts - start + offset, packet.dts - start + offset
                        packet.stream = copy
                        output.mux_one(packet)
                        written += 1
                if not end:
                    raise InputError(f"Expected a clip with timestamps to repeat. Received: {clip}")
                offset += end
    except (av.FFmpegError, OSError, IndexError) as error:
        raise InputError(f"Expected a video file to repeat. Cannot read {clip}: {reason(error)}") from None
