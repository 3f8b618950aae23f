"""Video files to frames with their timestamps, and back; the only room that knows PyAV."""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import Colorspace, Interpolation, VideoReformatter
from PIL import Image

# What goes wrong is told in our own words. PyAV is silent by itself; av.logging.set_level, at any level, would make
# decoder threads call into Python to log, and lock up against the thread that closes the decoder.
os.environ.setdefault("SVT_LOG", "1")

Frame = av.VideoFrame
Packet = av.Packet

# Containers that can hold frames of varying duration beside copied sound.
FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm", ".ts": "mpegts"}

# Tags that describe the input file, not what is seen and heard in it.
_FILE_TAGS = ("major_brand", "minor_version", "compatible_brands", "encoder", "vendor_id", "duration")
_STATISTICS = ("bps", "number_of_", "_statistics")

# What MPEG-TS has a type for; anything else it would store as bytes without a name.
_IN_TS = (
    "aac",
    "mp3",
    "mp3float",
    "mp2",
    "mp2float",
    "ac3",
    "eac3",
    "dca",
    "opus",
    "libopus",
    "dvbsub",
    "dvb_teletext",
)

_PRESETS = ["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo"]
_JPEG_RANGE = 2  # AVCOL_RANGE_JPEG


class InputError(Exception):
    """A video that cannot be read."""


class OutputError(Exception):
    """A video that could not be written, or did not pass its check."""


@dataclass(frozen=True)
class VideoInfo:
    """Describe a video by its headers and its first frame.

    `pix_fmt` is the planar YUV or grey format of the frames that a Source yields, `halved` says whether chroma has
    half the (width, height). `frames` is what the file declares or its length suggests: good for a progress bar.
    """

    width: int
    height: int
    pix_fmt: str
    bits: int
    halved: tuple[bool, bool]
    time_base: Fraction
    rate: Fraction
    sample_aspect_ratio: Fraction | None
    color: Mapping[str, int]
    display_matrix: np.ndarray | None
    rotation: int
    duration: float | None
    frames: int | None


@dataclass
class Damage:
    """Count what was wrong with a file while it was read."""

    missing_frames: int = 0
    missing_s: float = 0.0
    corrupt_frames: int = 0
    bad_packets: int = 0

    def __bool__(self):
        return bool(self.missing_frames or self.missing_s or self.corrupt_frames or self.bad_packets)

    def __str__(self):
        def count(number, noun):
            return f"{number} {noun}{'' if number == 1 else 's'}"

        parts = (
            (self.missing_frames, f"{count(self.missing_frames, 'frame')} missing"),
            (self.missing_s, f"the last {self.missing_s:.1f} s missing"),
            (self.corrupt_frames, f"{count(self.corrupt_frames, 'frame')} decoded with errors"),
            (self.bad_packets, f"{count(self.bad_packets, 'packet')} unreadable"),
        )
        return ", ".join(text for number, text in parts if number)


