"""Measuring: `imagesr evaluate` for the quality of a model, `imagesr bench` for its speed on this machine.

`evaluate` measures one model from Python. Here are the protocol (HR to LR, upscaled, compared), its conditions and its
tables. The figures are in `metrics`.
"""

from importlib import import_module

__all__ = ["evaluate"]


def __getattr__(name):
    if name == "evaluate":
        return import_module("imagesr.evaluate.result").evaluate
    raise AttributeError(f"module 'imagesr.evaluate' has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
