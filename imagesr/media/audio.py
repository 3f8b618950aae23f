"""Sound in the output: copied where the container holds it, else converted."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np

from imagesr.media.containers import SOUND, holds
from imagesr.media.frames import Packet

MODES = ("auto", "copy", "convert", "none")
_GAP_S = 0.1  # less than that is a clock that is not exact
_SILENCE_S = 1  # of a gap is made at a time: it may be hours long
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

    Silence stands for what is missing, so that sound and picture stay together. `failed` counts the packets that cannot
    be decoded.
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
        self.failed = self._early = 0
        self._source, self._layout = source, layout
        self._resampler = self._kind = None
        self._samples = np.zeros((self._channels, 0), np.float32)
        self._at = None  # the sample with which `_samples` begins
        self._begun = False

    def packets(self, packet: Packet) -> Iterator[Packet]:
        """Yield what a packet becomes."""
        if self._at is None and packet.pts is not None:
            # The decoder may give nothing for the first packets: what it gives later stays where it belongs.
            self._at = max(0, round(float(packet.pts * packet.time_base) * self._rate))
        yield from self._decoded(packet, packet.time_base)

    def flush(self) -> Iterator[Packet]:
        """Yield what is left at the end."""
        yield from self._decoded(None, self._source.time_base)
        yield from self._encode(last=True)
        if self._kind:
            yield from self.stream.encode(None)
        else:
            self.failed = self._early

    def _decoded(self, packet, tick):
        try:
            frames = self._source.codec_context.decode(packet)
        except av.FFmpegError:  # the gap becomes silence
            # A part that begins in the middle lacks what its first packets refer to: that is no damage.
            self._early += packet is not None
            self.failed += packet is not None and self._kind is not None
            return
        for frame in frames:
            yield from self._convert(frame, tick)

    def _convert(self, frame, tick):
        kind = frame.sample_rate, frame.format.name, frame.layout.name
        if kind != self._kind:
            self._kind, self._resampler = kind, av.AudioResampler("fltp", self._layout, self._rate)
        begin = None if frame.pts is None else round(float(frame.pts * (frame.time_base or tick)) * self._rate)
        for piece in self._resampler.resample(frame):
            yield from self._placed(piece.to_ndarray(), begin)
            begin = None

    def _placed(self, samples, begin):
        """Put samples where they belong, and yield what can be encoded."""
        self._at = self._at or 0
        if begin is not None:
            gap = begin - (self._at + self._samples.shape[1])
            near = _GAP_S * self._rate if self._begun else 0
            if gap < -near:
                samples = samples[:, -gap:]
            while gap > near:
                some = min(gap, _SILENCE_S * self._rate)
                yield from self._added(np.zeros((self._channels, some), np.float32))
                gap, near = gap - some, 0
        yield from self._added(samples)

    def _added(self, samples):
        self._begun = self._begun or samples.shape[1] > 0
        self._samples = np.concatenate([self._samples, samples], 1)
        return self._encode()

    def _encode(self, *, last=False):
        context = self.stream.codec_context
        size = context.frame_size or 1024
        while self._samples.shape[1] >= size or (last and self._samples.shape[1]):
            piece, self._samples = self._samples[:, :size], self._samples[:, size:]
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(piece, np.float32), "fltp", self._layout)
            frame.sample_rate, frame.pts, frame.time_base = self._rate, self._at, Fraction(1, self._rate)
            self._at += piece.shape[1]
            if context.format.name != "fltp":
                frame = self._packed(frame, context.format.name)
            yield from self.stream.encode(frame)

    def _packed(self, frame, name):
        """Return the frame in the sample format of the encoder."""
        samples = frame.to_ndarray()
        wide = {"flt": np.float32, "s16": np.int16}[name]
        samples = samples if wide is np.float32 else np.clip(np.rint(samples * 32768), -32768, 32767)
        packed = np.ascontiguousarray(samples.T.reshape(1, -1), wide)
        result = av.AudioFrame.from_ndarray(packed, name, self._layout)
        result.sample_rate, result.pts, result.time_base = frame.sample_rate, frame.pts, frame.time_base
        return result
