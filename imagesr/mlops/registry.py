"""Versions of models in the registry: challenger, champion, and the way back."""

from __future__ import annotations

from pathlib import Path

from imagesr.card import ModelCard
from imagesr.errors import OutputError
from imagesr.tracking.server import Server, Version

CHALLENGER, CHAMPION = "challenger", "champion"
FOLDER = "model"  # of a run, where its saved model is
_WEIGHTS, _BEFORE = "imagesr.weights", "imagesr.champion_before"
GATE, WHY = "imagesr.gate", "imagesr.why"


def register(server: Server, run: str, card: ModelCard) -> Version:
    """Register a saved model as a new version of NAME_xSCALE; a run's version that is there already is returned."""
    name, weights = card.folder.name, card.sha256["model.keras"]
    for version in server.versions(name):
        if version.tags.get(_WEIGHTS) == weights and version.tags.get("imagesr.run") == run:
            return version
    server.upload(run, card.folder, FOLDER)
    return server.register(name, run, FOLDER, {_WEIGHTS: weights, "imagesr.run": run})


def fetch(server: Server, version: Version, folder: Path) -> ModelCard:
    """Download a version into `folder`/NAME, and check it against its card; raises ModelError for a damaged one."""
    place = folder / version.name
    place.mkdir(parents=True, exist_ok=True)
    server.download(version, place)
    return ModelCard.read(place)


def crown(server: Server, version: Version, before: Version | None) -> None:
    """Make a version the champion; `before` is the one that it was compared with.

    Raises OutputError where another one has become the champion meanwhile.
    """
    now = server.alias(version.name, CHAMPION)
    if (now and now.number) != (before and before.number):
        received = f"version {now.number}" if now else "none"
        raise OutputError(f"Expected {version.name}'s champion to stay meanwhile. Received: {received}; try again")
    server.set_tag(version, _BEFORE, before.number if before else "")
    server.set_alias(version, CHAMPION)


def roll_back(server: Server, name: str) -> tuple[Version, Version]:
    """Make the previous champion the champion again; return the one that goes and the one that comes.

    Raises ValueError where there is no champion, or none before it.
    """
    now = server.alias(name, CHAMPION)
    if now is None:
        raise ValueError(f"Expected a champion of {name}. Received: none")
    number = now.tags.get(_BEFORE)
    before = server.version(name, number) if number else None
    if before is None:
        raise ValueError(f"Expected a champion of {name} before version {now.number}. Received: none")
    server.set_alias(before, CHAMPION)
    server.set_tag(now, GATE, "rolled back")
    return now, before
