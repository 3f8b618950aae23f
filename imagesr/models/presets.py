"""Saved models as Keras models: a shipped one by its name, and the layout that `keras.saving` and KerasHub read."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from imagesr.card import ModelCard, find_models
from imagesr.errors import ModelError
from imagesr.files import whole_folder
from imagesr.models import import_keras
from imagesr.scale import Scale

if TYPE_CHECKING:
    import keras

_FILES = ("config.json", "metadata.json", "model.weights.h5")  # what Keras writes into a folder


def from_preset(name: str | Path, scale: Scale | float | str | None = None, *, kind: str = "film") -> keras.Model:
    """Load a saved model as a Keras model, ready to be trained on or looked at.

    Example:
        model = imagesr.models.from_preset("best", scale=2, kind="photo")

    Args:
        name: A shipped model's name, or the folder of a model.
        scale: None is the folder's, and 1.5 for a name.
        kind: What it was trained for, "film" or "photo", where a shipped model has both.

    Returns:
        A functional model from LR to SR, float32 NHWC in [0, 1].

    Raises:
        ModelError: For an unknown or damaged model.
    """
    import_keras()
    import keras

    cards = find_models(str(name), flavour=kind)
    wanted = Scale.parse(scale) if scale is not None else cards[0].scale if len(cards) == 1 else Scale(3, 2)
    found = next((card for card in cards if card.scale == wanted), None)
    if found is None:
        scales = ", ".join(str(card.scale) for card in cards)
        raise ModelError(f"Expected a scale that {name} has ({scales}). Received: {wanted}")
    return keras.saving.load_model(found.folder / "model.keras", compile=False)


def save_to_preset(folder: str | Path) -> list[Path]:
    """Add the layout of KerasHub to the folder of a saved model, beside its card; return the files.

    Once somebody has uploaded the folder, `keras.saving.load_model("hf://USER/NAME")` loads it. Raises ModelError.
    """
    import_keras()
    import keras

    card = ModelCard.read(Path(folder))
    model = keras.saving.load_model(card.folder / "model.keras", compile=False)
    with whole_folder(card.folder) as part, tempfile.TemporaryDirectory() as made:
        shutil.copytree(card.folder, part, dirs_exist_ok=True)
        model.save(Path(made) / "preset", zipped=False)
        for name in _FILES:
            shutil.copyfile(Path(made) / "preset" / name, part / name)
        dataclasses.replace(card, folder=part).write()
    return [card.folder / name for name in _FILES]
