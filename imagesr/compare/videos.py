"""Two videos of the same, on one page: `python -m imagesr.compare A B [--reference R]`."""

from __future__ import annotations

import base64
import contextlib
import html
import io
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from imagesr.cli import DAMAGED, Parser, check_record, run_command
from imagesr.evaluate.sheet import draw_rows
from imagesr.files import write_whole
from imagesr.media.frames import SSIM, Frame, Resizer, Source, fitted, plane, rgb
from imagesr.media.writer import StackWriter
from imagesr.metrics.fidelity import CEILING, psnr
from imagesr.metrics.vmaf import VMAF, vmaf_ffmpeg

SECONDS = 10.0
WORST, _CROP, _ZOOM = 5, 128, 2  # frames; pixels a side of what is shown of each, and how large it is drawn
_SMALLEST = 32  # pixels a side; VMAF crashes on less than 20
_GAIN = 4  # differences are shown that much stronger
_UNITS = {"psnr_y": "PSNR-Y, dB", "ssim_y": "SSIM", "vmaf_neg": "VMAF-NEG"}


@dataclass
class Comparison:
    """Hold what came of a comparison.

    `frames` are the figures of every frame, of `a` and of `b`: PSNR-Y (dB), SSIM and VMAF-NEG against the reference,
    or `difference`, the root mean square of A - B in luma codes, without one. `damaged` says what could not be decoded.
    In a notebook it shows its page.
    """

    names: tuple[str, str]
    rate: float
    frames: dict[str, dict[str, list[float]]]
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
                    f"{_UNITS[key]}: {self.names[0]} {means['a']:.{places}f}, {self.names[1]} {means['b']:.{places}f}"
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
) -> Comparison:
    """Compare two videos of the same frame by frame, with `reference` or with one another.

    `seconds` are taken from `start` on, None for all. A video of another size than the reference's (or the larger
    one's) is brought to it by Lanczos. `progress` is called with the frames done. Raises ValueError for what cannot be
    compared, and InputError for a video that cannot be read.
    """
    paths = [Path(path) for path in (a, b, *([reference] if reference else []))]
    names = _names(paths[0], paths[1])
    notes: list[str] = []
    ffmpeg = None
    if reference and vmaf:
        try:
            ffmpeg = vmaf_ffmpeg()
        except ValueError as error:
            notes.append(f"without VMAF-NEG: {error}")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        films = [_Film(path, start, seconds, stack) for path in paths]
        size = films[2].size if reference else max(film.size for film in films)
        size = tuple(n - n % 2 for n in size)  # 4:2:0
        if min(size) < _SMALLEST:
            raise ValueError(f"Expected videos of at least {_SMALLEST} pixels a side. Received: {size[0]}x{size[1]}")
        for film in films:
            film.fit(size)
            notes += film.notes
        notes += _unlike(films)
        rate = films[-1].rate
        if ffmpeg and (lack := _lack_of_room(folder, size, films, start, seconds)):
            notes.append(f"without VMAF-NEG: {lack}")
            ffmpeg = None
        rows: dict[str, dict[str, list[float]]] = {}
        ssims = [SSIM(*size, "yuv420p") for _ in "ab"] if reference else []
        vmaf_neg = stack.enter_context(VMAF(ffmpeg, size, rate, versions=2)) if ffmpeg else None
        together = StackWriter(folder / "both.mp4", size, rate)
        stack.callback(together.close)
        count, odd = 0, None
        for count, frames in enumerate(zip_longest(*films), 1):
            if None in frames:
                if any(frames):
                    notes.append(f"the videos are not of one length: compared are the first {count - 1} frames")
                count -= 1
                break
            if odd is None and max(t for _, t in frames) - min(t for _, t in frames) > 0.5 / rate:
                odd = count - 1
            first, second, *others = [frame for frame, _ in frames]
            together.write(first, second)
            for key, values in _measure(first, second, *others, ssims=ssims).items():
                for of, value in zip("ab", values, strict=True):
                    rows.setdefault(key, {"a": [], "b": []})[of].append(value)
            if vmaf_neg:
                vmaf_neg.add(*others, first, second)
            progress(count)
        if not count:
            raise ValueError(f"Expected frames in what is compared. Received none from {start:g} s on")
        together.close()
        if odd is not None:
            notes.append(
                f"from frame {odd} on the two are not of the same moment: compared in their order all the same"
            )
        if vmaf_neg:
            rows["vmaf_neg"] = {of: vmaf_neg.figures(i) for i, of in enumerate("ab")}
        notes = list(dict.fromkeys(notes))
        damaged = "; ".join(f"{film.path.name}: {film.damage}" for film in films if film.damage)
        video = (folder / "both.mp4").read_bytes()
    worst = _worst(rows, rate)
    crops = _crops(paths, size, start, seconds, worst, names)
    sheet = _sheet(crops, rows, names)
    result = Comparison(names, float(rate), rows, worst, sheet, "", notes, damaged)
    result.page = _page(result, size, video, crops)
    return result


