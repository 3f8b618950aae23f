"""The state that all requests share, and the steps from a picture to its result."""

from __future__ import annotations

import asyncio
import math
import tempfile
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

import imagesr
from imagesr.card import ModelCard, models_for, saved_models
from imagesr.engines import checked_clean, checked_detail, load_engine, tuned
from imagesr.engines.chain import chain
from imagesr.errors import ModelError
from imagesr.image.upscale import clean_of, upscaling
from imagesr.media.photo_coding import HEAD
from imagesr.media.photos import Picture, encode_photo, from_array, open_decoded, stop
from imagesr.scale import Scale
from imagesr.serve.decoding import DecodeRequest, Decoders
from imagesr.serve.feedback import Feedback
from imagesr.serve.follow import Champions, follow
from imagesr.serve.metrics import Metrics
from imagesr.serve.refusal import Refusal
from imagesr.serve.scheduler import Places, Scheduler
from imagesr.serve.videos import STATES, Videos
from imagesr.serve.web import FILM_FILES, film_card

_GROWN = 4  # a result may have as many times the pixels of the largest picture
_CONNECTIONS = 1000
_FILES = 128  # that the service itself has open, at most
_CHAINS = 8  # models loaded at a time


@dataclass(frozen=True)
class Wanted:
    """Hold what a query asks for; `detail` and `clean` None are the models' own, or none. `clean` may be `auto`."""

    scale: Scale
    model: str
    format: str
    detail: float | None = None
    clean: float | str | None = None


