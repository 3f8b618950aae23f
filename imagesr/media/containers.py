"""Container formats, in tables: this module loads no library."""

from __future__ import annotations

# Containers that can hold frames of varying duration beside copied sound.
FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm", ".ts": "mpegts"}
