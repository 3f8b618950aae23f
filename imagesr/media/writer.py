"""Frames to video files; with `frames` the only room that knows PyAV."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from imagesr.errors import InputError, OutputError
from imagesr.files import part_of, put_in_place
from imagesr.media.frames import FORMATS, Frame, Packet, Source, VideoInfo, is_cover, open_input, plane, reason

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

SAMPLE_RATE = 48_000  # of the sound that `write_clip` writes


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
            pix_fmt = pix_fmt or _encoder_format(codec, info.pix_fmt)
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


class StackWriter:
    """Write pairs of frames in 8-bit 4:2:0, one above the other, as an H.264 clip that browsers play.

    Two videos in one cannot come apart, however a browser seeks. Raises OutputError.
    """

    def __init__(self, path: Path, size: tuple[int, int], rate: Fraction):
        self._path, self._size, self._rate, self._frames = path, size, rate, 0
        try:
            self._container = av.open(str(path.absolute()), "w", format="mp4", options={"movflags": "+faststart"})
            # Fine enough not to be what is compared; key frames close enough to seek among.
            options = {"crf": "16", "preset": "superfast", "g": "15"}
            self._video = self._container.add_stream("libx264", rate=rate, options=options)
            self._video.width, self._video.height, self._video.pix_fmt = size[0], 2 * size[1], "yuv420p"
        except (av.FFmpegError, OSError) as error:
            raise OutputError(f"Cannot write {path}: {reason(error)}") from None

    def write(self, above: Frame, below: Frame) -> None:
        """Write a pair."""
        both = Frame(self._size[0], 2 * self._size[1], "yuv420p")
        for i in range(3):
            target = plane(both, i)
            half = len(target) // 2
            target[:half], target[half:] = plane(above, i), plane(below, i)
        if not self._frames:
            context = self._video.codec_context
            for tag in ("color_range", "colorspace", "color_trc", "color_primaries"):
                setattr(context, tag, getattr(above, tag))
        both.pts, both.time_base = self._frames, 1 / self._rate
        self._frames += 1
        self._mux(both)

    def _mux(self, frame):
        try:
            self._container.mux(self._video.encode(frame))
        except (av.FFmpegError, OSError) as error:
            raise OutputError(f"Cannot write {self._path}: {reason(error)}") from None

    def close(self) -> None:
        """Finish the clip."""
        if self._video:
            if self._frames:
                self._mux(None)
            self._video = None
            self._container.close()


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


def write_clip(
    path: Path, pictures: Iterable[Image.Image], rate: int, *, crf: int = 16, sound: np.ndarray | None = None
) -> None:
    """Write RGB pictures as an H.264 clip tagged BT.709, with stereo sound, (2, samples) float32 at 48 kHz, as AAC.

    A `crf` of 0 is lossless, but for the way to 4:2:0. Raises OutputError.
    """
    samples = SAMPLE_RATE // rate
    try:
        with av.open(str(path.absolute()), "w", format="mp4") as container:
            video = container.add_stream("libx264", rate=rate, options={"crf": f"{crf}", "preset": "superfast"})
            audio = None if sound is None else container.add_stream("aac", rate=SAMPLE_RATE, layout="stereo")
            for i, picture in enumerate(pictures):
                frame = Frame.from_image(picture).reformat(format="yuv420p", dst_colorspace="ITU709")
                if i == 0:
                    video.width, video.height, video.pix_fmt = frame.width, frame.height, "yuv420p"
                    context = video.codec_context
                    context.colorspace = context.color_trc = context.color_primaries = context.color_range = 1
                frame.pts, frame.time_base = i, Fraction(1, rate)
                container.mux(video.encode(frame))
                if audio:
                    chunk = np.ascontiguousarray(sound[:, i * samples : (i + 1) * samples])
                    chunk = av.AudioFrame.from_ndarray(chunk, "fltp", "stereo")
                    chunk.sample_rate, chunk.pts, chunk.time_base = SAMPLE_RATE, i * samples, Fraction(1, SAMPLE_RATE)
                    container.mux(audio.encode(chunk))
            container.mux(video.encode())
            if audio:
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


def _name_of(stream) -> str | None:
    return stream.codec_context.name if stream.codec_context else None


def _tags(metadata):
    return {k: v for k, v in metadata.items() if k.lower() not in _FILE_TAGS and not k.lower().startswith(_STATISTICS)}


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
