"""Two videos of the same scene, compared frame by frame."""

from __future__ import annotations

import contextlib
import html
import io
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

import numpy as np
from PIL import Image

from imagesr.cli import check_interrupted
from imagesr.compare.page import UNITS, FrameFigures, cut, draw_sheet, make_page
from imagesr.files import write_whole
from imagesr.media.clips import StackWriter
from imagesr.media.frames import Frame, Resizer, fitted, plane
from imagesr.media.source import Source
from imagesr.media.ssim import SSIM
from imagesr.metrics.fidelity import CEILING, psnr
from imagesr.metrics.vmaf import VMAF, vmaf_ffmpeg

SECONDS = 10.0
WORST = 5  # frames that the page shows crops of
_SMALLEST = 32  # pixels a side; VMAF crashes on less than 20


@dataclass
class VideoComparison:
    """Hold the result of a comparison of two videos.

    `frames` are the figures of every frame, of `a` and of `b`: PSNR-Y (dB), SSIM and VMAF-NEG against the reference,
    or `difference`, the root mean square of A - B in luma codes, without one. `damaged` says what could not be decoded.
    In a notebook it shows its page.
    """

    names: tuple[str, str]
    rate: float
    frames: FrameFigures
    worst: list[int]
    sheet: Image.Image
    page: str
    notes: list[str] = field(default_factory=list)
    damaged: str = ""

    def means(self) -> dict[str, dict[str, float]]:
        """Return the mean of every figure."""
        return {key: {of: float(np.mean(values)) for of, values in both.items()} for key, both in self.frames.items()}

    def save(self, path: str | Path) -> None:
        """Write the page to `path` and the sheet beside it as PNG, each whole or not at all."""
        path, png = Path(path), io.BytesIO()
        self.sheet.save(png, "png")
        write_whole(path.with_suffix(".png"), png.getvalue())
        write_whole(path, self.page)

    def _repr_html_(self) -> str:
        return f'<iframe srcdoc="{html.escape(self.page)}" style="width:100%;height:900px;border:0"></iframe>'

    def __str__(self):
        lines = []
        for key, means in self.means().items():
            if key == "difference":
                lines.append(f"the two differ by {means['a']:.2f} codes of luma (root mean square)")
            else:
                places = 4 if key == "ssim_y" else 2
                lines.append(
                    f"{UNITS[key]}: {self.names[0]} {means['a']:.{places}f}, {self.names[1]} {means['b']:.{places}f}"
                )
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def compare(
    a: str | Path,
    b: str | Path,
    *,
    reference: str | Path | None = None,
    start: float = 0.0,
    seconds: float | None = SECONDS,
    vmaf: bool = True,
    progress: Callable[[int], None] = lambda done: None,
) -> VideoComparison:
    """Compare two videos of the same frame by frame, with `reference` or with one another.

    The part from `start` on, `seconds` long, is compared; all of it for None. A video of another size than the
    reference's (or the larger one's) is resized to it by Lanczos. `progress` is called with the number of frames done.
    Raises ValueError for videos that cannot be compared, and InputError for one that cannot be read.

    Example:
        result = compare("upscaled.mp4", "lanczos.mp4", reference="original.mp4")
        print(result)
        result.save("compare.html")
    """
    paths = [Path(path) for path in (a, b, *([reference] if reference else []))]
    names = _names(paths[0], paths[1])
    notes: list[str] = []
    ffmpeg = _ffmpeg(notes) if reference and vmaf else None
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        films = [_Film(path, start, seconds, stack) for path in paths]
        size, rate = _fit(films, against=bool(reference)), films[-1].rate
        notes += [note for film in films for note in film.notes]
        notes += _unlike(films)
        if ffmpeg and (lack := _lack_of_space(folder, size, films, start, seconds)):
            notes.append(f"without VMAF-NEG: {lack}")
            ffmpeg = None
        measured = _Measured(size, rate, against=bool(reference), ffmpeg=ffmpeg, stack=stack)
        together = StackWriter(folder / "both.mp4", size, rate)
        stack.callback(together.close)
        count, odd = 0, None
        for frames in zip_longest(*films):
            check_interrupted()
            if None in frames:
                if any(frames):
                    notes.append(f"the videos are not of one length: compared are the first {count} frames")
                break
            if odd is None and max(t for _, t in frames) - min(t for _, t in frames) > 0.5 / rate:
                odd = count
            first, second, *others = [frame for frame, _ in frames]
            together.write(first, second)
            measured.add(first, second, *others)
            count += 1
            progress(count)
        if not count:
            raise ValueError(f"Expected frames in what is compared. Received none from {start:g} s on")
        together.close()
        if odd is not None:
            notes.append(
                f"from frame {odd} on the two are not of the same moment: compared in their order all the same"
            )
        rows = measured.finish()
        damaged = "; ".join(f"{film.path.name}: {film.damage}" for film in films if film.damage)
        video = (folder / "both.mp4").read_bytes()
    worst = _worst(rows, rate)
    crops = _crops(paths, size, start, seconds, worst, names)
    sheet = draw_sheet(crops, rows, names)
    result = VideoComparison(names, float(rate), rows, worst, sheet, "", list(dict.fromkeys(notes)), damaged)
    result.page = make_page(result, size, video, crops)
    return result