class Service:
    """Hold what all requests share: models, places, scheduler, decoders, metrics."""

    def __init__(
        self,
        *,
        model: str,
        queue: int,
        megapixels: float,
        threads: int,
        detail: float | None = None,
        champions: Champions | None = None,
        videos: Videos | None = None,
        feedback: Feedback | None = None,
    ):
        self.most = round(megapixels * 1e6)
        self.models, self.names = photo_models()
        self.metrics = Metrics()
        self.champions, self.videos, self.feedback = champions, videos, feedback
        if feedback:
            feedback.metrics = self.metrics
        if videos:
            videos.count_made = self.metrics.count_video
            for state in STATES:
                self.metrics.videos.labels(state).set_function(partial(videos.count, state))
        self.labels: dict[str, str] = {}  # of what the registry names: the version that is served
        self._pinned: dict[str, list[ModelCard]] = {}  # by label, also those that only a request under way still uses
        self.challengers: dict[str, str] = {}  # as `labels`, of those behind /staging
        self.staged: dict[str, str] = {}  # by a model's name, the label of what is behind /staging
        self.files: dict[tuple[str, str], tuple[Path, str]] = {}  # by (folder, name): the path and its SHA-256
        for cards in self.models.values():
            self._add_files(cards)
        with suppress(ModelError):  # a folder of models of one's own may have none for the page's films
            film = film_card()
            for file in FILM_FILES:
                self.files[film.folder.name, file] = film.folder / file, film.sha256[file]
        for label, card in champions.first() if champions else ():
            if card.name in self.names and card.name not in {label.rpartition("_x")[0] for label in self.labels}:
                raise ModelError(f"Expected another name than a shipped model's. Received: {card.name}")
            self.adopt(label, card)
            champions.keep(label)
        if model not in self.names:
            raise ModelError(f"Expected a model for photographs ({', '.join(self.names)}). Received: {model}")
        self.model, self.detail = model, detail
        if detail is not None:
            cards = [card for card in self.models[self.names[model]] if card.scale != Scale(1)]
            self._check_detail(detail, next((card for card in cards if card.detail is not None), cards[0]))
        self.places = Places(queue + 1)
        self.metrics.places.set(self.places.number)
        self.metrics.places_taken.set_function(lambda: self.places.taken)
        self.metrics.queue_share.set_function(lambda: self.places.taken / self.places.number)
        self.metrics.build.labels(imagesr.__version__, model).set(1)
        if champions:
            self.metrics.behind.set_function(lambda: champions.behind(self.labels))
        self.metrics.open.set_function(lambda: self.open)
        self.open = 0  # requests for a picture, from the first byte to the last
        self.most_connections = _connections(self.places.number)
        self.most_open = 3 * self.most_connections // 4  # the others are for /healthz, /readyz and /metrics
        self.draining = False
        self._threads = threads
        self.warming: asyncio.Task | None = None
        self._steps = lru_cache(_CHAINS)(self._load)
        self._engine = lru_cache(2 * _CHAINS)(self._load_engine)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start decoders and scheduler, warm the model up in the background, and remove all files at the end."""
        with tempfile.TemporaryDirectory(prefix="imagesr-serve-", ignore_cleanup_errors=True) as folder:
            tempfile.tempdir = folder  # rows of results are written there, too, and removed with it
            self.folder = Path(folder)
            with ExitStack() as stack:
                stack.callback(setattr, tempfile, "tempdir", None)
                self.encoders = ThreadPoolExecutor(2, "encode")
                stack.callback(self.encoders.shutdown, cancel_futures=True)
                self.decoders = stack.enter_context(Decoders(self.folder))
                self.scheduler = stack.enter_context(Scheduler())
                self.warming = asyncio.create_task(self._warm_up())
                tasks = [self.warming]
                if self.champions:
                    tasks.append(asyncio.create_task(follow(self, self.champions)))
                try:
                    async with (
                        self.videos.running(self.folder) if self.videos else nullcontext(),
                        self.feedback.running(self.folder) if self.feedback else nullcontext(),
                    ):
                        yield
                finally:
                    for task in tasks:
                        task.cancel()
                    await asyncio.wait(tasks)

    async def _warm_up(self):
        picture = from_array(np.zeros((1, 1, 3), np.uint8))
        with ExitStack() as spools:
            await self.decoders.warm()
            for clean in (None, 1.0):  # tiles are larger where another network runs first
                await self.scheduler.run(self._upscale(picture, self.model, Scale(2), spools, clean=clean))

    def adopt(self, label: str, card: ModelCard) -> None:
        """Serve a version from the registry in place of the one before, from the next request on."""
        others = [other for other in self.models.get(card.name, []) if other.scale != card.scale]
        cards = [*others, card]
        registered = label.rpartition("/")[0]
        if before := self.labels.get(registered):
            self.metrics.versions.remove(registered, before.rpartition("/")[2])
            self.metrics.promotions.labels(registered).inc()
        else:
            self.metrics.promotions.labels(registered)  # from 0 on
        self.labels[registered] = label
        self._pinned[_named(card.name, self.labels)] = cards
        self._add_files(cards)
        self.models[card.name], self.names[card.name] = cards, card.name
        self.metrics.versions.labels(registered, label.rpartition("/")[2]).set(1)

    def stage(self, label: str, card: ModelCard) -> None:
        """Serve a challenger behind /staging in place of the one before, from the next request on."""
        others = [other for other in self._pinned.get(self.staged.get(card.name), []) if other.scale != card.scale]
        registered, _, number = label.rpartition("/")
        if before := self.challengers.get(registered):
            self.metrics.staged.remove(registered, before.rpartition("/")[2])
        self.challengers[registered] = label
        self.staged[card.name] = _named(card.name, self.challengers)
        self._pinned[self.staged[card.name]] = [*others, card]
        self.metrics.staged.labels(registered, number).set(1)

    def pin(self, model: str) -> str:
        """Return the name that means a model's present version for as long as a request takes."""
        label = _named(model, self.labels)
        return label if label in self._pinned else model

    def label(self, model: str) -> str:
        """Return the version behind a name, a pinned one too, as answers tell it."""
        return model if model in self._pinned else f"{self.names[model]}@{imagesr.__version__}"

    async def warm(self, card: ModelCard) -> None:
        """Load a model and upscale a picture by it, beside the requests; raises what a model raises that cannot run."""
        key = f"warming {card.folder}"
        self._pinned[key] = [card]
        try:
            await asyncio.to_thread(self._engine, card.folder, 0)
            picture = from_array(np.zeros((1, 1, 3), np.uint8))
            with ExitStack() as spools:
                await self.scheduler.run(self._upscale(picture, key, card.scale, spools))
        finally:
            del self._pinned[key]

    def _add_files(self, cards):
        for card in cards:
            for file, digest in card.sha256.items():
                if file.endswith(".onnx"):
                    self.files[card.folder.name, file] = card.folder / file, digest

    def check_ready(self) -> None:
        """Raise a Refusal while no picture is accepted."""
        if self.draining:
            raise Refusal(503, "draining", "Expected a service that stays. It is being stopped", {"Retry-After": "5"})
        if not (self.warming and self.warming.done()):
            raise Refusal(503, "cold", "Expected a service that is warm. It is starting", {"Retry-After": "1"})

    def detail_of(self, wanted: float | None, model: str, scale: Scale) -> float | None:
        """Return the detail that a request runs at: `wanted`, or the service's; None is the models' own, or none.

        Raises ModelError where `wanted` is outside 0 to 1, or one of the networks that reach the scale takes none.
        """
        every = self._chain(model, scale)
        cards = [card for card in every if card.scale != Scale(1)] or every  # what cleans alone takes no detail
        if wanted is None:
            return self.detail if all(card.detail is not None for card in cards) else None
        for card in cards:
            self._check_detail(wanted, card)
        return wanted

    def check_clean(self, wanted: float | str | None, model: str, scale: Scale) -> None:
        """Raise ModelError for a clean outside 0 to 1, or one where no network that reaches the scale takes it."""
        cards = self._chain(model, scale)
        every = [card for own in self.models.values() for card in own if card.clean is not None]
        known = [*dict.fromkeys(f"{card.name} x{card.scale}" for card in every)]  # one cleans for many models
        if wanted != "auto":
            checked_clean(wanted, next((card for card in cards if card.clean is not None), cards[0]), known=known)

    def _check_detail(self, detail, card):
        every = (card for cards in self.models.values() for card in cards)
        checked_detail(
            detail, card, known=[f"{other.name} x{other.scale}" for other in every if other.detail is not None]
        )

    async def make(self, source: Path, wanted: Wanted, times: dict[str, float]) -> Path:
        """Upscale the picture in the file `source`, and return the new file, beside it.

        The seconds that each stage takes go into `times`. Raises a Refusal.
        """
        model, scale, format = wanted.model, wanted.scale, wanted.format
        decoded, made = source.with_name("decoded.v"), source.with_name("made")
        with self.places.one():
            begun = time.perf_counter()
            native = math.prod((card.scale for card in self._chain(model, scale)), start=Scale(1))
            request = DecodeRequest(scale, native, format, self.most, _GROWN * self.most)
            quality = self.feedback.quality_of(source) if self.feedback else None
            size = await self.decoders.decode(source, decoded, request)
            head = _head(source) if wanted.clean == "auto" else b""
            if quality is not None:
                self.feedback.measure(decoded, quality)
            _forget(source)
            times["decode"] = time.perf_counter() - begun
            clean = wanted.clean
            with ExitStack() as spools:
                spools.callback(_forget, decoded)  # a download may take long
                begun = time.perf_counter()
                picture = open_decoded(decoded)
                if clean == "auto":
                    clean = clean_of(head, picture).clean
                steps = self._upscale(picture, model, scale, spools, detail=wanted.detail, clean=clean)
                large, times["network"] = await self.scheduler.run(steps)
                times["wait"] = time.perf_counter() - begun - times["network"]
                begun = time.perf_counter()
                await self._encode(large, made, format)
                times["encode"] = time.perf_counter() - begun
        self.metrics.pixels.labels("pictures").inc(size[0] * size[1])
        self.metrics.pixels.labels("results").inc(large.width * large.height)
        return made

    def _upscale(self, picture, model, scale, spools, **numbers):
        size = scale.grow(picture.width), scale.grow(picture.height)
        steps = self._steps(tuple(card.folder for card in self._chain(model, scale)))
        return (yield from upscaling(picture, size, tuned(steps, **numbers), fixed=True, spools=spools))

    def _chain(self, model, scale):
        cards = self._pinned.get(model) or self.models[self.names[model]]
        if scale == Scale(1) and all(card.scale != scale for card in cards):
            raise ModelError(f"Expected a scale above 1: no network cleans for this model. Received: 1, {model}")
        return chain(cards, scale)

    def _load(self, folders):
        # A place in a chain has an engine of its own: runtimes compile for one size.
        return [self._engine(folder, place) for place, folder in enumerate(folders)]

    def _load_engine(self, folder, place):
        return load_engine(ModelCard.read(folder), bits=16, threads=self._threads)

    async def _encode(self, picture: Picture, out: Path, format: str):
        loop = asyncio.get_running_loop()
        writing = loop.run_in_executor(
            self.encoders, lambda: encode_photo(picture, out, format, note=lambda text: None)
        )
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            stop(picture)
            await asyncio.wait([writing])
            writing.exception()
            raise


