"""What else upscales a film, in the same run: ffmpeg, OpenCV, sharpening, networks from the user's files."""

from __future__ import annotations

import importlib.util
import os
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from imagesr.card import ModelCard
from imagesr.engines import Engine, load_engine
from imagesr.engines.peers import load_peer
from imagesr.errors import ModelError
from imagesr.evaluate.clips import Condition, clip_info, measure_clip
from imagesr.evaluate.speed import Maker, Ran, run_ffmpeg, run_film
from imagesr.evaluate.texture import texture_figures
from imagesr.media.colour import TAGS, matrix_by_size
from imagesr.media.filters import Filters
from imagesr.media.frames import Frame, Packet, Resizer, from_rgb, plane, rgb
from imagesr.metrics.fidelity import figures
from imagesr.scale import Scale
from imagesr.video.upscaler import Upscaler

LANCZOS = "lanczos"
SHARPNESS = 0.5  # of CAS, from 0 to 1
CONDITION = Condition("bicubic", "libx264", 18)  # of what quality is measured on
_CLOSE = (0.07, 0.04)  # of the plot's width and height: labels of such points would lie on one another
_OPENCV = {"cubic": "INTER_CUBIC", "lanczos4": "INTER_LANCZOS4", "linear": "INTER_LINEAR"}


@dataclass(frozen=True)
class Method:
    """A way to upscale: `make` returns what upscales frames; ffmpeg's own command runs where `kernel` names its."""

    make: Maker
    kernel: str = ""
    precision: str = ""
    card: ModelCard | None = None


def methods(files: Sequence[Path], cards: Sequence[ModelCard], scale: Scale, *, precision: str) -> dict[str, Method]:
    """Return what is compared, by name: resizing, then our models, then those in `files`. Raises ModelError.

    The files' networks run at fp32, as their authors measured them, unless `precision` is `bf16`.
    """
    found = {f"ffmpeg {kernel}": Method(_resizing(kernel), kernel=kernel) for kernel in ("bicubic", LANCZOS)}
    if importlib.util.find_spec("cv2"):
        found |= {f"OpenCV {name}": Method(_opencv(flag)) for name, flag in _OPENCV.items()}
    found |= {LANCZOS: Method(_resizing(LANCZOS)), f"{LANCZOS} + CAS": Method(_sharpened)}
    for card in cards:
        engine = load_engine(card, precision=precision, parallel=4)
        found[card.name] = Method(_by(engine), precision=engine.precision, card=card)
    for file in files:
        engine = load_peer(file, precision="bf16" if precision == "bf16" else "fp32", parallel=4)
        if engine.card.scale != scale:
            raise ModelError(f"Expected networks of x{scale}. Received: {file}, which is of x{engine.card.scale}")
        found[file.stem] = Method(_by(engine), precision=engine.precision, card=engine.card)
    return found


def measure(
    clip: Path,
    found: dict[str, Method],
    scale: Scale,
    folder: Path,
    *,
    looped: Path,
    frames: int,
    repeat: int,
    quality_frames: int,
    weights: Path | None = None,
    tell: Callable[[str], None] = print,
) -> list[dict[str, Any]]:
    """Return a row for each method: speed on `looped`, in turn; PSNR-Y and texture with `clip` as the original.

    Quality is that of LR by bicubic behind x264 at CRF 18. Without the networks that texture needs it is left out, and
    `tell` says why. `weights` are those of EfficientNet-Lite2; None is its package's.
    """
    runs: dict[str, list[Ran]] = {name: [] for name in found}
    info = clip_info(clip, scale)
    for i in range(repeat):
        tell(f"round {i + 1} of {repeat} at x{scale}: {', '.join(found)}")
        for name, method in found.items():
            if method.kernel:
                ran = run_ffmpeg(looped, frames, folder, f"scale=iw*{scale}:ih*{scale}:flags={method.kernel}")
            else:
                ran = run_film(looped, method.make, scale, folder / "peer.mp4", frames=frames)
            runs[name] += [ran] if ran else []
    try:
        judge = texture_figures(figures, scale, weights)
    except ModelError as error:
        tell(f"without texture: {error}")
        judge = figures
    rows = []
    for name, method in found.items():
        tell(f"quality: {name}")
        how = {"frames": quality_frames, "measure": judge, "info": info}
        row = measure_clip(clip, method.make, scale, CONDITION, **how)
        row = {"model": name, "precision": method.precision} | {key: row.get(key) for key in ("psnr_y", "texture")}
        if method.card:
            row["multiply_accumulates"] = method.card.multiply_accumulates
        for field in Ran._fields:
            row[field] = statistics.median(getattr(ran, field) for ran in runs[name]) if runs[name] else None
        rows.append(row)
    return rows


