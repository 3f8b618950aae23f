"""Make a trained network runnable: `python -m imagesr.export RUN --name balanced --calibrate DIR`."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import logging
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from imagesr.card import SAVED_MODELS, ModelCard
from imagesr.cli import Parser, run_command
from imagesr.engines import import_engine, load_engine
from imagesr.errors import ModelError
from imagesr.evaluate.protocol import evaluate, upscaler
from imagesr.files import whole_folder
from imagesr.media.images import find_images, read_rgb
from imagesr.pixels import downscale, luma
from imagesr.scale import Scale
from imagesr.train.runs import read_run

if TYPE_CHECKING:
    import keras
    import onnx

    Pair = tuple[np.ndarray, np.ndarray]  # LR and HR, (1, H, W, channels) uint8

# Formats beside ONNX, by the engine that runs them.
ALSO = {"openvino": "model.xml", "litert": "model.tflite", "saved_model": "saved_model"}
CROP = 96  # LR pixels a side
CALIBRATION = 3_000_000  # LR pixels: what NNCF's 300 crops of that size hold
MOVES = ("Pad", "Reshape", "SpaceToDepth", "Squeeze", "Transpose", "Unsqueeze")  # ONNX nodes that do not compute
INT8_LOSS = 1.0  # dB; more than that and int8 does not pay


def integer_graph(model: keras.Model, bits: int) -> keras.Model:
    """Return the network on integer samples: uint8 or uint16 NHWC in, the same out, rounded and clipped."""
    import keras
    from keras import ops

    from imagesr.models.cost import input_size, multiple

    peak, middle, dtype = 2**bits - 1, 2 ** (bits - 1), f"uint{bits}"
    lr = keras.Input(model.input.shape[1:], batch_size=1, dtype=dtype, name="lr")
    samples = ops.cast(lr, "float32")
    anchored = _is_anchored(model)
    sr = _on_samples(model, peak, middle)(samples - middle) if anchored else model(samples / peak) * peak
    # 65535 is the largest float32 below 2**16 that the cast must meet, and representable.
    sr = ops.cast(ops.clip(ops.round(sr), 0, peak), dtype)
    graph = keras.Model(lr, sr, name=f"{model.name}_u{bits}")
    size = input_size(model, (16 * multiple(model),) * 2)
    graph(np.zeros((1, *size, lr.shape[-1]), dtype))  # the exporter wants a model that has been called
    return graph


def _is_anchored(model):
    """Tell whether a network is an anchor, and convolutions and ReLU beside it: such a one commutes with scaling."""
    import keras

    plain = (keras.layers.InputLayer, keras.layers.Conv2D, keras.layers.Activation)
    linear = (keras.activations.linear, keras.activations.relu)
    return any(layer.name == "anchor" for layer in model.layers) and all(
        isinstance(layer, plain) and getattr(layer, "activation", linear[0]) in linear for layer in model.layers
    )


def _on_samples(model, peak, middle):
    """Return an anchored network for samples as they are, relative to mid-grey, with the same biases made larger.

    No division then, which low precision would round, and low precision is finest around zero. The biases behind the
    convolutions that read the samples make up for mid-grey: the head's for the head, for the anchor its partner's, the
    tail's, or its own where it is alone.
    """
    import keras

    names = [layer.name for layer in model.layers]
    readers = {"head": "head", "tail": "anchor"} if "tail" in names else {"anchor": "anchor"}

    def with_bias(layer):
        bias = {"use_bias": True} if layer.name in readers else {}
        return type(layer).from_config(layer.get_config() | bias)

    scaled = keras.models.clone_model(model, clone_function=with_bias)
    for layer in scaled.layers:
        if isinstance(layer, keras.layers.Conv2D):
            kernel, *biases = model.get_layer(layer.name).get_weights()
            weights = [kernel, *(bias * peak for bias in biases)]
            if layer.name in readers:
                reader = model.get_layer(readers[layer.name]).get_weights()[0]
                weights[1:] = [sum(weights[1:]) + middle * reader.sum((0, 1, 2))]
            layer.set_weights(weights)
    return scaled


def quantize(onnx_file: Path, target: Path, samples: Sequence[np.ndarray]) -> None:
    """Write the int8 version of an ONNX file: its convolutions in int8, calibrated on `samples`.

    An anchor or a bicubic stays in floating point: a linear filter rounded to 8 bits would shift every tone. Raises
    ValueError where nothing else is there, and where NNCF fails.
    """
    import nncf
    import onnx
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    model = onnx.load(onnx_file)
    nodes = model.graph.node
    anchors = [node.name for node in nodes if node.op_type == "Conv" and "anchor" in node.name]
    filters = anchors + [node.name for node in nodes if node.op_type == "Conv" and "bicubic" in node.name]
    rest = [node.name for node in nodes if node.op_type != "Conv"]
    if len(filters) + len(rest) == len(nodes):
        raise ValueError("it has no convolutions but linear filters")
    nncf.set_log_level(logging.WARNING)
    options = {"ignored_scope": nncf.IgnoredScope(names=filters + rest), "subset_size": len(samples)}
    if not anchors:
        # NNCF's own way, the mean of the samples' ranges, cuts bright pictures off where features grow with
        # brightness: up to 5 dB. Beside an anchor they do not, and the finer steps are worth 0.1 dB.
        options["advanced_parameters"] = nncf.AdvancedQuantizationParameters(
            activations_range_estimator_params=RangeEstimatorParametersSet.HISTOGRAM
        )
    dataset = nncf.Dataset([{model.graph.input[0].name: sample} for sample in samples])
    try:
        try:
            quantized = nncf.quantize(model, dataset, fast_bias_correction=False, **options)
        except KeyError:  # the accurate correction loses its way in some networks
            quantized = nncf.quantize(model, dataset, **options)
    except Exception as error:  # NNCF raises what it likes
        raise ValueError(f"NNCF fails with {type(error).__name__}, {error}") from error
    _adjust(quantized)
    if anchors:
        _keep_flat(quantized, model)
    onnx.save(quantized, target)


def _adjust(quantized: onnx.ModelProto) -> None:
    """Set the quantisers of samples and of concatenations right.

    Samples are 8-bit integers already. A range learnt from pictures would map them to other integers and round each:
    0.2 dB. A step of one code leaves them as they are. And signed integers behind a concatenation are unsigned ones to
    OpenVINO (2026.4, on x86): shifted by 128, they say the same.
    """
    from onnx.numpy_helper import from_array, to_array

    nodes = quantized.graph.node
    tensors = {tensor.name: tensor for tensor in quantized.graph.initializer}
    makers = {output: node for node in nodes for output in node.output}
    for node in (node for node in nodes if node.op_type == "QuantizeLinear"):
        step, zero = (to_array(tensors[name]) for name in node.input[1:3])
        source = makers[node.input[0]]
        while source.op_type in MOVES:
            source = makers[source.input[0]]
        on_samples = source.input[0] in makers and makers[source.input[0]].op_type == "Cast"
        if on_samples and source.op_type == "Sub":  # of mid-grey
            step, zero = np.ones((), np.float32), np.zeros((), np.int8)
        elif on_samples and source.op_type == "Mul":  # by 1/255
            step, zero = to_array(tensors[source.input[1]]), np.zeros((), np.uint8)
        elif source.op_type == "Concat" and zero.dtype == np.int8:
            zero = (zero.astype(int) + 128).astype(np.uint8)
        back = next(other for other in nodes if other.input and other.input[0] == node.output[0])
        for reader in (node, back):
            tensors[reader.input[1]].CopyFrom(from_array(step, reader.input[1]))
            tensors[reader.input[2]].CopyFrom(from_array(zero, reader.input[2]))
    del quantized.graph.value_info[:]  # it may name the signed type


def _keep_flat(quantized: onnx.ModelProto, model: onnx.ModelProto) -> None:
    """Round the head's int8 weights so that each filter keeps its sum, and give it back its bias.

    The head reads the samples themselves. Weights rounded one by one answer a flat area with an error that grows with
    its brightness, and every flat area gets a grid of one code (0.1 dB on clean photographs).
    """
    from onnx.numpy_helper import from_array, to_array

    def tensors(graph):
        return {tensor.name: tensor for tensor in graph.initializer}

    def head(graph):
        return next((node for node in graph.node if node.op_type == "Conv" and "head" in node.name), None)

    exact, rounded = tensors(model.graph), tensors(quantized.graph)
    source, conv = head(model.graph), head(quantized.graph)
    if conv is None:
        return
    scaling = next(node for node in quantized.graph.node if conv.input[1] in node.output)
    step = to_array(rounded[scaling.input[1]]).reshape(-1, 1)
    weights = to_array(rounded[scaling.input[0]])
    wanted = to_array(exact[source.input[1]]).reshape(len(weights), -1) / step
    codes = weights.reshape(len(weights), -1).astype(int)
    for filter_codes, filter_wanted in zip(codes, wanted, strict=True):
        missing = int(np.rint(filter_wanted.sum() - filter_codes.sum()))
        nearest = np.argsort(-np.sign(missing) * (filter_wanted - filter_codes))
        filter_codes[nearest[: abs(missing)]] += np.sign(missing)
    codes = np.clip(codes, -128, 127).reshape(weights.shape).astype(np.int8)
    rounded[scaling.input[0]].CopyFrom(from_array(codes, scaling.input[0]))
    rounded[conv.input[2]].CopyFrom(from_array(to_array(exact[source.input[2]]), conv.input[2]))


def crops(pictures: Sequence[Path], model: keras.Model, scale: Scale) -> list[Pair]:
    """Cut one pair out of each picture, at a seeded place; a picture that is too small is mirrored at its edges.

    Of more pictures than `CALIBRATION` allows, every nth is taken.
    """
    from imagesr.models.cost import input_size, multiple

    unit = math.lcm(multiple(model), scale.down)
    lr_size = input_size(model, (CROP // unit * unit,) * 2)
    size = [n * scale.up // scale.down for n in lr_size]
    random, pairs = np.random.default_rng(0), []
    for path in pictures[:: math.ceil(len(pictures) * math.prod(lr_size) / CALIBRATION) or 1]:
        hr = read_rgb(path)
        rows, columns = (max(0, n - have) for n, have in zip(size, hr.shape[:2], strict=True))
        hr = np.pad(hr, ((0, rows), (0, columns), (0, 0)), "symmetric")
        y, x = (random.integers(have - n + 1) for n, have in zip(size, hr.shape[:2], strict=True))
        pair = downscale(hr[y : y + size[0], x : x + size[1]], scale)
        if model.input.shape[-1] == 1:
            pair = [luma(picture)[..., np.newaxis] for picture in pair]
        pairs.append(tuple(np.ascontiguousarray(picture[np.newaxis]) for picture in pair))
    return pairs


def export(
    run: Path,
    name: str,
    folder: Path,
    *,
    calibration: Sequence[Path] = (),
    benchmarks: Mapping[str, Path] | None = None,
    data: Mapping[str, str] | None = None,
    also: Sequence[str] = (),
) -> ModelCard:
    """Export a run's network, or that of a `.keras` file, into `folder`/NAME_xSCALE, with its card.

    `calibration` are pictures for the int8 ranges; without them there is no int8. `benchmarks` are folders of HR
    pictures whose PSNR and SSIM go into the card, `data` names what it was trained on with the licences, `also` are
    formats of `ALSO`. Raises ValueError for what cannot be exported, and where a graph at f32 differs from Keras by
    more than one code; then nothing is written.
    """
    if not name or Path(name).name != name:
        raise ValueError(f"Expected a name without folders. Received: {name!r}")
    for engine in ("keras", "openvino", "onnx", *also):
        import_engine(engine)
    from imagesr.models import cost

    model, config = read_run(run)
    scale, fixed = cost.model_scale(model), None not in model.input.shape[1:3]
    if fixed and benchmarks:
        raise ValueError(f"Expected no pictures to measure: {run} takes those of one size. Received: {[*benchmarks]}")
    pairs = crops(calibration, model, scale)
    target = folder / f"{name}_x{scale}".replace("/", "-")
    with whole_folder(target) as part:
        model.save(part / "model.keras")
        graph = integer_graph(model, 8)
        _write(graph, part / "model.onnx", "onnx")
        _write(integer_graph(model, 16), part / "model_u16.onnx", "onnx")
        for format in dict.fromkeys(also):
            _write(graph, part / ALSO[format], "tf_saved_model" if format == "saved_model" else format)
        card = ModelCard(
            name=name,
            scale=scale,
            channels=model.input.shape[-1],
            multiple=cost.multiple(model),
            receptive_field=cost.receptive_field(model),
            parameters=cost.parameters(model),
            multiply_accumulates=cost.multiply_accumulates(model),
            config=config,
            config_sha256=hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest(),
            data=[{"name": key, "licence": licence} for key, licence in (data or {}).items()],
            measured={},
            sha256={},
            size=model.input.shape[1:3] if fixed else None,
            folder=part,
        )
        card.write()
        compare(ModelCard.read(part), [*patterns(model), *(lr for lr, _ in pairs[:4])], also)
        add_int8(card, pairs)
        measured = {key: measure(card, key, place) for key, place in (benchmarks or {}).items()}
        dataclasses.replace(card, measured=measured).write()
    return ModelCard.read(target)


def _write(graph, path, format):
    try:
        graph.export(str(path), format=format, verbose=False)
    except ImportError:
        raise
    except Exception as error:  # the converters raise what they like
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"Expected a network that can be written as {format}. Received: {reason}") from error


def patterns(model: keras.Model) -> list[np.ndarray]:
    """Draw ramps with noise below, (1, H, W, channels) uint8, in odd multiples of what the network takes."""
    from imagesr.models.cost import input_size, multiple

    unit, random, pictures = multiple(model), np.random.default_rng(0), []
    for height, width in dict.fromkeys(input_size(model, (h * unit, w * unit)) for h, w in ((17, 31), (33, 23))):
        ramp = np.linspace(0, 255, width)[np.newaxis, :, np.newaxis] * np.ones((height, 1, model.input.shape[-1]))
        ramp[height // 2 :] = random.integers(0, 256, ramp[height // 2 :].shape)
        pictures.append(ramp[np.newaxis].astype(np.uint8))
    return pictures


def compare(card: ModelCard, pictures: Sequence[np.ndarray], also: Sequence[str] = ()) -> None:
    """Check the exported graphs against Keras at f32, every format in its own runtime.

    `pictures` are (1, H, W, channels) uint8. Raises ValueError where one differs by more than one code.
    """
    low = np.random.default_rng(0).integers(0, 256, max(p.size for p in pictures), np.uint16)
    deep = [picture * np.uint16(256) + low[: picture.size].reshape(picture.shape) for picture in pictures]
    both = ("openvino", "onnx")
    for bits, planes, engines in ((8, pictures, dict.fromkeys((*both, *also))), (16, deep, both)):
        reference = load_engine(card, engine="keras", bits=bits)
        expected = [reference(plane).astype(int) for plane in planes]
        for engine in engines:
            exported = load_engine(card, engine=engine, precision="fp32", bits=bits)
            results = (exported(plane) for plane in planes)
            difference = max(np.abs(sr - wanted).max() for sr, wanted in zip(results, expected, strict=True))
            if difference > 1:
                raise ValueError(f"Expected {engine} within one code of Keras at {bits} bits. Received: {difference}")
            print(f"{engine} at {bits} bits: within {difference} of Keras", flush=True)


def add_int8(card: ModelCard, pairs: Sequence[Pair]) -> None:
    """Add the int8 file to a saved model and print what it costs; print why, where there is none in the end."""
    target = card.folder / "model_int8.onnx"
    try:
        if not pairs:
            raise ValueError("it needs pictures to calibrate on, --calibrate")
        quantize(card.folder / "model.onnx", target, [lr for lr, _ in pairs])
        card.write()
        fp32, int8 = (_psnr(load_engine(ModelCard.read(card.folder), precision=p), pairs) for p in ("fp32", "int8"))
        if fp32 - int8 > INT8_LOSS:
            raise ValueError(f"it costs {fp32 - int8:.2f} dB")
        print(f"int8 costs {fp32 - int8:.2f} dB on the pictures of --calibrate, {fp32:.2f} dB at fp32", flush=True)
    except ValueError as error:
        target.unlink(missing_ok=True)
        print(f"no int8: {error}", flush=True)


def _psnr(run, pairs):
    error = np.mean([np.mean((run(lr) - hr.astype(np.float32)) ** 2) for lr, hr in pairs])
    return float(10 * np.log10(255**2 / error))


def measure(card: ModelCard, name: str, pictures: Path) -> dict[str, dict[str, float]]:
    """Return PSNR-Y and SSIM-Y over a folder of HR pictures called `name`, at every precision and of Lanczos."""
    scale, files, measured = card.scale, find_images([pictures]), {}
    for precision in ("fp32", "bf16", "int8", "lanczos"):
        try:
            if precision == "lanczos":
                upscale = upscaler("lanczos", scale)
            else:
                upscale = upscaler(str(card.folder), scale, precision=precision)
        except ModelError as error:  # a CPU without bf16, a model without int8
            print(f"{name} {precision}: {error}", flush=True)
            continue
        result = evaluate(upscale, files, scale)
        measured[precision] = {key: round(result[key], 4) for key in ("psnr_y", "ssim_y")}
        print(f"{name} {precision}: {result['psnr_y']:.2f} dB, {result['ssim_y']:.4f}", flush=True)
    return measured


def _pair(text):
    key, equals, value = text.partition("=")
    if not (key and equals and value):
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, received {text}")
    return key, value


def _parser():
    parser = Parser(prog="imagesr export", description="Make a trained network runnable.")
    add = parser.add_argument
    add("run", type=Path, metavar="RUN", help="a run folder of imagesr train, or a .keras file")
    add("--name", required=True, help="the model's name, e.g. balanced")
    add("--folder", type=Path, default=SAVED_MODELS, help="where to put it (default: among the shipped models)")
    add(
        "--calibrate",
        nargs="+",
        default=[],
        metavar="DIR",
        help="pictures for the int8 ranges, best the training ones (default: no int8)",
    )
    add("--also", nargs="+", choices=ALSO, default=[], help="formats beside ONNX")
    add(
        "--measure",
        nargs="*",
        type=_pair,
        default=[],
        metavar="NAME=DIR",
        help="pictures whose PSNR goes into the card",
    )
    add(
        "--data", nargs="*", type=_pair, default=[], metavar="NAME=LICENCE", help="what it was trained on, for the card"
    )
    return parser


def _export(options):
    benchmarks = {name: Path(place) for name, place in options.measure}
    for place in benchmarks.values():
        find_images([place])
    card = export(
        options.run,
        options.name,
        options.folder,
        calibration=find_images(options.calibrate) if options.calibrate else (),
        benchmarks=benchmarks,
        data=dict(options.data),
        also=options.also,
    )
    costs = f"{card.parameters:,} parameters, {card.multiply_accumulates:,.0f} multiply-accumulates per LR pixel"
    print(f"{card.folder}: {costs}")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command("export", _export, _parser().parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
