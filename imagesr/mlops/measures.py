"""The figures that the gate decides by: a challenger and the champion, on the same pictures and films."""

from __future__ import annotations

import hashlib
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from imagesr.card import ModelCard
from imagesr.datasets.film import camera
from imagesr.datasets.leaks import leaks
from imagesr.engines import load_engine
from imagesr.evaluate.clips import Condition, measure_clip
from imagesr.evaluate.protocol import evaluate, on_frames, on_pictures
from imagesr.evaluate.texture import texture_figures
from imagesr.media.clips import write_clip
from imagesr.media.frames import Frame
from imagesr.media.images import read_rgb
from imagesr.metrics.fidelity import figures as fidelity
from imagesr.mlops.gate import MEASURES, Figures, Limits
from imagesr.tracking.lineage import stages

TIMED_FRAMES = 30
_ROUNDS = 5  # of timing at most
_UNIT = 24  # sides of clips are multiples of it, which suits every scale


def measure(
    challenger: ModelCard,
    champion: ModelCard | None,
    sets: Mapping[str, Sequence[Path]],
    limits: Limits,
    *,
    clips: Sequence[Path] = (),
    lineage: Mapping[str, Any] | None = None,
) -> Figures:
    """Measure a challenger and the champion, None for bicubic interpolation, on sets of HR pictures and on clips.

    Without clips, some are made of the pictures. `lineage` names the training pictures, among which those of the sets
    are looked for. Raises ValueError for models of different scales.
    """
    if champion and champion.scale != challenger.scale:
        raise ValueError(f"Expected a champion of x{challenger.scale}. Received: x{champion.scale}")
    faithful = {side: load_engine(card, **_at(card, 0.0)) for side, card in _sides(challenger, champion)}
    pictures = {name: _pictures(faithful, files, challenger.scale) for name, files in sets.items()}
    files = [file for some in sets.values() for file in some]
    with _clips(clips, files, limits) as films:
        coded = {crf: {film: _Coded("bicubic", "libx264", crf) for film in films} for crf in limits.crf}
        film = _film(faithful, coded, challenger.scale, limits) if challenger.channels == 1 and champion else {}
        natural = {}
        if challenger.detail is not None and champion:
            natural = _natural(challenger, champion, files, coded[statistics.median_low(limits.crf)], limits)
    seconds = _seconds(challenger, champion, limits) if champion else []
    found = leaked(lineage, files) if lineage else []
    return Figures(pictures, film, natural, seconds, _int8_loss(challenger, files), found)


def _sides(challenger, champion):
    return [("challenger", challenger)] + ([("champion", champion)] if champion else [])


def _at(card, detail):
    """Return a detail, and no cleaning, for a model that takes them: every side is measured on the same pictures."""
    wanted = {"detail": detail, "clean": 0.0}
    return {name: number for name, number in wanted.items() if getattr(card, name) is not None}


def _pictures(engines, files, scale):
    rows = {side: _rows(engine, files, scale) for side, engine in engines.items()}
    if "champion" not in rows:
        rows["champion"] = _rows(None, files, scale)
    return {key: tuple([row[key] for row in rows[side]] for side in ("challenger", "champion")) for key in MEASURES}


def _rows(engine, files, scale):
    return evaluate(on_pictures("bicubic", engine, scale), files, scale)["images"]


@dataclass(frozen=True)
class _Coded(Condition):
    """Give both sides the same frames of a film: x264 makes slightly other ones of the same frames now and then."""

    made: list[Frame] = field(default_factory=list, compare=False, repr=False)

    def coded(self, frames: Iterable[Frame], rate: Fraction) -> Iterable[Frame]:
        """Return LR frames as they came out of the codec the first time."""
        if not self.made:
            self.made.extend(super().coded(frames, rate))
        return iter(self.made)


def _film(engines, coded, scale, limits):
    found = {}
    for crf, films in coded.items():
        how = {"frames": limits.frames, "measure": fidelity}
        sides = (engines["challenger"], engines["champion"])
        pairs = films.items()
        rows = [[measure_clip(f, on_frames("", e), scale, c, **how)["psnr_y"] for f, c in pairs] for e in sides]
        found[f"{crf:g}"] = tuple(rows)
    return found


