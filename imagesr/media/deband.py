"""Faint steps of level areas dissolved: what is left of an encoder's blocks in sky and soft backgrounds."""

from __future__ import annotations

import av

from imagesr.media.colour import TAGS, tags_of
from imagesr.media.frames import Frame

_STRENGTH, _MOST = 6.0, 3.0  # codes that a pixel may change by: times `clean`, and at most
_LEAST = 0.51  # codes: FFmpeg's filter takes no less
_RADIUS, _LEAST_RADIUS, _MOST_RADIUS = 32 / 1080, 8, 32  # pixels of a frame's height
_FORMATS = {"gray", "yuv420p", "yuv422p", "yuv444p", "yuv440p", "yuv411p", "yuv410p"}
_FORMATS |= {"yuvj420p", "yuvj422p", "yuvj444p", "yuvj440p"}  # which come back without the j, their range a tag
_UNSAID = 2, 0  # matrix and range: FFmpeg's graphs refuse numbers that they do not know, and this filter needs neither


class Deband:
    """Dissolve steps of a code or two that a picture is left with where it should be level, as FFmpeg's `gradfun` does.

    A network cannot do it: a value between two codes can only be shown as a pattern of both. Frames of more than 8
    bits, and those with transparency, stay as they are.
    """

    def __init__(self):
        self._graph, self._made_for = None, None

    @staticmethod
    def changes(frame: Frame, clean: float) -> bool:
        """Say whether such a frame is changed at a `clean` from 0, nothing was lost, to 1, as networks take it."""
        return clean * _STRENGTH >= _LEAST and frame.format.name in _FORMATS

    def __call__(self, frame: Frame, clean: float) -> Frame:
        """Return a new frame without steps, or the frame itself where it is not changed; its own pixels stay."""
        if not self.changes(frame, clean):
            return frame
        wanted = frame.width, frame.height, frame.format.name, clean
        if wanted != self._made_for:
            self._graph, self._made_for = _made(*wanted), wanted
        tags, own = {name: getattr(frame, name) for name in TAGS}, tags_of(frame)
        frame.colorspace, frame.color_range = _UNSAID
        self._graph.push(frame)
        result = self._graph.pull()
        for one, values in ((frame, tags), (result, own)):
            for name, value in values.items():
                setattr(one, name, value)
        result.pts = frame.pts
        if frame.time_base:
            result.time_base = frame.time_base
        return result


def _made(width, height, pix_fmt, clean):
    """Return a graph for one kind of frames, of one thread: the stages of the pipeline overlap already."""
    graph = av.filter.Graph()
    graph.threads = 1
    size = f"video_size={width}x{height}:pix_fmt={pix_fmt}"
    source = graph.add("buffer", f"{size}:time_base=1/1000")
    strength = min(_MOST, _STRENGTH * clean)
    radius = max(_LEAST_RADIUS, min(_MOST_RADIUS, round(_RADIUS * height / 2) * 2))
    graph.link_nodes(source, graph.add("gradfun", f"{strength:.2f}:{radius}"), graph.add("buffersink"))
    graph.configure()
    return graph
