"""Subtitles in the output: copied where the container holds them, else converted where they are text."""

from __future__ import annotations

import av

from imagesr.media.containers import SUBTITLES, TEXT_FORMAT, TEXT_SUBTITLES
from imagesr.media.frames import Packet


def can_copy(codec: str | None, container: str) -> bool:
    """Tell whether a container of FFmpeg's name `container` holds a subtitle codec."""
    return codec in SUBTITLES[container]


def can_convert(codec: str | None, container: str) -> bool:
    """Tell whether a subtitle codec is text, and the container holds another text format."""
    return codec in TEXT_SUBTITLES and container in TEXT_FORMAT


class SubtitleConverter:
    """Decode the packets of a text subtitle stream and encode them in the text format of another container.

    `failed` counts the packets that cannot be decoded.
    """

    def __init__(self, source, container):
        self.failed = 0
        self.codec = TEXT_FORMAT[container.format.name]
        self._decoder = source.codec_context
        self.stream = container.add_stream(self.codec)
        if not self._decoder.is_open:
            self._decoder.open(strict=False)
        context = self.stream.codec_context
        context.subtitle_header = self._decoder.subtitle_header or _HEADER
        context.time_base = self.stream.time_base = source.time_base
        self.told = {"mov_text": "mov_text", "subrip": "SubRip", "webvtt": "WebVTT"}[self.codec]

    def packets(self, packet: Packet) -> list[Packet]:
        """Return what a packet becomes; nothing for one without text."""
        try:
            found = self._decoder.decode2(packet)
            if not found or not len(found):
                return []
            made = self.stream.codec_context.encode_subtitle(found)
        except (av.FFmpegError, ValueError):
            self.failed += 1
            return []
        made.stream = self.stream
        made.pts = made.dts = packet.pts
        made.duration, made.time_base = _duration(found, packet), packet.time_base
        return [made]

    def flush(self) -> list[Packet]:
        """Return what is left at the end."""
        return []


def _duration(found, packet):
    """Return how long text is shown, in ticks of its packet."""
    if packet.duration:
        return packet.duration
    return round(found.end_display_time / 1000 / packet.time_base) if found.end_display_time < 2**32 - 1 else 0


_HEADER = b"""[Script Info]
ScriptType: v4.00+
PlayResX: 384
PlayResY: 288

[V4+ Styles]
Format: Name, Fontname, Fontsize, PrimaryColour, SecondaryColour, OutlineColour, BackColour, Bold, Italic, \
Underline, StrikeOut, ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, Shadow, Alignment, MarginL, MarginR, \
MarginV, Encoding
Style: Default,Arial,16,&Hffffff,&Hffffff,&H0,&H0,0,0,0,0,100,100,0,0,1,1,0,2,10,10,10,1

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
"""
