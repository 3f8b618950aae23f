"""Upscale a camera as it films: `python -m imagesr.webcam [SOURCE]`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import imagesr.live.command as show  # first: it loads OpenCV before PyAV
from imagesr.cli import Parser, check_record, size_argument
from imagesr.live.loop import KEYS, Enlarger, Live

SINKS = ("window", "v4l2", "mjpeg", "y4m")
WITHOUT_A_WINDOW = "--sink mjpeg (a page), y4m (a pipe), v4l2 (a virtual camera), or --headless"


def open_sink(name: str, enlarger: Enlarger, info, *, title: str = "", split: bool = False, port: int = 0):
    """Return the place where frames go; raises ValueError, with the places that work, where it is not there."""
    from imagesr.live.sinks import Y4M, Nowhere, Page, VirtualCamera

    try:
        if name == "window":
            return show.open_window(title, enlarger, info, split=split, instead=WITHOUT_A_WINDOW)
        if name == "v4l2":
            return VirtualCamera(enlarger.size, info.rate)
        if name == "mjpeg":
            return Page(port)
        return Y4M(info.rate) if name == "y4m" else Nowhere()
    except ModuleNotFoundError as error:
        raise ValueError(f"it needs the package {error.name}. {show.EXTRA}") from None
    except RuntimeError as error:  # of pyvirtualcam
        reason = " ".join(str(error).split())
        raise ValueError(
            f"Expected a virtual camera: on Linux 'modprobe v4l2loopback', on Windows and macOS OBS. Received: {reason}"
        ) from None
    except (OSError, OverflowError) as error:
        raise ValueError(f"Expected a free port. Received: {port} ({error})") from None


def _parser():
    parser = Parser(
        prog="imagesr webcam",
        description="Upscale a camera as it films. The newest frame wins: what a slow machine cannot do it drops.",
        epilog="Keys: " + "; ".join(f"{key}: {what}" for key, what in KEYS),
    )
    add = parser.add_argument
    add("source", nargs="?", default="0", metavar="SOURCE", help="camera index, device, file or URL (default: 0)")
    show.add_live_options(parser)
    add("--size", type=size_argument, metavar="WxH", help="of the camera's pictures, if it can (default: its own)")
    add("--fps", type=float, help="of the camera, if it can")
    add("--reconnect", action="store_true", help="wait for a camera or stream that goes away")
    add("--sink", choices=SINKS, default="window", help="where to: a window, a virtual camera, a page, standard output")
    add("--port", type=int, default=8090, help="of the page on loopback (default: 8090; 0 for any)")
    return parser


def webcam(options: argparse.Namespace) -> int:
    """Open the camera, upscale and show it until it ends; returns the exit code."""
    from imagesr.live.camera import Camera

    show.check_live_options(options)
    if options.json:
        check_record(options.json, [Path(options.source)])
    wishes = {"size": options.size, "fps": options.fps, "reconnect": options.reconnect}
    camera = Camera(options.source, tell=show.tell, **wishes)
    loading = {"precision": options.precision, "threads": options.threads}
    enlarger = Enlarger(camera.info, options.model, str(options.scale), **loading)
    name = "nowhere" if options.headless else options.sink
    title = f"imagesr - {options.source}"
    sink = open_sink(name, enlarger, camera.info, title=title, split=options.split, port=options.port)
    show.tell(
        f"{options.source}: {camera.info.width}x{camera.info.height} to {enlarger.size[0]}x{enlarger.size[1]} by "
        f"{enlarger.model}, " + ("not shown" if options.headless else f"shown on {sink.place}")
    )
    code = show.run(Live(camera, enlarger, stop=camera.close), sink, enlarger, options)
    if camera.ended:
        show.tell(f"imagesr webcam: {camera.ended}")
    return code


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return show.run_live("webcam", webcam, _parser().parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
