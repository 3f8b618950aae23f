"""Frames and the packets of other streams to a video file that is whole under its name."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av

from imagesr.errors import OutputError
from imagesr.files import part_of, put_in_place
from imagesr.media import acm, audio, subtitles
from imagesr.media.containers import FORMATS, TURNS
from imagesr.media.encoders import encoder_format, ordinary_scheduling
from imagesr.media.frames import Frame, Packet, VideoInfo, has_alpha
from imagesr.media.opening import is_cover, opened, reason
from imagesr.media.sidedata import STEREO_MODES, encoder_side_data
from imagesr.media.source import Source

# Tags that describe the input file, not what is seen and heard in it.
_FILE_TAGS = (
    *("major_brand", "minor_version", "compatible_brands", "encoder", "vendor_id", "duration", "alpha_mode"),
    *("stereo_mode", "software"),
)
# The tags of a file that MPEG-TS holds.
_TS_TAGS = {"title", "service_name", "service_provider"}
# What FFmpeg's table of QuickTime's languages calls them; it knows no other name.
_IN_MOV = {"deu": "ger", "fre": "fra", "nld": "dut", "ell": "gre", "isl": "ice", "zho": "chi", "swe": "sve"}
EMPTY = ": it has no packets here"  # why a stream is dropped
_STATISTICS = ("bps", "number_of_", "_statistics")
_APPLE = "com.apple.quicktime."
_COVERS = {"png": "image/png", "mjpeg": "image/jpeg", "bmp": "image/bmp", "webp": "image/webp", "gif": "image/gif"}


class _Copy:
    """Write the packets of a stream as they are; `header` is for sound that Matroska knows by Windows' number."""

    failed = 0

    def __init__(self, source, container, header=None):
        if header:
            self.stream = acm.add_stream(container, header)
        else:
            self.stream = container.add_stream_from_template(source, opaque=True)

    def packets(self, packet):
        packet.stream = self.stream
        return [packet]

    def flush(self):
        return []


