"""How much of a source was lost to compression and noise, as one number: what `--clean auto` chooses.

The number is `clean` of networks that take it, from 0, nothing, to 1. It is reckoned in the quantiser of H.264, whose
step is 0.625 * 2^(QP/6) codes: other codecs' steps, and noise, are turned into the quantiser of the same step.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from imagesr.errors import InputError
from imagesr.media.frames import Frame, plane
from imagesr.media.opening import close_input, is_cover, open_input

TOLD = {"export_side_data": "venc_params"}  # options of a decoder that is to tell its quantisers
NOISE = 2.5  # codes of sigma that stay: the grain of a good source
_NONE_AT, _ALL_OVER = 16, 28  # quantisers: nothing is lost at 16, and 28 above that is 1
_PLACES = (0.1, 0.3, 0.5, 0.7, 0.9)  # of a film
_FRAMES = 4  # at each place: an I frame, P and B
_LEAST_FRAMES = 12
BLOCK, _MOST_BLOCKS = 16, 1024
FEW = 10  # blocks
_DARK, _BRIGHT = 24, 228  # blocks outside are black bars, or clipped: they have no noise to measure
_H264, _VP9 = 1, 0  # AVVideoEncParamsType; 2 are the MPEGs up to 4
# The steps of VP9's table of AC quantisers, times 8, at some of its 256 indices.
_VP9_INDEX = (0, 1, 103, 128, 144, 160, 176, 192, 208, 255)
_VP9_STEP = (4, 8, 102, 152, 200, 265, 353, 474, 639, 1828)
# For codecs whose decoders tell no quantiser: x264's medium preset at CRF 23 (a quantiser of 25) takes about 0.08 bits
# a pixel at 720p and 30 frames a second; six steps of the quantiser halve that; other codecs take so many times as
# much for the same quality. That is coarse: films differ by their content as much as fourfold, two octaves, which is
# 12 steps of the quantiser or 0.4 of `clean`. docs/video.md has the error on clips by x265.
_SOUND = 128_000  # bits a second of sound that does not tell
_BITS, _BITS_AT, _OCTAVE = 0.08, 25.0, 6.0
_SHARE = {"hevc": 0.6, "vvc": 0.4, "av1": 0.5, "vp9": 0.65, "vp8": 1.1, "theora": 1.4, "vc1": 1.2, "wmv3": 1.2}
_SHARE |= {"mpeg4": 1.6, "msmpeg4v3": 1.7, "h263": 1.7, "flv1": 1.7, "mpeg2video": 2.0, "mpeg1video": 2.2}
_INTRA = 4.0  # of codecs without a share above: they keep every frame by itself
_NAMES = {"h264": "H.264", "hevc": "HEVC", "mpeg1video": "MPEG-1", "mpeg2video": "MPEG-2", "mpeg4": "MPEG-4"}


@dataclass(frozen=True)
class Coding:
    """Say what is known of a source: its codec, its quantiser in H.264's terms, and its noise, sigma in 8-bit codes.

    None is what could not be told. `estimated` says that the quantiser is a guess, from the bits that a pixel takes or
    from what is seen. `quality` is that of a JPEG, which people know better than its quantiser.
    """

    codec: str = ""
    quantiser: float | None = None
    noise: float | None = None
    estimated: bool = False
    quality: float | None = None

    @property
    def clean(self) -> float:
        """How much to clean, from 0 to 1, to two digits."""
        found = [] if self.quantiser is None else [self.quantiser]
        if self.noise is not None and self.noise > NOISE:
            # The variance that is above what stays, as that of a step.
            found.append(quantiser_of(math.sqrt(12 * (self.noise**2 - NOISE**2))))
        return round(_share(max(found, default=0.0)), 2)

    @property
    def reasons(self) -> str:
        """Say in a few words what `clean` follows from."""
        about = "about " if self.estimated else ""
        known = f"quantiser {about}{self.quantiser:.0f}" if self.quantiser is not None else ""
        known = f"quality {about}{self.quality:.0f}" if self.quality is not None else known
        noise = "" if self.noise is None else f"noise {self.noise:.1f}"
        return "; ".join(filter(None, [", ".join(filter(None, [self.codec, known])), noise])) or "nothing is known"

    def __str__(self):
        return f"clean {self.clean:g} ({self.reasons})"


def examine_film(path: Path, *, rate: Fraction | None = None) -> Coding:
    """Look at a few frames at five places of a film; those of a film that cannot be entered are its first.

    The result depends on the file alone. A file that cannot be read is one of which nothing is known.
    """
    try:
        container = open_input(path, rate=rate)
    except (av.FFmpegError, OSError, ValueError, InputError):
        return Coding()
    try:
        return _examined(container)
    finally:
        close_input(container)


def examine_frames(frames: Iterable[Frame], *, codec: str = "") -> Coding:
    """Measure the noise of frames, and read their quantisers where their decoder was asked to tell them (`TOLD`)."""
    steps, noises = [], []
    for frame in frames:
        steps += filter(None, [frame_step(frame)])
        noises += [noise for noise in [frame_noise(frame)] if noise is not None]
    quantiser = float(np.mean([quantiser_of(step) for step in steps])) if steps else None
    return Coding(codec, quantiser, float(np.median(noises)) if noises else None)


def _examined(container):
    streams = [stream for stream in container.streams.video if stream.codec_context and not is_cover(stream)]
    if not streams:
        return Coding()
    stream = max(streams, key=lambda one: one.codec_context.width * one.codec_context.height)
    context = stream.codec_context
    codec = context.codec.canonical_name
    steps, noises = [], []
    for frame, first in _sampled(container, stream):
        steps += filter(None, [frame_step(frame)])
        if first and (noise := frame_noise(frame)) is not None:
            noises.append(noise)
    name = _NAMES.get(codec, codec.upper())
    noise = float(np.median(noises)) if noises else None
    if steps:
        return Coding(name, float(np.mean([quantiser_of(step) for step in steps])), noise)
    guess = _quantiser_by_bits(container, stream, codec)
    return Coding(name, guess, noise, estimated=guess is not None)


def _sampled(container, stream) -> Iterator[tuple[Frame, bool]]:
    """Yield frames of up to five places, each with whether it is the first of its place."""
    context = stream.codec_context
    context.options = TOLD
    context.thread_type, context.thread_count = "SLICE", 1  # threads of frames would be filled at every place
    length, begin, seen, count = container.duration, container.start_time or 0, set(), 0
    for place in _PLACES if length else ():
        with suppress(av.FFmpegError):
            container.seek(round(begin + place * length))
            for number, frame in enumerate(itertools.islice(container.decode(stream), _FRAMES)):
                if frame.pts in seen:  # films have as few as one place that can be entered
                    break
                seen.add(frame.pts)
                count += 1
                yield frame, not number
    if count < _LEAST_FRAMES:
        with suppress(av.FFmpegError):
            if count:
                container.seek(begin)
            more = (frame for frame in container.decode(stream) if frame.pts is None or frame.pts not in seen)
            for number, frame in enumerate(itertools.islice(more, _LEAST_FRAMES - count)):
                yield frame, number % _FRAMES == 0


def frame_step(frame):
    """Return the step of a frame's quantiser in codes, the geometric mean over its area; None where none is told."""
    for data in frame.side_data:
        if data.type.name == "VIDEO_ENC_PARAMS":
            break
    else:
        return None
    # As AVVideoEncParams lies in memory: the number of blocks, where they begin, their size; type, quantiser. PyAV's
    # own map knows no frames whose sides are not those of whole blocks.
    whole = bytes(data)
    number, begin, size = (int(n) for n in np.frombuffer(whole, np.uint64, 3))
    kind, quantiser = (int(n) for n in np.frombuffer(whole, np.int32, 2, 24))
    number &= 0xFFFFFFFF
    if number and size >= 20 and len(whole) >= begin + number * size:
        raw = np.frombuffer(whole, np.uint8, number * size, begin).reshape(number, size)
        _, _, wide, high, delta = np.ascontiguousarray(raw[:, :20]).view(np.int32).T
        area = np.maximum(1, wide * high)
    else:
        delta, area = np.zeros(1), np.ones(1)
    values = quantiser + delta
    if kind == _H264:
        return h264_step(float(np.average(values, weights=area)))
    if kind == _VP9:
        logs = np.interp(values, _VP9_INDEX, np.log(_VP9_STEP)) - math.log(8)
    else:
        logs = np.log(np.maximum(1, values))  # twice the quantiser of MPEG-1 and 4, MPEG-2's scale: the step
    return float(np.exp(np.average(logs, weights=area)))


