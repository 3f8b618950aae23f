"""An output compared with its input: frames, times, streams, tags, brightness and colour."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import zip_longest

import numpy as np

from imagesr.errors import InputError, OutputError
from imagesr.media.colour import JPEG_RANGE
from imagesr.media.containers import FORMATS, TURNS
from imagesr.media.frames import Frame, Packet, depth, plane
from imagesr.media.source import Source
from imagesr.media.writer import Writer

_DRIFT, _DRIFT_OF_FRAME = 1.0, 4.0  # codes of 255, of a plane's mean: over the film, and of any frame
_APART_S = 0.1  # streams may begin and end so much apart: encoders of sound pad
_TOLD = 4  # problems that are named
_EMPTY_TEXT = 2  # bytes: a length of zero
_UNSAID = (0, 2)  # colour tags that say nothing
_SAME = {"deu": "ger", "fre": "fra", "nld": "dut", "ell": "gre", "isl": "ice", "zho": "chi", "swe": "sve"}


@dataclass
class _Stream:
    """Count the packets of a stream; `begin` and `end` are in seconds."""

    packets: int = 0
    begin: float = float("inf")
    end: float = 0.0


class _Drift:
    """Add up how much the mean of each plane differs, in codes of 255."""

    def __init__(self):
        self.frames, self._sum, self.worst, self.at = 0, np.zeros(3), 0.0, 0

    def add(self, given: Frame, made: Frame):
        """Compare two frames; planes that one of them lacks are left out."""
        found = [_means(frame) for frame in (given, made)]
        for i, (before, after) in enumerate(zip(*found, strict=False)):
            self._sum[i] += after - before
            if abs(after - before) > self.worst:
                self.worst, self.at = abs(after - before), self.frames
        self.frames += 1

    @property
    def mean(self):
        """The largest drift of a plane over all frames."""
        return float(np.abs(self._sum).max() / max(1, self.frames))


def _means(frame):
    planes = 1 if frame.format.name.startswith("gray") else 3
    return [float(plane(frame, i).mean()) / 2 ** (depth(frame.format.name) - 8) for i in range(planes)]


def verify_output(writer: Writer, *, reopen: Callable[[], Source], height: int, shape: Fraction | None = None) -> None:
    """Compare a Writer's part file with the input that `reopen` opens once more, and note what was compared.

    `height` is that of the output, in lines, `shape` the width of its pixels over their height. Raises OutputError.
    """
    try:
        with reopen() as source, Source(writer.part, deinterlace="off") as made:
            source.tag_for(height)
            given_streams: dict[int, _Stream] = {}
            made_streams: dict[int, _Stream] = {}
            pairs = zip_longest(_frames(source, given_streams), _frames(made, made_streams))
            problems, drift = _of_frames(pairs, source, made)
            problems += _of_streams(writer, source, made, given_streams, made_streams)
            problems += _of_tags(writer, source, made, shape)
    except InputError as error:
        raise OutputError(f"{writer.path} failed its verification: {error}") from None
    if problems:
        more = f"; and {len(problems) - _TOLD} more" if len(problems) > _TOLD else ""
        raise OutputError(f"{writer.path} failed its verification: {'; '.join(problems[:_TOLD])}{more}")
    writer.notes.append(
        f"verified: {drift.frames} frames, their times, the other streams and the tags are the input's; "
        f"luma and chroma drift by {drift.mean:.2f} of 255"
    )


def _frames(source: Source, streams: dict[int, _Stream]) -> Iterator[Frame]:
    """Yield the frames of a source, and count the packets of its other streams."""
    for item in source:
        if isinstance(item, Frame):
            yield item
        elif isinstance(item, Packet) and item.pts is not None and not _says_nothing(source, item):
            stream = streams.setdefault(item.stream_index, _Stream())
            stream.packets += 1
            stream.begin = min(stream.begin, float(item.pts * item.time_base))
            stream.end = max(stream.end, float((item.pts + (item.duration or 0)) * item.time_base))


def _says_nothing(source, packet):
    """Tell whether a packet is the empty text with which MP4 fills the time between subtitles."""
    return source.container.streams[packet.stream_index].type == "subtitle" and packet.size <= _EMPTY_TEXT


def _of_frames(pairs, source, made):
    """Compare frames one by one; return what differs, and the drift of their planes."""
    problems, drift, counts, late, offset = [], _Drift(), [0, 0], 0, None
    tolerance = float(max(source.info.time_base, made.info.time_base)) + 1e-4
    as_yuv = not made.video.codec_context.pix_fmt.startswith(("gbr", "rgb", "bgr"))  # else ranges differ
    for given, result in pairs:
        counts = [count + (frame is not None) for count, frame in zip(counts, (given, result), strict=True)]
        if given is None or result is None:
            continue
        times = [float(frame.pts * frame.time_base) for frame in (given, result)]
        if offset is None:
            offset = times[1] - times[0]  # some containers begin at zero or later, with the sound that is ahead
        if abs(times[0] + offset - times[1]) > tolerance or abs(offset) > _APART_S:
            late += 1
            if late == 1:
                problems.append(f"frame {counts[0]} is at {times[0]:.3f} s in the input and at {times[1]:.3f} s")
        if as_yuv:
            drift.add(given, result)
    if counts[0] != counts[1]:
        problems.append(f"the input has {counts[0]} frames and the output {counts[1]}")
    if drift.mean > _DRIFT:
        problems.append(f"luma or chroma drifts by {drift.mean:.1f} of 255")
    elif drift.worst > _DRIFT_OF_FRAME:
        problems.append(f"luma or chroma of frame {drift.at + 1} differs by {drift.worst:.1f} of 255")
    return problems, drift


def _of_streams(writer, source, made, given, found):
    """Compare the other streams: how many packets they have, where they begin and end, their languages."""
    problems = []
    for index, (became, copied) in writer.beside.items():
        stream = source.container.streams[index]
        name, before, after = f"{stream.type} {index}", given.get(index, _Stream()), found.get(became, _Stream())
        if copied and stream.type == "audio" and not writer.lost and before.packets != after.packets:
            problems.append(f"{name} has {before.packets} packets in the input and {after.packets} in the output")
        places = ("begin", "end") if stream.type == "audio" else ("begin",) if stream.type == "subtitle" else ()
        for place in places:
            times = getattr(before, place), getattr(after, place)
            if abs(times[0] - times[1]) > _APART_S:
                problems.append(f"{name} {place}s at {times[0]:.3f} s in the input and at {times[1]:.3f} s")
        languages = [_language(s) for s in (stream, made.container.streams[became])]
        if languages[0] != languages[1]:
            problems.append(f"the language of {name} is {languages[0]} in the input and {languages[1] or 'not said'}")
    return problems


def _language(stream):
    language = stream.metadata.get("language", "und")
    return "" if language == "und" else _SAME.get(language, language)


def _of_tags(writer, source, made, shape):
    """Compare colour tags, the shape of pixels, rotation, title and chapters."""
    problems, suffix = [], writer.path.suffix.lower()
    for tag, value in source.info.color.items():
        got = made.info.color.get(tag)
        # Full range may be said by the pixel format alone; limited range is what all take for granted.
        unsaid = value in _UNSAID and not (tag == "color_range" and value == JPEG_RANGE)
        if not unsaid and got != value and not (tag == "color_range" and value != JPEG_RANGE and got in (0, 1)):
            problems.append(f"{tag} is {value} in the input and {got} in the output")
    wanted = shape or source.info.shape
    if abs(made.info.shape / wanted - 1) > Fraction(1, 1000):
        problems.append(f"pixels are {made.info.shape} as wide as high instead of {wanted}")
    if FORMATS[suffix] in TURNS and made.info.rotation != source.info.rotation:
        problems.append(f"it is turned by {made.info.rotation} degrees instead of {source.info.rotation}")
    titles = [s.container.metadata.get("title", "") for s in (source, made)]
    if titles[0] and titles[0] != titles[1] and suffix != ".ts":  # which has it elsewhere
        problems.append(f"the title is {titles[0]!r} in the input and {titles[1]!r} in the output")
    chapters = [len(s.chapters()) for s in (source, made)]
    if chapters[0] != chapters[1] and not any(text.startswith("chapters") for text in writer.dropped):
        problems.append(f"the input has {chapters[0]} chapters and the output {chapters[1]}")
    return problems
