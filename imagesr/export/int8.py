"""The int8 file of a saved model: calibrated by NNCF, and kept where it costs little."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from imagesr.card import ModelCard
from imagesr.engines import load_engine
from imagesr.media.images import read_rgb
from imagesr.pixels import downscale, luma
from imagesr.scale import Scale

if TYPE_CHECKING:
    import keras
    import onnx

    Pair = tuple[np.ndarray, np.ndarray]  # LR and HR, (1, H, W, channels) uint8

CROP = 96  # LR pixels a side
CALIBRATION = 3_000_000  # LR pixels in all: NNCF's default of 300 samples, at this crop size
MOVES = ("Pad", "Reshape", "SpaceToDepth", "Squeeze", "Transpose", "Unsqueeze")  # ONNX nodes that only move samples
INT8_LOSS = 1.0  # dB: an int8 file that costs more is not kept, unless its own PSNR is above what 8 bits hold
_ROUNDED = 58.9  # dB: PSNR of a picture that was only rounded to 8 bits, 10·log10(255² · 12)


def quantize(onnx_file: Path, target: Path, samples: Sequence[np.ndarray]) -> None:
    """Write the int8 version of an ONNX file: its convolutions in int8, calibrated on `samples`.

    An anchor and a bicubic filter stay in floating point: a linear filter rounded to 8 bits would shift every tone.
    Raises ValueError for a network without other convolutions, and where NNCF fails.
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
        # NNCF's default range is the mean over the samples. It clips bright pictures where features grow with
        # brightness, which costs up to 5 dB. Beside an anchor they do not, and the finer steps are worth 0.1 dB.
        options["advanced_parameters"] = nncf.AdvancedQuantizationParameters(
            activations_range_estimator_params=RangeEstimatorParametersSet.HISTOGRAM
        )
    names = [entry.name for entry in model.graph.input]
    # The ranges hold for every detail and clean.
    numbers = itertools.cycle(itertools.product(np.float32([[0], [0.5], [1]]), repeat=len(names) - 1))
    inputs = zip(samples, numbers, strict=False)
    dataset = nncf.Dataset([dict(zip(names, (lr, *more), strict=True)) for lr, more in inputs])
    try:
        try:
            quantized = nncf.quantize(model, dataset, fast_bias_correction=False, **options)
        except KeyError:  # the accurate bias correction fails on some networks
            quantized = nncf.quantize(model, dataset, **options)
    except Exception as error:  # NNCF raises exceptions of many classes
        raise ValueError(f"NNCF fails with {type(error).__name__}, {error}") from error
    _adjust(quantized)
    if anchors:
        _keep_flat(quantized, model)
    onnx.save(quantized, target)


def _adjust(quantized: onnx.ModelProto) -> None:
    """Correct the quantisers of samples and of concatenations.

    Samples are 8-bit integers already. A range learnt from pictures would map them to other integers and round each,
    which costs 0.2 dB. A step of one code leaves them as they are. OpenVINO (2026.4, on x86) reads signed integers
    behind a concatenation as unsigned. Shifted by 128 they mean the same.
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
    """Round the int8 weights of head and tail so that sums of them stay, and restore their biases.

    On flat areas what counts is the sum of a filter's weights: the head's over all samples of a cell, which are alike,
    the tail's over the 3×3 of each feature. Rounded one by one, they make an error that grows with brightness, and that
    differs between the pixels of a cell: every flat area gets a grid. So do biases that were corrected by a mean.
    """
    for name, alike in (("head", (1, 2, 3)), ("tail", (2, 3))):
        if conv := _conv(quantized, name):
            _keep_sums(quantized, conv, model, _conv(model, name), alike)


def _conv(graph, name):
    return next((node for node in graph.graph.node if node.op_type == "Conv" and name in node.name), None)


def _keep_sums(quantized, conv, model, source, axes):
    """Round the weights of one convolution anew, (filters, channels, 3, 3), with their sums over `axes` kept."""
    from onnx.numpy_helper import from_array, to_array

    rounded, exact = ({tensor.name: tensor for tensor in graph.graph.initializer} for graph in (quantized, model))
    scaling = next(node for node in quantized.graph.node if conv.input[1] in node.output)
    step = to_array(rounded[scaling.input[1]]).reshape(-1, 1, 1, 1)
    wanted = to_array(exact[source.input[1]]) / step
    groups = wanted.reshape(-1, math.prod(wanted.shape[axis] for axis in axes))
    codes = np.rint(groups).astype(int)
    for some_codes, some_wanted in zip(codes, groups, strict=True):
        missing = int(np.rint(some_wanted.sum() - some_codes.sum()))
        nearest = np.argsort(-np.sign(missing) * (some_wanted - some_codes))
        some_codes[nearest[: abs(missing)]] += np.sign(missing)
    codes = np.clip(codes, -128, 127).reshape(wanted.shape).astype(np.int8)
    rounded[scaling.input[0]].CopyFrom(from_array(codes, scaling.input[0]))
    rounded[conv.input[2]].CopyFrom(from_array(to_array(exact[source.input[2]]), conv.input[2]))


def calibration_pairs(pictures: Sequence[Path], model: keras.Model, scale: Scale) -> list[Pair]:
    """Cut one (LR, HR) pair out of each picture, at a seeded place. Too small pictures are mirrored at their edges.

    Of more pictures than `CALIBRATION` allows, every nth is used.
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
        if model.inputs[0].shape[-1] == 1:
            pair = [luma(picture)[..., np.newaxis] for picture in pair]
        pairs.append(tuple(np.ascontiguousarray(picture[np.newaxis]) for picture in pair))
    return pairs


def add_int8(card: ModelCard, pairs: Sequence[Pair]) -> None:
    """Add the int8 file to a saved model and print its cost in dB, or the reason for leaving it out."""
    target = card.folder / "model_int8.onnx"
    try:
        if not pairs:
            raise ValueError("it needs pictures to calibrate on, --calibrate")
        quantize(card.folder / "model.onnx", target, [lr for lr, _ in pairs])
        card.write()
        faithful = {name: 0.0 for name in ("detail", "clean") if getattr(card, name) is not None}
        engines = [load_engine(ModelCard.read(card.folder), precision=p, **faithful) for p in ("fp32", "int8")]
        fp32, int8 = (_psnr(engine, pairs) for engine in engines)
        if fp32 - int8 > INT8_LOSS and int8 < _ROUNDED:
            raise ValueError(f"it costs {fp32 - int8:.2f} dB")
        print(f"int8 costs {fp32 - int8:.2f} dB on the pictures of --calibrate, {fp32:.2f} dB at fp32", flush=True)
    except ValueError as error:
        target.unlink(missing_ok=True)
        print(f"no int8: {error}", flush=True)


def _psnr(run, pairs):
    error = np.mean([np.mean((run(lr) - hr.astype(np.float32)) ** 2) for lr, hr in pairs])
    return float(10 * np.log10(255**2 / error))