def _ffmpeg(notes):
    """Return the ffmpeg that measures VMAF-NEG; None, with a note, where there is none."""
    try:
        return vmaf_ffmpeg()
    except ValueError as error:
        notes.append(f"without VMAF-NEG: {error}")
        return None


def _fit(films, *, against):
    """Bring films to the size of the reference, the last one, or else to that of the larger one; returns the size."""
    size = films[-1].size if against else max(film.size for film in films)
    size = tuple(n - n % 2 for n in size)  # 4:2:0
    if min(size) < _SMALLEST:
        raise ValueError(f"Expected videos of at least {_SMALLEST} pixels a side. Received: {size[0]}x{size[1]}")
    for film in films:
        film.fit(size)
    return size


class _Measured:
    """Measure frames of A and B as they come, `against` a reference or one another."""

    def __init__(self, size, rate, *, against, ffmpeg, stack):
        self._rows: FrameFigures = {}
        self._ssims = [SSIM(*size, "yuv420p") for _ in "ab"] if against else []
        self._vmaf = stack.enter_context(VMAF(ffmpeg, size, rate, versions=2)) if ffmpeg else None

    def add(self, a, b, reference=None):
        for key, values in self._measure(a, b, reference).items():
            for of, value in zip("ab", values, strict=True):
                self._rows.setdefault(key, {"a": [], "b": []})[of].append(value)
        if self._vmaf:
            self._vmaf.add(reference, a, b)

    def _measure(self, a, b, reference):
        """Return the figures of A and of B in a frame, as pairs."""
        if reference is None:
            error = np.mean((plane(a, 0).astype(np.float32) - plane(b, 0)) ** 2)
            return {"difference": (float(error) ** 0.5,) * 2}
        hr = plane(reference, 0)
        return {
            "psnr_y": tuple(min(CEILING, psnr(plane(film, 0), hr)) for film in (a, b)),
            "ssim_y": tuple(ssim(film, reference) for ssim, film in zip(self._ssims, (a, b), strict=True)),
        }

    def finish(self):
        """Return the figures of every frame."""
        if self._vmaf:
            self._rows["vmaf_neg"] = {of: self._vmaf.figures(i) for i, of in enumerate("ab")}
        return self._rows