class Writer:
    """Write a video: frames of one size through an encoder, a Source's other streams copied, else converted.

    Everything goes into `path` + `.part`; `finish` checks it and renames it, `discard` removes it. `kept` and
    `dropped` name the streams, a dropped one with the reason. `video_bytes` counts what the encoder made.

    Args:
        path: The output; its suffix is one of FORMATS.
        source: Where other streams and tags come from, or a VideoInfo where there are none.
        size: (width, height) of the frames.
        codec: The encoder.
        options: The encoder's options.
        pix_fmt: Pixel format to encode; None is the closest to the frames'.
        threads: Threads of the encoder; 0 is every core.
        sound: One of `audio.MODES`.
        shape: Width of a pixel over its height; None is the input's.
        verify: Called with this writer when the part file is complete; what it raises keeps the file from its name.

    Raises:
        OutputError: The file cannot be written.
        ValueError: The film's only sound would be lost.
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
        sound: str = "auto",
        shape: Fraction | None = None,
        verify: Callable[[Writer], None] | None = None,
    ):
        source, info = (None, source) if isinstance(source, VideoInfo) else (source, source.info)
        self.path, self.part = path, part_of(path)
        self.kept: list[str] = []
        self.dropped: list[str] = []
        self.notes: list[str] = []
        self.conversions: list[str] = []
        self.frames = self.video_bytes = 0
        self._size, self._sound, self._verify = size, sound, verify
        self._acm: list[bytes] = []
        self._durations: dict[int, int] = {}
        self._written, self._bytes = Counter(), Counter()
        self._beside = {}
        self._names: dict[int, str] = {}
        self._refused = Counter()
        self._first, self._last = Fraction(10**9), Fraction(0)
        self._rate, self._encoded = info.rate, False
        fmt = FORMATS[path.suffix.lower()]
        try:
            if not pix_fmt and (pix_fmt := encoder_format(codec, info.pix_fmt)) != info.pix_fmt:
                self.notes.append(f"{codec} writes {pix_fmt}, the input has {info.pix_fmt}")
            self._container = av.open(
                str(self.part.absolute()), "w", format=fmt, container_options=_muxing(fmt, info, source)
            )
        except (av.FFmpegError, OSError) as error:
            raise OutputError(f"Cannot write {path}: {reason(error)}") from None
        try:
            if source:
                self._container.metadata.update(_tags(source.container.metadata))
                self._container.set_chapters(source.chapters())
                self._name_lost_tags(source)
            self._add_video(source, info, codec, options, pix_fmt, threads, shape)
            for stream in source.streams_beside if source else ():
                self._add(stream, source)
            self._check_sound(source)
            with ordinary_scheduling():
                self._container.start_encoding()
        except (av.FFmpegError, OSError) as error:
            self.discard()
            raise OutputError(f"Cannot write {path} with {codec}: {reason(error)}") from None
        except BaseException:
            self.discard()
            raise

    def _add_video(self, source, info, codec, options, pix_fmt, threads, shape):
        video, lost = add_video(self._container, info, self._size, codec, options, pix_fmt, threads, shape)
        self._video = video
        if source:
            video.metadata.update(_tags(source.video.metadata))
            video.disposition = source.video.disposition
            self.kept.append(f"video {source.video.index} ({audio.codec_name(source.video)} to {codec})")
        if has_alpha(pix_fmt) and self._container.format.name in ("matroska", "webm"):
            video.metadata["alpha_mode"] = "1"
        stereo = STEREO_MODES.get(info.side.stereo)
        if stereo and self._container.format.name in ("matroska", "webm"):
            video.metadata["stereo_mode"] = stereo
            lost = [text for text in lost if not text.startswith("3D")]
        self.dropped += lost
        if source and source.has_alpha and not has_alpha(pix_fmt):
            self.dropped.append(f"transparency: {codec} does not write it here; -c prores_ks, ffv1 or libvpx-vp9 may")

    def _name_lost_tags(self, source):
        """Name the chapters and tags of the file that MPEG-TS has no place for."""
        if self._container.format.name != "mpegts":
            return
        if source.chapters():
            self.dropped.append(f"chapters: {self.path.suffix} files do not hold them")
        if tags := sorted({key.lower() for key in _tags(source.container.metadata)} - _TS_TAGS):
            self.dropped.append(f"tags ({', '.join(tags)}): {self.path.suffix} files do not hold them")

    def _add(self, stream, source):
        codec = audio.codec_name(stream)
        name = f"{stream.type} {stream.index}" + (f" ({codec})" if codec else "")
        if stream.type == "audio":
            self._add_sound(stream, name)
        elif stream.type == "subtitle":
            self._add_subtitles(stream, codec, name)
        elif stream.type == "data":
            self._add_data(stream, name)
        elif stream.type == "attachment":
            if self._container.format.name == "matroska":
                mimetype = stream.mimetype or "application/octet-stream"
                self._container.add_attachment(stream.name or f"attachment {stream.index}", mimetype, stream.data)
                self.kept.append(name)
            else:
                self.dropped.append(f"{name}: only .mkv holds attachments")
        elif stream.type == "video" and is_cover(stream):
            self._add_cover(stream, source, codec, name)
        elif stream.type == "video":
            self.dropped.append(f"{name}: only the default or largest video stream is upscaled")
        else:
            self.dropped.append(f"{name}: streams of its kind are not copied")

    def _add_data(self, stream, name):
        timecode, fmt = stream.metadata.get("timecode"), self._container.format.name
        if timecode and fmt in ("mp4", "mov"):
            self.kept.append(f"{name}: timecode {timecode}, written anew")
        elif timecode and fmt in ("matroska", "webm"):
            self.kept.append(f"{name}: timecode {timecode}, kept as a tag")
        elif stream.discard != av.stream.Discard.all:  # else it has the chapters' titles, which are read elsewhere
            self.dropped.append(f"{name}: data streams are not copied")

    def _add_sound(self, stream, name):
        fmt, copied = self._container.format.name, self._sound in ("auto", "copy")
        if self._sound == "none":
            self.dropped.append(f"{name}: no sound was asked for")
        elif copied and audio.can_copy(stream, fmt) and _muxer_takes(stream, fmt):
            self._join(stream, _Copy(stream, self._container), name, "copied")
        elif copied and fmt == "matroska" and audio.can_copy(stream, fmt) and (header := acm.header_of(stream)):
            self._acm.append(header)
            self._join(stream, _Copy(stream, self._container, header), name, "copied")
        elif self._sound == "copy":
            self.dropped.append(f"{name}: {self.path.suffix} files do not hold it")
        elif not audio.can_decode(stream):
            self.dropped.append(f"{name}: it cannot be decoded")
        else:
            converter = audio.SoundConverter(stream, self._container)
            self._join(stream, converter, name, f"converted to {converter.told}")

    def _add_subtitles(self, stream, codec, name):
        fmt = self._container.format.name
        if subtitles.can_copy(codec, fmt) and _muxer_takes(stream, fmt):
            self._join(stream, _Copy(stream, self._container), name, "copied")
        elif subtitles.can_convert(codec, fmt) and stream.codec_context:
            converter = subtitles.SubtitleConverter(stream, self._container)
            self._join(stream, converter, name, f"converted to {converter.told}")
        elif codec is None:  # teletext, captions of ARIB
            self.dropped.append(f"{name}: the FFmpeg in use has no decoder for it, and imagesr does not copy it")
        else:
            self.dropped.append(f"{name}: {self.path.suffix} files do not hold it")

    def _add_cover(self, stream, source, codec, name):
        picture, kind = source.cover(stream), _COVERS.get(codec)
        if self._container.format.name == "matroska" and picture and kind:
            ending = "jpg" if codec == "mjpeg" else codec
            self._container.add_attachment(stream.metadata.get("filename") or f"cover.{ending}", kind, picture)
            self.kept.append(f"{name}: cover, attached")
        elif self._container.format.name == "mp4" and picture and codec in ("png", "mjpeg", "bmp"):
            self._join(stream, _Copy(stream, self._container), name, "cover, copied")
        else:
            self.dropped.append(f"{name}: {self.path.suffix} files do not hold covers")

    def _join(self, stream, handler, name, how):
        if how.startswith("converted"):
            self.conversions.append(f"{name}, {how.removeprefix('converted ')}")
        handler.stream.metadata.update(_tags(stream.metadata))
        if self._container.format.name == "mov" and "language" in stream.metadata:
            language = stream.metadata["language"]
            handler.stream.metadata["language"] = _IN_MOV.get(language, language)
        handler.stream.disposition = stream.disposition
        self._beside[stream.index] = handler
        self._names[handler.stream.index] = f"{name}, {how}"

    def _check_sound(self, source):
        """Raise ValueError where the film has sound, and none of it would be in the output."""
        if self._sound == "none" or source is None or not source.container.streams.audio:
            return
        if not any(source.container.streams[index].type == "audio" for index in self._beside):
            told = next(line for line in self.dropped if line.startswith("audio"))
            raise ValueError(f"Expected an output that holds the sound. {told}; --audio none leaves the sound out")

    def write(self, item: Frame | Packet) -> None:
        """Encode a frame, or copy or convert a packet of the source."""
        try:
            if isinstance(item, Frame):
                self._write_frame(item)
            elif handler := self._beside.get(item.stream_index):
                self._mux(handler.packets(item), handler.stream)
        except (av.FFmpegError, OSError, ValueError) as error:
            raise OutputError(f"Cannot write {self.path}: {reason(error)}") from None

    def write_encoded(self, packet: Packet) -> None:
        """Write a packet of the film that was encoded before, as this writer's encoder would."""
        begin, self._encoded = packet.pts * packet.time_base, True
        self.frames += 1
        self._last = max(self._last, begin + packet.duration * packet.time_base)
        self._first = min(self._first, begin)
        packet.stream = self._video
        try:
            self._container.mux_one(packet)
        except (av.FFmpegError, OSError, ValueError) as error:
            raise OutputError(f"Cannot write {self.path}: {reason(error)}") from None
        self._written[self._video.index] += 1

    def _mux(self, packets, stream):
        for packet in packets:
            try:
                size = packet.size
                self._container.mux_one(packet)
                self._written[stream.index] += 1
                self._bytes[stream.index] += size
            except (av.error.InvalidDataError, av.error.ArgumentError):
                self._refused[stream.index] += 1  # damaged, or out of order: the film goes on without it

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
            self.video_bytes += packet.size
            self._container.mux_one(packet)
            self._written[self._video.index] += 1

    def finish(self) -> None:
        """Flush, check the file against what was written into it, verify it, and give it its name."""
        self.close()
        self.verify()
        self.place()

    def close(self) -> None:
        """Flush, and check the file against what was written into it; it has no name yet."""
        try:
            if not self._encoded:
                self._mux_video(None)
            for handler in self._beside.values():
                self._mux(handler.flush(), handler.stream)
            self._container.close()
            if self._acm:
                acm.finish(self.part, self._acm)
            self._check()
        except (av.FFmpegError, OSError, ValueError) as error:
            raise OutputError(f"Cannot write {self.path}: {reason(error)}") from None

    def verify(self) -> None:
        """Look through the file that was closed, in the way that was asked for; raises OutputError."""
        try:
            if self._verify:
                self._verify(self)
        except (av.FFmpegError, OSError, ValueError) as error:
            raise OutputError(f"Cannot write {self.path}: {reason(error)}") from None

    def place(self) -> None:
        """Give the file that was closed its name."""
        try:
            put_in_place(self.part, self.path)
        except OSError as error:
            raise OutputError(f"Cannot write {self.path}: {reason(error)}") from None
        for index, name in self._names.items():
            if self._written[index]:
                self.kept.append(name)
            else:
                self.dropped.append(f"{name.rpartition(',')[0]}{EMPTY}")

    @property
    def planned(self) -> list[str]:
        """Name the streams that are kept, before it is known which of them have packets."""
        return [*self.kept, *self._names.values()]

    @property
    def beside(self) -> dict[int, tuple[int, bool]]:
        """Say for each stream of the source that has got packets which one it became, and whether as a copy."""
        found = {index: (handler.stream.index, isinstance(handler, _Copy)) for index, handler in self._beside.items()}
        return {index: became for index, became in found.items() if self._written[became[0]]}

    @property
    def lost(self) -> str:
        """Say how many packets of other streams the container did not take, or no decoder; empty if none."""
        told = [f"{_packets(count)} of {self._names[index]} lost" for index, count in self._refused.items()]
        for handler in self._beside.values():
            name = self._names[handler.stream.index].partition(",")[0]
            told += [f"{_packets(handler.failed)} of {name} cannot be decoded"] * bool(handler.failed)
        return ", ".join(told)

    def _check(self):
        """Read the file back: its size, its packets per stream, its length."""
        found, sizes, begun, end, texts = Counter(), Counter(), Fraction(10**9), Fraction(0), set()
        with opened(self.part) as container:
            video = container.streams.video[0]
            size = (video.codec_context.width, video.codec_context.height)
            texts = {stream.index for stream in container.streams.subtitles}
            for packet in container.demux():
                if packet.size:
                    found[packet.stream_index] += 1
                    sizes[packet.stream_index] += packet.size
                    if packet.stream is video and packet.pts is not None:
                        begun = min(begun, packet.pts * packet.time_base)
                        end = max(end, (packet.pts + (packet.duration or 0)) * packet.time_base)
            for stream in container.streams.audio:
                # QuickTime cuts PCM anew, and a last packet that is only the encoder's own silence is not shown.
                index = stream.index
                if sizes[index] == self._bytes[index] or stream.frames == self._written[index]:
                    found[index] = self._written[index]
        expected = {index: count for index, count in self._written.items() if count}
        # Muxers add samples to subtitles that end them.
        found = {
            index: min(count, expected[index]) if index in texts else count
            for index, count in found.items()
            if index in expected
        }
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


