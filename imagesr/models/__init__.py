"""The networks: one file per paper. `MODELS` names them, `build` builds one.

`layers` has what several share, `cost` measures them. A network knows nothing of files, frames and colour.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

from imagesr.cli import hidden_stderr
from imagesr.scale import Scale

if TYPE_CHECKING:
    import keras

# The name of a network and of its function, and the file that contains it.
MODELS = {
    "linear": "linear",
    "realtime": "realtime",
    "strided": "strided",
    "srcnn": "srcnn",
    "espcn": "espcn",
    "fsrcnn": "fsrcnn",
    "vdsr": "vdsr",
    "edsr_baseline": "edsr",
    "edsr": "edsr",
    "rdn": "rdn",
    "srresnet": "srresnet",
}


def import_keras() -> None:
    """Import Keras, and let TensorFlow look for its devices, without TensorFlow's own lines on stderr."""
    if sys.modules.get("keras"):
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # what it writes later on
    # A notebook's kernel watches the file descriptor itself.
    with contextlib.nullcontext() if "ipykernel" in sys.modules else hidden_stderr():
        import keras

        if keras.backend.backend() == "tensorflow":
            keras.distribution.list_devices()


def builder(name: str) -> Callable[..., keras.Model]:
    """Return the function that builds a network of `MODELS`; raises ValueError for another name."""
    if name not in MODELS:
        raise ValueError(f"Expected a network ({', '.join(MODELS)}). Received: {name}")
    import_keras()
    return getattr(import_module(f"imagesr.models.{MODELS[name]}"), name)


def build(name: str, scale: Scale | float | str = 2, **options) -> keras.Model:
    """Build an untrained network from LR to SR, float32 NHWC in [0, 1].

    `options` are those of the network's function, such as `filters` and `blocks` of `edsr`. Raises ValueError for a
    name that is not in `MODELS`, and for a scale that the network does not have.

    Example:
        model = imagesr.models.build("edsr", scale=2, filters=64, blocks=16)
    """
    return builder(name)(scale, **options)