class Source:
    """Open a video; iterate over its frames and the packets of its other streams, in the order of the file.

    With `start` and `duration` (seconds) only that part is yielded, moved to time zero. Decoding goes on after a bad
    packet; `damage` is complete when the iteration has ended. Raises InputError where nothing can be decoded.
    """

    def __init__(self, path: Path, *, start: float = 0.0, duration: float | None = None, threads: int = 0):
        self.notes: list[str] = []
        self.damage = Damage()
        self._path, self._threads = path, threads
        if path.is_dir():
            raise InputError(f"Expected a video file. Received a folder: {path}")
        if not path.exists():
            raise InputError(f"Expected a video file. There is none at {path}")
        if not path.is_file():
            raise InputError(f"Expected a video file. Received something else: {path}")
        found = self._open(start, duration, seek=start > 0)
        if start and not (found and not self._untimed and self._begins_in_time()):
            # Streams without an index, or without timestamps, cannot be entered in the middle.
            self.container.close()
            found = self._open(start, duration, seek=False)
        if not found:
            self.container.close()
            where = f" from {start:g} s on" if start else ""
            raise InputError(f"Expected a video. Not one frame of {path}{where} can be decoded")

    def _open(self, start, duration, *, seek) -> bool:
        """Open the file and read up to its first frame; return False where there is none."""
        try:
            self.container = _open_input(self._path)
        except (av.FFmpegError, OSError) as error:
            raise InputError(f"Expected a video file. Cannot read {self._path}: {reason(error)}") from None
        try:
            return self._begin(start, duration, seek)
        except BaseException:
            self.container.close()
            raise

    def _begin(self, start, duration, seek):
        videos = [s for s in self.container.streams.video if s.codec_context and not _is_cover(s)]
        if not videos:
            raise InputError(f"Expected a video file. Cannot find a video stream in {self._path}")
        self.video = videos[0]
        self.video.thread_type = "AUTO"
        self.video.codec_context.thread_count = self._threads
        # Times are the reader's: zero is where the file begins, whatever its clock says there.
        zero = max(0, self.container.start_time or 0) / av.time_base if start or duration else 0.0
        self._start = zero + start if start else 0.0
        self._end = float("inf") if duration is None else zero + start + duration
        self.damage = Damage()
        if seek:
            with suppress(av.FFmpegError):
                self.container.seek(round(self._start * av.time_base))
        self._packets = self._decoded = 0
        self._last_pts = None
        self._end_of_file = 0.0
        self.info = None
        self._items = self._read()
        self._head = []
        for item in self._items:
            self._head.append(item)
            if isinstance(item, Frame):
                return True
        return False

    def _begins_in_time(self):
        """Tell whether the first frame is the one that is on show at the start, or a frame or two after it."""
        return self._seconds(self._head[-1]) <= 2.5 / float(self.info.rate)

    def chapters(self) -> list[dict]:
        """List the chapters of the part that is read, in its time."""
        chapters = []
        for chapter in self.container.chapters():
            tick = chapter["time_base"]
            zero, last = round(self._start / tick), round(min(self._end, 1e9) / tick)
            begin, end = max(chapter["start"], zero) - zero, min(chapter["end"], last) - zero
            if begin < end:
                chapters.append(chapter | {"start": begin, "end": end})
        return chapters

    @property
    def streams_beside(self) -> list[av.stream.Stream]:
        """List the streams other than the video that is upscaled."""
        return [stream for stream in self.container.streams if stream is not self.video]

    def __iter__(self) -> Iterator[Frame | Packet]:
        yield from self._head
        self._head.clear()
        yield from self._items

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.container.close()

    def _read(self) -> Iterator[Frame | Packet]:
        for packet in self._demux():
            time = None if packet.dts is None else float(packet.dts * packet.time_base)
            if time is not None:
                if time > self._end + 1:
                    break  # decode order runs ahead of display order by less than this
                self._end_of_file = max(self._end_of_file, time + float((packet.duration or 0) * packet.time_base))
            if packet.is_corrupt:
                self.damage.bad_packets += 1
            if packet.stream is not self.video:
                if not packet.is_corrupt and self._moved(packet):
                    yield packet
            else:
                self._packets += not packet.is_discard
                yield from self._decode(packet)
        yield from self._decode(None)
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

    def _decode(self, packet: Packet | None) -> list[Frame]:
        try:
            frames = self.video.codec_context.decode(packet)
        except av.FFmpegError:
            self.damage.bad_packets += 1
            return []
        kept = []
        for frame in frames:
            if self.info is None:
                self._meet(frame)
            self._decoded += 1
            if self._moved(frame):
                self.damage.corrupt_frames += frame.is_corrupt  # before a part begins, references are often missing
                kept.append(self._plain(frame))
        return kept

    def _seconds(self, item) -> float:
        return float(item.pts * item.time_base)

    def _moved(self, item: Frame | Packet) -> bool:
        """Give an item its timestamp in the output; return False where it lies outside of the part asked for."""
        if isinstance(item, Frame):
            if self._untimed:
                item.pts, item.time_base = self._decoded - 1, self.info.time_base
            else:
                item.time_base = self.video.time_base  # frames that a flush brings come without
                if item.pts is None:
                    item.pts = item.dts if item.dts is not None else (self._last_pts or 0) + 1
        elif item.pts is None and item.dts is None:
            return not self._start
        if not self._start and self._end == float("inf"):
            inside = True
        else:
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
        return self._formatter.reformat(
            frame, info.width, info.height, info.pix_fmt, interpolation=Interpolation.LANCZOS, threads=1
        )

    def _note(self, note):
        if note not in self.notes:
            self.notes.append(note)

    def _meet(self, first: Frame):
        """Describe the video by its first frame."""
        if first.interlaced_frame:
            raise InputError(
                f"{self._path} is interlaced, which is not supported yet. "
                "Deinterlace it first: ffmpeg -i IN -vf bwdif OUT"
            )
        stream, pix_fmt = self.video, _working_format(first.format.name)
        plain = av.VideoFormat(pix_fmt, 64, 64)
        chroma = len(plain.components) > 1
        rate = stream.average_rate or stream.guessed_rate or Fraction(25)
        duration = None
        if stream.duration:
            duration = float(stream.duration * stream.time_base)
        elif self.container.duration:
            duration = self.container.duration / av.time_base
        matrix = next((bytes(d) for d in first.side_data if d.type.name == "DISPLAYMATRIX"), None)
        self._untimed = first.pts is None
        self._formatter = VideoReformatter()
        self.info = VideoInfo(
            width=first.width,
            height=first.height,
            pix_fmt=pix_fmt,
            bits=plain.components[0].bits,
            halved=(plain.chroma_width() < 64, plain.chroma_height() < 64) if chroma else (False, False),
            time_base=1 / rate if self._untimed else stream.time_base,
            rate=rate,
            sample_aspect_ratio=stream.codec_context.sample_aspect_ratio or None,
            color={
                "color_range": _JPEG_RANGE if first.format.name.startswith("yuvj") else int(first.color_range),
                "colorspace": int(first.colorspace),
                "color_trc": int(first.color_trc),
                "color_primaries": int(first.color_primaries),
            },
            display_matrix=None if matrix is None else np.frombuffer(matrix, np.int32),
            rotation=first.rotation,
            duration=duration,
            frames=stream.frames or (round(duration * rate) if duration else None),
        )
        if self._untimed:
            self._note(f"the input has no timestamps; its frames are timed at the declared {float(rate):g} fps")
        if pix_fmt != first.format.name.replace("yuvj", "yuv"):
            self._note(f"the pixel format {first.format.name} is worked on as {pix_fmt}")
        if any(d.type.name in ("MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL") for d in first.side_data):
            self._note("mastering display and content light metadata are not carried over")

    def _count_missing(self):
        indexed = self.container.format.name.startswith(("mov", "avi", "matroska"))  # others guess their length
        if not self._start and self._end == float("inf"):
            declared = self.video.frames if indexed else 0
            if self.damage.bad_packets or declared > self._packets:
                self.damage.missing_frames = max(0, max(declared, self._packets) - self._decoded)
        if indexed and self.container.duration:
            end = (self.container.duration + max(0, self.container.start_time or 0)) / av.time_base
            missing = min(end, self._end) - self._end_of_file
            # Headers round, and streams of one file end at different times: half a second is not damage.
            if missing > 0.5:
                self.damage.missing_s = missing


