"""Depth from a single picture, by an estimator in an ONNX file; none is shipped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from imagesr.cli import install
from imagesr.depth.maps import DepthSource, depth_maps, normalised, on_hr
from imagesr.errors import ModelError
from imagesr.scale import Scale

# What MiDaS, DPT and Depth Anything are trained on: ImageNet's mean and deviation.
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
UNITS = (32, 14)  # estimators take multiples of these sides: convolutional ones of 32, transformers of 14
TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}
LONGEST = 768  # pixels of the longer side; estimators gain nothing from pictures larger than they were trained on


def depth_source(folders: Sequence[Path], model: Path | None, scale: Scale) -> DepthSource | None:
    """Return the source of depth: folders of maps, or an estimator that is run on LR; None for neither.

    Raises ValueError for both at once, a folder without maps, and a file that is no estimator.
    """
    if folders and model:
        raise ValueError(f"Expected depth maps or a model that estimates them. Received both: {folders[0]}, {model}")
    if folders:
        return depth_maps(folders, scale)
    if not model:
        return None
    estimate = estimator(model)

    def look(picture, lr, size):
        name = picture if isinstance(picture, Path) else "a picture"
        return on_hr(normalised(estimate(lr), f"{model} on {name}"), lr.shape[:2], size, scale)

    return look


def estimator(file: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Load an ONNX file that turns RGB into one map, and return a function from uint8 (H, W, 3) to float32 (h, w).

    Its input is NCHW or NHWC, of a fixed size or any; pictures are resized to it. Floating-point inputs get samples
    normalised by ImageNet's mean and deviation, integers get them as they are. Raises ModelError for any other file.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise ModelError(f"A model of depth needs the package {error.name}: {install('train')}") from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what fails is told in one line
    try:
        return _probed(onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"]))
    except Exception as error:  # ONNX Runtime's exceptions have no common class
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"Expected an ONNX file that turns RGB into one map of depth. Received: {file} ({reason:.200})"
        ) from None


def _probed(session):
    """Return the function that estimates, after a trial on noise; raises an exception where it does not run."""
    entries, results = session.get_inputs(), session.get_outputs()
    if len(entries) != 1 or len(results) != 1:
        raise ValueError(f"{len(entries)} inputs and {len(results)} outputs")
    shape, dtype, name = entries[0].shape, TYPES.get(entries[0].type), entries[0].name
    if len(shape) != 4 or 3 not in shape[1::2] or not dtype:
        raise ValueError(f"an input of shape {shape}, {entries[0].type}")
    channels_first = shape[1] == 3
    own = [n if isinstance(n, int) else None for n in (shape[2:] if channels_first else shape[1:3])]

    def run(rgb, unit):
        size = rgb.shape[:2]
        share = min(1, LONGEST / max(size)) / unit
        height, width = (m or max(1, round(n * share)) * unit for m, n in zip(own, size, strict=True))
        planes = np.asarray(Image.fromarray(rgb).resize((width, height), Image.Resampling.BICUBIC))
        if dtype != np.uint8:
            planes = ((planes / 255 - MEAN) / DEVIATION).astype(dtype)
        planes = planes.transpose(2, 0, 1) if channels_first else planes
        (depth,) = session.run(None, {name: planes[np.newaxis]})
        if sum(n > 1 for n in depth.shape) != 2:
            raise ValueError(f"an output of shape {depth.shape}")
        return np.float32(depth).squeeze()

    noise = np.random.default_rng(0).integers(0, 256, (96, 160, 3), np.uint8)
    for unit in UNITS[:-1]:
        try:
            run(noise, unit)
            return partial(run, unit=unit)
        except Exception:  # a transformer whose patches do not fit
            continue
    run(noise, UNITS[-1])
    return partial(run, unit=UNITS[-1])
