"""Running exported models: one runtime per file, imported when it is asked for.

`load_engine` loads one model, `chain` several that reach a scale together, `tiles` cuts large pictures into pieces,
`batching` puts frames of several threads together.
Colour and containers are in `image`, `video` and `media`. OpenVINO, ONNX Runtime and LiteRT are known here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from numbers import Real
from pathlib import Path
from types import ModuleType
from typing import NamedTuple, Protocol

import numpy as np

from imagesr.card import ModelCard, models_with
from imagesr.cli import install
from imagesr.errors import ModelError
from imagesr.models import import_keras


class Runtime(NamedTuple):
    """Describe a runtime: its module, the extra that brings it, and its own names for the devices that it drives."""

    module: str
    extra: str | None
    devices: dict[str, str] = {"cpu": "CPU"}  # noqa: RUF012, a constant of a constant


ENGINES = {
    "openvino": Runtime("imagesr.engines.openvino", None, {"cpu": "CPU", "gpu": "GPU", "npu": "NPU"}),
    "onnx": Runtime(
        "imagesr.engines.onnx",
        "train",
        {
            "cpu": "CPUExecutionProvider",
            "cuda": "CUDAExecutionProvider",
            "tensorrt": "TensorrtExecutionProvider",
            "directml": "DmlExecutionProvider",
            "coreml": "CoreMLExecutionProvider",
            "migraphx": "MIGraphXExecutionProvider",
        },
    ),
    "keras": Runtime("imagesr.engines.keras", "train", {"cpu": "cpu:0", "gpu": "gpu:0", "cuda": "gpu:0"}),
    "litert": Runtime("imagesr.engines.litert", "train"),
    "saved_model": Runtime("imagesr.engines.saved_model", "train"),
}
DEVICES = tuple(dict.fromkeys(device for runtime in ENGINES.values() for device in runtime.devices))
_BY_CUDA = ("cuda", "tensorrt")  # another package of ONNX Runtime has them
PRECISIONS = ("auto", "fp32", "bf16", "int8")


class Engine(Protocol):
    """Run one exported model: integer NHWC planes in, planes of the same dtype and `scale` times the size out.

    `card` describes the model, `precision` is what it runs at, `detail` the default of a call: from 0, the faithful
    picture, to 1, the most detailed one, where the model has two ends. `clean`, too, is a default: how much of
    the source was lost to compression and noise, from 0, nothing, to 1. Calls may come from several threads; the
    array that a call returns may be overwritten by the next call from the same thread.
    """

    card: ModelCard
    precision: str
    detail: float
    clean: float

    def __call__(self, planes: np.ndarray, detail: float | None = None, clean: float | None = None) -> np.ndarray: ...


def load_engine(
    card: ModelCard,
    *,
    engine: str | None = None,
    device: str = "auto",
    precision: str = "auto",
    bits: int = 8,
    threads: int = 0,
    parallel: int = 1,
    detail: float | None = None,
    clean: float | None = None,
) -> Engine:
    """Load a saved model into a runtime.

    `engine` is one of `ENGINES`; None is OpenVINO where it drives the device. `device` is one of `DEVICES`; `auto` is
    the CPU, on which every figure was measured.

    `bits` is the depth of the planes: 8 takes uint8, 16 takes uint16 and always runs at fp32. `precision` `auto`
    takes the fastest that the CPU computes natively. `threads` 0 uses every core. `parallel` is the number of
    concurrent calls: higher values raise throughput and latency. `detail` and `clean` are from 0
    to 1; None is the card's default.

    Raises ModelError for an engine, device or precision that this model or machine does not have, and for the detail or
    the clean of a model that takes none.
    """
    numbers = {"detail": checked_detail(detail, card) or 0.0, "clean": checked_clean(clean, card) or 0.0}
    if precision not in PRECISIONS:
        raise ModelError(f"Expected a precision ({', '.join(PRECISIONS)}). Received: {precision}")
    device = "cpu" if device == "auto" else device
    engine = engine or next((name for name, runtime in ENGINES.items() if device in runtime.devices), "openvino")
    module = import_engine(engine, device)
    drives = ENGINES[engine].devices
    if len(drives) > 1:
        here = module.devices()
        if drives.get(device) not in here:
            there = ", ".join(name for name, own in drives.items() if own in here)
            how = f"; for NVIDIA's cards: {install('cuda')}" if engine == "onnx" and device in _BY_CUDA else ""
            raise ModelError(
                f"Expected a device that {engine} finds on this machine ({there}). Received: {device}{how}"
            )
        load = partial(module.load, device=drives[device])
    elif device in drives:
        load = module.load
    else:
        raise ModelError(f"The engine {engine} runs on the CPU only. Received: {device}")
    return load(card, precision=precision, bits=bits, threads=threads, parallel=parallel, **numbers)


@dataclass
class Tuned:
    """Run a loaded engine at another detail or clean than its defaults: a view of it, which costs nothing."""

    engine: Engine
    detail: float | None = None
    clean: float | None = None

    @property
    def card(self) -> ModelCard:
        """Return the engine's card."""
        return self.engine.card

    @property
    def precision(self) -> str:
        """Return the engine's precision."""
        return self.engine.precision

    def __call__(self, planes: np.ndarray, detail: float | None = None, clean: float | None = None) -> np.ndarray:
        return self.engine(planes, self.detail if detail is None else detail, self.clean if clean is None else clean)