class Writer:
    """Write a video: frames of one size through an encoder, packets of `source`'s other streams as they are.

    Everything goes into `path` + `.part`; `finish` checks it and renames it, `discard` removes it. `kept` and
    `dropped` name the streams, a dropped one with the reason. Raises OutputError.
    """

    def __init__(
        self,
        path: Path,
        source: Source,
        *,
        size: tuple[int, int],
        codec: str,
        options: Mapping[str, str],
        pix_fmt: str | None = None,
        threads: int = 0,
    ):
        info = source.info
        self.path, self.part = path, path.with_name(path.name + ".part")
        self.kept: list[str] = []
        self.dropped: list[str] = []
        self.notes: list[str] = []
        self.frames = 0
        self._size = size
        self._durations: dict[int, int] = {}
        self._written = Counter()
        self._beside = {}
        self._names: dict[int, str] = {}
        self._refused = Counter()
        self._first, self._last = Fraction(10**9), Fraction(0)
        self._rate = info.rate
        fmt = FORMATS[path.suffix.lower()]
        try:
            pix_fmt = pix_fmt or _encoder_format(codec, info.pix_fmt)
            muxing = {}
            if fmt in ("mp4", "mov"):
                # Edit lists count in the movie's clock; its usual milliseconds would round the time of the first frame.
                muxing = {"movflags": "+faststart", "movie_timescale": str(min(info.time_base.denominator, 1_000_000))}
            self._container = av.open(str(self.part.absolute()), "w", format=fmt, container_options=muxing)
        except (av.FFmpegError, OSError) as error:
            raise OutputError(f"Cannot write {path}: {reason(error)}") from None
        try:
            self._container.metadata.update(_tags(source.container.metadata))
            self._container.set_chapters(source.chapters())
            video = self._video = self._container.add_stream(
                codec,
                rate=info.rate,
                time_base=info.time_base,
                width=size[0],
                height=size[1],
                pix_fmt=pix_fmt,
                options=dict(options),
            )
            # PyAV's default, slices within a frame, keeps x264 from using every core.
            video.codec_context.thread_type = "AUTO"
            video.codec_context.thread_count = threads
            if info.sample_aspect_ratio:
                video.codec_context.sample_aspect_ratio = info.sample_aspect_ratio
            for tag, value in info.color.items():
                setattr(video.codec_context, tag, value)
            if info.display_matrix is not None:
                video.set_display_matrix(info.display_matrix)
            video.metadata.update(_tags(source.video.metadata))
            video.disposition = source.video.disposition
            self.kept.append(f"video {source.video.index} ({source.video.codec_context.name} to {codec})")
            if pix_fmt != info.pix_fmt:
                self.notes.append(f"{codec} writes {pix_fmt}, the input has {info.pix_fmt}")
            for stream in source.streams_beside:
                self._add(stream)
            self._container.start_encoding()
        except (av.FFmpegError, OSError, ValueError) as error:
            self.discard()
            raise OutputError(f"Cannot write {path} with {codec}: {reason(error)}") from None
        except BaseException:
            self.discard()
            raise

    def _add(self, stream):
        codec = _name_of(stream)
        name = f"{stream.type} {stream.index}" + (f" ({codec})" if codec else "")
        if stream.type == "data":
            if "timecode" in stream.metadata and self._container.format.name in ("mp4", "mov"):
                self.kept.append(f"{name}: timecode {stream.metadata['timecode']}, written anew")
            else:
                self.dropped.append(f"{name}: data streams are not copied")
        elif stream.type == "attachment":
            if self._container.format.name == "matroska":
                self._container.add_attachment(stream.name, stream.mimetype, stream.data)
                self.kept.append(name)
            else:
                self.dropped.append(f"{name}: only .mkv holds attachments")
        elif stream.type == "video" and not _is_cover(stream):
            self.dropped.append(f"{name}: only the first video stream is upscaled")
        elif self._container.format.name == "mpegts" and codec not in _IN_TS:
            self.dropped.append(f"{name}: {self.path.suffix} files do not hold it")
        else:
            try:
                copy = self._container.add_stream_from_template(stream, opaque=True)
            except (ValueError, av.FFmpegError):
                self.dropped.append(f"{name}: {self.path.suffix} files do not hold it")
                return
            copy.metadata.update(_tags(stream.metadata))
            copy.disposition = stream.disposition
            self._beside[stream.index] = copy
            self._names[copy.index] = name

    def write(self, item: Frame | Packet) -> None:
        """Encode a frame, or copy a packet of the source."""
        try:
            if isinstance(item, Frame):
                self._write_frame(item)
            elif copy := self._beside.get(item.stream_index):
                item.stream = copy
                try:
                    self._container.mux_one(item)
                    self._written[copy.index] += 1
                except (av.error.InvalidDataError, av.error.ArgumentError):
                    self._refused[copy.index] += 1  # damaged, or out of order: the film goes on without it
        except (av.FFmpegError, OSError, ValueError) as error:
            raise OutputError(f"Cannot write {self.path}: {reason(error)}") from None

    def _write_frame(self, frame):
        frame.pict_type = 0  # the encoder chooses; the source's choice would be an order
        self.frames += 1
        duration = frame.duration or round(1 / (self._rate * frame.time_base))
        self._durations[frame.pts] = duration
        self._last = max(self._last, (frame.pts + duration) * frame.time_base)
        self._first = min(self._first, frame.pts * frame.time_base)
        self._mux_video(frame)

    def _mux_video(self, frame):
        for packet in self._video.encode(frame):
            packet.duration = self._durations.pop(packet.pts, packet.duration)
            self._container.mux_one(packet)
            self._written[self._video.index] += 1

    def finish(self) -> None:
        """Flush, check the file against what was written into it, and give it its name."""
        try:
            self._mux_video(None)
            self._container.close()
            self._check()
            with self.part.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(self.part, self.path)
        except (av.FFmpegError, OSError, ValueError) as error:
            raise OutputError(f"Cannot write {self.path}: {reason(error)}") from None
        if os.name == "posix":
            with suppress(OSError):  # the film is in its place; not every file system syncs folders
                folder = os.open(self.path.parent, os.O_RDONLY)
                os.fsync(folder)
                os.close(folder)
        for index, name in self._names.items():
            if self._written[index]:
                self.kept.append(f"{name}, copied")
            else:
                self.dropped.append(f"{name}: it has no packets here")

    @property
    def lost(self) -> str:
        """Say how many packets of the copied streams the container did not take; empty if none."""
        return ", ".join(f"{count} packets of {self._names[index]} lost" for index, count in self._refused.items())

    def _check(self):
        """Read the file back: its size, its packets per stream, its length."""
        found, begun, end = Counter(), Fraction(10**9), Fraction(0)
        with _open_input(self.part) as container:
            video = container.streams.video[0]
            size = (video.codec_context.width, video.codec_context.height)
            for packet in container.demux():
                if packet.size:
                    found[packet.stream_index] += 1
                    if packet.stream is video and packet.pts is not None:
                        begun = min(begun, packet.pts * packet.time_base)
                        end = max(end, (packet.pts + (packet.duration or 0)) * packet.time_base)
        expected = {index: count for index, count in self._written.items() if count}
        found = {index: count for index, count in found.items() if index in expected}
        checks = {
            "picture size": (self._size, size),
            "frames": (self.frames, found.get(self._video.index, 0)),
            "packets of each stream": (expected, found),
        }
        for what, (wanted, got) in checks.items():
            if wanted != got:
                raise ValueError(f"the check failed: expected {what} {wanted}, found {got}")
        # A container's clock may be coarser than the input's, and some leave the last frame's duration out.
        expected, found = float(self._last - self._first), float(end - begun)
        if abs(expected - found) > 2 / self._rate + 0.02:
            raise ValueError(f"the check failed: expected {expected:.3f} s, found {found:.3f} s")
        if abs(begun - self._first) > video.time_base + Fraction(1, 1000):
            moved = float(begun - self._first)
            self.notes.append(f"{self.path.suffix} files begin at zero or later: everything was moved by {moved:.3f} s")

    def discard(self) -> None:
        """Close and remove the unfinished file."""
        with suppress(Exception):  # whatever went wrong before is what is worth telling
            self._container.close()
        with suppress(OSError):
            self.part.unlink(missing_ok=True)


