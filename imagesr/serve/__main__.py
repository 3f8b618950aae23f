"""Upscale photographs and videos over HTTP: `imagesr serve`."""

# Nothing is imported before it is needed: the processes that decode run this file, too, and should stay small.
from __future__ import annotations

import os
import sys
from pathlib import Path


def serve(options) -> int:
    """Serve until a signal comes; returns the exit code."""
    if options.queue < 0 or not 0 < options.megapixels <= 1000 or not 0 <= options.threads <= 256:
        received = f"{options.queue}, {options.megapixels:g}, {options.threads}"
        raise ValueError(f"Expected a queue of 0 or more, up to 1000 megapixels and 256 threads. Received: {received}")
    from imagesr.serve import server
    from imagesr.serve.service import Service

    champions = _champions(options) if options.registry or options.follow or options.staging else None
    model = options.model or (options.follow[0].rpartition("_x")[0] if options.follow else "best")
    how = {name: getattr(options, name) for name in ("queue", "megapixels", "threads", "detail")}
    kept = {"videos": _videos(options), "feedback": _feedback(options)}
    service = Service(model=model, champions=champions, **kept, **how)
    if sys.platform != "linux":
        print("imagesr serve: no limit of memory for pictures on this system", file=sys.stderr)
    with server.listen(options.host, options.port) as sock:
        host, port = sock.getsockname()[:2]
        print(f"imagesr serve: http://{f'[{host}]' if ':' in host else host}:{port}/", file=sys.stderr, flush=True)
        server.serve(service, sock)
    return 0


def _videos(options):
    """Return what holds videos, None where the service takes none; raises ValueError."""
    if not 0 <= options.videos <= 16 or options.video_queue < 0:
        received = f"{options.videos}, {options.video_queue}"
        raise ValueError(f"Expected 0 to 16 videos at a time and a queue of 0 or more. Received: {received}")
    if not 0 < options.video_megabytes <= 1e6 or not 0 < options.video_hours <= 1e5:
        received = f"{options.video_megabytes:g}, {options.video_hours:g}"
        raise ValueError(f"Expected videos of up to 1,000,000 MB, kept for up to 100,000 hours. Received: {received}")
    if not options.videos:
        return None
    from imagesr.serve.videos import Videos

    try:
        return Videos(
            at_once=options.videos,
            queue=options.video_queue,
            bytes=round(options.video_megabytes * 1e6),
            seconds=3600 * options.video_hours,
            folder=options.video_folder,
            pixels=round(options.megapixels * 1e6),
            threads=options.threads,
        )
    except OSError as error:
        raise ValueError(f"Expected a folder for videos. {options.video_folder}: {error.strerror}") from None


def _feedback(options):
    """Return what holds feedback, None where the service takes none; raises ValueError."""
    if not 0 < options.feedback_days <= 10_000:
        raise ValueError(f"Expected pictures to be kept for up to 10,000 days. Received: {options.feedback_days:g}")
    from imagesr.serve.feedback_command import VARIABLE

    if not (url := options.feedback or os.environ.get(VARIABLE)):
        return None
    from imagesr.serve.feedback import Feedback

    feedback = Feedback(url, days=options.feedback_days)
    if feedback.trouble:
        print(f"imagesr serve: {feedback.trouble}; votes are refused until it does", file=sys.stderr, flush=True)
    return feedback


def _champions(options):
    """Return the champions that the service follows; raises ValueError for a half of --registry and --follow.

    --staging needs both.
    """
    from functools import partial

    from imagesr.serve.follow import Champions
    from imagesr.store.versions import cache_folder, short_name

    if not (options.registry and options.follow):
        what = "--registry URI and --follow NAME_xSCALE together, for --staging too"
        raise ValueError(f"Expected {what}. Received: not both")
    _check_mlflow()
    scheme, separator, file = options.registry.partition("sqlite:///")
    place = str(Path(file).absolute()) if separator and not scheme else options.registry
    folder = cache_folder() / "models" / short_name(place)  # another registry has other models of the same names
    return Champions(partial(_connect, options.registry), options.follow, folder, staging=options.staging)


def _check_mlflow():
    from importlib.util import find_spec

    if find_spec("mlflow") is None:
        raise ModuleNotFoundError(name="mlflow")


def _connect(uri):
    from imagesr.tracking.server import Server  # it takes seconds

    return Server(uri, seconds=10, tries=1)


def _parser():
    from imagesr.cli import Parser

    parser = Parser(
        prog="imagesr serve",
        description="Upscale photographs and videos over HTTP. After a first signal the service finishes its pictures "
        "and takes no more; a second signal ends it at once.",
        examples="""
            imagesr serve
            imagesr serve --host 0.0.0.0 --port 8000 -n fast
        """,
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine only)")
    add("--port", type=int, default=5000, help="default: 5000; 0 for any")
    add("-n", "--model", help="the model for requests that do not choose one (default: best, or the first of --follow)")
    add(
        "--detail",
        type=float,
        metavar="0..1",
        help="the detail for requests that do not choose one (default: the model's own)",
    )
    add("--registry", metavar="URI", help="an MLflow server, or sqlite:///FILE, whose champions are served, too")
    text = "models in the registry; a new champion is served within seconds, and no request fails"
    add("--follow", nargs="+", default=[], metavar="NAME_xSCALE", help=text)
    text = "serve the challengers of --follow, too, at /staging/supersizeme, before they are promoted"
    add("--staging", action="store_true", help=text)
    add("--queue", type=int, default=8, metavar="N", help="pictures that may wait behind the first (default: 8)")
    add(
        "--megapixels",
        type=float,
        default=16,
        metavar="N",
        help="size limit of a picture; a result may have four times as many (default: 16)",
    )
    add("--videos", type=int, default=1, metavar="N", help="videos upscaled at a time (default: 1); 0: none is taken")
    add("--video-queue", type=int, default=4, metavar="N", help="videos that may wait behind those (default: 4)")
    text = "size limit of a video that is sent (default: 2000)"
    add("--video-megabytes", type=float, default=2000, metavar="N", help=text)
    add("--video-hours", type=float, default=24, metavar="N", help="for how long results are kept (default: 24)")
    text = "keep videos here; a service that is started again goes on with them (default: they end with the service)"
    add("--video-folder", type=Path, metavar="DIR", help=text)
    text = "take votes, and keep them in sqlite:///FILE or postgresql://… (default: IMAGESR_FEEDBACK, or none)"
    add("--feedback", metavar="URL", help=text)
    text = "for how long pictures are kept whose senders allow it (default: 30)"
    add("--feedback-days", type=float, default=30, metavar="N", help=text)
    add("--threads", type=int, default=0, help="threads of the network (default: 0, every core)")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    # The matrices of one tile are too small to share: threads that busy-wait for them took half the machine.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from imagesr.cli import run_command

    return run_command("serve", serve, _parser().parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