def _named(model, labels):
    """Return the labels of a model's versions from the registry, "" for a shipped model."""
    return ", ".join(sorted(label for name, label in labels.items() if name.rpartition("_x")[0] == model))


def _connections(places):
    """Return the limit of connections: each needs a file, and each that holds a place needs eight more."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return _CONNECTIONS
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    most = _CONNECTIONS if files == resource.RLIM_INFINITY else (files - _FILES - 8 * places) // 2
    return max(8, min(most, _CONNECTIONS))


def _head(file):
    with file.open("rb") as opened:
        return opened.read(HEAD)


def _forget(file):
    with suppress(OSError):  # Windows keeps a file that is open until the request ends
        file.unlink(missing_ok=True)


def photo_models() -> tuple[dict[str, list[ModelCard]], dict[str, str]]:
    """Return the shipped models for photographs by name, and every name that stands for one of them."""
    shipped = sorted({folder.name.rpartition("_x")[0] for folder in saved_models()})
    names = {name: models_for("photographs", name)[0].name for name in shipped}
    models = {name: models_for("photographs", name) for name in sorted(set(names.values()))}
    models = {
        name: cards
        for name, cards in models.items()
        if cards and all(card.channels in (1, 3) and not card.size for card in cards)
    }
    return models, {name: photo for name, photo in names.items() if photo in models}
