"""Measure a model on pictures by the papers' protocol: `python -m imagesr.evaluate --model balanced --data DIR`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from imagesr.card import find_model
from imagesr.engines import ENGINES, PRECISIONS, load_engine
from imagesr.images import degrade, find_images, read_rgb, resize
from imagesr.metrics import luma, psnr, ssim
from imagesr.scale import Scale

KERNELS = ("bicubic", "lanczos")


def upscale_luma(engine: Callable[[np.ndarray], np.ndarray], lr: np.ndarray, multiple: int) -> np.ndarray:
    """Run an (H, W) uint8 luma plane through an engine, its edge repeated to a multiple; the surplus is not cut off."""
    padding = [(0, -n % multiple) for n in lr.shape]
    return engine(np.pad(lr, padding, mode="edge")[np.newaxis, ..., np.newaxis])[0, ..., 0]


def evaluate(upscale: Callable[[np.ndarray], np.ndarray], paths: Sequence[Path], scale: Scale) -> dict:
    """Measure PSNR-Y and SSIM-Y of `upscale`, a function from LR RGB to SR luma that may be larger than HR.

    LR is antialiased bicubic, luma BT.601 in 8 bits, `up` border pixels are left out. Returns the means under `psnr_y`
    and `ssim_y`, and a list with each picture's under `images`.
    """
    images = []
    for path in paths:
        lr, hr = degrade(read_rgb(path), scale)
        hr = luma(hr)
        sr = upscale(lr)[: hr.shape[0], : hr.shape[1]]
        figures = {"psnr_y": psnr(sr, hr, shave=scale.up), "ssim_y": ssim(sr, hr, shave=scale.up)}
        images.append({"image": path.name, **figures})
    means = {key: float(np.mean([image[key] for image in images])) for key in ("psnr_y", "ssim_y")}
    return means | {"images": images}


def upscaler(model: str, scale: Scale, **options) -> Callable[[np.ndarray], np.ndarray]:
    """Return the function from LR RGB to SR luma of a saved model or of `bicubic` and `lanczos`.

    `options` are those of `load_engine`. Raises ModelError.
    """
    if model in KERNELS:

        def enlarge(lr):
            height, width = (n * scale.up // scale.down for n in lr.shape[:2])
            return luma(resize(lr, (width, height), model))

        return enlarge
    card = find_model(model, scale)
    engine = load_engine(card, **options)
    return lambda lr: upscale_luma(engine, luma(lr), card.multiple)


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(prog="imagesr evaluate", description="Measure PSNR-Y and SSIM-Y on pictures.")
    parser.add_argument("--model", default="balanced", help=f"a model's name or folder, or {', '.join(KERNELS)}")
    parser.add_argument("--scale", type=Scale.parse, default=Scale(3, 2), help="default: 1.5")
    parser.add_argument("--data", type=Path, required=True, help="a folder of HR pictures")
    parser.add_argument("--engine", choices=ENGINES, default="openvino")
    parser.add_argument("--precision", choices=PRECISIONS, default="auto")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    options = parser.parse_args(arguments)
    try:
        if options.json and (options.json.is_dir() or not options.json.parent.is_dir()):
            raise ValueError(f"Expected a file in an existing folder for --json. Received: {options.json}")
        engine = {"engine": options.engine, "precision": options.precision}
        upscale = upscaler(options.model, options.scale, **engine)
        result = evaluate(upscale, find_images([options.data]), options.scale)
    except ValueError as error:
        print(f"imagesr evaluate: {error}", file=sys.stderr)
        return 2
    for image in result["images"]:
        print(f"{image['image']:32} {image['psnr_y']:6.2f} dB  {image['ssim_y']:.4f}")
    print(f"{'mean of ' + str(len(result['images'])):32} {result['psnr_y']:6.2f} dB  {result['ssim_y']:.4f}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
