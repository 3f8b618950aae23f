"""Interlaced and telecined video: found by flags and by looking at frames, made progressive by filters."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av

from imagesr.media.filters import Filters
from imagesr.media.opening import open_input

MODES = ("auto", "off", "frame", "field", "film")
_PLACES = (0.0, 0.33, 0.66)  # of the film's length, where frames are looked at
_FRAMES = 45  # looked at in each place
_FILTERS = {
    "watch": [("bwdif", "mode=send_frame:deint=interlaced")],
    "frame": [("bwdif", "mode=send_frame:deint=all")],
    "field": [("bwdif", "mode=send_field:deint=all")],
    # What fields of neighbouring frames do not match is deinterlaced; the frame that repeats another goes.
    "film": [
        ("fieldmatch", "order=auto:combmatch=full"),
        ("bwdif", "mode=send_frame:deint=interlaced"),
        ("decimate", ""),
    ],
}


@dataclass(frozen=True)
class Verdict:
    """Say how a video is made progressive, one of MODES or "watch", and why."""

    mode: str
    why: str


def filters_of(mode: str) -> list[tuple[str, str]]:
    """Return the filters of a mode; none where frames pass as they are."""
    return _FILTERS.get(mode, [])


def rate_of(mode: str, rate: Fraction) -> Fraction:
    """Return the frame rate that a mode makes of a rate."""
    return rate * {"field": Fraction(2), "film": Fraction(4, 5)}.get(mode, Fraction(1))


def examine(path: Path, index: int, *, rate: Fraction) -> Verdict:
    """Look at frames of a video stream that is flagged as interlaced; choose how it is made progressive."""
    seen, repeated = Counter(), Counter()
    for place in _PLACES:
        with suppress(av.FFmpegError, OSError), open_input(path) as container:
            if place and not (container.duration and _enter(container, place)):
                break
            _look(container, container.streams[index], rate, seen, repeated)
    combed, clean = seen["tff"] + seen["bff"], seen["progressive"]
    if combed + clean < 0.1 * sum(seen.values()) or not seen:
        return Verdict("frame", "it is flagged as interlaced")
    share, twice = combed / (combed + clean), (repeated["top"] + repeated["bottom"]) / max(1, sum(repeated.values()))
    # Telecine repeats a field of either kind in every group of five frames.
    if share > 0.2 and twice > 0.25 and 29 < rate < 31 and min(repeated["top"], repeated["bottom"]) > 2:
        return Verdict("film", f"it is telecined: {twice:.0%} of its frames repeat a field")
    if share < 0.02:
        return Verdict("off", "it is flagged as interlaced, but its frames are progressive")
    return Verdict("frame", f"it is interlaced: {share:.0%} of the frames looked at are combed")


def _enter(container, place):
    begin = container.start_time or 0
    try:
        container.seek(begin + round(place * container.duration))
    except av.FFmpegError:
        return False
    return True


def _look(container, stream, rate, seen, repeated):
    """Count what `idet` says of some frames."""
    stream.thread_type = "AUTO"
    graph, left = None, _FRAMES
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except av.FFmpegError:
            continue
        for frame in frames:
            if graph is None or graph.kind != (frame.width, frame.height, frame.format.name):
                graph = Filters(frame, stream.time_base, rate, [("idet", "")])
            for result in graph(frame):
                seen[result.metadata.get("lavfi.idet.multiple.current_frame")] += 1
                repeated[result.metadata.get("lavfi.idet.repeated.current_frame")] += 1
            left -= 1
        if left <= 0:
            return
