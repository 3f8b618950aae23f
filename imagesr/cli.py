"""What every command shares: exit codes, a wrong option told in one line, the types of arguments, how it is ended."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NoReturn

from imagesr.errors import InputError, ModelError, OutputError
from imagesr.scale import Scale

SOME_FAILED, NOT_STARTED, UNREADABLE, NOT_WRITTEN, DAMAGED, INTERRUPTED, TERMINATED = 1, 2, 3, 4, 5, 130, 143


class Parser(argparse.ArgumentParser):
    """Report a wrong option in one line."""

    def error(self, message) -> NoReturn:
        """Print the message and exit."""
        self.exit(NOT_STARTED, f"{self.prog}: {message} (--help lists the options)\n")


def size_argument(text: str) -> tuple[int, int]:
    """Return (width, height) of a text such as 1920x1080."""
    width, _, height = text.lower().partition("x")
    try:
        return int(width), int(height)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a size such as 1920x1080, received {text}") from None


def scale_argument(text: str) -> Scale:
    """Return the Scale of a text such as 1.5."""
    try:
        return Scale.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


class Terminated(BaseException):
    """SIGTERM came: what is half done is removed before the process ends. Who catches it sets `Terminated.caught`."""

    caught = False

    def __del__(self):
        # Lost on its way: Python drops what is raised in a finaliser, C in what it calls. So the signal comes again.
        if not Terminated.caught:
            again = threading.main_thread().ident, signal.SIGTERM
            threading.Timer(0.1, signal.pthread_kill, again).start()


def raise_when_terminated() -> None:
    """Let SIGTERM raise Terminated."""

    def terminate(*_):
        if not Terminated.caught:
            raise Terminated

    Terminated.caught = False
    signal.signal(signal.SIGTERM, terminate)


def check_record(record: Path, others: Iterable[Path | None], *, what: str = "the report") -> None:
    """Raise ValueError for a report that would have no place, or take another file's."""
    if record.is_dir() or not record.parent.is_dir():
        raise ValueError(f"Expected a file in an existing folder for {what}. Received: {record}")
    if any(other and record.absolute() == other.absolute() for other in others):
        raise ValueError(f"Expected a file of its own for {what}. Received: {record}")
    if any(other and record.exists() and other.exists() and record.samefile(other) for other in others):
        raise ValueError(f"Expected a file of its own for {what}. Received: {record}")


def write_whole(path: Path, data: str | bytes) -> None:
    """Write a file, text as UTF-8, so that it is whole under its name, or not there."""
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            file.write(data.encode("utf-8", "surrogateescape") if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def in_words(command: str, function: Callable[[argparse.Namespace], int], options: argparse.Namespace) -> int:
    """Run what a command does and return its exit code; what goes wrong is told in one line."""
    raise_when_terminated()
    try:
        return function(options)
    except (ModelError, ValueError) as error:
        told, code = error, NOT_STARTED
    except InputError as error:
        told, code = error, UNREADABLE
    except (OutputError, OSError) as error:
        told, code = error, NOT_WRITTEN
    except KeyboardInterrupt:
        told, code = "interrupted", INTERRUPTED
    except Terminated:
        Terminated.caught = True
        told, code = "terminated", TERMINATED
    print(f"imagesr {command}: {told}", file=sys.stderr)
    return code
