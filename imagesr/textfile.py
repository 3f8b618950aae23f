"""What commands that end tell Prometheus: a file in a folder that node_exporter's textfile collector reads.

`IMAGESR_METRICS` names the folder. Without it nothing is written.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from imagesr.files import write_whole

VARIABLE = "IMAGESR_METRICS"


def record(command: str, figures: Mapping[str, float], **labels: str) -> None:
    """Write figures of a command as `imagesr_COMMAND_NAME{labels}`; those that its file has from before stay.

    A folder that cannot be written costs a line on standard error, and not the command's result.
    """
    if not (folder := os.environ.get(VARIABLE)):
        return
    file = Path(folder, f"imagesr_{command}.prom")
    known: dict[str, float] = {}
    with suppress(OSError, ValueError):
        pairs = (line.rsplit(" ", 1) for line in file.read_text("utf-8").splitlines())
        known = {name: float(value) for name, value in pairs}
    labelled = ",".join(f'{key}="{value}"' for key, value in labels.items())
    braces = f"{{{labelled}}}" if labelled else ""
    known |= {f"imagesr_{command}_{name}{braces}": value for name, value in figures.items()}
    try:
        write_whole(file, "".join(f"{name} {value:.15g}\n" for name, value in sorted(known.items())))
        file.chmod(0o644)  # node_exporter is another user
    except OSError as error:
        said = f"Expected a folder that can be written in {VARIABLE}. Received: {folder} ({error.strerror})"
        print(f"imagesr {command}: {said}", file=sys.stderr)


@contextmanager
def recorded(command: str, **labels: str) -> Iterator[dict[str, float]]:
    """Yield the figures to fill; the time of the end goes with them, and after an error that of the failure alone."""
    figures: dict[str, float] = {}
    try:
        yield figures
    except BaseException:
        record(command, {"failure_timestamp_seconds": time.time()}, **labels)
        raise
    record(command, figures | {"end_timestamp_seconds": time.time()}, **labels)
