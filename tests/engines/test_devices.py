"""Devices by name: the choice, with machines that are made up, and what this one has."""

import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

from imagesr.card import find_model
from imagesr.engines import ENGINES, import_engine, load_engine
from imagesr.errors import ModelError
from imagesr.evaluate import devices
from imagesr.scale import Scale

FAST = find_model("fast", Scale(3, 2))
PROVIDERS = [name for device, name in ENGINES["onnx"].devices.items() if device != "cpu"]


@pytest.fixture
def onnx(monkeypatch):
    """Return ONNX Runtime's module with every provider there is, and sessions that only remember theirs."""
    module = import_engine("onnx")

    class Session:
        starts = True

        def __init__(self, file, options, providers):
            self.providers = providers if Session.starts else providers[-1:]
            if not Session.starts:
                os.write(2, b"libcublas.so: no such file\n")
                print("falling back")

        def get_providers(self):
            return self.providers

        def get_inputs(self):
            return [SimpleNamespace(name="lr")]

    monkeypatch.setattr(module.onnxruntime, "get_available_providers", lambda: [*PROVIDERS, "CPUExecutionProvider"])
    monkeypatch.setattr(module.onnxruntime, "InferenceSession", Session)
    return Session


@pytest.mark.parametrize("device", [device for device in ENGINES["onnx"].devices if device != "cpu"])
def test_a_provider_passes_through_by_its_name(onnx, device):
    engine = load_engine(FAST, device=device)
    assert engine._session.providers == [ENGINES["onnx"].devices[device], "CPUExecutionProvider"]


def test_a_provider_that_does_not_start_is_told_in_one_sentence(onnx, capfd):
    onnx.starts = False
    with pytest.raises(ModelError, match=r"libraries are installed, such as cpu\. Received: CUDA.* does not start$"):
        load_engine(FAST, device="cuda")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("device", ["gpu", "npu"])
def test_openvino_compiles_for_the_device(monkeypatch, device):
    module = import_engine("openvino")
    compiled = []

    class Core(module.ov.Core):
        available_devices = ("CPU", "GPU.0", "GPU.1", "NPU")

        def get_property(self, device, name):
            return ["FP32", "FP16", "INT8"] if device != "CPU" else super().get_property(device, name)

        def compile_model(self, model, device_name, config):
            compiled.append((device_name, config))
            return super().compile_model(model, "CPU", {})

    monkeypatch.setattr(module.ov, "Core", Core)
    engine = load_engine(FAST, device=device)
    assert engine(np.zeros((1, 32, 32, 1), np.uint8)).shape == (1, 48, 48, 1)
    assert compiled == [(device.upper(), {"INFERENCE_PRECISION_HINT": "f16"})]
    assert engine.precision == "int8"
    with pytest.raises(ModelError, match="This GPU does not compute in bf16"):
        load_engine(FAST, device="gpu", precision="bf16")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"device": "npu"}, r"a device that openvino finds on this machine \(cpu.*Received: npu"),
        (
            {"device": "cuda"},
            r"onnx finds on this machine \(cpu.*Received: cuda; for NVIDIA's cards: pip install .*\[cuda\]",
        ),
        ({"device": "directml"}, r"a device that onnx finds on this machine \(cpu.*Received: directml"),
        ({"device": "cuda", "engine": "openvino"}, r"a device that openvino finds.*Received: cuda"),
        ({"device": "gpu", "engine": "keras"}, r"a device that keras finds on this machine \(cpu\)\. Received: gpu$"),
        ({"device": "cuda", "engine": "keras"}, r"a device that keras finds on this machine \(cpu\)\. Received: cuda$"),
        ({"device": "npu", "engine": "keras"}, r"a device that keras finds on this machine \(cpu\)\. Received: npu$"),
        ({"device": "gpu", "engine": "litert"}, "litert runs on the CPU only"),
        ({"device": "toaster"}, "Received: toaster"),
    ],
)
def test_a_device_that_is_not_there_is_one_sentence(monkeypatch, options, words):
    module = import_engine("openvino")
    monkeypatch.setattr(module, "devices", lambda: {"CPU"})
    if options.get("engine") == "keras":
        keras = import_engine("keras").keras
        monkeypatch.setattr(keras.distribution, "list_devices", lambda: ["cpu:0"])
    with pytest.raises(ModelError, match=words):
        load_engine(FAST, **options)


@pytest.fixture
def used(monkeypatch):
    """Return the list of the devices that Keras is told to use: its backend seems to have a GPU, and uses the CPU."""
    keras = import_engine("keras").keras
    own, used = keras.device, []

    def on(name):
        used.append(name)
        return own("cpu")

    monkeypatch.setattr(keras, "device", on)
    monkeypatch.setattr(keras.distribution, "list_devices", lambda: ["gpu:0"])
    return used


