"""The optimizer that every training uses."""

from __future__ import annotations

import keras

NAME = "imagesr"  # of the optimizer that `fit` gives a model
GRADIENT_NORM = 1.0  # gradients are clipped to it: VDSR's depth needs it, and it harms no other network


def adam(steps: int, learning_rate: float, **options) -> keras.optimizers.Adam:
    """Return Adam with a warm-up, then a cosine down to a hundredth, and clipped gradients.

    The warm-up takes 500 steps, or a tenth of a short run. `options` are Adam's own.
    """
    warmup = min(500, steps // 10)
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup else learning_rate,
        warmup_target=learning_rate if warmup else None,
        warmup_steps=warmup,
        decay_steps=max(1, steps - warmup),
        alpha=0.01,
    )
    return keras.optimizers.Adam(schedule, global_clipnorm=GRADIENT_NORM, **options)