def _resizing(kernel):
    return lambda info, size: _on_frames(Resizer(*size, info.pix_fmt, kernel=kernel))


def _by(engine: Engine) -> Maker:
    if engine.card.channels == 1:
        return lambda info, size: Upscaler(info, size, [engine])
    return lambda info, size: _on_frames(_Colour(engine, info.pix_fmt, size[1]))


def _on_frames(upscale):
    """Let packets of sound pass."""
    return lambda item: item if isinstance(item, Packet) else upscale(item)


class _Colour:
    """Run an RGB network on frames: what it costs to turn YUV into RGB and back is a part of it."""

    def __init__(self, engine, pix_fmt, height):
        self._engine, self._pix_fmt, self._matrix = engine, pix_fmt, matrix_by_size(height).value

    def __call__(self, frame):
        frame.colorspace = self._matrix  # the same one there and back
        return _like(from_rgb(self._engine(rgb(frame)[None])[0], pix_fmt=self._pix_fmt, exact=True), frame)


def _sharpened(info, size):
    """Return Lanczos with AMD's contrast-adaptive sharpening of luma behind it."""
    resizer, graphs = Resizer(*size, info.pix_fmt, kernel=LANCZOS), []

    def upscale(frame):
        large = resizer(frame)
        if not graphs:
            graphs.append(Filters(large, Fraction(1, 1000), Fraction(25), [("cas", f"strength={SHARPNESS}:planes=1")]))
        (sharp,) = graphs[0](large)
        return _like(sharp, frame)

    return _on_frames(upscale)


def _opencv(flag):
    import cv2

    kernel = getattr(cv2, flag)

    def make(info, size):
        def upscale(frame):
            result = Frame(*size, info.pix_fmt)
            for i in range(len(result.planes)):
                target = plane(result, i)
                target[:] = cv2.resize(plane(frame, i), target.shape[::-1], interpolation=kernel)
            return _like(result, frame)

        return _on_frames(upscale)

    return make


def _like(result, frame):
    """Give a frame the time and the tags of another one."""
    if frame.time_base:
        result.pts, result.time_base, result.duration = frame.pts, frame.time_base, frame.duration
    for tag in TAGS:
        setattr(result, tag, getattr(frame, tag))
    return result


def table(rows: Sequence[dict]) -> str:
    """Format the rows as a Markdown table; what was not measured is empty."""
    forms = {
        "fps": ("fps", "{:.1f}"),
        "CPU-ms per frame": ("cpu_ms", "{:.1f}"),
        "PSNR-Y": ("psnr_y", "{:.2f}"),
        "texture": ("texture", "{:.3f}"),
        "MAC per LR pixel": ("multiply_accumulates", "{:,.0f}"),
    }
    lines = [["model", *forms], ["---"] * (1 + len(forms))]
    for row in rows:
        name = row["model"] + (f" ({row['precision']})" if row["precision"] else "")
        lines.append([name, *("" if row.get(key) is None else form.format(row[key]) for key, form in forms.values())])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def plot(rows: Sequence[dict], file: Path) -> None:
    """Draw speed over texture, or over PSNR-Y where texture was not measured; points that touch share a label.

    Speed is the frames per second that the CPU time allows to all cores: what else runs here changes it little.
    """
    from imagesr.train.plots import draw_trade

    key, label = "texture", "distance of texture to the original (natural: left)"
    if any(row["texture"] is None for row in rows):
        key, label = "psnr_y", "PSNR-Y, dB (faithful: right)"
    cores = os.cpu_count() or 1
    points = [(row["model"], row[key], 1000 * cores / row["cpu_ms"]) for row in rows if row["cpu_ms"] and row[key]]
    draw_trade(_labelled(points), file, label, f"frames per second by CPU time, {cores} cores, encoder included")


