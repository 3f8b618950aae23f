"""Sound in the output: copied where the container holds it, else converted."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np

from imagesr.media.containers import SOUND, holds
from imagesr.media.frames import Packet

MODES = ("auto", "copy", "convert", "none")
_GAP_S = 0.1  # less than that is a clock that is not exact
_LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1", 8: "7.1"}
_RATES = (96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350)  # AAC's


def codec_name(stream) -> str | None:
    """Return FFmpeg's name of the codec of a stream; None where this FFmpeg does not know it."""
    return stream.codec_context.codec.canonical_name if stream.codec_context else None


def can_copy(stream, container: str) -> bool:
    """Tell whether players expect a stream's codec in a container of FFmpeg's name `container`."""
    codec = codec_name(stream)
    return codec is not None and holds(SOUND[container], codec)


def can_decode(stream) -> bool:
    """Tell whether a stream says enough about itself to be converted."""
    context = stream.codec_context
    return context is not None and context.sample_rate > 0 and context.layout.nb_channels > 0


class SoundConverter:
    """Decode the packets of a sound stream and encode them for another container: Opus for WebM, else AAC.

    Silence stands for what is missing, so that sound and picture stay together.
    """

    def __init__(self, source, container):
        context = source.codec_context
        channels = context.layout.nb_channels
        self.codec = "opus" if container.format.name == "webm" else "aac"
        if self.codec == "opus":
            self._rate = 48_000
        else:
            self._rate = context.sample_rate if context.sample_rate in _RATES else 48_000
        layout = _LAYOUTS.get(channels, "stereo")
        self._channels = av.AudioLayout(layout).nb_channels
        kilobits = 96 if self._channels == 1 else 192 if self._channels == 2 else 80 * self._channels
        self.told = f"{self.codec.upper() if self.codec == 'aac' else 'Opus'}, {kilobits} kbit/s, {layout}"
        name = "libopus" if self.codec == "opus" else "aac"
        self.stream = container.add_stream(name, rate=self._rate, layout=layout, bit_rate=1000 * kilobits)
        self._source, self._layout = source, layout
        self._resampler = self._kind = None
        self._samples = np.zeros((self._channels, 0), np.float32)
        self._at = None  # the sample with which `_samples` begins

    def packets(self, packet: Packet) -> list[Packet]:
        """Return what a packet becomes."""
        try:
            frames = self._source.codec_context.decode(packet)
        except av.FFmpegError:
            return []  # the gap becomes silence
        return [made for frame in frames for made in self._convert(frame, packet.time_base)]

    def flush(self) -> list[Packet]:
        """Return what is left at the end."""
        made = []
        try:
            frames = self._source.codec_context.decode(None)
        except av.FFmpegError:
            frames = []
        for frame in frames:
            made += self._convert(frame, self._source.time_base)
        made += self._encode(last=True)
        return made + (self.stream.encode(None) if self._at is not None else [])

    def _convert(self, frame, tick):
        kind = frame.sample_rate, frame.format.name, frame.layout.name
        if kind != self._kind:
            self._kind, self._resampler = kind, av.AudioResampler("fltp", self._layout, self._rate)
        begin = None if frame.pts is None else round(float(frame.pts * (frame.time_base or tick)) * self._rate)
        for piece in self._resampler.resample(frame):
            self._append(piece.to_ndarray(), begin)
            begin = None
        return self._encode()

    def _append(self, samples, begin):
        """Put samples where they belong."""
        if self._at is None:
            self._at = begin or 0
            if self._at < 0:
                samples, self._at = samples[:, -self._at :], 0
        elif begin is not None:
            gap = begin - (self._at + self._samples.shape[1])
            if gap > _GAP_S * self._rate:
                samples = np.pad(samples, ((0, 0), (gap, 0)))
            elif gap < -_GAP_S * self._rate:
                samples = samples[:, -gap:]
        self._samples = np.concatenate([self._samples, samples], 1)

    def _encode(self, *, last=False):
        made, context = [], self.stream.codec_context
        size = context.frame_size or 1024
        while self._samples.shape[1] >= size or (last and self._samples.shape[1]):
            piece, self._samples = self._samples[:, :size], self._samples[:, size:]
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(piece, np.float32), "fltp", self._layout)
            frame.sample_rate, frame.pts, frame.time_base = self._rate, self._at, Fraction(1, self._rate)
            self._at += piece.shape[1]
            if context.format.name != "fltp":
                frame = self._packed(frame, context.format.name)
            made += self.stream.encode(frame)
        return made

    def _packed(self, frame, name):
        """Return the frame in the sample format of the encoder."""
        samples = frame.to_ndarray()
        wide = {"flt": np.float32, "s16": np.int16}[name]
        samples = samples if wide is np.float32 else np.clip(np.rint(samples * 32768), -32768, 32767)
        packed = np.ascontiguousarray(samples.T.reshape(1, -1), wide)
        result = av.AudioFrame.from_ndarray(packed, name, self._layout)
        result.sample_rate, result.pts, result.time_base = frame.sample_rate, frame.pts, frame.time_base
        return result
