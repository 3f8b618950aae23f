"""Serve photographs enlarged, over HTTP: `python -m imagesr.serve`."""

# Nothing is imported before it is needed: the processes that decode run this file, too, and are to be small.
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

    service = Service(model=options.model, queue=options.queue, megapixels=options.megapixels, threads=options.threads)
    if sys.platform != "linux":
        print("imagesr serve: no limit of memory for pictures on this system", file=sys.stderr)
    with server.listen(options.host, options.port) as place:
        host, port = place.getsockname()[:2]
        print(f"imagesr serve: http://{f'[{host}]' if ':' in host else host}:{port}/", file=sys.stderr, flush=True)
        server.serve(service, place)
    return 0


def _parser():
    from imagesr.cli import Parser

    parser = Parser(prog="imagesr serve", description="Enlarge photographs over HTTP. A signal drains, a second ends.")
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen at (default: 127.0.0.1, this machine only)")
    add("--port", type=int, default=5000, help="default: 5000; 0 for any")
    add("-n", "--model", default="best", help="for requests that name none (default: best)")
    add("--queue", type=int, default=8, metavar="N", help="pictures that may wait beside the first (default: 8)")
    add("--megapixels", type=float, default=16, metavar="N", help="of a picture; four times of a result (default: 16)")
    add("--threads", type=int, default=0, help="of the network (default: 0, every core)")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    # One matrix of a tile is too small to share: threads that wait for it at full speed took half the machine.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from imagesr.cli import run_command

    return run_command("serve", serve, _parser().parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
