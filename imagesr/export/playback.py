"""Run a shader as players do: through the filter `libplacebo` of an installed ffmpeg, on Vulkan."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from pathlib import Path

import numpy as np

from imagesr.scale import Scale


@cache
def missing_player() -> str:
    """Say in a few words what is missing for `play_shader` on this machine, or return an empty string."""
    ffmpeg = shutil.which("ffmpeg")
    if not ffmpeg:
        return "no ffmpeg (on Debian: apt install ffmpeg mesa-vulkan-drivers)"
    if " libplacebo " not in _run([ffmpeg, "-hide_banner", "-filters"]).stdout:
        return f"no filter libplacebo in {ffmpeg}"
    probe = ["-init_hw_device", "vulkan", "-f", "lavfi", "-i", "color=size=16x16:duration=0.04", "-f", "null", "-"]
    done = _run([ffmpeg, "-v", "error", *probe])
    return "no Vulkan driver (on Debian: apt install mesa-vulkan-drivers)" if done.returncode else ""


def play_shader(shader: Path, planes: np.ndarray, scale: Scale) -> np.ndarray:
    """Return what a shader makes of luma planes, (N, H, W) uint8 of even sizes; raises ValueError where it fails."""
    frames, height, width = planes.shape
    size = scale.grow(height), scale.grow(width)
    grey = np.full((frames, height * width // 2), 128, np.uint8)
    film = np.concatenate([planes.reshape(frames, -1), grey], 1).tobytes()
    # Code for code: full range in and out, no dithering, no other scaler in between.
    libplacebo = (
        f"libplacebo=w={size[1]}:h={size[0]}:custom_shader_path={_escaped(shader)}:dithering=none:format=yuv420p"
        ":range=full:colorspace=bt709:upscaler=none:downscaler=none"
    )
    command = ["ffmpeg", "-v", "error", "-nostdin", "-init_hw_device", "vulkan", "-f", "rawvideo"]
    command += ["-pixel_format", "yuv420p", "-color_range", "pc", "-colorspace", "bt709"]
    command += ["-video_size", f"{width}x{height}", "-i", "pipe:0"]
    command += ["-vf", f"hwupload,{libplacebo},hwdownload,format=yuv420p", "-f", "rawvideo", "pipe:1"]
    done = subprocess.run(command, input=film, capture_output=True)
    expected = frames * (size[0] * size[1] + 2 * ((size[0] + 1) // 2) * ((size[1] + 1) // 2))
    told = done.stderr.decode(errors="replace").strip().splitlines()
    failed = [line for line in told if "hook" in line or "glslang" in line]  # ffmpeg goes on without the shader
    if done.returncode or failed or len(done.stdout) != expected:
        reason = (failed or told or ["no frames"])[0]
        raise ValueError(f"Expected ffmpeg to run {shader}. Received: {reason}")
    film = np.frombuffer(done.stdout, np.uint8).reshape(frames, -1)
    return film[:, : size[0] * size[1]].reshape(frames, *size)


def _run(command):
    return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)


def _escaped(path):
    """Return a path as a filter graph takes it."""
    text = str(path.absolute())
    for mark in "\\':,;[]":
        text = text.replace(mark, f"\\\\\\{mark}" if mark in "\\':" else f"\\{mark}")
    return text
