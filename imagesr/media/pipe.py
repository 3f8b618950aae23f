"""Frames to standard output as YUV4MPEG2, which other programs read from a pipe."""

from __future__ import annotations

import sys
from fractions import Fraction

from imagesr.errors import OutputError
from imagesr.media.colour import JPEG_RANGE
from imagesr.media.frames import Frame, Packet, VideoInfo, plane

_CHROMA = {
    "yuv420p": "420mpeg2 XYSCSS=420MPEG2",
    "yuv422p": "422 XYSCSS=422",
    "yuv444p": "444 XYSCSS=444",
    "gray": "mono",
    "yuv420p10le": "420p10 XYSCSS=420P10",
    "yuv422p10le": "422p10 XYSCSS=422P10",
    "yuv444p10le": "444p10 XYSCSS=444P10",
    "yuv420p12le": "420p12 XYSCSS=420P12",
    "yuv422p12le": "422p12 XYSCSS=422P12",
    "yuv444p12le": "444p12 XYSCSS=444P12",
    "gray10le": "mono10",
    "gray12le": "mono12",
}


class PipeWriter:
    """Write frames of one size to standard output; sound and other streams have no place there.

    It has what a Writer has. Raises OutputError, also where nobody reads.
    """

    def __init__(self, info: VideoInfo, size: tuple[int, int], *, shape: Fraction | None = None):
        self.kept, self.notes, self.conversions = ["video to YUV4MPEG2"], [], []
        self.dropped = ["all other streams: standard output holds the picture alone"]
        self.lost, self.frames = "", 0
        self._out = sys.stdout.buffer
        shape = shape or info.shape
        full = "FULL" if info.color.get("color_range") == JPEG_RANGE else "LIMITED"
        header = (
            f"YUV4MPEG2 W{size[0]} H{size[1]} F{info.rate.numerator}:{info.rate.denominator} Ip "
            f"A{shape.numerator}:{shape.denominator} C{_CHROMA[info.pix_fmt]} XCOLORRANGE={full}\n"
        )
        self._header = header.encode()

    def write(self, item: Frame | Packet) -> None:
        """Write a frame; packets are left out."""
        if not isinstance(item, Frame):
            return
        try:
            if not self.frames:
                self._out.write(self._header)
            self.frames += 1
            self._out.write(b"FRAME\n")
            for i in range(len(item.planes)):
                self._out.write(plane(item, i).tobytes())
        except OSError as error:
            raise OutputError(f"Cannot write to standard output: {error.strerror}") from None

    def finish(self) -> None:
        """Write what is buffered."""
        try:
            self._out.flush()
        except OSError as error:
            raise OutputError(f"Cannot write to standard output: {error.strerror}") from None

    def discard(self) -> None:
        """Leave what has been written."""