@pytest.mark.parametrize("device", ["gpu", "cuda"])
@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_keras_runs_on_the_device_of_its_backend(monkeypatch, used, backend, device):
    keras = import_engine("keras").keras
    torch = SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: True))
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setattr(keras.config, "backend", lambda: backend)
    lists = {"tensorflow": lambda: ["gpu:0", "gpu:1"], "jax": lambda: ["gpu:0"], "torch": None}  # as Keras has it
    monkeypatch.setattr(keras.distribution, "list_devices", lists[backend])
    engine = load_engine(FAST, engine="keras", device=device)
    assert engine(np.zeros((1, 32, 32, 1), np.uint8)).shape == (1, 48, 48, 1)
    assert used == ["gpu:0", "gpu:0"]  # for weights and for the frame
    used.clear()
    load_engine(FAST, engine="keras")(np.zeros((1, 32, 32, 1), np.uint8))
    assert used == ["cpu:0", "cpu:0"]  # unless it is asked for
    with pytest.raises(ModelError, match=r"keras finds on this machine \(cpu, gpu, cuda\)\. Received: npu"):
        load_engine(FAST, engine="keras", device="npu")


def test_pytorch_without_a_card_has_a_cpu_alone(monkeypatch):
    keras = import_engine("keras")
    torch = SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: False))
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setattr(keras.keras.config, "backend", lambda: "torch")
    assert keras.devices() == {"cpu:0"}


def test_keras_computes_frames_of_several_threads_as_one_batch_and_each_as_if_alone(monkeypatch, used):
    best = find_model("best", Scale(3, 2))
    engine = load_engine(best, engine="keras", device="gpu")
    own, batches, begun = engine._compute, [], threading.Event()

    def compute(lr, *numbers):
        batches.append(len(lr))
        if len(batches) == 1:  # until the other six threads wait
            begun.set()
            until = time.monotonic() + 60
            while len(engine._run._waiting) < 6 and time.monotonic() < until:
                time.sleep(0.001)
        return own(lr, *numbers)

    monkeypatch.setattr(engine._run, "_compute", compute)
    random = np.random.default_rng(0)
    frames = [random.integers(0, 256, (1, 40, 56, 1), np.uint8) for _ in range(7)]
    # Two details, which are two batches: an odd frame is sharp.
    calls = [(frame, float(i % 2), 0.0) for i, frame in enumerate(frames)]
    with ThreadPoolExecutor(7) as pool:
        results = [pool.submit(engine, *calls[0])]
        assert begun.wait(60)
        results += [pool.submit(engine, *call) for call in calls[1:]]
    assert batches[0] == 1
    assert batches[1:] == [3, 3]
    alone = load_engine(best, engine="keras")
    for call, result in zip(calls, results, strict=True):
        np.testing.assert_array_equal(result.result(), alone(*call))
    assert alone._run == alone._compute  # on a CPU no frame waits for another


def test_a_runtime_that_is_missing_is_installed_with_what_drives_the_device(monkeypatch):
    monkeypatch.delitem(sys.modules, "imagesr.engines.onnx", raising=False)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    for device, extra in (("cuda", "cuda"), ("directml", "train")):
        with pytest.raises(ModelError, match=rf"needs the package onnxruntime: pip install .*\[{extra}\]"):
            load_engine(FAST, device=device)


def test_the_command_lists_what_runs_and_what_fails(monkeypatch, capsys):
    monkeypatch.setattr(devices, "SIZE", (96, 64))
    monkeypatch.setattr(devices, "found", lambda: {"cpu": ["openvino", "onnx"], "npu": ["openvino"]})
    monkeypatch.setattr(import_engine("openvino"), "devices", lambda: {"CPU"})
    assert devices.main(["-n", "fast"]) == 0
    cpu, onnx, npu = capsys.readouterr().out.splitlines()[2:5]
    assert cpu.startswith("| cpu | openvino | fast x1.5 |")
    assert onnx.endswith((" 0 |", " 1 |"))  # fp32 beside fp32
    assert "Expected a device" in npu


def test_this_machine_has_a_cpu():
    assert {"openvino", "keras"} <= set(devices.found()["cpu"])


def test_a_backend_of_keras_that_is_missing_hides_no_other_runtime(monkeypatch):
    def missing():
        raise ImportError("Keras's backend is torch, which is not installed")

    monkeypatch.setattr("imagesr.engines.import_keras", missing)
    there = devices.found()["cpu"]
    assert "openvino" in there
    assert "keras" not in there
