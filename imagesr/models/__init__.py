"""The networks: one file per paper. `MODELS` names them, `build` builds one.

`layers` has what several share, `cost` measures them. A network knows nothing of files, frames and colour.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

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


def builder(name: str) -> Callable[..., keras.Model]:
    """Return the function that builds a network of `MODELS`; raises ValueError for another name."""
    if name not in MODELS:
        raise ValueError(f"Expected a network ({', '.join(MODELS)}). Received: {name}")
    return getattr(import_module(f"imagesr.models.{MODELS[name]}"), name)


def build(name: str, scale: Scale | float | str = 2, **options) -> keras.Model:
    """Build an untrained network from LR to SR, float32 NHWC in [0, 1].

    `options` are those of the network's function, such as `filters` and `blocks` of `edsr`. Raises ValueError for a
    name that is not in `MODELS`, and for a scale that the network does not have.

    Example:
        model = imagesr.models.build("edsr", scale=2, filters=64, blocks=16)
    """
    return builder(name)(scale, **options)
