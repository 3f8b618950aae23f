"""Frames and copied packets to a video file that is whole under its name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av

from imagesr.errors import OutputError
from imagesr.files import part_of, put_in_place
from imagesr.media.containers import FORMATS
from imagesr.media.encoders import encoder_format
from imagesr.media.frames import Frame, Packet, VideoInfo
from imagesr.media.opening import is_cover, open_input, reason
from imagesr.media.source import Source

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


class Writer:
    """Write a video: frames of one size through an encoder, packets of a Source's other streams as they are.

    Where there is no file to take other streams and tags from, `source` is a VideoInfo.
    Everything goes into `path` + `.part`; `finish` checks it and renames it, `discard` removes it. `kept` and
    `dropped` name the streams, a dropped one with the reason. Raises OutputError.
    """

    def __init__(
        self,
        path: Path,
        source: Source | VideoInfo,
        *,
        size: tuple[int, int],
        codec: str,
        options: Mapping[str, str],
        pix_fmt: str | None = None,
        threads: int = 0,
    ):
        source, info = (None, source) if isinstance(source, VideoInfo) else (source, source.info)
        self.path, self.part = path, part_of(path)
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
            pix_fmt = pix_fmt or encoder_format(codec, info.pix_fmt)
            muxing = {}
            if fmt in ("mp4", "mov"):
                # Edit lists count in the movie's clock; its usual milliseconds would round the time of the first frame.
                muxing = {"movflags": "+faststart", "movie_timescale": str(min(info.time_base.denominator, 1_000_000))}
            self._container = av.open(str(self.part.absolute()), "w", format=fmt, container_options=muxing)
        except (av.FFmpegError, OSError) as error:
            raise OutputError(f"Cannot write {path}: {reason(error)}") from None
        try:
            if source:
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
            if source:
                video.metadata.update(_tags(source.video.metadata))
                video.disposition = source.video.disposition
                self.kept.append(f"video {source.video.index} ({source.video.codec_context.name} to {codec})")
            if pix_fmt != info.pix_fmt:
                self.notes.append(f"{codec} writes {pix_fmt}, the input has {info.pix_fmt}")
            for stream in source.streams_beside if source else ():
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
        elif stream.type == "video" and not is_cover(stream):
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
            put_in_place(self.part, self.path)
        except (av.FFmpegError, OSError, ValueError) as error:
            raise OutputError(f"Cannot write {self.path}: {reason(error)}") from None
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
        with open_input(self.part) as container:
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


def _name_of(stream) -> str | None:
    return stream.codec_context.name if stream.codec_context else None


def _tags(metadata):
    return {k: v for k, v in metadata.items() if k.lower() not in _FILE_TAGS and not k.lower().startswith(_STATISTICS)}
