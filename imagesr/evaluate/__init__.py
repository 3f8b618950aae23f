"""Measuring: `imagesr evaluate` for the quality of a model, `imagesr bench` for its speed on this machine.

Here are the protocol (HR to LR, upscaled, compared), its conditions and its tables. The figures are in `metrics`.
"""
