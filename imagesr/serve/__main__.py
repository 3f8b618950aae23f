"""Upscale photographs over HTTP: `imagesr serve`."""

# Nothing is imported before it is needed: the processes that decode run this file, too, and should stay small.
from __future__ import annotations

import os
import sys


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
    service = Service(model=model, champions=champions, **how)
    if sys.platform != "linux":
        print("imagesr serve: no limit of memory for pictures on this system", file=sys.stderr)
    with server.listen(options.host, options.port) as sock:
        host, port = sock.getsockname()[:2]
        print(f"imagesr serve: http://{f'[{host}]' if ':' in host else host}:{port}/", file=sys.stderr, flush=True)
        server.serve(service, sock)
    return 0


def _champions(options):
    """Return the champions that the service follows; raises ValueError for a half of --registry and --follow.

    --staging needs both.
    """
    from functools import partial
    from pathlib import Path

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
        description="Upscale photographs over HTTP. After a first signal the service finishes its pictures and takes "
        "no more; a second signal ends it at once.",
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
