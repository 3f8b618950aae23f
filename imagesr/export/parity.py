"""Check that exported graphs compute what the Keras network computes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from imagesr.card import ModelCard
from imagesr.engines import load_engine

if TYPE_CHECKING:
    import keras


def patterns(model: keras.Model) -> list[np.ndarray]:
    """Draw ramps with noise below, (1, H, W, channels) uint8, in odd multiples of the network's `multiple`."""
    from imagesr.models.cost import input_size, multiple

    unit, random, pictures = multiple(model), np.random.default_rng(0), []
    for height, width in dict.fromkeys(input_size(model, (h * unit, w * unit)) for h, w in ((17, 31), (33, 23))):
        ramp = np.linspace(0, 255, width)[np.newaxis, :, np.newaxis] * np.ones((height, 1, model.inputs[0].shape[-1]))
        ramp[height // 2 :] = random.integers(0, 256, ramp[height // 2 :].shape)
        pictures.append(ramp[np.newaxis].astype(np.uint8))
    return pictures


def check_parity(card: ModelCard, pictures: Sequence[np.ndarray], also: Sequence[str] = ()) -> None:
    """Compare the exported graphs with Keras at float32, every format in its own runtime, and print the differences.

    `pictures` are (1, H, W, channels) uint8. Raises ValueError where one differs by more than one code.
    """
    low = np.random.default_rng(0).integers(0, 256, max(p.size for p in pictures), np.uint16)
    deep = [picture * np.uint16(256) + low[: picture.size].reshape(picture.shape) for picture in pictures]
    both = ("openvino", "onnx")
    for bits, planes, engines in ((8, pictures, dict.fromkeys((*both, *also))), (16, deep, both)):
        reference = load_engine(card, engine="keras", bits=bits)
        details, cleans = ((None,) if own is None else (0, 1) for own in (card.detail, card.clean))
        cases = list(itertools.product(planes, details, cleans))
        expected = [reference(*case).astype(int) for case in cases]
        for engine in engines:
            exported = load_engine(card, engine=engine, precision="fp32", bits=bits)
            results = (exported(*case) for case in cases)
            difference = max(np.abs(sr - wanted).max() for sr, wanted in zip(results, expected, strict=True))
            if difference > 1:
                raise ValueError(f"Expected {engine} within one code of Keras at {bits} bits. Received: {difference}")
            print(f"{engine} at {bits} bits: within {difference} of Keras", flush=True)
