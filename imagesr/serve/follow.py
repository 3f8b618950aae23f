"""Serve the champions of a registry: a new one is fetched, checked, warmed and swapped in between requests."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from imagesr.card import ModelCard
from imagesr.errors import InputError, ModelError, OutputError
from imagesr.files import whole_folder, write_whole

if TYPE_CHECKING:
    from imagesr.serve.service import Service

CHAMPION = "champion"
EVERY = 10.0  # seconds between two looks at the registry
_CURRENT = "current"  # the file that names the version which is served where the registry is gone


class Registry(Protocol):
    """Name the version of a model that an alias has, and fetch its files; OutputError where it does not answer."""

    def alias(self, name: str, alias: str): ...

    def download(self, version, folder: Path) -> None: ...


class Champions:
    """Keep the champions of registered models, such as mine_x2, in a folder: FOLDER/mine_x2/NUMBER/mine_x2.

    `connect` returns the registry; it is called when it is needed, since importing MLflow takes seconds.
    """

    def __init__(self, connect: Callable[[], Registry], names: Sequence[str], folder: Path):
        self.names, self.folder, self._connect, self._registry = names, folder, connect, None

    def first(self) -> Iterator[tuple[str, ModelCard]]:
        """Yield the label and the card of every champion to begin with: those of the last time, or the registry's.

        Raises ModelError for a model without a champion, and OutputError where the registry does not answer.
        """
        for name in self.names:
            try:
                number = (self.folder / name / _CURRENT).read_text("utf-8").strip()
                yield _label(name, number), ModelCard.read(self._place(name, number))
            except (OSError, ModelError):
                found = self.newest(name)
                if not found:
                    raise ModelError(f"Expected a champion of {name} in the registry. Received: none") from None
                yield found

    def newest(self, name: str, *, but: str = "") -> tuple[str, ModelCard] | None:
        """Return the label and the card of a champion, None where there is none, and where its label is `but`.

        Raises ModelError for an artefact that does not match its card, OutputError where the registry does not answer.
        """
        self._registry = self._registry or self._connect()
        version = self._registry.alias(name, CHAMPION)
        if version is None or _label(name, version.number) == but:
            return None
        place = self._place(name, version.number)
        if not place.exists():
            with whole_folder(place, shared=True) as part:
                self._registry.download(version, part)
                ModelCard.read(part)
        return _label(name, version.number), ModelCard.read(place)

    def keep(self, label: str) -> None:
        """Write down that a version is served, for a time when the registry is gone."""
        name, _, number = label.rpartition("/")
        write_whole(self.folder / name / _CURRENT, number + "\n", shared=True)

    def _place(self, name, number):
        return self.folder / name / number / name


def _label(name, number):
    return f"{name}/{number}"


async def follow(service: Service, champions: Champions, every: float = EVERY) -> None:
    """Swap every new champion in, until cancelled; whatever fails is told once, and the old one stays."""
    bad: set[str] = set()
    told = ""
    while True:
        await asyncio.sleep(every)
        for name in champions.names:
            try:
                found = await asyncio.to_thread(champions.newest, name, but=service.labels.get(name, ""))
                told = ""
                if found and found[0] not in bad:
                    await _swap(service, champions, *found, bad)
            except OutputError as error:  # the registry, or the disk
                told = _say(str(error), told)
            except (ModelError, InputError) as error:
                service.metrics.refused_models.inc()
                told = _say(str(error), told)


async def _swap(service, champions, label, card, bad):
    try:
        await service.warm(card)
    except Exception as error:  # what a runtime raises for a graph that it cannot run
        bad.add(label)
        service.metrics.refused_models.inc()
        _say(f"Expected a model that runs. Received: {label} ({error})", "")
        return
    service.adopt(label, card)
    await asyncio.to_thread(champions.keep, label)
    _say(f"{label} is served now", "")


def _say(text, before):
    """Print a line that was not printed just before, and return it."""
    if text != before:
        print(f"imagesr serve: {' '.join(text.split())}", file=sys.stderr, flush=True)
    return text
