"""Video files to frames with their timestamps, and to the packets of their other streams."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from imagesr.errors import InputError
from imagesr.media.colour import JPEG_RANGE
from imagesr.media.frames import Frame, Packet, VideoInfo, rgb, working_format
from imagesr.media.opening import is_cover, open_input, reason


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
            self.container = open_input(self._path)
        except (av.FFmpegError, OSError) as error:
            raise InputError(f"Expected a video file. Cannot read {self._path}: {reason(error)}") from None
        try:
            return self._begin(start, duration, seek)
        except BaseException:
            self.container.close()
            raise

    def _begin(self, start, duration, seek):
        videos = [s for s in self.container.streams.video if s.codec_context and not is_cover(s)]
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
        stream, pix_fmt = self.video, working_format(first.format.name)
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
                "color_range": JPEG_RANGE if first.format.name.startswith("yuvj") else int(first.color_range),
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
