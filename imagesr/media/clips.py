"""Clips of our own: pictures, pairs of frames, and frames as an encoder leaves them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from imagesr.errors import InputError, OutputError
from imagesr.media.coding import TOLD
from imagesr.media.encoders import encoder_options, ordinary_scheduling
from imagesr.media.frames import Frame, plane
from imagesr.media.opening import opened, reason

SAMPLE_RATE = 48_000  # of the sound that `write_clip` writes
_REORDERED = 16  # packets that have no decoding time at the beginning, at most


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


class StackWriter:
    """Write pairs of frames in 8-bit 4:2:0, one above the other or side by side, as an H.264 clip that browsers play.

    Two videos in one cannot come apart, however a browser seeks. `size` is the (width, height) of each. Raises
    OutputError.
    """

    def __init__(
        self, path: Path, size: tuple[int, int], rate: Fraction, *, side_by_side: bool = False, crf: float = 16
    ):
        self._path, self._rate, self._frames, self._axis = path, rate, 0, int(side_by_side)
        self._size = (2 * size[0], size[1]) if side_by_side else (size[0], 2 * size[1])
        try:
            self._container = av.open(str(path.absolute()), "w", format="mp4", options={"movflags": "+faststart"})
            # Fine enough not to be what is compared; key frames close enough to seek among.
            options = {"crf": f"{crf:g}", "preset": "superfast", "g": "15"}
            self._video = self._container.add_stream("libx264", rate=rate, options=options)
            self._video.width, self._video.height, self._video.pix_fmt = *self._size, "yuv420p"
        except (av.FFmpegError, OSError) as error:
            raise OutputError(f"Cannot write {path}: {reason(error)}") from None

    def write(self, first: Frame, second: Frame) -> None:
        """Write a pair: `first` above `second`, or on its left."""
        both = Frame(*self._size, "yuv420p")
        for i in range(3):
            plane(both, i)[:] = np.concatenate([plane(first, i), plane(second, i)], self._axis)
        if not self._frames:
            context = self._video.codec_context
            for tag in ("color_range", "colorspace", "color_trc", "color_primaries"):
                setattr(context, tag, getattr(first, tag))
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

    They know their quantisers, where the decoder tells them.
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
                with ordinary_scheduling():
                    encoder.open()
                name = encoder.codec.canonical_name
                # FFmpeg's own decoder of AV1 leaves the work to graphics cards.
                decoder = av.CodecContext.create("libdav1d" if name == "av1" else name, "r")
                decoder.options = dict(TOLD)
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
                with opened(clip) as source:
                    if not source.streams.video:
                        raise InputError(f"Expected a video file to repeat. Cannot find a video stream in {clip}")
                    video = source.streams.video[0]
                    copy = copy or output.add_stream_from_template(video, opaque=True)
                    start, end = None, 0
                    for packet in _in_time(source.demux(video), video):
                        start = packet.dts if start is None else start
                        length = _length(packet, video)
                        end = max(end, packet.dts - start + length)
                        packet.pts, packet.dts = packet.pts - start + offset, packet.dts - start + offset
                        packet.stream = copy
                        output.mux_one(packet)
                        written += 1
                if not end:
                    raise InputError(f"Expected a clip with timestamps to repeat. Received: {clip}")
                offset += end
    except (av.FFmpegError, OSError, ValueError) as error:
        raise InputError(f"Expected a video file to repeat. Cannot read {clip}: {reason(error)}") from None


def _in_time(packets, video):
    """Yield the packets that have a decoding time; the first ones, which Matroska gives none, get theirs."""
    early = []
    for packet in packets:
        if packet.size and packet.dts is not None:
            for i, first in enumerate(early):
                first.dts = packet.dts - (len(early) - i) * _length(packet, video)
                yield first
            early = []
            yield packet
        elif packet.size and packet.pts is not None:
            early = [*early, packet][-_REORDERED:]


def _length(packet, video):
    return packet.duration or round(1 / (video.average_rate * packet.time_base))
