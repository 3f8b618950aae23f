"""Interlaced and telecined video: found by flags and by looking at frames, made progressive by filters."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av

from imagesr.media.filters import Filters
from imagesr.media.opening import opened

MODES = ("auto", "off", "frame", "field", "film")
_PLACES = (0.0, 0.33, 0.66)  # of the film's length, where frames are looked at
_FRAMES, _FEW = 45, 15  # looked at in each place: of flagged video, and of other
_SD_LINES = (480, 486, 576)
_PROGRESSIVE_CODECS = ("vp8", "vp9", "av1", "hevc", "theora", "mjpeg", "png", "gif", "apng")
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
    """Say how a video is made progressive, one of MODES or "watch", and why; `parity` is which field comes first."""

    mode: str
    why: str
    parity: str = "auto"


def filters_of(verdict: Verdict | None) -> list[tuple[str, str]]:
    """Return the filters of a verdict; none where frames pass as they are."""
    filters = _FILTERS.get(verdict.mode, []) if verdict else []
    if not filters or verdict.parity == "auto":
        return filters
    first = f":parity={verdict.parity}"
    return [(name, options + first if name == "bwdif" else options) for name, options in filters]


def rate_of(mode: str, rate: Fraction) -> Fraction:
    """Return the frame rate that a mode makes of a rate."""
    return rate * {"field": Fraction(2), "film": Fraction(4, 5)}.get(mode, Fraction(1))


def may_be_unflagged(codec: str, height: int, rate: Fraction) -> bool:
    """Tell whether a video without flags may be interlaced all the same, as copies of DVDs and tapes are."""
    return height in _SD_LINES and rate <= 30 and codec not in _PROGRESSIVE_CODECS


def examine(path: Path, index: int, *, rate: Fraction, flagged: bool = True) -> Verdict | None:
    """Look at frames of a video stream; choose how it is made progressive.

    Of video that is not `flagged` as interlaced few frames are looked at, and None means that nothing was found.
    """
    seen, single, repeated = Counter(), Counter(), Counter()
    for place in _PLACES:
        with suppress(av.FFmpegError, OSError), opened(path) as container:
            if place and not (container.duration and _enter(container, place)):
                break
            found = seen, single, repeated
            _look(container, container.streams[index], rate, _FRAMES if flagged else _FEW, found)
    if not flagged:
        return _of_unflagged(single)
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


def _of_unflagged(single):
    combed, clean = single["tff"] + single["bff"], single["progressive"]
    if combed < 8 or combed < 0.3 * (combed + clean):
        return None
    why = f"it is not flagged as interlaced, but {combed / (combed + clean):.0%} of the frames looked at are combed"
    return Verdict("frame", why, "tff" if single["tff"] >= single["bff"] else "bff")


def _enter(container, place):
    begin = container.start_time or 0
    try:
        container.seek(begin + round(place * container.duration))
    except av.FFmpegError:
        return False
    return True


def _look(container, stream, rate, count, found):
    """Count what `idet` says of some frames: with those before in mind, of each alone, and of repeated fields."""
    stream.thread_type = "AUTO"
    graph = None
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except av.FFmpegError:
            continue
        for frame in frames:
            if graph is None or graph.kind != (frame.width, frame.height, frame.format.name):
                graph = Filters(frame, stream.time_base, rate, [("idet", "")])
            for result in graph(frame):
                for counter, key in zip(found, ("multiple", "single", "repeated"), strict=True):
                    counter[result.metadata.get(f"lavfi.idet.{key}.current_frame")] += 1
            count -= 1
        if count <= 0:
            return