def _natural(challenger, champion, files, films, limits):
    """Return pairs of texture and structure of pictures, and of flicker of films, at the default detail."""
    from imagesr.metrics.texture import Flicker

    judge, rows = texture_figures(fidelity, challenger.scale), []
    for card in (challenger, champion):
        engine = load_engine(card)
        upscale = on_pictures("", engine, card.scale)
        row = evaluate(upscale, files, card.scale, measure=judge)["images"]
        figures = {key: _mean([one[key] for one in row if key in one]) for key in ("texture", "structure")}
        how = {"frames": limits.frames}
        moving = [
            measure_clip(f, on_frames("", engine), card.scale, condition, flicker=Flicker(), **how)
            for f, condition in films.items()
        ]
        rows.append(figures | {"flicker": _mean([one["flicker"] for one in moving if "flicker" in one])})
    ours, theirs = rows
    return {key: (ours[key], theirs[key]) for key in ours if ours[key] is not None and theirs[key] is not None}


def _mean(values):
    return statistics.fmean(values) if values else None


def _seconds(challenger, champion, limits):
    """Return the seconds that both take for 30 frames, one after the other, each first in every second pair.

    Other work on the machine disturbs them, so a challenger that looks too slow is timed again, and all pairs count.
    """
    width, height = limits.seconds_size
    unit = np.lcm(challenger.multiple, champion.multiple)
    frames = {}
    for card in (challenger, champion):
        shape = (1, height // unit * unit, width // unit * unit, card.channels)
        frames[id(card)] = load_engine(card), np.random.default_rng(0).integers(16, 236, shape, np.uint8)
        for _ in range(5):
            _timed(*frames[id(card)], 1)
    pairs = []
    while len(pairs) < _ROUNDS * limits.seconds_pairs:
        for number in range(limits.seconds_pairs):
            order = [challenger, champion] if number % 2 else [champion, challenger]
            times = {id(card): _timed(*frames[id(card)], TIMED_FRAMES) for card in order}
            pairs.append((times[id(challenger)], times[id(champion)]))
        if statistics.median(ours / theirs for ours, theirs in pairs) <= limits.seconds_ratio:
            break
    return pairs


def _timed(engine, frame, count):
    begun = time.perf_counter()
    for _ in range(count):
        engine(frame)
    return time.perf_counter() - begun


def _int8_loss(card, files):
    if "model_int8.onnx" not in card.sha256:
        return None
    values = []
    for precision in ("fp32", "int8"):
        engine = load_engine(card, precision=precision, **_at(card, 0.0))
        values.append(_mean([row["psnr_y"] for row in _rows(engine, files, card.scale)]))
    return values[0] - values[1]


@contextmanager
def _clips(clips, files, limits) -> Iterator[list[Path]]:
    """Yield the clips, or new ones without loss: a camera that moves over the first pictures that are large enough."""
    if clips:
        yield list(clips)
        return
    with tempfile.TemporaryDirectory(prefix="imagesr-gate-") as folder:
        made = []
        for file in files:
            picture = read_rgb(file)
            size = tuple(n * 6 // 7 // _UNIT * _UNIT for n in picture.shape[:2])
            if min(size) < 2 * _UNIT:
                continue
            frames = camera(picture, size, limits.frames, np.random.default_rng(len(made)))
            made.append(Path(folder) / f"{len(made)}.mp4")
            write_clip(made[-1], map(Image.fromarray, frames), 25, crf=0)
            if len(made) == limits.films:
                break
        yield made


def leaked(lineage: Mapping[str, Any], files: Sequence[Path]) -> list[str]:
    """Name the pictures that are among the training pictures of a lineage, as copies, reductions or crops.

    Training pictures that are no longer on this machine are compared by their SHA-256 alone.
    """
    digests: dict[str, str] = {}
    for stage in stages(lineage):  # what the parents were trained on counts, too
        for source in stage["data"]:
            if not source["source"].endswith("(val)"):
                digests |= {digest: path for path, digest in source["files"].items()}
    found = {}
    for file in files:
        if (digest := hashlib.sha256(file.read_bytes()).hexdigest()) in digests:
            found[file] = f"{file} is {digests[digest]}"
    there = [Path(path) for path in dict.fromkeys(digests.values()) if Path(path).is_file()]
    rest = [file for file in files if file not in found]
    if not there or not rest:
        return list(found.values())
    with tempfile.TemporaryDirectory(prefix="imagesr-leaks-") as folder:
        linked = [_linked(Path(folder) / side, paths) for side, paths in (("a", there), ("b", rest))]
        for leak in leaks(Path(folder) / "a", Path(folder) / "b").leaks:
            a, b = (names[path] for names, path in zip(linked, (leak.a, leak.b), strict=True))
            found.setdefault(b, f"{b} is {a}: {leak}")
    return list(found.values())


def _linked(folder, paths):
    """Fill a folder with links to files, and return the files by their links."""
    folder.mkdir()
    names = {}
    for number, path in enumerate(paths):
        link = folder / f"{number:06}{path.suffix}"
        link.symlink_to(path.absolute())
        names[link.as_posix()] = path
    return names
