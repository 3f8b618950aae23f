"""Data sets through tensorflow-datasets."""

from __future__ import annotations

from typing import Any


def load(name: str, split: str, source: str) -> list[dict[str, Any]]:
    """Return the examples of a split as NumPy arrays; what is not there yet is downloaded first.

    Raises ValueError, naming the original `source`, where that fails.
    """
    import tensorflow_datasets as tfds

    try:
        return list(tfds.as_numpy(tfds.load(name, split=split)))
    except Exception as error:  # a download fails in as many ways as there are networks
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"Expected {name} from tensorflow-datasets. Received: {reason:.200}; unpack it yourself from {source}"
        ) from None
