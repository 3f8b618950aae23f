"""OpenVINO, on the CPU and Intel's GPUs and NPUs: the engine of the base installation."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import openvino as ov

from imagesr.card import ModelCard
from imagesr.engines import Engine, onnx_file
from imagesr.errors import ModelError

_SHAPES = 2  # that programs are kept for: whole frames, and the windows of a frame that change


def devices() -> set[str]:
    """Return OpenVINO's names of the devices of this machine: CPU, GPU, NPU."""
    return {name.partition(".")[0] for name in ov.Core().available_devices}


def load(
    card: ModelCard,
    *,
    precision: str,
    bits: int,
    threads: int,
    parallel: int,
    detail: float,
    clean: float,
    device: str = "CPU",
) -> Engine:
    """Load a saved model; `auto` asks the runtime what the device computes natively."""
    core = ov.Core()
    native = core.get_property(device, "OPTIMIZATION_CAPABILITIES")
    if bits > 8:
        if precision not in ("auto", "fp32"):
            raise ModelError(f"Video and pictures of more than 8 bits run at fp32 only. Received: {precision}")
        precision = "fp32"
    elif precision == "auto":
        int8 = "INT8" in native and "model_int8.onnx" in card.sha256
        precision = "int8" if int8 else "bf16" if "BF16" in native else "fp32"
    elif precision == "bf16" and "BF16" not in native:
        raise ModelError(f"This {device} does not compute in bf16. Choose --precision int8 or fp32")
    # Layers that int8 graphs leave in floating point run at 16 bits where possible, or conversions cost the gain.
    half = next((name for name in ("BF16", "FP16") if name in native), "F32")
    options = {"INFERENCE_PRECISION_HINT": "f32" if precision == "fp32" else half.replace("FP", "F").lower()}
    if device == "CPU":
        options |= {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": parallel}
    # OpenVINO's own format, where the model has it, is the graph of model.onnx, with weights in float32 as well.
    own = bits == 8 and precision != "int8" and "model.xml" in card.sha256
    file = card.folder / "model.xml" if own else onnx_file(card, precision, bits)
    try:
        model = core.read_model(file)
        if options["INFERENCE_PRECISION_HINT"] == "bf16":
            _round_filters(model)
        compile_model = partial(core.compile_model, device_name=device, config=options)
        return _OpenVINO(card, compile_model, model, precision, detail, clean)
    except RuntimeError as error:
        raise ModelError(f"Expected a model that OpenVINO can read in {file}. Received: {_reason(error)}") from None


def _round_filters(model):
    """Round the floating-point weights of convolutions to bf16, so that every filter keeps its sum.

    OpenVINO rounds each weight by itself. The gains of an anchor's phases then differ by some 0.3 %, and level areas
    show a mesh: at a period of a cell the spectrum stood out up to 47 times, and 1.8 times with the sums kept.
    """
    for node in model.get_ops():
        if node.get_type_name() == "Convolution":
            weights = node.input_value(1).get_node()
            if weights.get_type_name() == "Constant" and weights.get_element_type() == ov.Type.f32:
                rounded = ov.opset13.constant(keep_sums(np.array(weights.data)))
                node.input(1).replace_source_output(rounded.output(0))


def keep_sums(kernel: np.ndarray) -> np.ndarray:
    """Return a float32 kernel, filters first, in numbers that bf16 has; each filter keeps its sum.

    The error of a weight is carried to the next smaller one, so that what is left is that of the smallest.
    """
    flat = kernel.reshape(len(kernel), -1)
    order = np.argsort(-np.abs(flat), 1)
    weights = np.take_along_axis(flat, order, 1)
    error = np.zeros(len(flat), np.float32)
    for i in range(weights.shape[1]):
        wanted = weights[:, i] + error
        weights[:, i] = _bf16(wanted)
        error = wanted - weights[:, i]
    result = np.empty_like(flat)
    np.put_along_axis(result, order, weights, 1)
    return result.reshape(kernel.shape)


def _bf16(values):
    """Round float32 to the nearest numbers whose last 16 bits are zero."""
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).view(np.float32)


