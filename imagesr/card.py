"""Saved models: the folder, the card in it, and the check that both belong together."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from imagesr.errors import ModelError, cause
from imagesr.files import write_whole
from imagesr.scale import Scale

_HERE = Path(__file__).parent
# Inside the wheel the shipped models lie in the package, in a checkout beside it.
SAVED_MODELS = next((d for d in (_HERE / "saved_models", _HERE.parent / "saved_models") if d.is_dir()), _HERE)
# The flavour that runs for each job; a model without it runs as it is. Which of its scales run is in `engines.chain`.
FLAVOURS = {"video": "film", "live": "film", "photographs": "photo"}
_CLEANER = "best-photo_x1"  # cleans photographs for shipped models that take no clean themselves


@dataclass(frozen=True)
class ModelCard:
    """Hold what is known about one saved model; `card.json` in its folder.

    `flavour` is what the model was trained for: "film", "photo", or "" where that makes no difference. Heights and
    widths given to the model must be multiples of `multiple`; `multiply_accumulates` counts per LR pixel,
    `receptive_field` is in LR pixels, `sha256` has one entry per file. `size` is the only (height, width) that the
    model takes, None where it takes any. `detail` is the default of a model that takes a detail, from 0 to 1; None says
    that it takes none. So is `clean`: how much of a source was lost to compression and noise.
    """

    name: str
    scale: Scale
    channels: int
    multiple: int
    receptive_field: int
    parameters: int
    multiply_accumulates: float
    config: Mapping[str, Any]
    config_sha256: str
    data: Sequence[Mapping[str, str]]
    measured: Mapping[str, Any]
    sha256: Mapping[str, str]
    size: Sequence[int] | None = None
    flavour: str = ""
    detail: float | None = None
    clean: float | None = None
    folder: Path = field(compare=False, default=Path())

    @classmethod
    def read(cls, folder: Path) -> ModelCard:
        """Read the card in `folder` and check every file that it lists.

        Raises ModelError, in one line, for a folder without a card, a card that is not one, and a file that
        is missing or has changed.
        """
        try:
            record = json.loads((folder / "card.json").read_text("utf-8"))
            card = cls(**record | {"scale": Scale.parse(record["scale"])}, folder=folder)
            expected = dict(card.sha256)
            if not (isinstance(card.multiple, int) and card.multiple >= 1):
                raise ValueError(f"multiple {card.multiple}")
        except FileNotFoundError:
            raise ModelError(f"Expected a saved model: a folder with card.json. Received: {folder}") from None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ModelError(f"Expected a model card in {folder / 'card.json'}. Received: {cause(error)}") from None
        for file, digest in expected.items():
            if not (folder / file).is_file():
                raise ModelError(
                    f"Expected {file} in {folder}, as its card says. It is missing: export the model again"
                )
            if sha256(folder / file) != digest:
                raise ModelError(f"Expected {folder / file} to match its card. Its checksum differs: restore the file")
        return card

    def write(self) -> None:
        """Write `card.json` into the folder, with the checksum of every other file in it."""
        files = sorted(f for f in self.folder.rglob("*") if f.is_file() and f != self.folder / "card.json")
        record = asdict(self) | {"scale": str(self.scale)}
        record["sha256"] = {f.relative_to(self.folder).as_posix(): sha256(f) for f in files}
        del record["folder"]
        write_whole(self.folder / "card.json", json.dumps(record, indent=1) + "\n")


def sha256(file: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def saved_models() -> list[Path]:
    """List the folders of the models that are shipped, sorted by name."""
    return sorted(card.parent for card in SAVED_MODELS.glob("*/card.json"))


def models_with(number: str) -> list[str]:
    """List the shipped models that take a `detail` or a `clean`, each with its scale: "balanced x1.5"."""
    cards = (json.loads((folder / "card.json").read_text("utf-8")) for folder in saved_models())
    return [f"{card['name']} x{card['scale']}" for card in cards if card.get(number) is not None]


def find_models(model: str, *, flavour: str = "") -> list[ModelCard]:
    """Return the cards of every scale of a shipped model by its name, or the one card in a folder of the user's.

    With `flavour`, those of that flavour where the model has it: `best-photo` for `best` and "photo". Raises ModelError
    for a name that is neither.
    """
    folders = {model: [], f"{model}-{flavour}": []}
    for folder in saved_models():
        folders.get(folder.name.rpartition("_x")[0], []).append(folder)
    if named := folders[f"{model}-{flavour}"] or folders[model]:
        return [ModelCard.read(folder) for folder in named]
    if Path(model).is_dir():
        return [ModelCard.read(Path(model))]
    names = sorted({folder.name.rpartition("_x")[0] for folder in saved_models()})
    raise ModelError(f"Expected a model ({', '.join(names)}) or the folder of one. Received: {model}")


def models_for(job: str, model: str) -> list[ModelCard]:
    """Return the cards of every scale of the model that runs for a job of `FLAVOURS`, by the model's name or folder.

    For photographs that is `best-photo` where `best` is asked for, and the network that cleans (`with_cleaner`). Raises
    ModelError.
    """
    cards = find_models(model, flavour=FLAVOURS[job])
    if job == "photographs":
        return with_cleaner(cards)
    return [card for card in cards if card.channels == 1] or cards  # what cleans photographs takes RGB


def with_cleaner(cards: Sequence[ModelCard]) -> list[ModelCard]:
    """Return cards of a model for photographs, and that of a network that cleans them where the model takes no clean.

    That is a network of scale 1. A model in a folder of the user's stays by itself.
    """
    shipped = SAVED_MODELS.resolve()
    alone = any(card.clean is not None or card.folder.resolve().parent != shipped for card in cards)
    missing = alone or not (SAVED_MODELS / _CLEANER).is_dir()
    return [*cards] if missing else [*cards, ModelCard.read(SAVED_MODELS / _CLEANER)]


def of_own_size(job: str, model: str) -> ModelCard:
    """Return the card of scale 1 that runs for a job by a model: it keeps the size and cleans. Raises ModelError."""
    cards = models_for(job, model)
    for card in cards:
        if card.scale == Scale(1):
            return card
    every = [ModelCard.read(folder) for folder in saved_models() if folder.name.endswith("_x1")]
    known = ", ".join(card.name for card in every if card.flavour in ("", FLAVOURS[job]))
    scales = ", ".join(f"x{card.scale}" for card in cards)
    raise ModelError(
        f"Expected a scale above 1, or a model of scale 1 ({known or 'none yet'}). Received: 1, {model} has {scales}"
    )


def find_model(model: str, scale: Scale) -> ModelCard:
    """Return the card of a model, by name or folder, at one scale; raises ModelError where there is none."""
    cards = find_models(model)
    for card in cards:
        if card.scale == scale:
            return card
    scales = ", ".join(str(card.scale) for card in cards)
    raise ModelError(f"Expected a scale that {model} was trained for ({scales}). Received: {scale}")