def h264_step(quantiser: float) -> float:
    """Return the step, in codes, of a quantiser of H.264 or HEVC."""
    return 0.625 * 2 ** (quantiser / 6)


def lost(step: float) -> float:
    """Return how much of a picture was lost, from 0 to 1, when its coefficients were rounded to `step` codes.

    Noise of σ codes counts as a step of σ√12. Independent steps add up by their squares. Networks are trained with it.
    """
    return _share(quantiser_of(step))


def _share(quantiser):
    return min(1.0, max(0.0, (quantiser - _NONE_AT) / _ALL_OVER))


def quantiser_of(step: float) -> float:
    """Return the quantiser of H.264 whose step, in codes, is `step`."""
    return max(0.0, 6 * math.log2(max(step, 1e-9) / 0.625))


def _quantiser_by_bits(container, stream, codec):
    """Guess the quantiser from the bits that a pixel takes; None where these are unknown."""
    context, rate = stream.codec_context, stream.average_rate or stream.guessed_rate
    bits = stream.bit_rate
    if not bits and container.duration and container.size:
        sound = sum(other.bit_rate or _SOUND for other in container.streams.audio)
        bits = max(1, container.size * 8 * av.time_base // container.duration - sound)
    if not (bits and rate and context.width and context.height):
        return None
    each = bits / float(rate) / (context.width * context.height)
    share = _SHARE.get(codec, _INTRA)
    return min(51.0, max(0.0, _BITS_AT - _OCTAVE * math.log2(each / (_BITS * share))))


def frame_noise(frame: Frame) -> float | None:
    """Measure the noise of a frame's luma, as `noise_of` does; None for RGB and for frames without flat parts."""
    if frame.format.is_rgb:
        return None
    deep = max(0, frame.format.components[0].bits - 8)
    luma = plane(frame, 0)
    return noise_of(luma) if not deep else noise_of(luma.astype(np.float32) / 2**deep)


def noise_of(luma: np.ndarray) -> float | None:
    """Measure the noise of luma (H, W) in codes from 0 to 255: sigma in the flattest tenth of its blocks.

    By the difference of two Laplacians (Immerkær 1996), which no slope moves. Black bars and clipped parts, and blocks
    in which nothing differs, are left out. None where fewer than ten blocks remain.
    """
    sigma = np.sort(differences(blocks_of(luma), 1))
    sigma = sigma[sigma > 0]
    return float(sigma[len(sigma) // 10]) if len(sigma) >= FEW else None


def blocks_of(luma: np.ndarray) -> np.ndarray:
    """Return blocks (N, 16, 16) of luma (H, W), float32, spread over it: those that are neither dark nor clipped."""
    down, across = (n // BLOCK for n in luma.shape)
    blocks = luma[: down * BLOCK, : across * BLOCK].reshape(down, BLOCK, across, BLOCK).swapaxes(1, 2)
    every = max(1, math.ceil(math.sqrt(down * across / _MOST_BLOCKS)))
    blocks = blocks[::every, ::every].reshape(-1, BLOCK, BLOCK).astype(np.float32)
    level = blocks.mean((1, 2))
    return blocks[(level > _DARK) & (level < _BRIGHT)]


def differences(blocks: np.ndarray, step: int) -> np.ndarray:
    """Return the noise of blocks (N, H, W) as the difference of two Laplacians of pixels `step` apart shows it."""
    row = blocks[:, : -2 * step] - 2 * blocks[:, step:-step] + blocks[:, 2 * step :]
    both = row[..., : -2 * step] - 2 * row[..., step:-step] + row[..., 2 * step :]
    return math.sqrt(math.pi / 2) / 6 * np.abs(both).mean((1, 2))