def _labelled(points):
    """Return points, (name, x, y), of which the first of those that lie close together has the names of all."""
    wide, high = (max(values) - min(values) or 1.0 for values in list(zip(*points, strict=True))[1:])
    found: list[list] = []
    for name, x, y in sorted(points, key=lambda point: (point[1], -point[2])):
        near = next((p for p in found if p[0] and _near(p, x, y, wide, high)), None)
        if near:
            near[0] += f", {name}"
        found.append(["" if near else name, x, y])
    return [tuple(point) for point in found]


def _near(point, x, y, wide, high):
    return abs(point[1] - x) < _CLOSE[0] * wide and abs(point[2] - y) < _CLOSE[1] * high


@dataclass(frozen=True)
class Target:
    """What is wanted beside what was reached; `zen5` and `zen4` are for two cores of such a processor, None is none."""

    what: str
    reached: float | None
    zen5: float | None
    zen4: float
    least: bool = True

    def met(self, wanted: float) -> bool:
        """Tell whether a target is met."""
        return self.reached is not None and (self.reached >= wanted if self.least else self.reached <= wanted)


def targets(
    rows: Sequence[dict], shares: dict[str, dict[str, float]], stages: dict[str, float], still: float
) -> Iterator[Target]:
    """Yield the targets of speed.

    `rows` are those of `bench` at x1.5, `shares` and `stages` those of `evaluate.speed`, `still` says how many times as
    fast a screen recording is.
    """
    over = {row["model"]: row.get("over_lanczos") for row in rows}
    for name, zen5, zen4 in (("fast", 0.70, 0.60), ("balanced", 0.58, 0.45), ("best", 0.40, 0.28)):
        yield Target(f"{name} over own lanczos", over.get(name), zen5, zen4)
    fps = next((row["fps"] for row in rows if row["model"] == "balanced"), None)
    yield Target("balanced, frames per second", fps, None, 33.0)
    of_ffmpeg = next((ratio for name, ratio in over.items() if name.startswith("ffmpeg")), None)
    yield Target("own lanczos over ffmpeg's", 1 / of_ffmpeg if of_ffmpeg else None, 0.97, 0.97)
    for name, figure in shares.items():
        if name != "peak":
            yield Target(f"network of {name}, share of the int8 peak", figure["share"], 0.70, 0.70)
    yield Target("copies and conversions, CPU-ms a frame", stages["copies"], 1.0, 1.0, least=False)
    yield Target("a screen recording with still areas over the clip", still, 3.0, 3.0)


def target_table(found: Sequence[Target]) -> str:
    """Format targets as a Markdown table."""
    lines = ["| | reached | target, two Zen 5 cores | target, two Zen 4 cores |", "|---|---|---|---|"]
    for target in found:
        reached = "not measured" if target.reached is None else f"{target.reached:.2f}"
        wanted = (_told(target, number) for number in (target.zen5, target.zen4))
        lines.append(f"| {target.what} | {reached} | " + " | ".join(wanted) + " |")
    return "\n".join(lines)


def _told(target, wanted):
    return "" if wanted is None else f"{wanted:.2f}, {'met' if target.met(wanted) else 'missed'}"
