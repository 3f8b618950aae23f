"""The tf.data pipelines that feed TensorFlow."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from imagesr.datasets.crops import RandomCrops

if TYPE_CHECKING:
    from imagesr.datasets.batches import Batches


def pipeline(crops: RandomCrops) -> tf.data.Dataset:
    """Turn random crops into a dataset of their batches, in order, made in parallel ahead of the training step."""
    return _numbered(crops, tf.data.Dataset.range(crops.start, crops.steps)).map(lambda number, batch: batch)


def epochs(batches: Batches) -> tf.data.Dataset:
    """Turn `Batches` into a dataset of one epoch. Whoever reads it again gets the batches of the next epoch.

    An epoch that is left before its end is read again. The dataset's attribute `crops` is that of `batches`.
    """

    def numbers(_):
        first = tf.ensure_shape(tf.numpy_function(lambda: np.int64(batches.first), [], tf.int64), ())
        return tf.data.Dataset.range(first, first + batches.steps)

    def seen(number):
        if number == batches.first + batches.steps - 1:
            batches.on_epoch_end()
        return number

    def handed_out(number, batch):
        # Behind the prefetching: a batch that was only made ahead has not been seen.
        with tf.control_dependencies([tf.numpy_function(seen, [number], tf.int64)]):
            return tf.nest.map_structure(tf.identity, batch)

    once = tf.data.Dataset.from_tensors(0).flat_map(numbers)
    dataset = _numbered(batches.crops, once).map(handed_out)
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(batches.steps))
    dataset.crops = batches.crops
    return dataset


def fixed(batches: Sequence[tuple]) -> tf.data.Dataset:
    """Turn batches (LR, HR), whose heights and widths may differ, into a dataset."""
    signature = tuple(tf.TensorSpec((None, None, None, side.shape[-1]), tf.float32) for side in batches[0])
    dataset = tf.data.Dataset.from_generator(lambda: iter(batches), output_signature=signature)
    return dataset.apply(tf.data.experimental.assert_cardinality(len(batches))).prefetch(2)


def _numbered(crops, numbers):
    """Return a dataset of (number, batch) of numbers, made in parallel ahead of the training step."""
    first = crops.numbered(0)
    flat = tf.nest.flatten(first)

    def batch(number):
        arrays = tf.numpy_function(
            lambda n: tf.nest.flatten(crops.numbered(int(n))), [number], [tf.float32] * len(flat), stateful=False
        )
        arrays = [tf.ensure_shape(array, like.shape) for array, like in zip(arrays, flat, strict=True)]
        return number, tf.nest.pack_sequence_as(first, arrays)

    return numbers.map(batch, num_parallel_calls=os.cpu_count(), deterministic=True).prefetch(4)
