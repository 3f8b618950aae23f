"""The sound of a film, by PortAudio; its time is the clock that the picture follows."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Generator
from pathlib import Path

import numpy as np

from imagesr.cli import install_hint
from imagesr.errors import InputError
from imagesr.media.samples import sound
from imagesr.video.pipeline import ahead

RATE = 48_000
_BLOCKS_AHEAD = 64  # of some 20 ms each
_LATENCY_S = 0.15  # less clicks where the cores are busy


class SoundError(Exception):
    """The file has no sound, or the system cannot play it."""


class Silence:
    """Be the clock of a film without sound; it is stopped until `go`."""

    def __init__(self, start: float = 0.0):
        self._position, self._since = start, None

    def now(self) -> float:
        """Return the position in seconds."""
        return self._position + (0.0 if self._since is None else time.perf_counter() - self._since)

    def go(self) -> None:
        """Start."""
        if self._since is None:
            self._since = time.perf_counter()

    def stop(self) -> None:
        """Stop."""
        self._position, self._since = self.now(), None


class Sound:
    """Play the sound of a file from a position; one stream all the time, silent while stopped.

    Stopping and starting a stream takes some systems a second. Raises SoundError for a file without sound and a system
    without a device.
    """

    def __init__(self, path: Path):
        try:
            import sounddevice
        except ImportError as error:
            raise SoundError(install_hint(error)) from None
        except OSError:
            raise SoundError("it needs PortAudio (on Debian: apt install libportaudio2)") from None
        self._path, self._lock = path, threading.Lock()
        self._blocks: Generator[np.ndarray] | None = None
        self._going = False
        self.move(0.0)
        try:
            options = {"samplerate": RATE, "channels": 2, "dtype": "float32", "latency": _LATENCY_S}
            self._stream = sounddevice.OutputStream(callback=self._fill, **options)
            self._stream.start()
        except sounddevice.PortAudioError as error:
            self._blocks.close()
            raise SoundError(f"there is no device to play it ({str(error).splitlines()[0]})") from None

    def move(self, start: float) -> None:
        """Stop at a position in seconds; raises SoundError where no sound follows."""
        blocks = ahead(sound(self._path, start, rate=RATE), _BLOCKS_AHEAD)
        try:
            first = next(blocks)
        except StopIteration:
            raise SoundError(f"there is no sound from {start:g} s on") from None
        except InputError as error:
            raise SoundError(str(error)) from None
        with self._lock:
            before, self._blocks, self._waiting = self._blocks, blocks, deque([first])
            self._start, self._standing, self._played, self._going = start, start, 0, False
            self._zero: float | None = None  # on PortAudio's clock: when `start` is, or would have been, heard
        if before:
            before.close()

    def _fill(self, out, frames, when, status):
        """Fill PortAudio's buffer; called from PortAudio's thread, which an exception would end."""
        out[:] = 0
        with self._lock:
            if not self._going:
                return
            done = 0
            with contextlib.suppress(Exception):  # the end of the sound, or a part that cannot be decoded
                while done < frames:
                    if not self._waiting:
                        self._waiting.append(next(self._blocks))
                    block = self._waiting.popleft()
                    count = min(len(block), frames - done)
                    out[done : done + count] = block[:count]
                    if count < len(block):
                        self._waiting.appendleft(block[count:])
                    done += count
            # Buffers differ in size, and systems have queues of their own: PortAudio knows when a sample is heard.
            heard = when.outputBufferDacTime or self._stream.time + self._stream.latency
            self._zero = heard - self._played / RATE
            self._played += frames  # also beyond the end of the sound, which may be shorter than the picture

    @property
    def alive(self) -> bool:
        """Whether the device still plays."""
        return self._stream.active

    def now(self) -> float:
        """Return the position that is heard, in seconds."""
        with self._lock:
            if self._going and self._zero is not None and self._stream.active:  # a closed stream has no time
                heard = min(self._stream.time - self._zero, self._played / RATE)
                self._standing = max(self._standing, self._start + heard)  # it never goes back
            return self._standing

    def go(self) -> None:
        """Start. Samples that were in the queues at `stop` have been heard: the picture catches up with them."""
        with self._lock:
            self._going, self._zero = True, None

    def stop(self) -> None:
        """Stop."""
        self.now()
        with self._lock:
            self._going = False

    def close(self) -> None:
        """Close the stream."""
        self._stream.close()
        self._blocks.close()
