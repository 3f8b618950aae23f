"""Parts of a film encoded one by one, each into a file of packets, and their packets as one stream."""

from __future__ import annotations

import ctypes
import io
import json
import struct
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av

from imagesr.errors import OutputError
from imagesr.files import part_of, put_in_place
from imagesr.media.containers import FORMATS
from imagesr.media.encoders import encoder_format, ordinary_scheduling
from imagesr.media.frames import Frame, Packet, VideoInfo
from imagesr.media.opening import reason
from imagesr.media.writer import add_video

_MAGIC = b"imagesr packets 1\n"
_PACKET = struct.Struct("<qqqBII")  # pts, dts, duration, whether it is a key frame, length, CRC-32
_END = b"end\n"


class _DamagedError(OutputError):
    """A file of packets that is missing, unfinished or changed; one that cannot be read is another error."""


class SegmentWriter:
    """Encode some frames of a film, from a key frame on, into a file of packets at `path`.

    `write` takes frames, `finish` gives the file its name, `discard` removes it. The encoder is set up as for a file
    of `suffix`; the other arguments are those of `Writer`. Raises OutputError.
    """

    def __init__(
        self,
        path: Path,
        suffix: str,
        info: VideoInfo,
        *,
        size: tuple[int, int],
        codec: str,
        options: Mapping[str, str],
        pix_fmt: str | None = None,
        threads: int = 0,
        shape: Fraction | None = None,
    ):
        self.path, self.part, self.frames, self._rate = path, part_of(path), 0, info.rate
        self._durations: dict[int, int] = {}
        try:
            # No packet ever goes into this container: it tells the encoder how its kind wants headers.
            self._container = av.open(io.BytesIO(), "w", format=FORMATS[suffix])
            pix_fmt = pix_fmt or encoder_format(codec, info.pix_fmt)
            self._video, _ = add_video(self._container, info, size, codec, options, pix_fmt, threads, shape)
            with ordinary_scheduling():
                self._container.start_encoding()
            self._file = self.part.open("wb")
            self._file.write(_MAGIC)
        except (av.FFmpegError, OSError, ValueError) as error:
            self.discard()
            raise OutputError(f"Cannot write {path} with {codec}: {reason(error)}") from None
        except BaseException:
            self.discard()
            raise

    def write(self, frame: Frame) -> None:
        """Encode a frame."""
        frame.pict_type = 0  # the encoder chooses
        self.frames += 1
        self._durations[frame.pts] = frame.duration or round(1 / (self._rate * frame.time_base))
        self._encode(frame)

    def _encode(self, frame):
        try:
            for packet in self._video.encode(frame):
                self._keep(packet)
        except (av.FFmpegError, OSError, ValueError) as error:
            raise OutputError(f"Cannot write {self.path}: {reason(error)}") from None

    def _keep(self, packet):
        if self._file.tell() == len(_MAGIC):
            tick = packet.time_base
            self._file.write(json.dumps({"time_base": [tick.numerator, tick.denominator]}).encode() + b"\n")
        data = bytes(packet)
        dts = packet.pts if packet.dts is None else packet.dts
        duration = self._durations.pop(packet.pts, packet.duration)
        head = _PACKET.pack(packet.pts, dts, duration, packet.is_keyframe, len(data), zlib.crc32(data))
        self._file.write(head + data)

    def finish(self) -> None:
        """Flush the encoder and give the file its name."""
        self._encode(None)
        try:
            self._file.write(_PACKET.pack(0, 0, 0, 2, len(_END), self.frames) + _END)
            self._file.close()
            put_in_place(self.part, self.path)
        except OSError as error:
            raise OutputError(f"Cannot write {self.path}: {reason(error)}") from None
        with suppress(av.FFmpegError, OSError):
            self._container.close()

    def discard(self) -> None:
        """Close and remove the unfinished file."""
        with suppress(Exception):  # whatever went wrong before is what is worth telling
            self._container.close()
        with suppress(AttributeError, OSError):  # it may not have been opened; a full disk fails once more
            self._file.close()
        with suppress(OSError):
            self.part.unlink(missing_ok=True)


def give_back_memory() -> None:
    """Return to the system what an encoder that is gone has left in the C library's heaps; only glibc keeps much.

    Else the next encoder's frames lie between the remains of the last one's, and memory grows from part to part.
    """
    with suppress(OSError, AttributeError, TypeError):  # TypeError: Windows has no library without a name
        ctypes.CDLL(None).malloc_trim(0)


def frames_in(path: Path) -> int:
    """Return how many frames a finished file of packets has, all of them read; 0 where it is damaged or missing.

    Raises OutputError where it cannot be read.
    """
    try:
        return sum(1 for _ in packets_in(path))
    except _DamagedError:
        return 0


def packets_in(path: Path) -> Iterator[Packet]:
    """Yield the packets of a file; raises OutputError for one that is damaged or cannot be read."""
    try:
        with path.open("rb") as file:
            if file.read(len(_MAGIC)) != _MAGIC:
                raise ValueError("it is no file of packets")
            tick = _time_base(file.readline())
            count = 0
            while True:
                pts, dts, duration, kind, size, crc = _PACKET.unpack(file.read(_PACKET.size))
                data = file.read(size)
                if kind == 2 and (data, crc) == (_END, count):
                    return
                count += 1
                if len(data) != size or zlib.crc32(data) != crc:
                    raise ValueError("its checksum differs")
                packet = Packet(data)
                packet.pts, packet.dts, packet.duration, packet.time_base = pts, dts, duration, tick
                packet.is_keyframe = bool(kind)
                yield packet
    except (OSError, ValueError, struct.error) as error:
        told = f"Cannot read {path}, which an earlier run wrote: {reason(error)}"
        unread = isinstance(error, OSError) and not isinstance(error, FileNotFoundError)
        raise (OutputError if unread else _DamagedError)(told) from None


def _time_base(line):
    try:
        return Fraction(*json.loads(line)["time_base"])
    except (ValueError, KeyError, TypeError, ArithmeticError):
        raise ValueError("its header is damaged") from None


def joined(paths: Iterable[Path]) -> Iterator[Packet]:
    """Yield the packets of files that follow one another as one stream, whose decoding times rise.

    An encoder begins with decoding times before the first frame, by as many frames as it reorders. Within a film those
    times belong to the last frames of the part before.
    """
    late: deque[int] = deque()
    last = None
    for path in paths:
        shown: deque[int] = deque(maxlen=64)  # more than any encoder reorders
        for packet in packets_in(path):
            shown.append(packet.pts)
            if late:
                packet.dts = late.popleft()
            if last is not None and packet.dts <= last:
                packet.dts = last + 1
            last = packet.dts
            yield packet
        late = deque(sorted(pts for pts in shown if last is not None and pts > last))
