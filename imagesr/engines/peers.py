"""Networks of other authors, to measure beside ours: luma or RGB in [0, 1], from raw PyTorch weights or ONNX."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import openvino as ov
from openvino import opset13 as ops

from imagesr.card import ModelCard
from imagesr.engines import Engine
from imagesr.engines.openvino import load_graph
from imagesr.errors import ModelError, cause
from imagesr.metrics.pytorch import read_weights
from imagesr.scale import Scale

_ANY = 1 << 14  # a receptive field of whole frames: how far such a network sees is not known
_PROBE = 32  # pixels a side

Weights = Mapping[str, np.ndarray]


def load_peer(file: Path, *, precision: str = "fp32", threads: int = 0, parallel: int = 1) -> Engine:
    """Load a network from a `.pth` file of ECBSR, ETDS, ESPCN or FSRCNN, or an ONNX file with one picture as input.

    Its card has 1 channel for luma, or 3 for RGB, and `scale`. `precision` is `fp32` or `bf16`. Raises ModelError.
    """
    if file.suffix not in (".pth", ".onnx") or not file.is_file():
        what = "there is no such file" if not file.is_file() else f"a file ending in {file.suffix or 'nothing'}"
        raise ModelError(
            f"Expected a network as .pth (ECBSR, ETDS, ESPCN, FSRCNN) or .onnx in {file}. Received: {what}"
        )
    try:
        graph = _from_weights(file) if file.suffix == ".pth" else ov.Core().read_model(file)
        channels, scale = _described(graph)
        graph = _on_bytes(graph)
    except (ValueError, LookupError, TypeError, OSError, RuntimeError) as error:
        raise ModelError(
            f"Expected a network as .pth (ECBSR, ETDS, ESPCN, FSRCNN) or ONNX in {file}. Received: {cause(error)}"
        ) from None
    macs = _multiply_accumulates(graph)
    card = ModelCard(file.stem, scale, channels, 1, _ANY, 0, macs, {}, "", (), {}, {})
    return load_graph(card, graph, precision=precision, threads=threads, parallel=parallel)


def _from_weights(file):
    """Build the network whose weights a file has; the names of its tensors tell which."""
    weights = read_weights(file)
    for key, build in {
        "conv_clip.weight": _etds,
        "last_part.weight": _fsrcnn,
        "conv3.weight": _espcn,
        "backbone.0.0.weight": _ecbsr,
    }.items():
        if key in weights:
            first = next(iter(weights.values()))
            lr = ops.parameter([1, first.shape[1], -1, -1], np.float32, name="lr")
            return ov.Model([build(lr, weights, file)], [lr])
    raise ValueError(f"tensors called {', '.join([*weights][:3])}")


def _ecbsr(lr, weights, file):
    """Build ECBSR (Zhang 2021, 10.1145/3474085.3475291), its blocks collapsed into one convolution each."""
    x, last = lr, max(int(name.split(".")[1]) for name in weights)
    for i in range(last + 1):
        x = _conv(x, weights, f"backbone.{i}.0")
        if i < last:
            x = _activated(x, weights, f"backbone.{i}.1")
    up, channels = _up(weights["backbone.0.0.weight"], weights[f"backbone.{last}.0.weight"])
    nearest = ops.gather(lr, np.repeat(np.arange(channels), up * up), np.int64(1))
    return ops.depth_to_space(ops.add(x, nearest), "depth_first", up)


def _etds(lr, weights, file):
    """Build ETDS (Chao 2023, arXiv 2303.09650), transformed into plain convolutions."""
    x = ops.relu(_conv(lr, weights, "conv_first"))
    for i in range(sum(name.startswith("backbone_convs.") and name.endswith(".weight") for name in weights)):
        x = ops.relu(_conv(x, weights, f"backbone_convs.{i}"))
    for name in ("conv_last", "conv_clip"):
        x = ops.relu(_conv(x, weights, name))
    return ops.depth_to_space(x, "depth_first", _up(weights["conv_first.weight"], weights["conv_last.weight"])[0])


def _espcn(lr, weights, file):
    """Build ESPCN (Shi 2016, arXiv 1609.05158)."""
    x = ops.tanh(_conv(lr, weights, "conv1"))
    x = _conv(ops.tanh(_conv(x, weights, "conv2")), weights, "conv3")
    up, _ = _up(weights["conv1.weight"], weights["conv3.weight"])
    return ops.sigmoid(ops.depth_to_space(x, "depth_first", up))


def _fsrcnn(lr, weights, file):
    """Build FSRCNN (Dong 2016, arXiv 1608.00367); its weights do not tell the scale, the file's name does."""
    named = re.search(r"_x([2-4])$", file.stem)
    if not named:
        raise ValueError("FSRCNN in a file whose name does not end in _x2, _x3 or _x4")
    x = _activated(_conv(lr, weights, "first_part.0"), weights, "first_part.1")
    for i in range(0, 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("mid_part.")), 2):
        x = _activated(_conv(x, weights, f"mid_part.{i}"), weights, f"mid_part.{i + 1}")
    kernel, up = weights["last_part.weight"], int(named[1])
    edge, more = [kernel.shape[2] // 2] * 2, [up - 1] * 2
    x = ops.convolution_backprop_data(x, kernel, [up, up], None, edge, edge, [1, 1], "explicit", more)
    return ops.add(x, weights["last_part.bias"].reshape(1, -1, 1, 1))


def _conv(x, weights: Weights, name):
    kernel = weights[f"{name}.weight"]
    edge = [kernel.shape[2] // 2] * 2
    return ops.add(ops.convolution(x, kernel, [1, 1], edge, edge, [1, 1]), weights[f"{name}.bias"].reshape(1, -1, 1, 1))


def _activated(x, weights, name):
    slope = weights.get(f"{name}.weight")
    return ops.relu(x) if slope is None else ops.prelu(x, slope)


def _up(first, last):
    """Return the scale of a pixel shuffle, and the channels, of the first and last kernels before it."""
    channels = first.shape[1]
    return math.isqrt(last.shape[0] // channels), channels


def _described(graph):
    """Return the channels and the scale of a graph of one picture."""
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise ValueError(f"{len(graph.inputs)} inputs, {len(graph.outputs)} outputs")
    shape = graph.input(0).partial_shape
    if len(shape) != 4 or shape[1].is_dynamic or len(shape[1]) not in (1, 3):
        raise ValueError(f"an input of the shape {shape}")
    channels = len(shape[1])
    graph.reshape([1, channels, _PROBE, _PROBE])
    result = graph.output(0).shape
    graph.reshape([1, channels, -1, -1])
    if list(result) != [1, channels, result[2], result[2]] or result[2] % _PROBE:
        raise ValueError(f"an output of the shape {list(result)} for {_PROBE}x{_PROBE} pixels")
    return channels, Scale(result[2] // _PROBE)


def _on_bytes(graph):
    """Return the graph with integers in and out, NHWC, as engines have them: scaled, rounded and clipped inside."""
    sr = graph.output(0).get_node().input_value(0)
    sr = ops.round(ops.clamp(ops.multiply(sr, np.float32(255)), 0.0, 255.0), "half_to_even")
    steps = ov.preprocess.PrePostProcessor(ov.Model([sr], graph.get_parameters()))
    layout = ov.Layout("NCHW"), ov.Layout("NHWC")
    steps.input().model().set_layout(layout[0])
    steps.input().tensor().set_element_type(ov.Type.u8).set_layout(layout[1])
    steps.input().preprocess().convert_element_type(ov.Type.f32).scale(255.0)
    steps.output().model().set_layout(layout[0])
    steps.output().tensor().set_element_type(ov.Type.u8).set_layout(layout[1])
    return steps.build()


def _multiply_accumulates(graph):
    """Count the multiply-accumulates of the convolutions per LR pixel."""
    graph.reshape([1, _PROBE, _PROBE, len(graph.input(0).partial_shape[3])])
    total = 0
    for node in graph.get_ops():
        if node.get_type_name() in ("Convolution", "ConvolutionBackpropData"):
            # A transposed one reads each of its inputs once for every weight, as the other writes its outputs.
            forward = node.get_type_name() == "Convolution"
            places = np.prod((node.output(0) if forward else node.input_value(0)).shape[2:])
            total += float(np.prod(node.input_value(1).shape)) * places
    graph.reshape([1, -1, -1, len(graph.input(0).partial_shape[3])])
    return total / _PROBE**2
