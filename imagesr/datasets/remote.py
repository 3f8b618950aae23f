"""Data sets in stores: `NAME=s3://BUCKET/PREFIX` becomes a folder of checked files."""

from __future__ import annotations

from imagesr.store.versions import fetch


def fetched(text: str) -> str:
    """Return `NAME=DIR` of `NAME=URL`, with the weight that it may have; other texts stay as they are.

    The newest version of the data is fetched, or the one behind a #. Raises InputError for missing or damaged data.
    """
    name, equals, place = text.partition("=")
    if not equals:
        name, place = "folder", text
    if "://" not in place:
        return text
    url, _, weight = place.rpartition("@")
    try:
        float(weight)
    except ValueError:  # no weight: a user's name, or no @ at all
        url, weight = place, ""
    return f"{name}={fetch(url or place)}" + (f"@{weight}" if weight and url else "")
