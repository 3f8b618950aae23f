"""Video encoders: what they take, and whether they work here."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import av

from imagesr.media.containers import FORMATS
from imagesr.media.frames import depth, has_alpha
from imagesr.media.opening import reason

_PRESETS = ["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo"]
_PLAYED = ("h264", "hevc", "vp9", "av1")


@contextmanager
def ordinary_scheduling() -> Iterator[None]:
    """Take back the real-time scheduling that SVT-AV1 gives every thread when root opens it.

    At that priority nothing else runs beside the encoder, and child processes inherit it.
    """
    if not hasattr(os, "sched_getscheduler"):
        yield
        return
    before = os.sched_getscheduler(0)
    try:
        yield
    finally:
        if before == os.SCHED_OTHER:
            for thread in (int(task.name) for task in Path("/proc/self/task").iterdir()):
                with suppress(OSError):  # a thread that has ended
                    if os.sched_getscheduler(thread) != before:
                        os.sched_setscheduler(thread, before, os.sched_param(0))


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
        with ordinary_scheduling(), av.open(io.BytesIO(), "w", format=FORMATS[suffix]) as container:
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


def encoder_format(codec: str, pix_fmt: str) -> str:
    """Return the pixel format in which an encoder takes frames of `pix_fmt`: the same, if it can, or the closest."""
    formats = encoder_formats(codec)
    bits = av.VideoFormat(pix_fmt).components[0].bits
    semiplanar = {"yuv420p": "nv12", "yuv420p10le": "p010le"}.get(pix_fmt)
    closest = ["yuv420p10le", "p010le"] if bits > 8 else []
    if has_alpha(pix_fmt) and codec.startswith("libvpx"):
        return "yuva420p"  # it lists others, and refuses them
    if has_alpha(pix_fmt):
        closest = [name for name in formats if has_alpha(name) and not av.VideoFormat(name).is_rgb] + closest
    for candidate in [pix_fmt, semiplanar, *closest, "yuv420p", "nv12"]:
        if candidate in formats or not formats:
            return candidate
    return formats[0]


def played_format(codec: str, pix_fmt: str) -> str | None:
    """Return the format with halved chroma that players expect of a codec, for frames of `pix_fmt` that were RGB.

    None for codecs that are not made for players, and for transparency.
    """
    if has_alpha(pix_fmt) or av.Codec(codec, "w").canonical_name not in _PLAYED:
        return None
    candidates = ("yuv420p10le", "p010le") if depth(pix_fmt) > 8 else ("yuv420p", "nv12")
    return next((name for name in candidates if name in encoder_formats(codec)), None)


def keeps_alpha(codec: str, suffix: str) -> bool:
    """Tell whether an encoder keeps transparency in a container."""
    if suffix in (".webm", ".mkv") and codec == "libvpx-vp9":
        return True
    planar = [name for name in encoder_formats(codec) if has_alpha(name) and not av.VideoFormat(name).is_rgb]
    return bool(planar) and suffix in (".mkv", ".mov")


def _takes(option, value) -> bool:
    if option.type.name == "STRING" or any(choice.name == value for choice in option.choices):
        return True
    try:
        return option.min <= float(value) <= option.max
    except ValueError:
        # A word for a number. Flags and durations have words of their own, which their parser knows.
        return option.type.name not in ("INT", "INT64", "UINT64", "FLOAT", "DOUBLE")