class Resizer:
    """Resize whole frames by swscale, their timestamps, tags and side data kept, their chroma siting respected.

    `kernel` is `bicubic` or `lanczos`. The siting is the decoder's (left, unless the stream says otherwise).
    """

    def __init__(self, width: int, height: int, pix_fmt: str, *, kernel: str):
        self._size, self._pix_fmt = (width, height), pix_fmt
        self._kernel = {"bicubic": Interpolation.BICUBIC, "lanczos": Interpolation.LANCZOS}[kernel]
        self._reformatter = VideoReformatter()

    def __call__(self, frame: Frame) -> Frame:
        full = {"src_color_range": _JPEG_RANGE, "dst_color_range": _JPEG_RANGE} if "yuvj" in frame.format.name else {}
        # One thread: the stages of the pipeline overlap already.
        result = self._reformatter.reformat(
            frame, *self._size, self._pix_fmt, interpolation=self._kernel, threads=1, **full
        )
        if frame.time_base:
            result.time_base = frame.time_base
        return result


def compressed(frames: Iterable[Frame], codec: str, options: Mapping[str, str], rate: Fraction) -> Iterator[Frame]:
    """Yield frames of one size as they come back from an encoder and its decoder, in order, without a file.

    Raises ValueError for an encoder that is unknown or does not take the frames.
    """
    sent, _ = encoder_options(codec, options)
    encoder = av.CodecContext.create(codec, "w")
    decoder = None
    try:
        for i, frame in enumerate(frames):
            if decoder is None:
                encoder.width, encoder.height, encoder.pix_fmt = frame.width, frame.height, frame.format.name
                encoder.time_base, encoder.framerate, encoder.options = 1 / rate, rate, sent
                name = encoder.codec.canonical_name
                # FFmpeg's own decoder of AV1 leaves the work to graphics cards.
                decoder = av.CodecContext.create("libdav1d" if name == "av1" else name, "r")
            frame.pts, frame.time_base = i, 1 / rate
            for packet in encoder.encode(frame):
                yield from decoder.decode(packet)
        for packet in encoder.encode(None):
            yield from decoder.decode(packet)
        yield from decoder.decode(None)
    except av.FFmpegError as error:
        raise ValueError(f"Expected an encoder that takes such frames. Received: {codec} ({reason(error)})") from None


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


