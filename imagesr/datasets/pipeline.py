"""The tf.data pipeline that feeds TensorFlow."""

from __future__ import annotations

import os

import tensorflow as tf

from imagesr.datasets.crops import RandomCrops


def pipeline(crops: RandomCrops) -> tf.data.Dataset:
    """Turn random crops into a dataset of (LR, HR) batches, in order, made side by side ahead of the training step."""
    channels = crops.numbered(0)[0].shape[-1]
    shapes = [
        (crops.batch, *(n * f // crops.scale.up for n in crops.size), channels)
        for f in (crops.scale.down, crops.scale.up)
    ]

    def batch(number):
        sides = tf.numpy_function(lambda n: crops.numbered(int(n)), [number], (tf.float32, tf.float32), stateful=False)
        return tuple(tf.ensure_shape(side, shape) for side, shape in zip(sides, shapes, strict=True))

    numbers = tf.data.Dataset.range(crops.start, crops.steps)
    return numbers.map(batch, num_parallel_calls=os.cpu_count(), deterministic=True).prefetch(4)
