"""Faint steps of level areas dissolved: what is left of an encoder's blocks in sky and soft backgrounds."""

from __future__ import annotations

import av

from imagesr.media.frames import Frame

_STRENGTH, _MOST = 6.0, 3.0  # codes that a pixel may change by: times `clean`, and at most
_LEAST = 0.51  # of FFmpeg's filter; less than this is nothing
_RADIUS, _LEAST_RADIUS, _MOST_RADIUS = 32 / 1080, 8, 32  # pixels of a frame's height
_FORMATS = {"gray", "yuv420p", "yuv422p", "yuv444p", "yuv440p", "yuv411p", "yuv410p", "nv12", "nv21"}
_FORMATS |= {"yuvj420p", "yuvj422p", "yuvj444p", "yuvj440p", "gbrp"}


class Deband:
    """Dissolve steps of a code or two that a picture is left with where it should be level, as FFmpeg's `gradfun` does.

    A network cannot do it: what lies between two codes, 8 bits show as a pattern of both. Deeper frames, and those with
    transparency, stay as they are.
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
        wanted = frame.width, frame.height, frame.format.name, int(frame.colorspace), int(frame.color_range), clean
        if wanted != self._made_for:
            self._graph, self._made_for = _made(*wanted), wanted
        self._graph.push(frame)
        result = self._graph.pull()
        result.pts = frame.pts
        if frame.time_base:
            result.time_base = frame.time_base
        return result


def _made(width, height, pix_fmt, space, value_range, clean):
    """Return a graph for one kind of frames, of one thread: the stages of the pipeline overlap already."""
    graph = av.filter.Graph()
    graph.threads = 1
    size = f"video_size={width}x{height}:pix_fmt={pix_fmt}"
    source = graph.add("buffer", f"{size}:time_base=1/1000:colorspace={space}:range={value_range}")
    strength = min(_MOST, _STRENGTH * clean)
    radius = max(_LEAST_RADIUS, min(_MOST_RADIUS, round(_RADIUS * height / 2) * 2))
    graph.link_nodes(source, graph.add("gradfun", f"{strength:.2f}:{radius}"), graph.add("buffersink"))
    graph.configure()
    return graph
