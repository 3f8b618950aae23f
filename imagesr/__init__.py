"""imagesr: upscale video at frame rate on ordinary machines, and train the networks that do it."""

from __future__ import annotations

import time as _time

STARTED = _time.perf_counter()  # `first_frame_s` of a Report counts from here: the first import of any command

__version__ = "0.1.0"
__all__ = ["load", "upscale_image", "upscale_video"]


def __getattr__(name):
    # Importing the package must cost milliseconds; what needs PyAV or a runtime is imported when it is asked for.
    if name == "upscale_video":
        from imagesr.video.upscale import upscale_video

        return upscale_video
    if name == "upscale_image":
        from imagesr.image.upscale import upscale_image

        return upscale_image
    if name == "load":
        from imagesr.engines.chain import load

        return load
    raise AttributeError(f"module 'imagesr' has no attribute {name!r}")
