"""Upscale a camera as it films: `imagesr webcam [SOURCE]`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from imagesr.cli import Parser, check_record, run_command, size_argument
from imagesr.errors import cause
from imagesr.live.command import KEYS, add_live_options, check_live_options, loading_options, open_window, run, tell

if TYPE_CHECKING:
    from imagesr.live.loop import LiveUpscaler

SINKS = ("window", "v4l2", "mjpeg", "y4m")
WITHOUT_A_WINDOW = "--sink mjpeg (a page), y4m (a pipe), v4l2 (a virtual camera), or --headless"


def open_sink(name: str, upscaler: LiveUpscaler, info, *, title: str = "", split: bool = False, port: int = 0):
    """Return the sink of that name; raises ValueError, with the alternatives, where it is not available here."""
    from imagesr.live.sinks import Y4M, Nowhere, Page, VirtualCamera

    try:
        if name == "window":
            return open_window(title, upscaler, info, split=split, instead=WITHOUT_A_WINDOW)
        if name == "v4l2":
            return VirtualCamera(upscaler.size, info.rate)
        if name == "mjpeg":
            return Page(port)
        return Y4M(info.rate) if name == "y4m" else Nowhere()
    except RuntimeError as error:  # of pyvirtualcam
        reason = " ".join(str(error).split())
        raise ValueError(
            f"Expected a virtual camera: on Linux 'modprobe v4l2loopback', on Windows and macOS OBS. Received: {reason}"
        ) from None
    except (OSError, OverflowError) as error:
        raise ValueError(f"Expected a free port. Received: {port} ({cause(error)})") from None


def _parser():
    parser = Parser(
        prog="imagesr webcam",
        description="Upscale a camera as it films. The newest frame wins: a slow machine drops the others.",
        examples="""
            imagesr webcam
            imagesr webcam 1 --size 1280x720 --fps 30
            imagesr webcam rtsp://camera.local/stream --reconnect
        """,
        epilog="Keys: " + "; ".join(f"{key}: {what}" for key, what in KEYS),
    )
    add = parser.add_argument
    add("source", nargs="?", default="0", metavar="SOURCE", help="camera index, device, file or URL (default: 0)")
    add_live_options(parser)
    add("--size", type=size_argument, metavar="WxH", help="picture size to ask the camera for (default: its own)")
    add("--fps", type=float, help="frame rate to ask the camera for")
    add("--reconnect", action="store_true", help="wait for a camera or stream that goes away")
    add(
        "--sink",
        choices=SINKS,
        default="window",
        help="show frames in a window, a virtual camera (v4l2), a page (mjpeg) or a pipe (y4m); default: window",
    )
    add("--port", type=int, default=8090, help="port of the page, on loopback (default: 8090; 0 for any)")
    return parser


def webcam(options: argparse.Namespace) -> int:
    """Open the camera, upscale and show it until it ends; returns the exit code."""
    from imagesr.live.camera import Camera
    from imagesr.live.loop import Live, LiveUpscaler
    from imagesr.media.coding import examine_frames

    check_live_options(options)
    if options.json:
        check_record(options.json, [Path(options.source)])
    wishes = {"size": options.size, "fps": options.fps, "reconnect": options.reconnect}
    camera = Camera(options.source, tell=tell, **wishes)
    upscaler = LiveUpscaler(
        camera.info,
        options.model,
        str(options.scale),
        **loading_options(options, lambda: examine_frames([camera.first])),
    )
    name = "nowhere" if options.headless else options.sink
    title = f"imagesr - {options.source}"
    sink = open_sink(name, upscaler, camera.info, title=title, split=options.split, port=options.port)
    tell(
        f"{options.source}: {camera.info.width}x{camera.info.height} to {upscaler.size[0]}x{upscaler.size[1]} by "
        f"{upscaler.model}, " + ("not shown" if options.headless else f"shown on {sink.place}")
    )
    code = run(Live(camera, upscaler, stop=camera.close), sink, upscaler, options)
    if camera.ended:
        tell(f"imagesr webcam: {camera.ended}")
    return code


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command("webcam", webcam, _parser().parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