class _Film:
    """Iterate over the frames of a part of a video, each with its time, all in one size of 8-bit 4:2:0."""

    def __init__(self, path, start, seconds, stack):
        self._source = stack.enter_context(Source(path, start=start, duration=seconds))
        self.path, self.info = path, self._source.info
        self.size, self.rate = (self.info.width, self.info.height), self.info.rate
        self.notes = []

    def fit(self, size):
        """Have frames brought to a size; `notes` say what that changes."""
        self._size, name = size, self.path.name
        cut = tuple(n - n % 2 for n in self.size) == size  # an odd column is left out, not squeezed
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
    """Yield what of the videos' colours is meant differently: their samples are compared as they are."""
    if len({film.info.rotation for film in films}) > 1:
        yield "some of the videos are turned when they are played, others not: all were compared as they are stored"
    words = {"colorspace": "matrices", "color_range": "ranges", "color_trc": "transfer curves"}
    for tag, word in words.items():
        known = {film.info.color.get(tag, 0) for film in films} - {0, 2}  # not said
        full = tag == "color_range" and len({film.info.color.get(tag) == 2 for film in films}) > 1
        if full or (tag != "color_range" and len(known) > 1):
            yield f"the videos have different {word}: their samples were compared as they are"


def _lack_of_room(folder, size, films, start, seconds):
    """Say how much room is missing for what VMAF is measured on, three films without compression; empty if none."""
    length = min([film.info.duration - start for film in films if film.info.duration] or [float("inf")])
    length = min(length, float("inf") if seconds is None else seconds)
    if length == float("inf"):
        return ""
    wanted = 3 * 1.5 * size[0] * size[1] * length * float(films[-1].rate)
    free = shutil.disk_usage(folder).free
    return f"it needs {wanted / 1e9:.1f} GB in {folder.parent}, {free / 1e9:.1f} are free" if wanted > free else ""


def _names(a, b):
    """Return what the two are called: their files' names, with so much of their folders as tells them apart."""
    depth = 1
    pair = [path.absolute().parts for path in (a, b)]
    while pair[0][-depth:] == pair[1][-depth:] and depth < max(map(len, pair)):
        depth += 1
    return tuple("/".join(parts[-depth:]) for parts in pair)


def _measure(a, b, reference=None, *, ssims):
    """Return the figures of A and of B in a frame, as pairs."""
    if reference is None:
        error = np.mean((plane(a, 0).astype(np.float32) - plane(b, 0)) ** 2)
        return {"difference": (float(error) ** 0.5,) * 2}
    hr = plane(reference, 0)
    return {
        "psnr_y": tuple(min(CEILING, psnr(plane(film, 0), hr)) for film in (a, b)),
        "ssim_y": tuple(ssim(film, reference) for ssim, film in zip(ssims, (a, b), strict=True)),
    }


