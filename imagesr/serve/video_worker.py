"""The process that looks at a video or upscales it: `python -m imagesr.serve.video_worker FOLDER look|run …`.

It may crash, and be killed where memory runs out, without the service. It ends when the service does.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from contextlib import suppress
from pathlib import Path

from imagesr.files import write_whole

SOURCE = "the video"  # as errors call the file
RESULT = "the result"  # and a format's ending
REPORT = "report.json"
REFUSED, UNREADABLE = 2, 3  # exit codes of `look`
_MEMORY = 2**30  # bytes that looking at a video may take
_NICE = {"look": 10, "run": 19}  # somebody waits for the first
_LEAST_WANTED = "1000"  # of processes, for the system whose memory runs out


def _end_with_the_service():
    """End as soon as the service has: it holds the other end of standard input and never writes."""

    def wait():
        with suppress(OSError):
            os.read(0, 1)
        os._exit(143)

    threading.Thread(target=wait, daemon=True).start()


def _step_back(what):
    """Take a low priority; and where memory runs out, be the first to go, before the service."""
    if hasattr(os, "setpriority"):  # elsewhere the service begins it so
        os.setpriority(os.PRIO_PROCESS, 0, _NICE[what])
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_LEAST_WANTED)


def _limit_memory():
    if sys.platform == "linux":
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + _MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def look(path: Path, most: int) -> dict:
    """Return what a video is; `most` is the limit of its pixels a frame, checked before a frame is decoded.

    Raises InputError for a video that cannot be decoded, ValueError for one that is too large.
    """
    from imagesr.media.source import Source

    _limit_memory()
    _check_pixels(*_declared(path), most)
    with Source(path, threads=1, deinterlace="off") as source:
        info = source.info
        _check_pixels(info.width, info.height, most)
        return {"width": info.width, "height": info.height, "frames": info.frames}


def _declared(path):
    """Return the (width, height) that a file's header says; zeros where it says none."""
    from imagesr.media.opening import opened
    from imagesr.media.source import film_stream

    with suppress(Exception), opened(path) as container:  # Source says what is wrong
        context = film_stream(container).codec_context
        return context.width, context.height
    return 0, 0


def _check_pixels(width, height, most):
    if width * height > most:
        raise ValueError(f"Expected frames of at most {most / 1e6:g} megapixels. Received: {width}x{height}")


def _count_cores(report):
    """Add to the report what this process and its own took, in seconds of a core."""
    with suppress(OSError, ValueError):
        figures = json.loads(report.read_text("utf-8")) | {"core_seconds": round(sum(os.times()[:4]), 2)}
        write_whole(report, json.dumps(figures))


def main(arguments: list[str]) -> int:
    """Do what the arguments say, and return the exit code; what goes wrong is one line on standard error."""
    folder, what, *more = arguments
    _end_with_the_service()
    _step_back(what)
    os.chdir(folder)
    if what == "run":
        from imagesr.video.__main__ import main as video

        code = video(more)
        _count_cores(Path(REPORT))
        return code
    from imagesr.errors import InputError

    try:
        print(json.dumps(look(Path(SOURCE), int(more[0]))))
    except (InputError, MemoryError) as error:
        print(str(error) or "Expected a video that can be decoded within 1 GiB of memory", file=sys.stderr)
        return UNREADABLE
    except ValueError as error:
        print(error, file=sys.stderr)
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
