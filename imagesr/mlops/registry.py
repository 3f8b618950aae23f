"""Versions of models in the registry: challenger, champion, and the way back."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from imagesr.card import ModelCard
from imagesr.errors import OutputError

if TYPE_CHECKING:
    from imagesr.tracking.server import Server, Version

CHALLENGER, CHAMPION = "challenger", "champion"
FOLDER = "model"  # of a run, where its saved models are, each in a folder of its own
_FILES, _BEFORE = "imagesr.model", "imagesr.champion_before"
GATE, WHY = "imagesr.gate", "imagesr.why"


def register(server: Server, run: str, card: ModelCard) -> Version:
    """Register a saved model as a new version of NAME_xSCALE; a run's version that is there already is returned.

    A version's files never change: another model of the same run, such as one of more steps or with int8, goes into
    another folder.
    """
    name = card.folder.name
    files = hashlib.sha256(json.dumps(sorted(card.sha256.items())).encode()).hexdigest()
    for version in server.versions(name):
        if version.tags.get(_FILES) == files and version.tags.get("imagesr.run") == run:
            return version
    folder = f"{FOLDER}/{files[:16]}"
    server.upload(run, card.folder, folder)
    return server.register(name, run, folder, {_FILES: files, "imagesr.run": run})


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