def load_distance(file: Path) -> Callable[[np.ndarray, np.ndarray], float]:
    """Load an ONNX graph from two pictures, float32 NCHW of any size, to one number; it runs at fp32.

    Raises ModelError for any other file.
    """
    core = ov.Core()
    try:
        graph = core.read_model(file)
        if len(graph.inputs) != 2 or len(graph.outputs) != 1:
            raise RuntimeError(f"{len(graph.inputs)} inputs, {len(graph.outputs)} outputs")
        for picture in graph.inputs:
            if not picture.partial_shape.compatible(ov.PartialShape([1, 3, 99, 113])):  # the size of no example
                raise RuntimeError(f"an input of the shape {picture.partial_shape}")
        compiled = core.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    except RuntimeError as error:
        raise ModelError(
            f"Expected an ONNX file with two pictures of any size as inputs and their distance as output in {file}. "
            f"Received: {_reason(error)}"
        ) from None
    return lambda a, b: float(compiled([a, b])[0].reshape(-1)[0])


def load_graph(card: ModelCard, graph: ov.Model, *, precision: str, threads: int, parallel: int) -> Engine:
    """Load a graph that is in memory, for uint8 NHWC planes, on the CPU at `fp32` or `bf16`; its card describes it."""
    hint = "bf16" if precision == "bf16" else "f32"
    options = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": parallel}
    return _OpenVINO(card, partial(ov.Core().compile_model, device_name="CPU", config=options), graph, precision, 0, 0)


class _OpenVINO:
    def __init__(self, card, compile_model, model, precision, detail, clean):
        self.card, self.precision, self.detail, self.clean = card, precision, detail, clean
        self._compile, self._model = compile_model, model
        self._takes = model.input(0).partial_shape
        self._numbers = [entry.any_name for entry in model.inputs[1:]]
        self._programs: dict[tuple[int, ...], ov.CompiledModel] = {}
        self._lock = threading.Lock()
        self._mine = threading.local()  # each thread has requests of its own, and so outputs of its own

    def __call__(self, planes: np.ndarray, detail: float | None = None, clean: float | None = None) -> np.ndarray:
        numbers = {"detail": self.detail if detail is None else detail, "clean": self.clean if clean is None else clean}
        inputs = [planes, *(np.array([numbers[name]], np.float32) for name in self._numbers)]
        requests = self._mine.__dict__.setdefault("requests", {})
        if planes.shape not in requests:
            # One thread at a time: OpenVINO's bindings lock up when threads make their very first inference together.
            with self._lock:
                _make_room(requests)
                requests[planes.shape] = self._program(planes.shape).create_infer_request()
                return self._infer(requests[planes.shape], inputs)
        return self._infer(requests[planes.shape], inputs)

    def _program(self, shape):
        """Compile for a fixed size: a faster program than for any size, and a video has few."""
        if shape not in self._programs:
            # Reshaping would turn a network of one fixed size into another network.
            if not self._takes.compatible(ov.PartialShape(shape)):
                raise ModelError(f"Expected samples of the shape {self._takes}. Received: {list(shape)}")
            _make_room(self._programs)
            try:
                self._model.reshape({self._model.input(0): shape})
                self._programs[shape] = self._compile(self._model)
            except RuntimeError as error:
                raise ModelError(f"Expected a model that OpenVINO can run. Received: {_reason(error)}") from None
        return self._programs[shape]

    def _infer(self, request, inputs):
        request.infer(inputs, share_inputs=True)
        return request.get_output_tensor().data


def _make_room(kept):
    """Forget the shape that came first where there are as many as are kept."""
    if len(kept) >= _SHAPES:
        del kept[next(iter(kept))]


def _reason(error):
    return next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
