"""Feature spaces in which pictures are compared; `imagesr.train.extractors` trains them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
from keras import ops

from imagesr.card import sha256

_HERE = Path(__file__).parents[1]
# Inside the wheel they lie in the package, in a checkout beside it.
EXTRACTORS = next((d for d in (_HERE / "extractors", _HERE.parent / "extractors") if d.is_dir()), _HERE / "extractors")
VGG19_LAYERS = ("block5_conv4", "block2_conv2")  # the paper's VGG54 and VGG22
VGG19_SCALE = 1 / 12.75


class Extractor:
    """Hold a frozen network from RGB in [0, 1], NHWC, to a list of feature maps, each of about unit size.

    It is not a layer, so that a model that holds one neither trains nor saves it.
    """

    def __init__(self, network: keras.Model):
        network.trainable = False
        self.network = network

    def __call__(self, pictures) -> list:
        """Return the feature maps, float32, of RGB or of grey pictures."""
        pictures = ops.cast(pictures, "float32")
        if pictures.shape[-1] == 1:
            pictures = ops.repeat(pictures, 3, -1)
        features = self.network(pictures, training=False)
        return features if isinstance(features, list) else [features]


def content_loss(features_hr: Sequence, features_sr: Sequence):
    """Return the mean squared difference of feature maps, a mean over the maps (SRGAN, section 2.2.1)."""
    errors = [ops.mean(ops.square(hr - sr)) for hr, sr in zip(features_hr, features_sr, strict=True)]
    return sum(errors) / len(errors)


def distance(extractor: Extractor, hr, sr, epsilon: float = 1e-8):
    """Return the perceptual distance of pictures to others, float32 NHWC in [0, 1]: one value per picture.

    Features are of unit length at every position, squared differences are summed over channels, averaged over
    positions, and summed over depths: LPIPS (arXiv 1801.03924, equation 1) with all channels' weights one.
    """
    total = 0.0
    for a, b in zip(extractor(hr), extractor(sr), strict=True):
        a, b = (x / ops.sqrt(ops.sum(ops.square(x), -1, keepdims=True) + epsilon) for x in (a, b))
        total += ops.mean(ops.sum(ops.square(a - b), -1), (1, 2))
    return total


def load_extractor(text: str) -> Extractor:
    """Return the extractor of a name: a shipped one, the folder of another, or `vgg19[:LAYER][=WEIGHTS]`.

    It computes in the precision of the current policy. Raises ValueError, in one line, for an unknown name, a file that
    does not match its card, and weights of another network.
    """
    if text.partition("=")[0].partition(":")[0] == "vgg19":
        return _vgg19(text)
    folder = EXTRACTORS / text if (EXTRACTORS / text / "card.json").is_file() else Path(text)
    try:
        card = json.loads((folder / "card.json").read_text("utf-8"))
        wanted, architecture = card["sha256"]["model.keras"], ARCHITECTURES[card["task"]]
    except (OSError, ValueError, KeyError, TypeError):
        names = ", ".join(sorted(card.parent.name for card in EXTRACTORS.glob("*/card.json")))
        raise ValueError(f"Expected an extractor ({names}, vgg19) or the folder of one. Received: {text}") from None
    file = folder / "model.keras"
    if not file.is_file() or sha256(file) != wanted:
        raise ValueError(f"Expected {file} to match its card. It is missing or has changed: restore the file")
    saved = keras.saving.load_model(file, compile=False)
    network = architecture([saved.get_layer(f"{name}_unit").scale for name in _MAPS])
    network.set_weights(saved.get_weights())
    return Extractor(network)


def _vgg19(text: str) -> Extractor:
    name, _, file = text.partition("=")
    layer = name.partition(":")[2] or VGG19_LAYERS[0]
    if layer not in VGG19_LAYERS:
        raise ValueError(f"Expected a layer of vgg19 ({', '.join(VGG19_LAYERS)}). Received: {layer}")
    where = (
        "its ImageNet weights are keras.applications' vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5, from "
        "storage.googleapis.com/tensorflow/keras-applications/vgg19 into ~/.keras/models, or given as vgg19=FILE"
    )
    if file and not Path(file).is_file():
        raise ValueError(f"Expected weights of VGG19 in {file}, where there is no file; {where}")
    try:
        return Extractor(vgg19(layer, weights=file or "imagenet"))
    except Exception as error:  # failed downloads and weights that do not fit raise exceptions of many classes
        reason = str(error).strip().splitlines()[0]
        if file:
            what = f"{file}, another network's ({reason:.120})"
            raise ValueError(f"Expected weights of VGG19. Received: {what}") from None
        raise ValueError(f"Expected weights of VGG19, and there are none ({reason:.120}); {where}") from None


def vgg19(layer: str = VGG19_LAYERS[0], *, weights: str | None = "imagenet") -> keras.Model:
    """Build VGG19 up to the convolution before the pooling `layer` belongs to, after its ReLU, rescaled by 1/12.75.

    Source: SRGAN (arXiv 1609.04802, section 2.2.1 and 3.2). Input is RGB in [0, 1]; the network was trained on BGR in
    [0, 255] less ImageNet's means.
    """
    base = keras.applications.VGG19(include_top=False, weights="imagenet" if weights == "imagenet" else None)
    if weights not in (None, "imagenet"):
        base.load_weights(weights)
    features = keras.Model(base.input, base.get_layer(layer).output, name="vgg19")
    rgb = keras.Input((None, None, 3), name="rgb")
    bgr = ops.flip(keras.layers.Rescaling(255.0, dtype="float32", name="samples")(rgb), -1)
    bgr = bgr - np.array([103.939, 116.779, 123.68], np.float32)
    return keras.Model(rgb, [_unit(features(bgr), VGG19_SCALE, layer)], name="vgg19_features")


def _unit(x, scale, name):
    """Scale a feature map to float32 of about unit size, so that losses of all extractors need the same weights."""
    return keras.layers.Rescaling(float(scale), dtype="float32", name=f"{name}_unit")(x)


_MAPS = ("low", "middle", "high")


def conv(x, filters: int, size: int, name: str, activation, strides: int = 1):
    """Apply a convolution, He-initialised, and its activation."""
    options = {"strides": strides, "padding": "same", "kernel_initializer": "he_normal"}
    return activation(keras.layers.Conv2D(filters, size, name=name, **options)(x))


def _photos(sizes: Sequence[float] = (1.0, 1.0, 1.0)) -> keras.Model:
    """Build the extractor of `photos`: five convolutions, features after the first, the third and the fifth."""
    rgb = keras.Input((None, None, 3), name="rgb")
    x = keras.layers.Rescaling(4.0, -2.0, dtype="float32", name="centred")(rgb)
    low = x = conv(x, 24, 5, "conv_0", ops.relu)
    x = conv(keras.layers.AveragePooling2D(2, name="pool_0")(x), 48, 3, "conv_1", ops.relu)
    middle = x = conv(x, 48, 3, "conv_2", ops.relu)
    x = conv(keras.layers.AveragePooling2D(2, name="pool_1")(x), 64, 3, "conv_3", ops.relu)
    high = conv(x, 64, 3, "conv_4", ops.relu)
    maps = [_unit(x, s, n) for x, s, n in zip((low, middle, high), sizes, _MAPS, strict=True)]
    return keras.Model(rgb, maps, name="photos")


def _views(sizes: Sequence[float] = (1.0, 1.0, 1.0)) -> keras.Model:
    """Build the extractor of `views`: strided, with leaky ReLUs, features after convolutions two, three and five."""

    def leaky(x):
        return ops.leaky_relu(x, 0.2)

    rgb = keras.Input((None, None, 3), name="rgb")
    x = keras.layers.Rescaling(4.0, -2.0, dtype="float32", name="centred")(rgb)
    x = conv(x, 32, 3, "conv_0", leaky)
    low = x = conv(x, 32, 4, "conv_1", leaky, strides=2)
    middle = x = conv(x, 64, 4, "conv_2", leaky, strides=2)
    x = conv(x, 64, 3, "conv_3", leaky)
    high = conv(x, 80, 4, "conv_4", leaky, strides=2)
    maps = [_unit(x, s, n) for x, s, n in zip((low, middle, high), sizes, _MAPS, strict=True)]
    return keras.Model(rgb, maps, name="views")


ARCHITECTURES = {"photos": _photos, "views": _views}