def _worst(rows, rate):
    """Return the numbers of the worst frames, half a second apart where there are enough of them."""
    against = "psnr_y" in rows
    score = np.minimum(*rows["psnr_y"].values()) if against else -np.array(rows["difference"]["a"])
    apart, chosen = max(1, min(round(rate / 2), len(score) // (2 * WORST))), []
    for i in np.argsort(score, kind="stable"):
        if len(chosen) < WORST and all(abs(i - j) >= apart for j in chosen):
            chosen.append(int(i))
    return chosen


@dataclass
class _Crop:
    """Hold the piece of a frame where the error is largest: its number, its corner, its pictures by their titles."""

    frame: int
    place: tuple[int, int]
    pictures: dict[str, Image.Image]


def _crops(paths, size, start, seconds, worst, names):
    """Decode once more up to the worst frames, and cut out of each the piece where the error is largest."""
    found = {}
    with contextlib.ExitStack() as stack:
        films = [_Film(path, start, seconds, stack) for path in paths]
        for film in films:
            film.fit(size)
        for i, frames in enumerate(zip(*films, strict=False)):
            if i in worst:
                found[i] = _crop(i, [frame for frame, _ in frames], names)
            if len(found) == len(worst):
                break
    return [found[i] for i in worst]


def _crop(number, frames, names):
    lumas = [plane(frame, 0).astype(np.int16) for frame in frames]
    if len(frames) == 3:
        differences = {f"{name} - reference": luma - lumas[2] for name, luma in zip(names, lumas, strict=False)}
    else:
        differences = {"difference": lumas[0] - lumas[1]}
    squares = sum(difference.astype(np.float64) ** 2 for difference in differences.values())
    height, width = (min(_CROP, n) for n in squares.shape)
    sums = np.pad(squares.cumsum(0).cumsum(1), ((1, 0), (1, 0)))  # so that a piece's sum is that of four corners
    errors = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    y, x = (int(n) for n in np.unravel_index(errors.argmax(), errors.shape))
    piece = (slice(y, y + height), slice(x, x + width))
    titles = [*names, "reference"][: len(frames)]
    pictures = {title: rgb(frame)[piece] for title, frame in zip(titles, frames, strict=True)}
    pictures |= {
        f"{title}, x{_GAIN}": np.clip(_GAIN * np.abs(difference[piece]), 0, 255).astype(np.uint8)
        for title, difference in differences.items()
    }
    return _Crop(number, (x, y), {title: Image.fromarray(picture) for title, picture in pictures.items()})


def _caption(crop, rows, names):
    parts = [f"frame {crop.frame} at {crop.place[0]}, {crop.place[1]}"]
    for key, both in rows.items():
        if key == "difference":
            parts.append(f"difference {both['a'][crop.frame]:.2f} codes")
        else:
            a, b = (both[of][crop.frame] for of in "ab")
            places = 4 if key == "ssim_y" else 2
            parts.append(f"{_UNITS[key]} {a:.{places}f} | {b:.{places}f}")
    return "   ".join(parts)


def _sheet(crops, rows, names):
    """Return the worst crops on one picture, each with its figures."""

    def enlarged(picture):
        return picture.resize([n * _ZOOM for n in picture.size], Image.Resampling.NEAREST)

    def short(title):
        return title if len(title) < 34 else f"…{title[-32:]}"

    lines = [
        (_caption(crop, rows, names), "", [(short(title), enlarged(p)) for title, p in crop.pictures.items()])
        for crop in crops
    ]
    return draw_rows(lines, _CROP * _ZOOM, columns=max(len(crop.pictures) for crop in crops))


def _page(result, size, video, crops):
    """Return the page: one HTML file with everything in it."""

    def png(picture):
        data = io.BytesIO()
        picture.save(data, "png")
        return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()

    record = {
        "names": result.names,
        "size": size,
        "rate": result.rate,
        "count": len(next(iter(result.frames.values()))["a"]),
        "units": _UNITS | {"difference": "difference of luma, codes (root mean square)"},
        "frames": {k: {of: [round(x, 4) for x in v] for of, v in both.items()} for k, both in result.frames.items()},
        "notes": result.notes,
        "worst": [
            {
                "frame": crop.frame,
                "caption": _caption(crop, result.frames, result.names),
                "pictures": {title: png(picture) for title, picture in crop.pictures.items()},
            }
            for crop in crops
        ],
        "video": "data:video/mp4;base64," + base64.b64encode(video).decode(),
    }
    template = Path(__file__).with_name("compare.html").read_text("utf-8")
    # Markup in a file's name would end the script that the record stands in, or the page.
    return template.replace("__RECORD__", json.dumps(record).replace("<", "\\u003c"))


def _parser():
    parser = Parser(prog="imagesr compare", description="Compare two videos of the same, on one page.")
    add = parser.add_argument
    add("a", metavar="A", type=Path, help="a video")
    add("b", metavar="B", type=Path, help="another of the same")
    add("--reference", type=Path, metavar="R", help="the original that both are measured against")
    add(
        "-o",
        "--out",
        type=Path,
        default=Path("compare.html"),
        help="the page; a PNG goes beside it (default: compare.html)",
    )
    add("--start", type=float, default=0.0, metavar="S", help="begin here")
    add("--seconds", type=float, default=SECONDS, metavar="S", help=f"take that much (default: {SECONDS:g}; 0 for all)")
    add("--json", type=Path, metavar="FILE", help="write the figures of every frame to FILE")
    add("-y", dest="overwrite", action="store_true", help="overwrite OUT")
    return parser


def _check_out(out, inputs, overwrite):
    """Raise ValueError for a page that would have no place, or take another file's."""
    if out.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"Expected a page ending in .html. Received: {out}")
    for file in (out, out.with_suffix(".png")):
        check_record(file, inputs, what="the page")
        if file.exists() and not overwrite:
            raise ValueError(f"{file} exists already. Choose another name with --out, or overwrite it with -y")


def _compare(options):
    out, files = options.out, [options.a, options.b, *([options.reference] if options.reference else [])]
    _check_out(out, files, options.overwrite)
    if options.json:
        check_record(options.json, [*files, out, out.with_suffix(".png")])
    if not 0 <= options.start < float("inf"):
        raise ValueError(f"Expected a start of 0 s or later. Received: {options.start:g}")
    if not 0 <= options.seconds < float("inf"):
        raise ValueError(f"Expected a time of 0 s (for all) or more. Received: {options.seconds:g}")
    part = {"start": options.start, "seconds": options.seconds or None}
    with tqdm(unit=" frames", leave=False, disable=None) as bar:
        result = compare(options.a, options.b, reference=options.reference, progress=lambda _: bar.update(), **part)
    result.save(out)
    if options.json:
        record = {"names": result.names, "rate": result.rate, "means": result.means(), "frames": result.frames}
        write_whole(options.json, json.dumps(record, indent=1) + "\n")
    print(f"{result}\n{out} and {out.with_suffix('.png')}")
    if result.damaged:
        print(f"imagesr compare: damaged: {result.damaged}", file=sys.stderr)
    return DAMAGED if result.damaged else 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command("compare", _compare, _parser().parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
