#!/usr/bin/env python3
"""Compare runtimes and precisions of the service's network and of the films': `python deploy/serving/engines.py`.

It needs `pip install 'imagesr[train]'` for ONNX Runtime. Each cell is the median of three rounds, in turns.
"""

import os
import statistics
import time

import numpy as np

from imagesr.card import ModelCard, saved_models
from imagesr.engines import load_engine
from imagesr.errors import ModelError

SIZE, FRAMES, ROUNDS = (360, 640), 5, 3
# The model's folder, the bits of its planes, and what is compared; pictures always run at 16 bits and fp32.
CASES = [("best-photo_x2", 16, engine, "fp32") for engine in ("openvino", "onnx")]
CASES += [("balanced_x1.5", 8, "openvino", precision) for precision in ("fp32", "bf16", "int8")]
CASES += [("balanced_x1.5", 8, "onnx", "fp32")]


def main():
    cards = {folder.name: folder for folder in saved_models()}
    engines, spent = {}, {}
    for case in CASES:
        name, bits, runtime, precision = case
        try:
            engines[case] = load_engine(ModelCard.read(cards[name]), bits=bits, engine=runtime, precision=precision)
        except (ModelError, ModuleNotFoundError) as error:
            print(f"{name} {runtime} {precision}: {error}")
    for _ in range(ROUNDS):
        for case, engine in engines.items():
            kind = np.uint8 if case[1] == 8 else np.uint16
            frame = np.random.default_rng(0).integers(16, 236, (1, *SIZE, 1), kind)
            engine(frame)
            begun = time.perf_counter()
            for _ in range(FRAMES):
                engine(frame)
            spent.setdefault(case, []).append((time.perf_counter() - begun) / FRAMES)
    print("| network | runtime | precision | ms for 640x360 |\n|---|---|---|---|")
    for (name, _, runtime, precision), times in spent.items():
        print(f"| {name} | {runtime} | {precision} | {1000 * statistics.median(times):.0f} |")
    print(f"\n{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
