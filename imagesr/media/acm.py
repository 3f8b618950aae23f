"""Sound in Matroska under the number that Windows gives its codec (WMA, A-law, ADPCM …), which PyAV does not write.

FFmpeg's muxer writes it (as A_MS/ACM), but PyAV asks `avformat_query_codec`, which knows only codecs with a name of
Matroska's own. So such a stream is written as PCM with the right header as its private data, and the finished file gets
the right name: the two take the same space.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path

import av

_PCM, _ACM = b"A_PCM/INT/LIT", b"A_MS/ACM"
_SEGMENT, _TRACKS, _ENTRY, _CODEC, _PRIVATE = 0x18538067, 0x1654AE6B, 0xAE, 0x86, 0x63A2
_CRC = b"\xbf\x84"  # the head of a checksum of four bytes
_HEAD = 1 << 20  # bytes, within which FFmpeg writes the tracks


def header_of(stream) -> bytes | None:
    """Return the WAVEFORMATEX of a stream of sound; None where Windows has no number for its codec."""
    file = io.BytesIO()
    try:
        with av.open(file, "w", format="wav") as trial:
            trial.add_stream_from_template(stream, opaque=True)
            trial.start_encoding()
    except (av.FFmpegError, ValueError):
        return None
    return _format_of(file.getvalue())


def _format_of(wave):
    at = wave.index(b"fmt ") + 8
    return wave[at : at + struct.unpack("<I", wave[at - 4 : at])[0]]


def add_stream(container, header: bytes):
    """Add a stream to a Matroska container that is to be written; `finish` completes it."""
    channels, rate = struct.unpack("<HI", header[2:8])
    pcm = struct.pack("<HHIIHHH", 1, channels, rate, 2 * channels * rate, 2 * channels, 16, len(header)) + header
    chunks = b"WAVEfmt " + struct.pack("<I", len(pcm)) + pcm + b"data" + struct.pack("<I", 2 * channels)
    wave = b"RIFF" + struct.pack("<I", len(chunks) + 2 * channels) + chunks + bytes(2 * channels)
    with av.open(io.BytesIO(wave), format="wav") as template:
        return container.add_stream_from_template(template.streams.audio[0], opaque=True)


def finish(path: Path, headers: Collection[bytes]) -> None:
    """Give the streams with these headers their name in a finished file.

    Raises OSError, and ValueError where the file has no stream with one of the headers.
    """
    with path.open("r+b") as file:
        head = bytearray(file.read(_HEAD))
        left = [bytes(header) for header in headers]
        for begin, end in _find(head, 0, len(head), [_SEGMENT, _TRACKS]):
            for entry in _find(head, begin, end, [_ENTRY]):
                names = list(_find(head, *entry, [_CODEC]))
                private = next((bytes(head[slice(*place)]) for place in _find(head, *entry, [_PRIVATE])), None)
                if private in left and names and head[slice(*names[0])] == _PCM:
                    left.remove(private)
                    first, last = names[0]
                    spare = last - first - len(_ACM) - 2  # an element without meaning fills the space
                    name = bytes([0x80 | len(_ACM)]) + _ACM + bytes([0xEC, 0x80 | spare]) + bytes(spare)
                    head[first - 1 : last] = name
            if head[begin : begin + 2] == _CRC:
                head[begin + 2 : begin + 6] = struct.pack("<I", zlib.crc32(head[begin + 6 : end]))
        if left:
            raise ValueError("the tracks of the file are not where they were expected")
        file.seek(0)
        file.write(head)


def _find(data, begin, end, path) -> Iterator[tuple[int, int]]:
    """Yield where the content of each element begins and ends to which a path of numbers leads."""
    while begin < end - 1:
        number, begin = _number(data, begin, marked=True)
        if begin >= end:
            return  # the data end within the head of an element
        size, begin = _number(data, begin, marked=False)
        last = min(end, begin + size)
        if number == path[0] and len(path) == 1:
            yield begin, last
        elif number == path[0]:
            yield from _find(data, begin, last, path[1:])
        begin = last


def _number(data, at, *, marked):
    """Read one of EBML's numbers; return it, with the bits that tell its length where `marked`, and what follows."""
    length = 9 - data[at].bit_length()
    value = int.from_bytes(data[at : at + length], "big")
    return value if marked else value & ((1 << 7 * length) - 1), at + length
