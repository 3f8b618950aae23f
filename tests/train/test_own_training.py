"""Somebody trains a network on data of their own, evaluates it from memory, exports it, and runs it on a clip."""

from importlib.util import find_spec

import keras
import tensorflow as tf
from conftest import picture
from PIL import Image

import imagesr
from imagesr.export.__main__ import main as export


def test_from_a_tf_data_of_ones_own_to_a_video(tmp_path, clip):
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(2):
        Image.fromarray(picture(64, 56, shift=100 * i)).save(photos / f"{i}.png")

    def pair(file):
        rgb = tf.image.random_crop(tf.io.decode_png(tf.io.read_file(file), channels=3), (32, 32, 3))
        hr = tf.reduce_sum(tf.cast(rgb, tf.float32) * [65.481, 128.553, 24.966], -1, keepdims=True) / 255 + 16
        return tf.image.resize(hr, (16, 16), "bicubic", antialias=True) / 255, hr / 255

    seen = []

    class Own(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append(logs["val_psnr"])

    data = tf.data.Dataset.list_files(str(photos / "*.png")).repeat(2).map(pair).batch(2)
    model = imagesr.models.build("edsr_baseline", scale=2, filters=4, blocks=1, channels=1)
    boards = [keras.callbacks.TensorBoard(str(tmp_path / "logs"))] if find_spec("tensorboard") else []
    callbacks = [*boards, Own()]
    history = imagesr.train.fit(model, data, data, out=tmp_path / "run", steps=3, callbacks=callbacks)
    assert history.history["val_psnr"] == seen
    assert not boards or list((tmp_path / "logs").rglob("events.*"))

    result = imagesr.evaluate.evaluate(model, photos)
    assert f"{result['psnr_y']:.2f}" in str(result)

    assert export([str(tmp_path / "run"), "--name", "mine", "--folder", str(tmp_path)]) == 0
    report = imagesr.upscale_video(clip, tmp_path / "out.mp4", model=str(tmp_path / "mine_x2"), scale=2)
    assert report.frames == 12