def add_video(container, info, size, codec, options, pix_fmt, threads, shape):
    """Add a stream with its encoder to a container; return it, and what of the side data is lost, in words."""
    options, lost = encoder_side_data(codec, info.side, options)
    video = container.add_stream(
        codec,
        rate=info.rate,
        time_base=info.time_base,
        width=size[0],
        height=size[1],
        pix_fmt=pix_fmt,
        options=dict(options),
    )
    context = video.codec_context
    # PyAV's default, slices within a frame, keeps x264 from using every core.
    context.thread_type = "AUTO"
    context.thread_count = threads
    if context.codec.canonical_name == "hevc" and container.format.name in ("mp4", "mov"):
        context.codec_tag = "hvc1"  # the only kind that Apple plays
    if shape or info.sample_aspect_ratio:
        context.sample_aspect_ratio = shape or info.sample_aspect_ratio
    for tag, value in info.color.items():
        setattr(context, tag, value)
    if info.display_matrix is not None and container.format.name in TURNS:
        video.set_display_matrix(info.display_matrix)
    return video, lost


def _muxing(fmt, info, source):
    """Return the options of the muxer."""
    if fmt not in ("mp4", "mov"):
        return {}
    flags = "+faststart"
    if source and any(key.startswith(_APPLE) for key in source.container.metadata):
        flags += "+use_metadata_tags"  # the only way in which these keys are written
    # Edit lists count in the movie's clock; its usual milliseconds would round the time of the first frame.
    return {"movflags": flags, "movie_timescale": str(min(info.time_base.denominator, 1_000_000))}


def _muxer_takes(stream, fmt):
    """Ask the muxer whether it holds a stream, with a file in memory that has nothing else."""
    try:
        with av.open(io.BytesIO(), "w", format=fmt) as trial:
            trial.add_stream_from_template(stream, opaque=True)
            trial.start_encoding()
    except (av.FFmpegError, ValueError):
        return False
    return True


def _packets(count):
    return f"{count} packet{'s' * (count > 1)}"


def _tags(metadata):
    return {k: v for k, v in metadata.items() if k.lower() not in _FILE_TAGS and not k.lower().startswith(_STATISTICS)}
