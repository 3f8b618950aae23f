"""Try a video out: half a second of it is upscaled to tell how long the whole takes and what becomes of its streams."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from imagesr.media.opening import PIPE
from imagesr.video.report import Report
from imagesr.video.upscale import upscale_video

TRIED_S = 0.5


def dry_run(
    path: str | Path,
    out: str | Path,
    *,
    progress: Callable[[int, int | None], None] | None = None,
    **options,
) -> Report:
    """Upscale half a second from the middle of the video at `path`, and return a report that estimates the whole.

    Nothing is written where `out` is; the half second goes into a temporary folder that is removed.

    Args:
        path: The input: a file or numbered pictures.
        out: The output that there would be; its ending chooses the container.
        progress: As `upscale_video` takes it.
        **options: The fields of `imagesr.video.options.Options`.

    Raises:
        ValueError: For an option, path or model that cannot be right, or a video that does not say how long it is.
        InputError: The input cannot be read.
        OutputError: It could not be encoded.
    """
    path, out = Path(path), Path(out)
    if PIPE in (path, out):
        raise ValueError("Expected files for a dry run. Received: -")
    with tempfile.TemporaryDirectory(prefix="imagesr-") as folder:
        report = upscale_video(path, Path(folder) / f"tried{out.suffix}", progress=progress, preview=TRIED_S, **options)
    report.output, report.tried = str(out), True
    return report
