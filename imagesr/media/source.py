"""Video files to frames with their timestamps, and to the packets of their other streams."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from imagesr.errors import InputError
from imagesr.media.clock import Clock
from imagesr.media.colour import is_rgb, tags_of, to_yuv_options, written_tags
from imagesr.media.containers import INDEXED, RAW, RESTARTING
from imagesr.media.deinterlace import Verdict, examine, filters_of, may_be_unflagged, rate_of
from imagesr.media.display import swaps_sides, turning_filters
from imagesr.media.filters import Filters
from imagesr.media.frames import Frame, Packet, VideoInfo, fitted, halved, has_alpha, rgb, working_format
from imagesr.media.opening import (
    PIPE,
    breaks_off,
    check_declared_size,
    close_input,
    declared_size,
    is_cover,
    is_live,
    is_sequence,
    open_input,
    opened,
    reason,
)
from imagesr.media.sidedata import side_data_of

_DONE = {
    "off": "not deinterlaced",
    "watch": "deinterlaced, one frame for each",
    "frame": "deinterlaced, one frame for each",
    "field": "deinterlaced, one frame for each field",
    "film": "brought back from telecine to film, four frames for five",
}
_FASTEST = 1000  # frames per second
_AROUND_JOINT = 100  # packets
_BROKEN_S = 3.0  # recordings of broadcasts begin with frames that refer to some before
_EARLIER_S = 10.0  # where frames at the start lack what they refer to, decoding begins this much earlier
_LATEST_S = 1e9  # 30 years, where to begin at the latest: FFmpeg's times are 64 bits of nanoseconds or coarser


@dataclass
class Damage:
    """Count what was wrong with a file while it was read."""

    missing_frames: int = 0
    missing_s: float = 0.0
    corrupt_frames: int = 0
    bad_packets: int = 0
    broken_off: bool = False

    def __bool__(self):
        return bool(str(self))

    def __str__(self):
        def count(number, noun):
            return f"{number} {noun}{'' if number == 1 else 's'}"

        parts = (
            (self.missing_frames, f"{count(self.missing_frames, 'frame')} missing"),
            (self.missing_s, f"the last {self.missing_s:.1f} s missing"),
            (self.corrupt_frames, f"{count(self.corrupt_frames, 'frame')} decoded with errors"),
            (self.bad_packets, f"{count(self.bad_packets, 'packet')} unreadable"),
            (self.broken_off, "the file ends earlier than its header says"),
        )
        return ", ".join(text for number, text in parts if number)


class Source:
    """Open a video; iterate over its frames and the packets of its other streams, in the order of the file.

    The film is the default video stream, or the largest. Time begins at zero. With `start` and `duration` (seconds)
    only that part is yielded, moved to time zero. Decoding goes on after a bad packet; `damage` is complete when the
    iteration has ended.

    Args:
        path: A file, `-` for YUV4MPEG2 on standard input, or a pattern of numbered pictures such as `%05d.png`.
        start: Where to begin, in seconds.
        duration: How much to take, in seconds; None is all.
        threads: Threads of the decoder; 0 is every core.
        rate: Frames per second of numbered pictures.
        deinterlace: How interlaced video is made progressive, one of `deinterlace.MODES`.
        upright: Turn pixels as the file says they are to be displayed, for containers that cannot say it.
        alpha: Keep transparency, which frames then have as a fourth plane.
        sound: Whether sound will be in the output: without it time begins at zero with the film, not with the sound.

    Raises:
        InputError: Nothing can be decoded.
    """

    def __init__(
        self,
        path: Path,
        *,
        start: float = 0.0,
        duration: float | None = None,
        threads: int = 0,
        rate: Fraction | None = None,
        deinterlace: str = "auto",
        upright: bool = False,
        alpha: bool = False,
        sound: bool = True,
    ):
        start = min(start, _LATEST_S)
        self.notes: list[str] = []
        self.damage = Damage()
        self._path, self._threads, self._rate, self._alpha = path, threads, rate, alpha
        self._frames_skipped = False
        self._deinterlace, self._upright, self._sound = deinterlace, upright, sound
        self._verdict: Verdict | None = None
        self._check_path()
        found = self._open(start, duration, seek=start > 0)
        if start and not (found and not self._untimed and self._begins_in_time()):
            # Streams without an index, or without timestamps, cannot be entered in the middle. And where the first
            # frames refer to some before the place that was entered, an earlier one is.
            close_input(self.container)
            early = found and not self._untimed and start > _EARLIER_S
            found = self._open(start, duration, seek=early, lead=_EARLIER_S)
            if early and not (found and self._begins_in_time()):
                close_input(self.container)
                found = self._open(start, duration, seek=False)
        if not found:
            length = self.info and self.info.duration
            close_input(self.container)
            if start and length and start >= length:
                raise InputError(f"Expected a start within the video. {path} is {length:.1f} s long")
            where = f" from {start:g} s on" if start else ""
            raise InputError(f"Expected a video. Not one frame of {path}{where} can be decoded")

    def _check_path(self):
        path = self._path
        if path == PIPE or is_sequence(path):
            return
        try:
            if path.is_dir():
                raise InputError(f"Expected a video file. Received a folder: {path}")
            if not path.exists():
                raise InputError(f"Expected a video file. There is none at {path}")
            if not path.is_file():
                raise InputError(f"Expected a video file. Received something else: {path}")
        except OSError as error:
            raise InputError(f"Expected a video file. Cannot read {path}: {error.strerror}") from None
        if size := declared_size(path):
            check_declared_size(path, size)

    def _open(self, start, duration, *, seek, lead=0.0) -> bool:
        """Open the file and read up to its first frame; return False where there is none."""
        try:
            self.container = open_input(self._path, rate=self._rate)
        except (av.FFmpegError, OSError, ValueError) as error:
            raise InputError(f"Expected a video file. {_unreadable(self._path, error)}") from None
        try:
            return self._begin(start, duration, seek, lead)
        except BaseException:
            close_input(self.container)
            raise

    def _begin(self, start, duration, seek, lead):
        container = self.container
        self.video = film_stream(container)
        if self.video is None:
            raise InputError(f"Expected a video file. Cannot find a video stream in {self._path}")
        context = self.video.codec_context
        check_declared_size(self._path, (context.width, context.height))
        family = container.format.name.split(",")[0]
        self._in_avi, self._raw = family == "avi", family in RAW
        self._live = self._in_avi and is_live(self._path)
        self._indexed = family in INDEXED and not self._live
        self._prepare_decoder()
        # Times are the reader's: zero is where the file begins, whatever its clock says there.
        zero = max(0, container.start_time or 0) / av.time_base
        if not self._sound and self.video.start_time:
            zero = max(zero, float(self.video.start_time * self.video.time_base))
        self.clock = Clock(zero, restarts=family in RESTARTING)
        self._zero, self._start = zero, start
        self._end = float("inf") if duration is None else start + duration
        self.damage = Damage()
        if seek:
            with suppress(av.FFmpegError):
                container.seek(round((zero + max(0.0, start - lead)) * av.time_base))
        self._packets = self._discarded = self._decoded = 0
        self._corrupt: list[int] = []  # numbers of packets that came damaged, and of those with which a part began
        self._joints: list[int] = []
        self._last_pts = self._shown = self._base = None
        self._due: list[int] = []  # decoding times of an AVI's packets whose frames have not come
        self._end_of_file = 0.0
        self._broken_until = _BROKEN_S if family in RESTARTING and not start else 0.0
        self._filters: Filters | None = None
        self._first = self.info = None
        self._whole = not seek
        self._items = self._read()
        self._head = []
        for item in self._items:
            self._head.append(item)
            if isinstance(item, Frame):
                self._begins_broken = item.is_corrupt
                self.info = replace(self.info, time_base=item.time_base)  # filters may change it
                return True
        return False

    def _prepare_decoder(self):
        """Choose a decoder that knows transparency where it is kept; split packets that hold two frames."""
        self._decoder = context = self.video.codec_context
        codec, packed = context.codec.canonical_name, context.name == "mpeg4"
        self._unpack = av.BitStreamFilterContext("mpeg4_unpack_bframes", self.video) if packed else None
        self._see_through = has_alpha(context.pix_fmt) if context.pix_fmt else False
        tags = {key.lower(): value for key, value in self.video.metadata.items()}  # FFmpeg's muxer writes capitals
        if tags.get("alpha_mode") == "1" and codec in ("vp8", "vp9"):
            self._see_through = True
            if self._alpha:
                self._decoder = av.CodecContext.create(f"libvpx-{codec}".replace("-vp8", ""), "r")
                self._decoder.extradata = context.extradata
        else:
            # Threads that work on a frame each tell of an error some packets later. In an AVI the times of frames are
            # counted by packets, and the one that failed must be known.
            context.thread_type = "SLICE" if self._in_avi else "AUTO"
        self._decoder.thread_count = self._threads

    def _begins_in_time(self):
        """Tell whether the first frame is whole, and on show at the start or a frame or two after it."""
        soon = self._seconds(self._head[-1]) <= 2.5 / float(self.info.rate)
        return soon and not (self._begins_broken and not self._whole)

    @property
    def first(self) -> Frame:
        """The first frame; before the iteration."""
        return next(item for item in self._head if isinstance(item, Frame))

    @property
    def has_alpha(self) -> bool:
        """Tell whether the video has transparency, kept or not."""
        return self._see_through

    @property
    def is_rgb(self) -> bool:
        """Tell whether the pictures are red, green and blue, which become YUV."""
        return is_rgb(self._first)

    def chapters(self) -> list[dict]:
        """List the chapters of the part that is read, in its time."""
        chapters = []
        begin_of_part, end_of_part = self._zero + self._start, min(self._zero + self._end, 1e9)
        for chapter in self.container.chapters():
            tick = chapter["time_base"]
            zero, last = round(begin_of_part / tick), round(end_of_part / tick)
            begin, end = max(chapter["start"], zero) - zero, min(chapter["end"], last) - zero
            if begin < end:
                chapters.append(chapter | {"start": begin, "end": end})
        return chapters

    @property
    def streams_beside(self) -> list[av.stream.Stream]:
        """List the streams other than the video that is upscaled."""
        return [stream for stream in self.container.streams if stream is not self.video]

    def cover(self, stream: av.stream.Stream) -> bytes:
        """Return the picture of a cover stream; empty where the file does not begin with it."""
        return next((bytes(p) for p in self._head if isinstance(p, Packet) and p.stream is stream), b"")

    def tag_for(self, height: int) -> None:
        """Choose the colour tags of the frames, which will be upscaled to this many lines; before the iteration."""
        self.info = replace(self.info, color=written_tags(self._first, height))

    def skip_frames(self) -> None:
        """Decode no more frames: the iteration yields the packets of the other streams; before the iteration."""
        self._frames_skipped = True

    def __iter__(self) -> Iterator[Frame | Packet]:
        for item in self._head:
            yield self._plain(item) if isinstance(item, Frame) else item
        self._head.clear()
        for item in self._items:
            yield self._plain(item) if isinstance(item, Frame) else item

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # A thread that still waits for input uses the container; it goes with that thread.
        if not self._items.gi_running:
            close_input(self.container)

    def _read(self) -> Iterator[Frame | Packet]:
        for number, packet in enumerate(self._demux()):
            joined = self.clock.joined
            self.clock.move(packet)
            if self.clock.joined > joined:
                self._joints.append(number)
            stamp = packet.pts if packet.dts is None else packet.dts
            if stamp is not None:
                if float(stamp * packet.time_base) > self._end + 1:
                    # Decode order runs ahead of display order by less than this. Other streams may run ahead by more.
                    if packet.stream is self.video:
                        break
                    continue
                newest = max(stamp, stamp if packet.pts is None else packet.pts) + (packet.duration or 0)
                self._end_of_file = max(self._end_of_file, float(newest * packet.time_base))
            if packet.is_corrupt:
                self._corrupt.append(number)
            if packet.stream is not self.video:
                if not packet.is_corrupt and self._moved(packet):
                    yield packet
            elif not self._frames_skipped:
                self._packets += not packet.is_discard
                self._discarded += packet.is_discard
                for part in self._unpacked(packet):
                    yield from self._frames(self._decode(part))
        if self._unpack:
            with suppress(av.FFmpegError):
                for part in self._unpack.filter(None):
                    yield from self._frames(self._decode(part))
        yield from self._frames([*self._decode(None), None])
        self._count_missing()

    def _demux(self) -> Iterator[Packet]:
        """Yield packets, going on after read errors as long as anything comes."""
        came = True
        while came:
            came = False
            try:
                for packet in self.container.demux():
                    if packet.size:  # the empty ones at the end ask for a flush, which _read does
                        came = True
                        yield packet
                return
            except (av.FFmpegError, OSError):
                self.damage.bad_packets += came

    def _unpacked(self, packet):
        """Return the packet, or those that it is made of."""
        if not self._unpack:
            return [packet]
        stream, tick = packet.stream, packet.time_base
        try:
            parts = self._unpack.filter(packet)
        except av.FFmpegError:
            self.damage.bad_packets += 1
            return []
        for part in parts:
            part.stream, part.time_base = stream, tick
        return parts

    def _decode(self, packet: Packet | None) -> list[Frame]:
        """Return the frames that a packet completes."""
        if packet is not None and self._in_avi and packet.dts is not None:
            heapq.heappush(self._due, packet.dts)
        try:
            return self._decoder.decode(packet)
        except av.FFmpegError:
            self.damage.bad_packets += 1
            if packet is not None and packet.dts in self._due:  # no frame will come for it
                self._due.remove(packet.dts)
                heapq.heapify(self._due)
            return []

    def _frames(self, frames):
        """Yield frames in their time, filtered, and moved to the part that is read; None is the end."""
        for frame in frames:
            if frame is None:
                yield from self._kept(self._through(None) if self._filters else [])
                continue
            if self.info is None:
                self._meet(frame)
            self._decoded += 1
            for timed in self._timed(frame):
                yield from self._kept(self._filtered(timed))

    def _rebased(self, frame):
        """Return a frame in the time base of the first, which deinterlacing that begins later would halve."""
        if self._base is None:
            self._base = frame.time_base
        if frame.time_base != self._base:
            ticks = frame.time_base / self._base
            frame.pts, frame.duration = round(frame.pts * ticks), round(frame.duration * ticks)
            frame.time_base = self._base
        return frame

    def _kept(self, frames):
        for frame in map(self._rebased, frames):
            if frame.is_corrupt and self._broken_until and self._seconds(frame) < self._broken_until:
                self._note("frames before the first whole one are left out: the recording begins within them")
                continue
            self._broken_until = 0.0
            if self._moved(frame):
                self.damage.corrupt_frames += frame.is_corrupt  # before a part begins, references are often missing
                yield frame

    def _timed(self, frame) -> Iterator[Frame]:
        """Give a frame its timestamp; yield it, after copies of the one before where an AVI repeats that.

        A gap may be minutes long: each copy is made when it is asked for, so that only one takes memory.
        """
        if self._untimed:
            frame.pts, frame.time_base, frame.duration = self._decoded - 1, self._tick, 1
            yield frame
            return
        frame.time_base = self.video.time_base  # frames that a flush brings come without
        if not self._in_avi:
            if frame.pts is None:
                frame.pts = frame.dts if frame.dts is not None else (self._shown or 0) + 1
            self._shown = frame.pts
            yield frame
            return
        # An AVI has one chunk for every step; frames come in the order of their times, and chunks that are empty
        # repeat the frame before.
        frame.pts = heapq.heappop(self._due) if self._due else (self._shown or 0) + 1
        step = max(1, round(1 / (self.info_rate * frame.time_base)))
        if self._shown is not None:
            for pts in range(self._shown + step, frame.pts - step // 2, step):
                copy = fitted(self._before, self._before.width, self._before.height)
                copy.pts, copy.time_base, copy.duration = pts, frame.time_base, step
                yield copy
        self._shown, self._before = frame.pts, frame
        yield frame

    def _filtered(self, frame) -> list[Frame]:
        """Send a frame through the filters that the video needs."""
        if self._filters is None and frame.interlaced_frame and self._deinterlace == "auto" and not self._verdict:
            self._verdict = Verdict("watch", "it becomes interlaced on the way")
            self._note(f"{_DONE['watch']}: {self._verdict.why}")
        if self._filters is None and not self._chain():
            return [frame]
        kind = frame.width, frame.height, frame.format.name
        out = []
        if self._filters is not None and self._filters.kind != kind:
            out, self._filters = self._through(None), None
        return out + self._through(frame)

    def _through(self, frame):
        """Return what the filters make of a frame, or of None at the end; raises InputError where they fail."""
        try:
            if self._filters is None:
                self._filters = Filters(frame, frame.time_base, self.info_rate, self._chain())
            return self._filters(frame)
        except (av.FFmpegError, ValueError) as error:
            names = ", ".join(name for name, _ in self._chain())
            raise InputError(f"Cannot filter the frames of {self._path} ({names}): {reason(error)}") from None

    def _chain(self):
        return filters_of(self._verdict) + self._turning

    def _seconds(self, item) -> float:
        return float(item.pts * item.time_base)

    def _moved(self, item: Frame | Packet) -> bool:
        """Give an item its timestamp in the output; return False where it lies outside of the part asked for."""
        if isinstance(item, Packet) and item.pts is None and item.dts is None:
            return not self._start
        inside = True
        if self._start or self._end != float("inf"):
            seconds = float((item.dts if item.pts is None else item.pts) * item.time_base)
            # Half a tick of tolerance: 1.2 s in decimals is rarely a whole number of ticks.
            tick = float(item.time_base) / 2
            inside = self._start - tick <= seconds < self._end - tick
            offset = round(self._start / item.time_base)
            item.pts = None if item.pts is None else item.pts - offset
            item.dts = None if item.dts is None else item.dts - offset
        if inside and isinstance(item, Frame):
            if self._last_pts is not None and item.pts <= self._last_pts:
                self._note("timestamps that do not rise were moved by one tick")
                item.pts = self._last_pts + 1
            self._last_pts = item.pts
        return inside

    def _plain(self, frame: Frame) -> Frame:
        """Bring a frame to the format and size of the first; most pass untouched."""
        info = self.info
        plain = frame.format.name.replace("yuvj", "yuv") == info.pix_fmt
        if (frame.width, frame.height) != (info.width, info.height):
            self._note("the picture size changes on the way; every frame was brought to the size of the first")
            plain = False
        if plain:
            return frame
        result = self._formatter.reformat(
            frame,
            info.width,
            info.height,
            info.pix_fmt,
            interpolation=Interpolation.LANCZOS | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INP,
            threads=1,
            **to_yuv_options(frame, info.color),
        )
        result.time_base = frame.time_base
        return result

    def _note(self, note):
        if note not in self.notes:
            self.notes.append(note)

    def _declared(self, stream):
        """Return how long the file says that it is, in seconds and frames; None where it does not say."""
        if self._live:
            return None, None
        if stream.duration:
            return float(stream.duration * stream.time_base), _frames_of(stream)
        duration = _end_of(self.container, self._zero) - self._zero if self.container.duration else None
        return duration, _frames_of(stream)

    def _meet(self, first: Frame):
        """Describe the video by its first frame."""
        stream = self.video
        self._untimed = (first.pts is None or self._raw) and not self._in_avi
        rate = self._rate or _rate_of(stream, untimed=self._untimed)
        self._tick, self.info_rate = 1 / rate, rate
        self._choose_filters(first, rate)
        mode = self._verdict.mode if self._verdict else "off"
        shown_rate = rate_of(mode, rate)
        pix_fmt = working_format(first.format.name, alpha=self._alpha)
        plain = av.VideoFormat(pix_fmt)
        duration, frames = self._declared(stream)
        matrix = _matrix_of(first)
        size, shape = (first.width, first.height), _shape_of(stream)
        if swaps_sides(self._turning):
            size, shape = size[::-1], shape and 1 / shape
        turned = matrix is not None and not (self._upright and self._turning)
        self._formatter, self._first = VideoReformatter(), first
        self.info = VideoInfo(
            width=size[0],
            height=size[1],
            pix_fmt=pix_fmt,
            bits=plain.components[0].bits,
            halved=halved(pix_fmt),
            time_base=1 / rate if self._untimed else stream.time_base,
            rate=shown_rate,
            sample_aspect_ratio=shape,
            color=tags_of(first) if not is_rgb(first) else written_tags(first, first.height),
            display_matrix=matrix if turned else None,
            rotation=first.rotation if turned else 0,
            duration=duration,
            frames=frames if shown_rate == rate and frames else _steps(duration, shown_rate),
            side=side_data_of(first),
        )
        if self._untimed:
            self._note(f"the input has no timestamps; its frames are timed at the declared {float(rate):g} fps")
        if pix_fmt != first.format.name.replace("yuvj", "yuv"):
            self._note(f"the pixel format {first.format.name} is worked on as {pix_fmt}")

    def _choose_filters(self, first, rate):
        """Decide how the video is deinterlaced, and whether its pixels are turned."""
        mode = self._deinterlace
        if mode == "auto":
            if self._verdict is None:
                self._verdict = self._examined(first, rate)
            if self._verdict:
                self._note(f"{_DONE[self._verdict.mode]}: {self._verdict.why}")
                if self._verdict.mode == "frame" and rate <= 30:
                    self._note(f"--deinterlace field would give {float(2 * rate):g} fps, in twice the time")
        elif mode == "off":
            self._verdict = Verdict("off", "as asked")
            if first.interlaced_frame:
                self._note("it is interlaced, and was not deinterlaced, as asked")
        elif self._verdict is None:
            self._verdict = Verdict(mode, "as asked")
            self._note(f"{_DONE[mode]}: as asked")
        matrix = _matrix_of(first)
        self._turning = []
        if self._upright and matrix is not None:
            turning = turning_filters(matrix, first.rotation)
            if turning is None:
                self._note(f"the rotation by {first.rotation} degrees is lost: this container cannot say it")
            elif turning:
                self._turning = turning
                self._note("the pixels were turned upright: this container cannot say how they are to be displayed")

    def _examined(self, first, rate):
        """Look at frames of a video that is flagged as interlaced, or that may be without flags."""
        flagged = first.interlaced_frame
        if self._path == PIPE or is_sequence(self._path):
            return Verdict("frame", "it is flagged as interlaced") if flagged else None
        if flagged or may_be_unflagged(self.video.codec_context.codec.canonical_name, first.height, rate):
            return examine(self._path, self.video.index, rate=rate, flagged=flagged)
        return None

    def _count_missing(self):
        info = self.info
        # A part that was joined on counts its packets anew, which looks like a loss.
        self.damage.bad_packets += sum(
            all(abs(number - joint) > _AROUND_JOINT for joint in self._joints) for number in self._corrupt
        )
        if not self._start and self._end == float("inf"):
            declared = _frames_of(self.video) if self._indexed and not self._in_avi else 0
            declared = max(0, (declared or 0) - self._discarded)
            if self.damage.bad_packets or declared > self._packets:
                self.damage.missing_frames = max(0, max(declared, self._packets) - self._decoded)
        if self._indexed and self.container.duration:
            end = _end_of(self.container, self._zero) - self._zero
            missing = min(end, self._end) - self._end_of_file
            # Headers round, and streams of one file end at different times: half a second is not damage.
            if missing > 0.5 + 1 / float(info.rate if info else 25):
                self.damage.missing_s = missing
        if self._end == float("inf") and not self.damage.missing_s:
            self.damage.broken_off = breaks_off(self._path)  # by less than what is missing above
        if self.clock.joined:
            self._note(f"the clock begins anew {_times(self.clock.joined)}: what follows was joined on")


def is_whole(path: Path) -> bool:
    """Tell whether a file opens as a video, which one that broke off while it was written mostly does not."""
    try:
        with opened(path) as container:
            return film_stream(container) is not None
    except (av.FFmpegError, OSError, ValueError, InputError):
        return False


def _unreadable(path, error):
    from imagesr.media.images import is_picture  # loads Pillow

    if is_picture(path):
        return f"{path} is named like a picture; imagesr image upscales those"
    return f"Cannot read {path}: {reason(error)}"


def film_stream(container) -> av.VideoStream | None:
    """Return the video stream that is the film: flagged as default, then the largest; None where there is none."""
    films = [s for s in container.streams.video if s.codec_context and not is_cover(s)]

    def rank(stream):
        size = stream.codec_context.width * stream.codec_context.height
        return bool(stream.disposition & av.stream.Disposition.default), size

    return max(films, key=rank, default=None)


def _rate_of(stream, *, untimed):
    """Return the frame rate that a stream declares; a raw stream's demuxer makes one up, its codec may know it."""
    known = (stream.codec_context.framerate, stream.guessed_rate, stream.average_rate)
    if not untimed:
        known = (stream.average_rate, stream.guessed_rate, stream.codec_context.framerate)
    # Some demuxers take their clock for the rate: 60000 for DV.
    return next((rate for rate in known if rate and rate <= _FASTEST), None) or Fraction(25)


