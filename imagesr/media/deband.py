"""Faint steps of level areas dissolved: what is left of an encoder's blocks in sky and soft backgrounds."""

from __future__ import annotations

import av
import numpy as np

from imagesr.media.colour import tags_of
from imagesr.media.frames import Frame, Resizer, plane

_STRENGTH, _MOST = 6.0, 3.0  # codes that a sample of luma may change by: times `clean`, and at most
_CHROMA = 3.0  # times that for chroma, where luma is level: encoders leave larger steps there
_LEAST = 0.51  # codes: FFmpeg's filter takes no less
_RADIUS, _LEAST_RADIUS, _MOST_RADIUS = 32 / 1080, 8, 32  # pixels of a frame's height; the filter takes 4 to 32
_LEVEL, _UNEVEN = 6, 24  # codes between the darkest and the brightest luma of a cell and its neighbours
_ROWS = 64  # at a time, so that all stays in the processor's cache
_FORMATS = {"gray", "yuv420p", "yuv422p", "yuv444p", "yuv440p", "yuv411p", "yuv410p"}
_FORMATS |= {"yuvj420p", "yuvj422p", "yuvj444p", "yuvj440p"}


class Deband:
    """Dissolve the steps that a picture is left with where it should be level, as FFmpeg's `gradfun` does.

    A network cannot do it: a value between two codes can only be shown as a pattern of both. Chroma, whose blocks stand
    out further, is changed more, but only where luma is level: elsewhere it stays as it is. Frames of more than 8 bits,
    and those with transparency, stay as they are.
    """

    def __init__(self):
        self._filters, self._resize, self._made_for = {}, None, None

    @staticmethod
    def changes(frame: Frame, clean: float) -> bool:
        """Say whether such a frame is changed at a `clean` from 0, nothing was lost, to 1, as networks take it."""
        return clean * _STRENGTH >= _LEAST and frame.format.name in _FORMATS

    def __call__(self, frame: Frame, clean: float) -> Frame:
        """Return a new frame without steps, or the frame itself where it is not changed; its own pixels stay."""
        if not self.changes(frame, clean):
            return frame
        if self._made_for != (wanted := (frame.width, frame.height, frame.format.name, clean)):
            self._filters, self._resize, self._made_for = {}, None, wanted
        strength = min(_MOST, _STRENGTH * clean)
        radius = max(_LEAST_RADIUS, _RADIUS * frame.height)
        result = Frame(frame.width, frame.height, frame.format.name)
        luma, level = plane(frame, 0), None
        plane(result, 0)[:] = self._dissolved(luma, strength, radius)
        for i in range(1, len(frame.planes)):
            chroma, target = plane(frame, i), plane(result, i)
            level = self._level(luma, chroma.shape, round(radius / 2)) if level is None else level
            if level.any():
                smooth = self._dissolved(chroma, _CHROMA * strength, radius * len(chroma) / frame.height)
                _blend(chroma, smooth, level, target)
            else:
                target[:] = chroma
        for name, value in tags_of(frame).items():
            setattr(result, name, value)
        result.pts = frame.pts
        if frame.time_base:
            result.time_base = frame.time_base
        return result

    def _level(self, luma, shape, cell):
        """Return how level luma is at samples of chroma of a `shape`, uint8 from 0 to 255.

        A cell of so many pixels is level where luma differs by at most `_LEVEL` codes in it and beside it, and not at
        all from `_UNEVEN` codes on.
        """
        span = _extreme(luma, cell, np.maximum) - _extreme(luma, cell, np.minimum)
        wide = np.pad(span, 1, mode="edge")
        wide = np.maximum.reduce([wide[:-2], wide[1:-1], wide[2:]])
        span = np.maximum.reduce([wide[:, :-2], wide[:, 1:-1], wide[:, 2:]]).astype(np.int16)
        level = np.clip((_UNEVEN - span) * (255 // (_UNEVEN - _LEVEL)), 0, 255).astype(np.uint8)
        self._resize = self._resize or Resizer(*shape[::-1], "gray", kernel="bicubic")
        return plane(self._resize(Frame.from_ndarray(level, "gray")), 0)

    def _dissolved(self, samples, strength, radius):
        """Return 8-bit samples (H, W) as `gradfun` changes them."""
        height, width = samples.shape
        graph = self._filters.get((width, height, strength))
        if graph is None:
            radius = min(_MOST_RADIUS, max(_LEAST_RADIUS, round(radius / 2) * 2))
            graph = self._filters[width, height, strength] = _filter(width, height, strength, radius)
        frame = Frame(width, height, "gray")
        plane(frame, 0)[:] = samples
        graph.push(frame)
        return plane(graph.pull(), 0)


def _extreme(luma, cell, of):
    """Return `of`, `np.maximum` or `np.minimum`, in cells of so many pixels a side, from every second row."""
    rows = np.stack([of.reduce(luma[row : row + cell : 2]) for row in range(0, len(luma), cell)])
    return of.reduceat(rows, range(0, rows.shape[1], cell), axis=1)


def _blend(samples, others, level, target):
    """Fill `target` with samples (H, W) where the level is 0, with others where it is 255."""
    for row in range(0, len(samples), _ROWS):
        rows = slice(row, row + _ROWS)
        more = others[rows].astype(np.int16)
        more -= samples[rows]
        more *= level[rows] >> 2  # 6 bits, so that the product fits into 16
        more += 32
        more >>= 6
        more += samples[rows]
        target[rows] = more


def _filter(width, height, strength, radius):
    """Return a graph for samples of one size, of one thread: the stages of the pipeline overlap already."""
    graph = av.filter.Graph()
    graph.threads = 1
    source = graph.add("buffer", f"video_size={width}x{height}:pix_fmt=gray:time_base=1/1000")
    graph.link_nodes(source, graph.add("gradfun", f"{strength:.2f}:{radius}"), graph.add("buffersink"))
    graph.configure()
    return graph
