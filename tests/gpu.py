"""Measure networks and training on a graphics card, ten minutes in all: `python tests/gpu.py [--minutes 10]`.

Each of Keras's backends that is installed runs in a process of its own. It prints ms of a 720p frame and the share of
the bf16 peak (a large convolution, in the same process) for each model, then images per second of training, and the
seconds to the PSNR that float32 reached, in three precisions. Without a graphics card it runs on the CPU, in small, and
says so.
"""

import argparse
import importlib.util
import os
import subprocess
import sys
import time

import numpy as np

BACKENDS = ("tensorflow", "jax")
POLICIES = ("float32", "mixed_float16", "mixed_bfloat16")
TIERS = ("fast", "balanced", "best")
TRAINED = (("realtime", "1.5", 1e-3), ("edsr_baseline", "2", 1e-4))  # with the learning rate


def on_gpu(backend):
    """Tell whether the backend sees a graphics card."""
    if backend == "jax":
        import jax

        return jax.default_backend() == "gpu"
    import tensorflow

    return bool(tensorflow.config.list_physical_devices("GPU"))


def seconds_of(model, batch, least):
    """Return the seconds of a call, the mean over at least so many seconds, after two calls that compile."""
    for _ in range(2):
        model.predict_on_batch(batch)
    begun, calls = time.perf_counter(), 0
    while time.perf_counter() - begun < least:
        model.predict_on_batch(batch)
        calls += 1
    return (time.perf_counter() - begun) / calls


def reduced(model):
    """Let a network return one number: what is copied to the host is not its time."""
    import keras

    inputs = {entry.name: entry for entry in model.inputs}
    return keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(model.outputs[0]))


def batch_of(model, size, frames):
    """Return random frames for the first input of a network, and zeros for the numbers that it takes beside them."""
    import keras

    lr, *numbers = model.inputs
    batch = {lr.name: np.random.default_rng(0).random((frames, *size, lr.shape[-1]), np.float32)}
    batch |= {entry.name: np.zeros((frames, *entry.shape[1:]), np.float32) for entry in numbers}
    return {name: keras.ops.convert_to_tensor(values) for name, values in batch.items()}


def inference(size, frames, least):
    """Print ms of a frame and the share of the peak of every tier, in bfloat16."""
    import keras

    from imagesr.card import find_model
    from imagesr.models import build
    from imagesr.models.cost import multiply_accumulates
    from imagesr.scale import Scale

    keras.config.set_dtype_policy("mixed_bfloat16")
    channels, side = (512, 256) if frames > 1 else (64, 64)
    given = keras.Input((side, side, channels))
    conv = keras.Model(given, keras.layers.Conv2D(channels, 3, padding="same")(given))
    took = seconds_of(reduced(conv), batch_of(conv, (side, side), 1), least)
    peak = 2 * 9 * channels**2 * side**2 / took
    print(f"  a convolution of {channels} channels: {peak / 1e12:.3g} TFLOP/s in bf16", flush=True)
    for name in TIERS:
        card = find_model(name, Scale(3, 2))
        model = build(card.config["model"], scale="1.5", **card.config["architecture"])
        took = seconds_of(reduced(model), batch_of(model, size, frames), least) / frames
        operations = 2 * multiply_accumulates(model) * size[0] * size[1]
        print(f"  {name}: {1000 * took:.2f} ms a frame, {operations / took / peak:.1%} of the peak", flush=True)


def crops(patch, scale, count):
    """Return (LR, HR) crops that are like pictures: smooth, with edges and noise."""
    from PIL import Image

    from imagesr.pixels import downscale

    random, pairs = np.random.default_rng(0), []
    for _ in range(count):
        small = Image.fromarray(random.integers(0, 256, (8, 8), np.uint8))
        picture = np.asarray(small.resize((patch, patch), Image.Resampling.BICUBIC)).astype(int)
        picture += 50 * (np.add.outer(np.arange(patch), np.arange(patch)) % random.integers(8, 40) < 4)
        pairs.append(downscale(np.clip(picture, 0, 255).astype(np.uint8), scale))
    return [np.stack(planes)[..., np.newaxis].astype(np.float32) / 255 for planes in zip(*pairs, strict=True)]


def training(deadline, batch, count, least):
    """Print images per second of each network and precision, and the seconds to the PSNR of float32."""
    import keras

    from imagesr.models import build
    from imagesr.scale import Scale

    for name, factor, rate in TRAINED:
        target = None
        for policy in POLICIES:
            if time.monotonic() > deadline:
                print(f"  {name}, {policy}: left out, the time is over")
                continue
            keras.config.set_dtype_policy(policy)
            keras.utils.set_random_seed(0)
            channels = 3 if name == "edsr_baseline" else 1
            lr, hr = (np.repeat(planes, channels, -1) for planes in crops(96, Scale.parse(factor), count))
            model = build(name, scale=factor)
            model.compile(keras.optimizers.Adam(rate), loss="mse")
            model.fit(lr, hr, batch_size=batch, epochs=1, verbose=0)  # it compiles
            begun, epochs, reached = time.perf_counter(), 0, None
            while (spent := time.perf_counter() - begun) < least:
                loss = model.fit(lr, hr, batch_size=batch, epochs=1, verbose=0).history["loss"][-1]
                epochs += 1
                if target and reached is None and loss <= target:
                    reached = time.perf_counter() - begun
            if target is None:
                target, reached = loss, spent
            when = "not reached" if reached is None else f"after {reached:.1f} s"
            psnr = f"{-10 * np.log10(target):.1f} dB {when}"
            print(f"  {name}, {policy}: {epochs * len(lr) / spent:.0f} images/s; {psnr}", flush=True)


def measure(backend, minutes):
    """Measure one backend in this process."""
    deadline, gpu = time.monotonic() + 60 * minutes, on_gpu(backend)
    print(
        f"{backend}, " + ("on a graphics card" if gpu else "NO GRAPHICS CARD: figures of the CPU, in small"), flush=True
    )
    inference((720, 1280) if gpu else (90, 160), 8 if gpu else 1, 3.0 if gpu else 0.5)
    training(deadline, 16 if gpu else 2, 1024 if gpu else 4, 15.0 if gpu else 1.0)


def main():
    """Measure every backend, each in its share of the minutes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--backend", choices=BACKENDS, help="this one alone, in this process")
    options = parser.parse_args()
    if options.backend:
        measure(options.backend, options.minutes)
        return
    backends = [name for name in BACKENDS if importlib.util.find_spec(name)]
    if not backends:
        parser.error(f"expected one of {', '.join(BACKENDS)}, received none: neither is installed")
    share = options.minutes / len(backends)
    for name in backends:
        environment = os.environ | {"KERAS_BACKEND": name, "TF_CPP_MIN_LOG_LEVEL": "3"}
        command = [sys.executable, __file__, "--backend", name, "--minutes", f"{0.8 * share:.2f}"]
        try:
            subprocess.run(command, env=environment, timeout=60 * share, check=False)
        except subprocess.TimeoutExpired:
            print(f"  {name}: ended, its {share:.1f} minutes are over")


if __name__ == "__main__":
    main()
