"""The tf.data pipeline that feeds TensorFlow."""

from __future__ import annotations

import os

import tensorflow as tf

from imagesr.datasets.crops import RandomCrops


def pipeline(crops: RandomCrops) -> tf.data.Dataset:
    """Turn random crops into a dataset of their batches, in order, made in parallel ahead of the training step."""
    first = crops.numbered(0)
    flat = tf.nest.flatten(first)

    def batch(number):
        arrays = tf.numpy_function(
            lambda n: tf.nest.flatten(crops.numbered(int(n))), [number], [tf.float32] * len(flat), stateful=False
        )
        arrays = [tf.ensure_shape(array, like.shape) for array, like in zip(arrays, flat, strict=True)]
        return tf.nest.pack_sequence_as(first, arrays)

    numbers = tf.data.Dataset.range(crops.start, crops.steps)
    return numbers.map(batch, num_parallel_calls=os.cpu_count(), deterministic=True).prefetch(4)
