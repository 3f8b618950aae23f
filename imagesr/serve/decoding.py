"""Decode pictures of unknown origin in processes that may crash: bounded in memory, time and pixels."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import struct
import sys
import zlib
from concurrent.futures import TimeoutError
from dataclasses import dataclass
from pathlib import Path

from pebble import ProcessExpired, ProcessPool

from imagesr.scale import Scale
from imagesr.serve.refusal import Refusal

SECONDS = 10  # for one picture
_MEMORY = 2**29  # bytes that a process may take for one picture
_LONGEST = 65_535  # pixels a side: tiles are square, and a line of a million pixels takes as many as a large picture
_SCANS = 100  # of a JPEG: a progressive one has ten, and each costs a pass over the picture
_TEXT = 2**22  # bytes of text, profile and the like that a PNG may hold, inflated
_KEPT = 16  # bytes on disk for each pixel that a result may have: RGB and alpha in floating point
_WORKERS = 2  # a picture that takes long does not hold up the next


@dataclass(frozen=True)
class DecodeRequest:
    """Hold the scale and format that a picture is decoded for; it may have `most` pixels, its result `most_grown`.

    `native` is the scale of the networks; their result is reduced to `scale`.
    """

    scale: Scale
    native: Scale
    format: str
    most: int
    most_grown: int


class Decoders:
    """Hold the processes that decode; one that crashes, or takes too long, fails its own picture only.

    `folder` is for data that is too large for memory. Closed at the end of a `with` block.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._pool = self._opened()

    def _opened(self):
        # Spawned: a fork would inherit locks that other threads hold.
        context = multiprocessing.get_context("spawn")
        return ProcessPool(_WORKERS, initializer=_begin, initargs=(str(self._folder),), context=context)

    async def warm(self) -> None:
        """Start the processes."""
        await asyncio.wrap_future(self._pool.schedule(_ready))

    async def decode(self, source: Path, target: Path, request: DecodeRequest) -> tuple[int, int]:
        """Decode a PNG or JPEG file into one that `open_decoded` opens; returns its (width, height), upright.

        Sizes are checked before pixels are decoded. When cancelled, it returns once the process is free again. Raises
        a Refusal, and OutputError where the disk is full.
        """
        for again in (True, False):
            try:
                if not self._pool.active:  # a process ended between two pictures
                    broken, self._pool = self._pool, self._opened()
                    await asyncio.to_thread(_end, broken)
                scheduled = self._pool.schedule(_decode, (source, target, request), timeout=SECONDS)
                return await _undisturbed(asyncio.wrap_future(scheduled), source)
            except TimeoutError:
                sentence = f"Expected a picture that is decoded within {SECONDS} s. It takes longer"
                raise Refusal(400, "slow", sentence) from None
            except (ProcessExpired, MemoryError):
                raise Refusal(400, "crash", "Expected a picture that can be decoded. It cannot") from None
            except RuntimeError:  # a broken pool; what a picture may raise is above
                if not again:
                    raise
        raise AssertionError

    def __enter__(self) -> Decoders:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """End the processes."""
        _end(self._pool)


def _end(pool):
    pool.stop()
    pool.join()


async def _undisturbed(decoding, source):
    """Wait for a process, and for its end when cancelled: Pebble would kill it. Without its file it ends early."""
    try:
        return await asyncio.shield(decoding)
    except asyncio.CancelledError:
        with contextlib.suppress(OSError):
            source.unlink(missing_ok=True)
        await asyncio.wait([decoding])
        decoding.exception()
        raise


def _begin(folder):
    """Set up a process; imports stand here, so that they find the settings, and the limit does not count them."""
    os.environ |= {"TMPDIR": folder, "VIPS_CONCURRENCY": "1"}
    import imagesr.media.photos  # noqa: F401

    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libraries' messages about damaged files would fill the log

    if sys.platform == "linux":
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + _MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _ready():
    return os.getpid()


def _decode(source, target, request):
    from imagesr.errors import InputError
    from imagesr.media.photos import check_size, read_photo, store_decoded

    try:
        _check_bombs(source.read_bytes())
        picture = read_photo(source, name="a damaged one").picture
        size = picture.width, picture.height
        if size[0] * size[1] > request.most:
            most = f"{request.most / 1e6:g} megapixels"
            raise Refusal(413, "pixels", f"Expected a picture of at most {most}. Received: {size[0]}x{size[1]}")
        if max(size) > _LONGEST:
            sentence = f"Expected a picture of at most {_LONGEST:,} pixels a side. Received: {size[0]}x{size[1]}"
            raise Refusal(413, "pixels", sentence)
        large = request.scale.grow(size[0]), request.scale.grow(size[1])
        if large[0] * large[1] > request.most_grown:
            most = f"{request.most_grown / 1e6:g} megapixels"
            raise Refusal(422, "pixels", f"Expected a result of at most {most}. Received: {large[0]}x{large[1]}")
        native = request.native.grow(size[0]), request.native.grow(size[1])
        sample = 4 if native != large else 2 if picture.format == "ushort" else 1
        kept, most = native[0] * native[1] * picture.bands * sample, _KEPT * request.most_grown
        if kept > most:
            told = f"Received: {native[0]}x{native[1]}, {kept / 1e6:,.0f} MB; choose another scale or a smaller picture"
            sentence = f"Expected networks' results of at most {most / 1e6:,.0f} MB. {told}"
            raise Refusal(422, "pixels", sentence)
        try:
            check_size(native)
            check_size(large, request.format)
        except ValueError as error:
            raise Refusal(422, "pixels", str(error)) from None
        store_decoded(picture, target)
        return size
    except InputError as error:
        raise Refusal(400, "damaged", str(error).replace(str(source), "the picture")) from None


def _check_bombs(data):
    """Refuse small files that cost much: a PNG's text or profile (libpng inflates 60 MB of each), a JPEG's scans."""
    if data.startswith(b"\xff\xd8") and (scans := data.count(b"\xff\xda")) > _SCANS:
        raise Refusal(413, "scans", f"Expected a JPEG of at most {_SCANS} scans. Received: {scans:,}")
    place, left = 8, _TEXT
    while data.startswith(b"\x89PNG") and place + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        if kind == b"IDAT":
            break
        if packed := _packed(kind, data[place + 8 : place + 8 + length]):
            with contextlib.suppress(zlib.error):  # the decoder reports it
                left -= len(zlib.decompressobj().decompress(packed, left))
        if left <= 0:
            most = f"{_TEXT / 2**20:g} MiB"
            raise Refusal(413, "text", f"Expected at most {most} of text and profile in a picture. It holds more")
        place += 12 + length


def _packed(kind, chunk):
    """Return the compressed part of a chunk (PNG, third edition, 11.3); most chunks have none."""
    rest = chunk.partition(b"\0")[2]
    if kind in (b"zTXt", b"iCCP"):
        return rest[1:]
    return rest[2:].split(b"\0", 2)[-1] if kind == b"iTXt" and rest[:1] == b"\1" else b""
