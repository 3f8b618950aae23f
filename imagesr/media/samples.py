"""The sound of a file, decoded to samples, for players."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np

from imagesr.errors import InputError
from imagesr.media.opening import opened, reason

_SOUND_GAP_S = 0.1  # less than that is a clock that is not exact


def sound(path: Path, start: float = 0.0, *, rate: int = 48_000) -> Iterator[np.ndarray]:
    """Yield the first sound stream of a file from `start` seconds on, (samples, 2) float32 at `rate`.

    Silence stands for what is missing. Raises InputError where there is no sound at all.
    """
    try:
        with opened(path) as container:
            if not container.streams.audio:
                raise InputError(f"Expected a video with sound. {path} has none")
            stream, resampler, done = container.streams.audio[0], None, 0
            origin = max(0, container.start_time or 0) / av.time_base
            if start > 0:
                container.seek(round((origin + start) / stream.time_base), stream=stream)
            for packet in container.demux(stream):
                for frame in _decoded(packet):
                    kind = frame.sample_rate, frame.format.name, frame.layout.name
                    if resampler is None or kind != resampler[0]:
                        resampler = kind, av.AudioResampler("flt", "stereo", rate)
                    for piece in resampler[1].resample(frame):
                        samples = np.ascontiguousarray(piece.to_ndarray().reshape(-1, 2), np.float32)
                        if frame.time is not None:
                            # Where it belongs: some is before the start, and some may be missing before it.
                            gap = round((frame.time - origin - start) * rate) - done
                            if not done and gap < 0:
                                samples = samples[-gap:]
                            elif gap > _SOUND_GAP_S * rate or (not done and gap > 0):
                                yield from _silence(gap, rate)
                                done += gap
                        done += len(samples)
                        if len(samples):
                            yield samples
    except av.FFmpegError as error:
        raise InputError(f"Expected sound that can be decoded in {path}. Received: {reason(error)}") from None


def _silence(samples, rate):
    """Yield silence in pieces of up to a second: a gap may be hours long."""
    for begin in range(0, samples, rate):
        yield np.zeros((min(rate, samples - begin), 2), np.float32)


def _decoded(packet):
    """Return what a packet holds, nothing for a damaged one."""
    try:
        return packet.decode()
    except av.FFmpegError:
        return []
