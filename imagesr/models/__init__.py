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
    "ffdnet": "ffdnet",
    "edsr_baseline": "edsr",
    "edsr": "edsr",
    "rdn": "rdn",
    "srresnet": "srresnet",
}

OWN_SCALES = {"strided": "3/2", "ffdnet": "1"}  # of networks that have one scale alone

BACKENDS = ("jax", "torch")  # TensorFlow comes with the extra `train`


def import_keras() -> None:
    """Import Keras, and let TensorFlow look for its devices, without TensorFlow's own lines on stderr.

    Raises ValueError where Keras is set to images with their channels first, and ImportError, with the remedy, for a
    backend that is not installed.
    """
    if not sys.modules.get("keras"):
        _import_keras()
    form = sys.modules["keras"].config.image_data_format()
    if form != "channels_last":
        raise ValueError(
            f"Expected Keras's image_data_format to be channels_last: keras.config.set_image_data_format, or "
            f"~/.keras/keras.json. Received: {form}"
        )


def _import_keras():
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # what it writes later on
    # A notebook's kernel watches the file descriptor itself.
    with contextlib.nullcontext() if "ipykernel" in sys.modules else hidden_stderr():
        try:
            import keras
        except ModuleNotFoundError as error:
            if (package := (error.name or "").partition(".")[0]) in BACKENDS:
                raise ImportError(
                    f"Keras's backend is {package}, which is not installed: pip install {package}, or set the "
                    "environment variable KERAS_BACKEND to another (tensorflow, jax or torch)"
                ) from None
            raise

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


def __getattr__(name):
    if name in ("from_preset", "save_to_preset"):
        return getattr(import_module("imagesr.models.presets"), name)
    raise AttributeError(f"module 'imagesr.models' has no attribute {name!r}")