def rgb(frame: Frame) -> np.ndarray:
    """Return a frame as RGB, uint8 (H, W, 3), by its own matrix, or by its size's where it does not say."""
    known = {matrix.value for matrix in Colorspace}
    by_size = Colorspace.ITU709 if frame.height >= 720 else Colorspace.ITU601
    matrix = Colorspace(frame.colorspace) if frame.colorspace in known else by_size
    # Without these flags swscale takes a short cut of its own, and red, green and blue come out a code too dark.
    exact = Interpolation.BICUBIC | Interpolation.FULL_CHR_H_INT | Interpolation.ACCURATE_RND
    return frame.to_ndarray(format="rgb24", src_colorspace=matrix, interpolation=exact)


def plane(frame: Frame, index: int) -> np.ndarray:
    """Return one plane of a planar frame as a writable (H, W) view, uint8 or uint16, without copying."""
    plane = frame.planes[index]
    dtype = np.dtype("<u2" if frame.format.components[0].bits > 8 else "u1")
    rows = np.frombuffer(plane, dtype).reshape(plane.height, plane.line_size // dtype.itemsize)
    return rows[:, : plane.width]


def fitted(frame: Frame, width: int, height: int) -> Frame:
    """Return the frame with its right and bottom edges repeated, or cut off, to reach a size in luma pixels."""
    result = Frame(width, height, frame.format.name)
    for i in range(len(frame.planes)):
        source, target = plane(frame, i), plane(result, i)
        grow = [(0, max(0, t - s)) for s, t in zip(source.shape, target.shape, strict=True)]
        target[:] = np.pad(source, grow, mode="edge")[: target.shape[0], : target.shape[1]]
    if frame.time_base:
        result.pts, result.time_base, result.duration = frame.pts, frame.time_base, frame.duration
    for tag in ("color_range", "colorspace", "color_trc", "color_primaries"):
        setattr(result, tag, getattr(frame, tag))
    return result


def first_frames_repeated(clip: Path, frames: int, target: Path) -> None:
    """Copy the video of a clip into a Matroska file, packet for packet, as often as it takes to have `frames` frames.

    Raises InputError for a clip that cannot be read or has no timestamps.
    """
    offset = written = 0
    try:
        with av.open(str(target.absolute()), "w", format="matroska") as output:
            copy = None
            while written < frames:
                with _open_input(clip) as source:
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


def write_clip(path: Path, pictures: Iterable[Image.Image], rate: int, sound: np.ndarray, sample_rate: int) -> None:
    """Write RGB pictures and their sound, (channels, samples) float32, as an H.264 and AAC clip tagged BT.709.

    Raises OutputError.
    """
    samples = sample_rate // rate
    try:
        with av.open(str(path.absolute()), "w", format="mp4") as container:
            video = container.add_stream("libx264", rate=rate, options={"crf": "16", "preset": "superfast"})
            audio = container.add_stream("aac", rate=sample_rate, layout="stereo")
            for i, picture in enumerate(pictures):
                frame = Frame.from_image(picture).reformat(format="yuv420p", dst_colorspace="ITU709")
                if i == 0:
                    video.width, video.height, video.pix_fmt = frame.width, frame.height, "yuv420p"
                    context = video.codec_context
                    context.colorspace = context.color_trc = context.color_primaries = context.color_range = 1
                frame.pts, frame.time_base = i, Fraction(1, rate)
                container.mux(video.encode(frame))
                chunk = av.AudioFrame.from_ndarray(sound[:, i * samples : (i + 1) * samples], "fltp", "stereo")
                chunk.sample_rate, chunk.pts, chunk.time_base = sample_rate, i * samples, Fraction(1, sample_rate)
                container.mux(audio.encode(chunk))
            container.mux(video.encode())
            container.mux(audio.encode())
    except (av.FFmpegError, OSError) as error:
        raise OutputError(f"Cannot write {path}: {reason(error)}") from None


def encoder_options(codec: str, wanted: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Split options into those that an encoder knows and the names of those that it does not.

    An option with named values must have one of those, or a number. Raises ValueError for an unknown encoder.
    """
    try:
        context = av.CodecContext.create(codec, "w")
    except (av.FFmpegError, ValueError):
        raise ValueError(f"Expected a video encoder, e.g. libx264, libx265, libsvtav1. Received: {codec}") from None
    if context.type != "video":
        raise ValueError(f"Expected a video encoder, e.g. libx264, libx265, libsvtav1. Received: {codec}")
    supported = context.supported_options
    known = {option.name: option for option in (*supported.generic, *supported.private)}
    sent = {key: str(value) for key, value in wanted.items() if key in known and _takes(known[key], str(value))}
    return sent, [key for key in wanted if key not in sent]


def check_encoder(codec: str, options: Mapping[str, str], pix_fmt: str | None, suffix: str) -> None:
    """Open an encoder with its options, as it would be for a file of that suffix; raises ValueError if that fails."""
    formats = encoder_formats(codec)
    if pix_fmt and formats and pix_fmt not in formats:
        raise ValueError(f"Expected a pixel format of {codec} ({', '.join(formats)}). Received: {pix_fmt}")
    preset = options.get("preset")
    if codec in ("libx264", "libx265") and preset and preset not in _PRESETS:
        raise ValueError(f"Expected a preset of {codec} ({', '.join(_PRESETS)}). Received: {preset}")
    pix_fmt = pix_fmt or next((f for f in ("yuv420p", "nv12") if f in formats), formats[0] if formats else "yuv420p")
    try:
        with av.open(io.BytesIO(), "w", format=FORMATS[suffix]) as container:
            size = {"width": 320, "height": 192, "pix_fmt": pix_fmt}
            container.add_stream(codec, rate=25, options=dict(options), **size)
            container.start_encoding()
    except (av.FFmpegError, OSError, ValueError) as error:
        given = " ".join(f"{key}={value}" for key, value in options.items())
        raise ValueError(
            f"Expected an encoder for {suffix} that works here. Received: {codec} {given} ({reason(error)})"
        ) from None


def depth(pix_fmt: str) -> int:
    """Return the bits per sample of a pixel format; raises ValueError for one that does not exist."""
    return av.VideoFormat(pix_fmt).components[0].bits


def encoder_formats(codec: str) -> list[str]:
    """List the pixel formats that an encoder takes; empty where it does not say."""
    return [f.name for f in av.Codec(codec, "w").video_formats or []]


def _takes(option, value) -> bool:
    if option.type.name == "STRING" or any(choice.name == value for choice in option.choices):
        return True
    try:
        return option.min <= float(value) <= option.max
    except ValueError:
        # A word for a number. Flags and durations have words of their own, which their parser knows.
        return option.type.name not in ("INT", "INT64", "UINT64", "FLOAT", "DOUBLE")


def _open_input(path: Path):
    # Absolute: libav takes what stands before a colon in a relative name for a protocol.
    return av.open(str(path.absolute()))


def _name_of(stream) -> str | None:
    return stream.codec_context.name if stream.codec_context else None


def reason(error: Exception) -> str:
    """Say in a few words what an exception of PyAV or the system means."""
    text = getattr(error, "strerror", None) or str(error)
    return text.splitlines()[0] if text else type(error).__name__


def _tags(metadata):
    return {k: v for k, v in metadata.items() if k.lower() not in _FILE_TAGS and not k.lower().startswith(_STATISTICS)}


def _is_cover(stream) -> bool:
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def _working_format(name: str) -> str:
    """Return the planar YUV or grey format, 8, 10 or 12 bits, no alpha, that keeps all chroma of format `name`."""
    fmt = av.VideoFormat(name, 64, 64)
    color = [c for c in fmt.components if not c.is_alpha]
    bits = max(c.bits for c in color)
    if fmt.is_rgb or fmt.has_palette or fmt.is_bayer:
        family = "yuv444p"
    elif len(color) == 1:
        family = "gray"
    else:
        halved = (fmt.chroma_width() < 64, fmt.chroma_height() < 64)
        family = {(True, True): "yuv420p", (True, False): "yuv422p"}.get(halved, "yuv444p")
    return family + ("" if bits <= 8 else "10le" if bits <= 10 else "12le")


def _encoder_format(codec: str, pix_fmt: str) -> str:
    """Return the format in which an encoder takes frames of `pix_fmt`: the same, if it can, or the closest."""
    formats = encoder_formats(codec)
    bits = av.VideoFormat(pix_fmt).components[0].bits
    semiplanar = {"yuv420p": "nv12", "yuv420p10le": "p010le"}.get(pix_fmt)
    closest = ["yuv420p10le", "p010le"] if bits > 8 else []
    for candidate in [pix_fmt, semiplanar, *closest, "yuv420p", "nv12"]:
        if candidate in formats or not formats:
            return candidate
    return formats[0]
