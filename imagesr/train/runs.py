"""Run folders: read back what a training left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagesr.engines import import_engine
from imagesr.errors import ModelError

if TYPE_CHECKING:
    import keras


def read_run(run: Path) -> tuple[keras.Model, dict[str, Any]]:
    """Return the network of a run folder of `imagesr.train`, or of a `.keras` file, and what its card says of training.

    Raises ModelError for what is neither.
    """
    from imagesr.models.cost import model_scale

    if not run.is_dir():
        model = import_engine("keras").read_network(run)
        return model, {"scale": str(model_scale(model))}
    try:
        config = json.loads((run / "config.json").read_text("utf-8"))
        # The card says which data, not where somebody kept it.
        config |= {key: [_without_place(source) for source in config[key]] for key in ("data", "val")}
        if config.get("perceptual"):  # the weights' file is nobody's business
            config["perceptual"] = config["perceptual"].partition("=")[0]
        for key in ("init", "depth_model"):
            if config.get(key):
                config[key] = _end(config[key]).as_posix()
        if config.get("depth"):
            config["depth"] = [_end(place).as_posix() for place in config["depth"]]
        if config.get("depth") or config.get("depth_model"):
            print(f"NOTE: exported models take no depth: {run} becomes what it is where depth is missing", flush=True)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ModelError(f"Expected a run of imagesr train, or a .keras file. Received: {run} ({error})") from None
    return import_engine("keras").read_network(run / "model.keras"), config


def _without_place(text):
    from imagesr.datasets import Source

    source = Source.parse(text)
    return str(source._replace(place=_end(source.place)))


def _end(path):
    return Path(*Path(path).absolute().parts[1:][-2:])
