"""FFmpeg's filters on frames."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import av

from imagesr.media.frames import Frame


class Filters:
    """Send frames of one size and format through filters, each a (name, options) pair.

    `like` is the first frame; `time_base` and `rate` are the stream's.
    """

    def __init__(self, like: Frame, time_base: Fraction, rate: Fraction, filters: Sequence[tuple[str, str]]):
        self._graph = av.filter.Graph()
        self.kind = like.width, like.height, like.format.name
        # Matrix 0 is RGB's: with it a buffer takes no YUV.
        matrix = like.colorspace if like.colorspace or like.format.is_rgb else 2
        buffer = self._graph.add(
            "buffer",
            f"video_size={like.width}x{like.height}:pix_fmt={like.format.name}:pixel_aspect=1/1"
            f":time_base={time_base.numerator}/{time_base.denominator}"
            f":frame_rate={rate.numerator}/{rate.denominator}:colorspace={matrix}:range={like.color_range}",
        )
        nodes = [buffer, *(self._graph.add(name, options or None) for name, options in filters)]
        self._graph.link_nodes(*nodes, self._graph.add("buffersink"))
        self._graph.configure()

    def __call__(self, frame: Frame | None) -> list[Frame]:
        """Push a frame, or None at the end; return the frames that come out."""
        self._graph.push(frame)
        frames = []
        while True:
            try:
                frames.append(self._graph.pull())
            except (BlockingIOError, EOFError):
                return frames