class _Film:
    """Iterate over the frames of a part of a video, each with its time, all in 8-bit 4:2:0 of one size."""

    def __init__(self, path, start, seconds, stack):
        self._source = stack.enter_context(Source(path, start=start, duration=seconds))
        self.path, self.info = path, self._source.info
        self.size, self.rate = (self.info.width, self.info.height), self.info.rate
        self.notes = []

    def fit(self, size):
        """Resize frames to a size; `notes` say what that changes."""
        self._size, name = size, self.path.name
        cut = tuple(n - n % 2 for n in self.size) == size  # an odd column is left out, not scaled
        self._resize = Resizer(*(self.size if cut else size), "yuv420p", kernel="lanczos")
        if not cut:
            sizes = "{}x{}, and was brought to {}x{} by Lanczos".format(*self.size, *size)
            self.notes.append(f"{name} is {sizes}")
        if self.info.bits > 8 or self.info.halved != (True, True):
            self.notes.append(f"{name} is {self.info.pix_fmt}, and was compared in 8-bit 4:2:0")

    @property
    def damage(self):
        return str(self._source.damage)

    def __iter__(self):
        begun = None
        for item in self._source:
            if isinstance(item, Frame):
                moment = item.pts * item.time_base
                begun = moment if begun is None else begun
                frame = self._resize(item)
                same = (frame.width, frame.height) == self._size
                yield frame if same else fitted(frame, *self._size), float(moment - begun)


def _unlike(films):
    """Yield how the videos' tags for colour and rotation differ; samples are compared as they are."""
    if len({film.info.rotation for film in films}) > 1:
        yield "some of the videos are turned when they are played, others not: all were compared as they are stored"
    words = {"colorspace": "matrices", "color_range": "ranges", "color_trc": "transfer curves"}
    for tag, word in words.items():
        known = {film.info.color.get(tag, 0) for film in films} - {0, 2}  # unspecified
        full = tag == "color_range" and len({film.info.color.get(tag) == 2 for film in films}) > 1
        if full or (tag != "color_range" and len(known) > 1):
            yield f"the videos have different {word}: their samples were compared as they are"


def _lack_of_space(folder, size, films, start, seconds):
    """Say how much disk space is missing for VMAF's three uncompressed films; empty if none is missing."""
    length = min([film.info.duration - start for film in films if film.info.duration] or [float("inf")])
    length = min(length, float("inf") if seconds is None else seconds)
    if length == float("inf"):
        return ""
    wanted = 3 * 1.5 * size[0] * size[1] * length * float(films[-1].rate)
    free = shutil.disk_usage(folder).free
    return f"it needs {wanted / 1e9:.1f} GB in {folder.parent}, {free / 1e9:.1f} are free" if wanted > free else ""


def _names(a, b):
    """Return the names of the two: their files' names, with as many parent folders as tell them apart."""
    depth = 1
    pair = [path.absolute().parts for path in (a, b)]
    while pair[0][-depth:] == pair[1][-depth:] and depth < max(map(len, pair)):
        depth += 1
    return tuple("/".join(parts[-depth:]) for parts in pair)


def _worst(rows, rate):
    """Return the numbers of the worst frames, half a second apart where there are enough frames."""
    against = "psnr_y" in rows
    score = np.minimum(*rows["psnr_y"].values()) if against else -np.array(rows["difference"]["a"])
    apart, chosen = max(1, min(round(rate / 2), len(score) // (2 * WORST))), []
    for i in np.argsort(score, kind="stable"):
        if len(chosen) < WORST and all(abs(i - j) >= apart for j in chosen):
            chosen.append(int(i))
    return chosen


def _crops(paths, size, start, seconds, worst, names):
    """Decode again up to the worst frames, and cut out of each the part with the largest error."""
    found = {}
    with contextlib.ExitStack() as stack:
        films = [_Film(path, start, seconds, stack) for path in paths]
        for film in films:
            film.fit(size)
        for i, frames in enumerate(zip(*films, strict=False)):
            check_interrupted()
            if i in worst:
                found[i] = cut(i, [frame for frame, _ in frames], names)
            if len(found) == len(worst):
                break
    return [found[i] for i in worst]