def _matrix_of(frame):
    """Return the display matrix of a frame, (9,) int32; None where it has none."""
    data = next((data for data in frame.side_data if data.type.name == "DISPLAYMATRIX"), None)
    return None if data is None else np.frombuffer(bytes(data), np.int32)


def _shape_of(stream):
    """Return the pixel aspect: the container's where it has one, else the codec's."""
    return stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio or None


def _frames_of(stream):
    """Return how many frames a stream declares, without those that an edit list leaves out; None where it does not."""
    if stream.frames and len(stream.index_entries) and stream.container.format.name.startswith("mov"):
        return min(stream.frames, len(stream.index_entries))
    return stream.frames or None


def _end_of(container, zero):
    """Return when a container says that it ends, in seconds of its clock, which shows `zero` where the film begins."""
    seconds = container.duration / av.time_base
    if container.format.name.startswith("matroska") and seconds > zero:
        return seconds  # its length is counted from zero on the clock
    return seconds + max(0, container.start_time or 0) / av.time_base


def _steps(duration, rate):
    return round(duration * rate) if duration else None


def _times(count):
    return "once" if count == 1 else f"{count} times"


def rgb_frames(path: Path, count: int) -> list[np.ndarray]:
    """Return up to twice `count` frames spread evenly over a video file, RGB uint8 (H, W, 3); raises InputError.

    Every frame is decoded, since a file's own count of them lies; only those that are kept are held.
    """
    kept, stride = [], 1
    with Source(path) as source:
        frames = (item for item in source if isinstance(item, Frame))
        for i, frame in enumerate(frames):
            if i % stride == 0:
                kept.append(frame)
            if len(kept) > 2 * count:
                kept, stride = kept[::2], 2 * stride
    return [rgb(frame) for frame in kept]
