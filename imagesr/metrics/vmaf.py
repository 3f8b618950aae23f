"""VMAF-NEG of videos, measured by an ffmpeg with libvmaf."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from fractions import Fraction
from pathlib import Path

from imagesr.cli import install
from imagesr.media.frames import Frame, plane

VMAF_MODEL = "vmaf_v0.6.1neg"
# Beside it: VMAF v1, which does not take sharpening for a gain either, and CAMBI, banding, of which 0 is none.
MORE = "|version=vmaf_v1.0.16_3d0h\\\\:name=vmaf_v1:feature=name=cambi"


def vmaf_ffmpeg() -> str:
    """Return the ffmpeg that imageio-ffmpeg brings; raises ValueError where it is missing or has no VMAF-NEG."""
    trial = f"testsrc=s=64x64:d=0.1,format=yuv420p,split[a][b];[a][b]libvmaf=model=version={VMAF_MODEL}"
    try:
        from imageio_ffmpeg import get_ffmpeg_exe

        ffmpeg = get_ffmpeg_exe()
        command = [ffmpeg, "-v", "error", "-nostdin", "-f", "lavfi", "-i", trial, "-f", "null", "-"]
        subprocess.run(command, capture_output=True, check=True)
    except ModuleNotFoundError:
        raise ValueError(f"VMAF-NEG needs the package imageio-ffmpeg: {install('train')}") from None
    except (OSError, RuntimeError, subprocess.SubprocessError):
        raise ValueError(f"VMAF-NEG needs an ffmpeg with libvmaf and {VMAF_MODEL}, as imageio-ffmpeg's") from None
    return ffmpeg


class VMAF:
    """Write HR frames of a clip, and those of its versions, to files without loss; ffmpeg's libvmaf compares them.

    The files lie in a temporary folder, which is removed at the end of the `with` block.
    """

    def __init__(self, ffmpeg: str, size: tuple[int, int], rate: Fraction, versions: int = 1):
        self._ffmpeg = ffmpeg
        self._folder = tempfile.TemporaryDirectory()
        self._films = [(Path(self._folder.name) / f"{name}.y4m").open("wb") for name in ("hr", *range(versions))]
        for film in self._films:
            header = f"YUV4MPEG2 W{size[0]} H{size[1]} F{rate.numerator}:{rate.denominator} Ip A1:1 C420\n"
            film.write(header.encode())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for film in self._films:
            film.close()
        self._folder.cleanup()

    def add(self, hr: Frame, *srs: Frame) -> None:
        """Write a frame and its versions, in 8-bit 4:2:0."""
        for film, frame in zip(self._films, (hr, *srs), strict=True):
            film.write(b"FRAME\n")
            for i in range(3):
                film.write(plane(frame, i).tobytes())

    def figure(self) -> float:
        """Return VMAF-NEG, the mean over all frames; raises OSError where ffmpeg fails."""
        return float(self._measured(0)["pooled_metrics"]["vmaf"]["mean"])

    def more(self) -> dict[str, float]:
        """Return `vmaf_neg`, `vmaf_v1` and `cambi`, means over all frames; the first alone where ffmpeg has no more."""
        try:
            pooled = self._measured(0, more=MORE)["pooled_metrics"]
        except OSError:
            return {"vmaf_neg": self.figure()}
        names = {"vmaf_neg": "vmaf", "vmaf_v1": "vmaf_v1", "cambi": "cambi"}
        return {name: float(pooled[key]["mean"]) for name, key in names.items()}

    def figures(self, version: int) -> list[float]:
        """Return VMAF-NEG of every frame of a version; raises OSError where ffmpeg fails."""
        return [float(frame["metrics"]["vmaf"]) for frame in self._measured(version)["frames"]]

    def _measured(self, version, more=""):
        for film in self._films:
            film.close()
        how = f"n_threads={os.cpu_count() or 1}:log_fmt=json:log_path=vmaf.json"
        measure = f"libvmaf=model=version={VMAF_MODEL}{more}:{how}"
        command = [self._ffmpeg, "-v", "error", "-nostdin", "-i", f"{version}.y4m", "-i", "hr.y4m", "-lavfi", measure]
        done = subprocess.run(
            [*command, "-f", "null", "-"], cwd=self._folder.name, capture_output=True, text=True, errors="replace"
        )
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["it crashed"])[-1]
            raise OSError(f"ffmpeg could not measure VMAF-NEG: {reason}")
        return json.loads((Path(self._folder.name) / "vmaf.json").read_text("utf-8"))