@dataclass
class Following(Tuned):
    """Run a loaded engine at a clean that is set later, by what is seen of a source."""

    clean: float | None = 0.0


def tuned(engines: Sequence[Engine], *, detail: float | None = None, clean: float | None = None) -> list[Engine]:
    """Return engines at another detail and clean; None is their own. Those that take none stay as they are.

    The first of a chain that takes a clean gets it, the last that takes a detail gets that: see `load_chain`.
    """
    cleans = [i for i, engine in enumerate(engines) if engine.card.clean is not None]
    details = [i for i, engine in enumerate(engines) if engine.card.detail is not None]
    result = []
    for i, engine in enumerate(engines):
        own = {"detail": engine.detail, "clean": engine.clean}
        if detail is not None and i in details:
            own["detail"] = detail if i == details[-1] else 0.0
        if clean is not None and i in cleans:
            own["clean"] = clean if i == cleans[0] else 0.0
        result.append(Tuned(engine, **own))
    return result


def checked_detail(detail: float | None, card: ModelCard | None, *, known: Sequence[str] | None = None) -> float | None:
    """Return the detail that a model runs at: the one given, or the card's default; None for a model that takes none.

    `card` is None for plain resizing. Raises ModelError for a detail outside 0 to 1, and for one given to a model that
    takes none; it names those that do, `known` or the shipped ones.
    """
    return _checked("detail", detail, card, known)


def checked_clean(clean: float | None, card: ModelCard | None, *, known: Sequence[str] | None = None) -> float | None:
    """Return the clean that a model runs at, as `checked_detail` does; raises ModelError as it does."""
    return _checked("clean", clean, card, known)


def _checked(name, number, card, known):
    own = getattr(card, name) if card else None
    if number is None:
        return own
    if not (real := isinstance(number, Real)) or not 0 <= number <= 1:
        raise ModelError(f"Expected a {name} from 0 to 1. Received: {f'{number:g}' if real else number}")
    if own is None:
        received = f"{card.name} x{card.scale}" if card else "lanczos"
        takes = ", ".join(models_with(name) if known is None else known) or "none yet"
        raise ModelError(f"Expected a model that takes a {name} ({takes}). Received: {received}")
    return number


def import_engine(engine: str, device: str = "cpu") -> ModuleType:
    """Import the file of an engine, and its runtime; raises ModelError that says what to install for the device."""
    if engine not in ENGINES:
        raise ModelError(f"Expected an engine ({', '.join(ENGINES)}). Received: {engine}")
    module, extra, _ = ENGINES[engine]
    try:
        if engine in ("keras", "saved_model"):
            import_keras()
        return import_module(module)
    except ModuleNotFoundError as error:
        extra = "cuda" if engine == "onnx" and device in _BY_CUDA else extra
        raise ModelError(f"The engine {engine} needs the package {error.name}: {install(extra)}") from None


def onnx_file(card: ModelCard, precision: str, bits: int) -> Path:
    """Return the ONNX file of a saved model for a precision and depth; raises ModelError where it has none."""
    name = "model_u16.onnx" if bits > 8 else "model_int8.onnx" if precision == "int8" else "model.onnx"
    return model_file(card, name)


def model_file(card: ModelCard, name: str) -> Path:
    """Return a file of a saved model; raises ModelError where it has none."""
    if name not in card.sha256:
        raise ModelError(
            f"Expected {name} in {card.folder}: this model was not exported for that. "
            "Choose another engine or precision"
        )
    return card.folder / name


def only_fp32(engine: str, precision: str, bits: int, *, detail: float = 0.0, clean: float = 0.0) -> None:
    """Raise ModelError for anything but uint8 at fp32, and for a detail or a clean."""
    for name, number in (("detail", detail), ("clean", clean)):
        if number:
            raise ModelError(f"The engine {engine} takes no {name}. Received: {number:g}")
    if bits > 8 or precision not in ("auto", "fp32"):
        raise ModelError(f"The engine {engine} runs 8 bits at fp32 only. Received: {bits} bits, {precision}")
