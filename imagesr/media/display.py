"""How a picture is meant to be seen: turned or mirrored by a display matrix."""

from __future__ import annotations

from collections.abc import Sequence


def turning_filters(matrix: Sequence[int], rotation: int) -> list[tuple[str, str]] | None:
    """Return the filters that turn pixels as a display matrix says; None for angles other than quarter turns.

    `rotation` is the matrix's angle in degrees, counter-clockwise.
    """
    across, up = int(matrix[3]), int(matrix[4])
    match -rotation % 360:
        case 0:
            return [("vflip", "")] if up < 0 else []
        case 90:
            return [("transpose", "dir=cclock_flip" if across > 0 else "dir=clock")]
        case 180:
            return [("hflip", "")] * int(matrix[0] < 0) + [("vflip", "")] * int(up < 0)
        case 270:
            return [("transpose", "dir=clock_flip" if across < 0 else "dir=cclock")]
    return None


def swaps_sides(filters: Sequence[tuple[str, str]]) -> bool:
    """Tell whether filters exchange width and height."""
    return any(name == "transpose" for name, _ in filters)
