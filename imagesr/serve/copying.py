"""A copy of the page for any web server, where no service runs: pictures and films are upscaled in the browser."""

from __future__ import annotations

import json
from pathlib import Path

from imagesr.card import ModelCard
from imagesr.files import make_folder, write_whole
from imagesr.serve.schemas import describe_models
from imagesr.serve.service import photo_models
from imagesr.serve.web import FILM_FILES, STATIC, film_card

MODELS = "models.json"  # what `/models` is in the service
_PIXELS = 16_000_000  # of a picture
_OF_SERVICE = "video"  # the page that has videos upscaled by the service


def copy_page(folder: Path) -> None:
    """Copy the page, the networks that it runs, and what was fetched for it; files that are there are replaced.

    Every path in it is relative, so the folder may lie anywhere on the server. Raises ValueError where `folder` is no
    folder, or holds the page of the service itself, and OSError.
    """
    inside = STATIC.resolve() in (folder.resolve(), *folder.resolve().parents)
    if inside or (folder.exists() and not folder.is_dir()):
        raise ValueError(f"Expected a folder of your own for the page. Received: {folder}")
    for source in sorted(file for file in STATIC.rglob("*") if file.is_file() and file.stem != _OF_SERVICE):
        _put(folder / source.relative_to(STATIC), source.read_bytes())
    models, names = photo_models()
    luma = {name: [card for card in cards if card.channels == 1] for name, cards in models.items()}
    told = describe_models(luma, names, default="best", most=_PIXELS)
    for cards in luma.values():
        for card in cards:
            _copy_model(card, ["model.onnx"], folder)
    _copy_model(film_card(), FILM_FILES, folder)
    # Relative: the page may lie in a folder of a server.
    told = json.dumps(told | {"only_here": True}).replace('"/', '"')
    _put(folder / MODELS, told.encode())
    lines = (STATIC / "index.html").read_text("utf-8").splitlines(keepends=True)
    page = "".join(line for line in lines if f'href="{_OF_SERVICE}.html"' not in line)
    _put(folder / "index.html", page.replace("<html ", f'<html data-models="{MODELS}" ', 1).encode())


def _copy_model(card: ModelCard, files, folder):
    for file in files:
        _put(folder / "models" / card.folder.name / file, (card.folder / file).read_bytes())


def _put(path, data):
    make_folder(path.parent)
    write_whole(path, data)
