"""Make a trained network runnable: `python -m imagesr.export RUN --name balanced --calibrate DIR`."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import keras
import numpy as np
import onnx
from keras import ops

from imagesr.card import SAVED_MODELS, ModelCard
from imagesr.engines import load_engine
from imagesr.evaluate import evaluate, upscaler
from imagesr.images import degrade, find_images, read_rgb
from imagesr.metrics import luma
from imagesr.scale import Scale

CALIBRATION_CROP = 96  # LR pixels a side


def integer_graph(model: keras.Model, bits: int) -> keras.Model:
    """Return the network on integer samples: uint8 or uint16 NHWC in, the same out, rounded and clipped.

    A network of convolutions and ReLU, without batch norm, commutes with scaling once its biases are scaled, so the
    samples go in as they are: no division that low precision would round. They go in relative to mid-grey, and the
    biases behind the convolutions that read them make up for it: low precision is finest around zero.
    """
    peak, middle = 2**bits - 1, 2 ** (bits - 1)
    dtype = f"uint{bits}"
    scaled = keras.models.clone_model(model)
    for source in model.layers:
        weights = source.get_weights()
        if isinstance(source, keras.layers.Conv2D):
            if source.activation not in (keras.activations.linear, keras.activations.relu):
                raise ValueError(f"Expected linear or ReLU activations. Received: {source.activation.__name__}")
            weights = [weights[0], *(bias * peak for bias in weights[1:])]
            # What a grey of `middle` adds: the head's share to its own bias, the anchor's to the tail's, its partner.
            reader = {"head": "head", "tail": "anchor"}.get(source.name)
            if reader:
                weights[1] += middle * model.get_layer(reader).get_weights()[0].sum((0, 1, 2))
            scaled.get_layer(source.name).set_weights(weights)
        elif weights:
            raise ValueError(f"Expected convolutions alone to have weights. Received: {source.name}")
    lr = keras.Input((None, None, model.input.shape[-1]), batch_size=1, dtype=dtype, name="lr")
    sr = ops.round(scaled(ops.cast(lr, "float32") - middle))
    # 65535 is the largest float32 below 2**16 that the cast must meet, and representable.
    graph = keras.Model(lr, ops.cast(ops.clip(sr, 0, peak), dtype), name=f"{model.name}_u{bits}")
    graph(np.zeros((1, 16, 16, lr.shape[-1]), dtype))  # the exporter wants a model that has been called
    return graph


def quantize(onnx_file: Path, target: Path, samples: Sequence[np.ndarray]) -> None:
    """Write the int8 version of an ONNX file: convolutions in int8, calibrated on `samples`.

    The anchor and the sum it enters stay in floating point: a linear filter rounded to 8 bits would shift every tone.
    """
    import nncf

    model = onnx.load(onnx_file)
    anchors = [node.name for node in model.graph.node if node.op_type == "Conv" and "anchor" in node.name]
    sums = [node.name for node in model.graph.node if node.op_type == "Add"][-1:]
    sums += [node.name for node in model.graph.node if node.op_type == "Sub"]  # of mid-grey
    name = model.graph.input[0].name
    dataset = nncf.Dataset([{name: sample} for sample in samples])
    options = {"ignored_scope": nncf.IgnoredScope(names=anchors + sums), "subset_size": len(samples)}
    try:
        quantized = nncf.quantize(model, dataset, fast_bias_correction=False, **options)
    except KeyError:  # NNCF's accurate correction loses its way in a trunk of one block
        quantized = nncf.quantize(model, dataset, **options)
    # Samples are 8-bit integers already. A range learnt from pictures would map them to other integers and round each:
    # 0.2 dB. A step of one leaves them as they are.
    steps = {tensor.name: tensor for tensor in quantized.graph.initializer}
    first = next(node for node in quantized.graph.node if node.op_type == "QuantizeLinear")
    back = next(node for node in quantized.graph.node if node.input and node.input[0] == first.output[0])
    for name in {first.input[1], back.input[1]}:
        steps[name].CopyFrom(onnx.numpy_helper.from_array(np.ones((), np.float32), name))
    _keep_flat(quantized, model)
    onnx.save(quantized, target)


def _keep_flat(quantized: onnx.ModelProto, model: onnx.ModelProto) -> None:
    """Round the head's int8 weights so that each filter keeps its sum, and give it back its bias.

    The head reads the samples themselves. Weights rounded one by one answer a flat area with an error that grows with
    its brightness, and every flat area gets a grid of one code (0.1 dB on clean photographs).
    """

    to_array, from_array = onnx.numpy_helper.to_array, onnx.numpy_helper.from_array

    def tensors(graph):
        return {tensor.name: tensor for tensor in graph.initializer}

    def head(graph):
        return next(node for node in graph.node if node.op_type == "Conv" and "head" in node.name)

    exact, rounded = tensors(model.graph), tensors(quantized.graph)
    source, conv = head(model.graph), head(quantized.graph)
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


def receptive_field(model: keras.Model) -> int:
    """Measure how many LR pixels wide the neighbourhood is that an output pixel depends on."""
    side = 64
    random = np.random.default_rng(0)
    plain = keras.models.clone_model(model)
    for layer in plain.layers:
        # Positive weights, so that no dependence cancels or is cut off by a ReLU.
        layer.set_weights([random.uniform(0.01, 0.02, w.shape) for w in layer.get_weights()])
    flat = np.zeros((1, side, side, model.input.shape[-1]), np.float32)
    dot = flat.copy()
    dot[0, side // 2, side // 2] = 1
    touched = np.abs(ops.convert_to_numpy(plain(dot) - plain(flat)))[0, ..., 0].any(0).nonzero()[0]
    per_pixel = model(flat).shape[2] / side
    return int(np.ceil((touched[-1] - touched[0] + 1) / per_pixel))


def multiply_accumulates(model: keras.Model) -> float:
    """Count the multiply-accumulates per LR pixel."""
    side = 96
    shape = (1, side, side, model.input.shape[-1])
    total = 0
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):
            rows = keras.Model(model.input, layer.output).compute_output_shape(shape)[1]
            # Valid convolutions compute a border less than their input has; per pixel of a large frame that vanishes.
            step = round(side / rows) if rows else 1
            total += np.prod(layer.kernel.shape) / step**2
    return float(total)


def export(
    run: Path,
    name: str,
    folder: Path,
    *,
    calibration: Sequence[Path],
    benchmarks: Mapping[str, Path],
    data: Mapping[str, str],
) -> ModelCard:
    """Export the run's `model.keras` into `folder`/NAME_xSCALE, with its card.

    `calibration` are pictures for the int8 ranges, `benchmarks` folders of HR pictures whose PSNR and SSIM go into the
    card, `data` names what it was trained on with the licences. Raises ValueError when a graph at f32 differs from
    Keras by more than one code; then nothing is written.
    """
    config = json.loads((run / "config.json").read_text("utf-8"))
    # The card says which data, not where somebody kept it.
    config |= {key: ["/".join(Path(place).parts[-2:]) for place in config[key]] for key in ("data", "val")}
    model = keras.saving.load_model(run / "model.keras")
    scale = Scale.parse(config["scale"])
    target = folder / f"{name}_x{scale}"
    part = target.with_name(target.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        samples = _crops(calibration, scale)
        model.save(part / "model.keras")
        for bits, file in ((8, "model.onnx"), (16, "model_u16.onnx")):
            integer_graph(model, bits).export(str(part / file), format="onnx", verbose=False)
        quantize(part / "model.onnx", part / "model_int8.onnx", samples)
        card = ModelCard(
            name=name,
            scale=str(scale),
            channels=model.input.shape[-1],
            multiple=2,
            receptive_field=receptive_field(model),
            parameters=model.count_params(),
            multiply_accumulates=multiply_accumulates(model),
            config=config,
            config_sha256=hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest(),
            data=[{"name": key, "licence": licence} for key, licence in data.items()],
            measured={},
            sha256={},
            folder=part,
        )
        card.write()
        card = ModelCard.read(part)
        compare(card, samples[:8])
        card = dataclasses.replace(card, measured={key: measure(card, key, place) for key, place in benchmarks.items()})
        card.write()
        shutil.rmtree(target, ignore_errors=True)
        part.rename(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return ModelCard.read(target)


def compare(card: ModelCard, samples: Sequence[np.ndarray]) -> None:
    """Check the exported graphs against Keras at f32; raises ValueError where they differ by more than one code."""
    for bits in (8, 16):
        reference = load_engine(card, engine="keras", bits=bits)
        for engine in ("openvino", "onnx"):
            exported = load_engine(card, engine=engine, precision="fp32", bits=bits)
            for sample in samples:
                planes = sample if bits == 8 else sample.astype(np.uint16) * 257
                difference = np.abs(reference(planes).astype(int) - exported(planes).astype(int)).max()
                if difference > 1:
                    raise ValueError(
                        f"Expected {engine} within one code of Keras at {bits} bits. Received: {difference}"
                    )


def measure(card: ModelCard, name: str, pictures: Path) -> dict[str, dict[str, float]]:
    """Return PSNR-Y and SSIM-Y at every precision over a folder of HR pictures called `name`, and those of Lanczos."""
    scale, files, measured = Scale.parse(card.scale), find_images([pictures]), {}
    for precision in ("fp32", "bf16", "int8", "lanczos"):
        if precision == "lanczos":
            upscale = upscaler("lanczos", scale)
        else:
            upscale = upscaler(str(card.folder), scale, precision=precision)
        result = evaluate(upscale, files, scale)
        measured[precision] = {key: round(result[key], 4) for key in ("psnr_y", "ssim_y")}
        print(f"{name} {precision}: {result['psnr_y']:.2f} dB, {result['ssim_y']:.4f}", flush=True)
    return measured


def _crops(pictures, scale):
    """Cut one LR luma crop out of each picture, (1, H, W, 1) uint8, at a seeded place."""
    random, crops = np.random.default_rng(0), []
    for path in pictures:
        plane = luma(degrade(read_rgb(path), scale)[0])
        y, x = (random.integers(max(1, n - CALIBRATION_CROP + 1)) for n in plane.shape)
        crop = plane[y : y + CALIBRATION_CROP, x : x + CALIBRATION_CROP]
        even = crop[: crop.shape[0] // 2 * 2, : crop.shape[1] // 2 * 2]
        crops.append(np.ascontiguousarray(even)[np.newaxis, ..., np.newaxis])
    return crops


def _pair(text):
    key, equals, value = text.partition("=")
    if not (key and equals and value):
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, received {text}")
    return key, value


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(prog="imagesr export", description="Make a trained network runnable.")
    add = parser.add_argument
    add("run", type=Path, metavar="RUN", help="a run folder of imagesr train")
    add("--name", required=True, help="the model's name, e.g. balanced")
    add("--folder", type=Path, default=SAVED_MODELS, help="where to put it (default: among the shipped models)")
    add(
        "--calibrate",
        nargs="+",
        required=True,
        metavar="DIR",
        help="pictures for the int8 ranges, best the training ones",
    )
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
    options = parser.parse_args(arguments)
    try:
        card = export(
            options.run,
            options.name,
            options.folder,
            calibration=find_images(options.calibrate),
            benchmarks={name: Path(place) for name, place in options.measure},
            data=dict(options.data),
        )
    except (OSError, ValueError) as error:
        print(f"imagesr export: {error}", file=sys.stderr)
        return 2
    print(
        f"{card.folder}: {card.parameters:,} parameters, "
        f"{card.multiply_accumulates:,.0f} multiply-accumulates per LR pixel"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
