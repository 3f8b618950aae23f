"""Export a trained network into a saved model: the graphs, the parity check, the int8 file, the card."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from imagesr.card import FLAVOURS, ModelCard
from imagesr.engines import import_engine
from imagesr.errors import ModelError
from imagesr.evaluate.protocol import evaluate, upscaler
from imagesr.export.floating import FLOAT_FILE, check_float, run_keras, write_float
from imagesr.export.graph import integer_graph
from imagesr.export.int8 import add_int8, calibration_pairs
from imagesr.export.parity import check_parity, patterns
from imagesr.export.playback import missing_player, play_shader
from imagesr.files import whole_folder, write_whole
from imagesr.media.images import find_images
from imagesr.train.runs import read_run

if TYPE_CHECKING:
    import keras

# Formats beside ONNX, by the engine that runs them.
ALSO = {"openvino": "model.xml", "litert": "model.tflite", "saved_model": "saved_model"}
# Formats for other programs: a shader, and an ONNX graph on float samples.
PLAYERS = {"mpv": "model.glsl", "ffmpeg": FLOAT_FILE, "vapoursynth": FLOAT_FILE}
CLEAN = (
    0.25  # what these are written at, where a network takes a clean: they cannot ask the film; QP 23, x264 at CRF 20
)


def export(
    run: Path,
    name: str,
    folder: Path,
    *,
    calibration: Sequence[Path] = (),
    benchmarks: Mapping[str, Path] | None = None,
    data: Mapping[str, str] | None = None,
    also: Sequence[str] = (),
    detail: float = 0.0,
    clean: float | None = None,
    flavour: str = "",
) -> ModelCard:
    """Export the network of a run folder or a `.keras` file into `folder`/NAME_xSCALE, and return its card.

    Args:
        calibration: pictures for the int8 ranges. Without them no int8 file is made.
        benchmarks: folders of HR pictures by name. Their PSNR and SSIM go into the card.
        data: licences by the name of the training data, for the card.
        also: formats of `ALSO` and of `PLAYERS`.
        detail: the default of a network with two ends, 0 to 1.
        clean: what formats of `PLAYERS` are written at, 0 to 1, of a network that takes it; None is `CLEAN`. Where
            engines run it, its default is 0.
        flavour: what it was trained for, "film" or "photo", for the card; "" where that makes no difference.

    Raises ValueError for what cannot be exported, and where a float32 graph differs from Keras by more than one code.
    Nothing is written then.
    """
    if not name or Path(name).name != name:
        raise ValueError(f"Expected a name without folders. Received: {name!r}")
    if flavour and flavour not in FLAVOURS.values():
        raise ValueError(f"Expected a flavour, {' or '.join(sorted({*FLAVOURS.values()}))}. Received: {flavour!r}")
    engines, players = [x for x in also if x in ALSO], [x for x in also if x in PLAYERS]
    for engine in ("keras", "openvino", "onnx", *engines):
        import_engine(engine)
    from imagesr.models.cost import model_scale
    from imagesr.models.layers import numbers_of

    model, config = read_run(run)
    scale, fixed = model_scale(model), None not in model.inputs[0].shape[1:3]
    if not 0 <= detail <= 1:
        raise ValueError(f"Expected a detail from 0 to 1. Received: {detail:g}")
    if engines and (numbers := numbers_of(model)):
        received, takes = ", ".join(engines), " and ".join(numbers)
        raise ValueError(f"Expected ONNX or a shader for a network that takes {takes}. Received: {received}")
    baked = _baked_clean(model, clean)
    if fixed and benchmarks:
        raise ValueError(f"Expected no pictures to measure: {run} takes those of one size. Received: {[*benchmarks]}")
    pairs = calibration_pairs(calibration, model, scale)
    target = folder / f"{name}_x{scale}".replace("/", "-")
    with whole_folder(target) as part:
        _write_graphs(model, part, engines)
        card = _describe(model, name, config, data or {}, part)
        own = {"detail": detail, "clean": 0.0}
        card = dataclasses.replace(card, flavour=flavour, **{name: own[name] for name in numbers_of(model)})
        card.write()
        pictures = [*patterns(model), *(lr for lr, _ in pairs[:4])]
        check_parity(ModelCard.read(part), pictures, engines)
        write_for_players(model, card, players, pictures, clean=baked)
        add_int8(card, pairs)
        measured = {key: measure(card, key, place) for key, place in (benchmarks or {}).items()}
        dataclasses.replace(card, measured=measured).write()
    return ModelCard.read(target)


def _baked_clean(model, clean):
    """Return the clean that files without such an input are written at; raises ValueError."""
    from imagesr.models.layers import takes_clean

    if clean is None:
        return CLEAN if takes_clean(model) else 0.0
    if not 0 <= clean <= 1:
        raise ValueError(f"Expected a clean from 0 to 1. Received: {clean:g}")
    if not takes_clean(model):
        raise ValueError(f"Expected a network that takes a clean. Received: {model.name}, and --clean {clean:g}")
    return clean


def add_formats(folder: Path, also: Sequence[str], *, clean: float | None = None) -> ModelCard:
    """Add formats of `PLAYERS` to a saved model, or renew them, and return its card.

    `clean` is as in `export`. Everything else in the folder stays as it is. Raises ValueError for what cannot be
    exported, and where a format differs from Keras by more than one code. Nothing is changed then.
    """
    card = ModelCard.read(folder)
    model, _ = read_run(folder / "model.keras")
    baked = _baked_clean(model, clean)
    with whole_folder(folder) as part:
        shutil.copytree(folder, part, dirs_exist_ok=True)
        write_for_players(model, dataclasses.replace(card, folder=part), also, patterns(model), clean=baked)
        dataclasses.replace(card, folder=part).write()
    return ModelCard.read(folder)


def write_for_players(
    model: keras.Model, card: ModelCard, also: Sequence[str], pictures: Sequence[np.ndarray], *, clean: float = 0.0
) -> None:
    """Write formats of `PLAYERS` into the folder of a card, and compare them with Keras on uint8 NHWC pictures.

    A network that takes a detail is written at the card's, and its shader also at 0, as model_detail0.glsl. One
    that takes a clean is written at `clean`.
    """
    if "mpv" in also:
        _write_shaders(model, card, pictures, clean)
    if "vapoursynth" in also and card.scale.down > 1:
        raise ValueError(f"Expected a whole scale for vapoursynth: vs-mlrt runs no other. Received: x{card.scale}")
    if {"ffmpeg", "vapoursynth"} & {*also}:
        numbers = {"detail": card.detail or 0.0, "clean": clean}
        write_float(model, card.folder / FLOAT_FILE, **numbers)
        check_float(model, card.folder / FLOAT_FILE, pictures, **numbers)


def _write_shaders(model, card, pictures, clean):
    from imagesr.export.shader import write_shader
    from imagesr.models.layers import numbers_of

    own = {"detail": card.detail or 0.0, "clean": clean}
    values = {name: own[name] for name in numbers_of(model)}
    versions = {"model.glsl": values}
    if values.get("detail"):
        versions["model_detail0.glsl"] = values | {"detail": 0.0}
    (card.folder / "model_detail0.glsl").unlink(missing_ok=True)
    missing = missing_player()
    for file, constants in versions.items():
        shader = write_shader(model, name=card.name, scale=card.scale, constants=constants)
        write_whole(card.folder / file, shader.text)
        print(f"{file}: {shader.passes} passes, {shader.fetches:.0f} texture reads per LR pixel", flush=True)
        if missing:
            print(f"{file}: not compared with Keras, {missing}", flush=True)
        else:
            _check_shader(model, card, card.folder / file, constants, pictures)


def _check_shader(model, card, file, constants, pictures):
    worst = 0
    for picture in pictures:
        height, width = (n // 4 * 4 for n in picture.shape[1:3])  # what 4:2:0 takes before and after
        picture = picture[:, :height, :width]
        played = play_shader(file, picture[..., 0], card.scale).astype(int)
        worst = max(worst, int(np.abs(played - run_keras(model, picture, **constants)[..., 0]).max()))
    if worst > 1:
        raise ValueError(f"Expected {file.name} within one code of Keras. Received: {worst}")
    print(f"{file.name}: within {worst} of Keras", flush=True)


def _write_graphs(model, folder, also):
    model.save(folder / "model.keras")
    graph = integer_graph(model, 8)
    _write(graph, folder / "model.onnx", "onnx")
    _write(integer_graph(model, 16), folder / "model_u16.onnx", "onnx")
    for format in dict.fromkeys(also):
        _write(graph, folder / ALSO[format], "tf_saved_model" if format == "saved_model" else format)


def _write(graph, path, format):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of tf2onnx about NumPy
            graph.export(str(path), format=format, verbose=False)
    except ImportError:
        raise
    except Exception as error:  # the converters raise exceptions of many classes
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"Expected a network that can be written as {format}. Received: {reason}") from error


def _describe(model: keras.Model, name, config, data, folder) -> ModelCard:
    """Return the card of a network, without measured figures and checksums."""
    from imagesr.models import cost

    return ModelCard(
        name=name,
        scale=cost.model_scale(model),
        channels=model.inputs[0].shape[-1],
        multiple=cost.multiple(model),
        receptive_field=cost.receptive_field(model),
        parameters=cost.parameters(model),
        multiply_accumulates=cost.multiply_accumulates(model),
        config=config,
        config_sha256=hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest(),
        data=[{"name": key, "licence": licence} for key, licence in data.items()],
        measured={},
        sha256={},
        size=model.inputs[0].shape[1:3] if None not in model.inputs[0].shape[1:3] else None,
        folder=folder,
    )


def measure(card: ModelCard, name: str, pictures: Path) -> dict[str, dict[str, float]]:
    """Return PSNR-Y and SSIM-Y over a folder of HR pictures called `name`, at every precision and of Lanczos.

    They are those of the faithful end, where the model has two, and without cleaning.
    """
    faithful = {name: 0.0 for name in ("detail", "clean") if getattr(card, name) is not None}
    scale, files, measured = card.scale, find_images([pictures]), {}
    for precision in ("fp32", "bf16", "int8", "lanczos"):
        try:
            if precision == "lanczos":
                upscale = upscaler("lanczos", scale)
            else:
                upscale = upscaler(str(card.folder), scale, precision=precision, **faithful)
        except ModelError as error:  # a CPU without bf16, a model without int8
            print(f"{name} {precision}: {error}", flush=True)
            continue
        result = evaluate(upscale, files, scale)
        measured[precision] = {key: round(result[key], 4) for key in ("psnr_y", "ssim_y")}
        print(f"{name} {precision}: {result['psnr_y']:.2f} dB, {result['ssim_y']:.4f}", flush=True)
    return measured
