"""Serve the champions of a registry: a new one is fetched, checked, warmed and swapped in between requests.

Challengers stand behind /staging in the same way, where that is wanted.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from imagesr.card import ModelCard
from imagesr.errors import InputError, ModelError, OutputError
from imagesr.files import whole_folder, write_whole
from imagesr.store.versions import forget_unused

if TYPE_CHECKING:
    from imagesr.serve.service import Service

CHAMPION, CHALLENGER = "champion", "challenger"
EVERY = 10.0  # seconds between two looks at the registry
_UNUSED = 3600.0  # seconds after which no request is under way any more to a version before
_CURRENT = "current"  # the file that names the version which is served where the registry is gone


class Registry(Protocol):
    """Name the version of a model that an alias has, and fetch its files; OutputError where it does not answer."""

    def alias(self, name: str, alias: str): ...

    def download(self, version, folder: Path) -> None: ...


class Champions:
    """Keep the champions of registered models, such as mine_x2, in a folder: FOLDER/mine_x2/NUMBER/mine_x2.

    `connect` returns the registry; it is called when it is needed, since importing MLflow takes seconds. With `staging`
    the challengers are served, too, behind /staging.
    """

    def __init__(self, connect: Callable[[], Registry], names: Sequence[str], folder: Path, *, staging: bool = False):
        self.names, self.folder, self._connect, self._registry = names, folder, connect, None
        self.staging = staging
        self._named: dict[str, str] = {}  # by model, the label of the champion that the registry named last

    def first(self) -> Iterator[tuple[str, ModelCard]]:
        """Yield the label and the card of every champion to begin with: those of the last time, or the registry's.

        Raises ModelError for a model without a champion or with a damaged one, and OutputError where the registry does
        not answer.
        """
        for name in self.names:
            try:
                number = (self.folder / name / _CURRENT).read_text("utf-8").strip()
                yield _label(name, number), _read(self._place(name, number), name)
            except (OSError, UnicodeError, ModelError):
                version = self.newest(name)
                if not version:
                    raise ModelError(f"Expected a champion of {name} in the registry. Received: none") from None
                yield label_of(version), self.card(version)

    def newest(self, name: str, alias: str = CHAMPION):
        """Return the version that is the champion, None where there is none; OutputError without an answer."""
        self._registry = self._registry or self._connect()
        version = self._registry.alias(name, alias)
        if version and alias == CHAMPION:
            self._named[name] = label_of(version)
        return version

    def behind(self, served: Mapping[str, str]) -> int:
        """Return how many models are served, by label, in another version than the registry named last."""
        return sum(served.get(name) != label for name, label in [*self._named.items()])

    def card(self, version) -> ModelCard:
        """Return the card of a version, whose files are fetched where the folder lacks them or has damaged ones.

        Raises ModelError for a version that does not match its card or has another name than the registry's, and
        OutputError where the registry does not answer.
        """
        place = self._place(version.name, version.number)
        with suppress(ModelError):
            return _read(place, version.name)
        with whole_folder(place, shared=True) as part:
            self._registry.download(version, part)
            _read(part, version.name)
        return _read(place, version.name)

    def keep(self, label: str) -> None:
        """Write down that a version is served, for a time when the registry is gone; old ones leave the folder."""
        self.use(label)
        name, _, number = label.rpartition("/")
        write_whole(self.folder / name / _CURRENT, number + "\n", shared=True)
        forget_unused(self.folder / name, seconds=_UNUSED)

    def use(self, label: str) -> None:
        """Note that a version is in use, so that its files stay."""
        name, _, number = label.rpartition("/")
        os.utime(self.folder / name / number)

    def _place(self, name, number):
        return self.folder / name / number / name


def label_of(version) -> str:
    """Return the name by which a version of a registered model is told: mine_x2/3."""
    return _label(version.name, version.number)


def _label(name, number):
    return f"{name}/{number}"


def _read(folder, name):
    """Read the card of a registered model: one of another name or scale would answer for that one."""
    card = ModelCard.read(folder)
    if f"{card.name}_x{card.scale}" != name:
        raise ModelError(f"Expected {name} in the registry to hold that model. Received: {card.name}_x{card.scale}")
    return card


async def follow(service: Service, champions: Champions, every: float = EVERY) -> None:
    """Swap every new champion in, until cancelled; whatever fails is told once, and the old one stays."""
    bad: set[str] = set()  # versions that are damaged or do not run: they are not fetched again
    told: dict[str, str] = {}  # what fails now, by model
    while True:
        await asyncio.sleep(every)
        for name in champions.names:
            try:
                await _look(service, champions, name, bad)
                if champions.staging:
                    await _look_for_challenger(service, champions, name, bad)
                told.pop(name, None)
            except Exception as error:  # the registry, the disk, or a bug: the next look may succeed
                reason = getattr(error, "strerror", None) or error  # without the path: a part file's is always new
                text = f"Expected to follow {name}. Received: {type(error).__name__} ({reason})"
                text = str(error) if isinstance(error, OutputError) else text
                if text not in told.values():
                    _say(text)
                told[name] = text


async def _look(service, champions, name, bad):
    """Serve the champion of a model where it is another one than before."""
    version = await asyncio.to_thread(champions.newest, name)
    if version is None or (label := label_of(version)) == service.labels.get(name):
        return
    if card := await _warmed(service, champions, version, bad):
        service.adopt(label, card)
        _say(f"{label} is served now")
        await asyncio.to_thread(champions.keep, label)


async def _look_for_challenger(service, champions, name, bad):
    """Serve the challenger of a model behind /staging where it is another one than before."""
    version = await asyncio.to_thread(champions.newest, name, CHALLENGER)
    if version is None:
        return
    if (label := label_of(version)) != service.challengers.get(name):
        if not (card := await _warmed(service, champions, version, bad)):
            return
        service.stage(label, card)
        _say(f"{label} stands behind /staging now")
    await asyncio.to_thread(champions.use, label)


async def _warmed(service, champions, version, bad):
    """Return the card of a version that was fetched, checked and tried; None, told once, for one that is no good."""
    if (label := label_of(version)) in bad:
        return None
    try:
        card = await asyncio.to_thread(champions.card, version)
    except (ModelError, InputError) as error:
        _refuse(service, label, bad, str(error))
        return None
    try:
        await service.warm(card)
    except Exception as error:  # what a runtime raises for a graph that it cannot run
        _refuse(service, label, bad, f"Expected a model that runs. Received: {label} ({error})")
        return None
    return card


def _refuse(service, label, bad, text):
    bad.add(label)
    service.metrics.refused_models.inc()
    _say(text)


def _say(text):
    print(f"imagesr serve: {' '.join(text.split())}", file=sys.stderr, flush=True)
