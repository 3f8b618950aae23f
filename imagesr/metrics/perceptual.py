"""Feature spaces to compare pictures in; `python -m imagesr.metrics.perceptual TASK --data DIR …` trains one."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
from keras import ops
from PIL import Image, ImageFilter

from imagesr.card import sha256
from imagesr.cli import Parser, run_command
from imagesr.files import whole, write_whole
from imagesr.media.images import find_images, read_rgb
from imagesr.pixels import resize

_HERE = Path(__file__).parents[1]
# Inside the wheel they lie in the package, in a checkout beside it.
EXTRACTORS = next((d for d in (_HERE / "extractors", _HERE.parent / "extractors") if d.is_dir()), _HERE / "extractors")
VGG19_LAYERS = ("block5_conv4", "block2_conv2")  # the paper's VGG54 and VGG22
VGG19_SCALE = 1 / 12.75
SIDE = 64  # pixels a side of what extractors are trained on


class Extractor:
    """Hold a frozen network from RGB in [0, 1], NHWC, to a list of feature maps, each of about unit size.

    It is deliberately no layer: a model that holds one neither trains nor saves it.
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

    It computes in the precision of the current policy. Raises ValueError, in one line, for what is not there, does not
    match its card, or is another network's.
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
    except Exception as error:  # a download that fails raises what it likes, and so do weights that do not fit
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
    """End a feature map: float32, and of about unit size, so that losses of different extractors have like weights."""
    return keras.layers.Rescaling(float(scale), dtype="float32", name=f"{name}_unit")(x)


_MAPS = ("low", "middle", "high")


def _conv(x, filters, size, name, activation, strides=1):
    options = {"strides": strides, "padding": "same", "kernel_initializer": "he_normal"}
    return activation(keras.layers.Conv2D(filters, size, name=name, **options)(x))


def _photos(sizes: Sequence[float] = (1.0, 1.0, 1.0)) -> keras.Model:
    """Build the extractor of `photos`: five convolutions, features after the first, the third and the fifth."""
    rgb = keras.Input((None, None, 3), name="rgb")
    x = keras.layers.Rescaling(4.0, -2.0, dtype="float32", name="centred")(rgb)
    low = x = _conv(x, 24, 5, "conv_0", ops.relu)
    x = _conv(keras.layers.AveragePooling2D(2, name="pool_0")(x), 48, 3, "conv_1", ops.relu)
    middle = x = _conv(x, 48, 3, "conv_2", ops.relu)
    x = _conv(keras.layers.AveragePooling2D(2, name="pool_1")(x), 64, 3, "conv_3", ops.relu)
    high = _conv(x, 64, 3, "conv_4", ops.relu)
    maps = [_unit(x, s, n) for x, s, n in zip((low, middle, high), sizes, _MAPS, strict=True)]
    return keras.Model(rgb, maps, name="photos")


def _views(sizes: Sequence[float] = (1.0, 1.0, 1.0)) -> keras.Model:
    """Build the extractor of `views`: strided, with leaky ReLUs, features after convolutions two, three and five."""

    def leaky(x):
        return ops.leaky_relu(x, 0.2)

    rgb = keras.Input((None, None, 3), name="rgb")
    x = keras.layers.Rescaling(4.0, -2.0, dtype="float32", name="centred")(rgb)
    x = _conv(x, 32, 3, "conv_0", leaky)
    low = x = _conv(x, 32, 4, "conv_1", leaky, strides=2)
    middle = x = _conv(x, 64, 4, "conv_2", leaky, strides=2)
    x = _conv(x, 64, 3, "conv_3", leaky)
    high = _conv(x, 80, 4, "conv_4", leaky, strides=2)
    maps = [_unit(x, s, n) for x, s, n in zip((low, middle, high), sizes, _MAPS, strict=True)]
    return keras.Model(rgb, maps, name="views")


ARCHITECTURES = {"photos": _photos, "views": _views}
SOURCES = {
    "photos": "which way up a crop is (RotNet, arXiv 1803.07728), what was done to it (CONTRIQUE, arXiv 2110.13266)",
    "views": "two crops of a place, degraded alike, among others (SimCLR, arXiv 2002.05709; ARNIQA, arXiv 2310.14918)",
}
HARMS = ("nothing", "blur", "reduction", "noise", "jpeg", "sharpening")


def _harm(crop: np.ndarray, kind: str, strength: float, random: np.random.Generator) -> np.ndarray:
    """Degrade a uint8 crop by one of `HARMS`; `strength` is from 0, just visible, to 1, gross."""
    picture = Image.fromarray(crop)
    if kind == "blur":
        return np.asarray(picture.filter(ImageFilter.GaussianBlur(0.5 + 2 * strength)))
    if kind == "reduction":
        small = [max(4, round(n / (1.3 + 2.7 * strength))) for n in crop.shape[1::-1]]
        return resize(resize(crop, small), crop.shape[1::-1])
    if kind == "noise":
        noise = random.normal(0, 3 + 25 * strength, crop.shape)
        return np.rint(np.clip(crop + noise, 0, 255)).astype(np.uint8)
    if kind == "jpeg":
        picture.save(file := io.BytesIO(), "JPEG", quality=round(60 - 50 * strength))
        return np.asarray(Image.open(file))
    if kind == "sharpening":
        return np.asarray(picture.filter(ImageFilter.UnsharpMask(1.5, round(80 + 220 * strength), 0)))
    return crop


def _crop(pictures, random, side=SIDE):
    """Cut a random square out of a random picture, at its own size, at two thirds or at half of it."""
    picture = pictures[random.integers(len(pictures))]
    zoom = min(random.choice([1.0, 1.5, 2.0]), min(picture.shape[:2]) / side)
    room = [n - int(side * zoom) for n in picture.shape[:2]]
    y, x = (random.integers(n + 1) for n in room)
    cut = np.ascontiguousarray(picture[y : y + int(side * zoom), x : x + int(side * zoom)])
    return cut if zoom == 1 else resize(cut, (side, side))


def _batch_photos(pictures, random, batch):
    """Return crops, turned and degraded, with the turn, the degradation and its strength."""
    crops, turns, kinds, strengths = [], [], [], []
    for _ in range(batch):
        turn, kind, strength = random.integers(4), random.integers(len(HARMS)), random.random()
        crop = np.rot90(_crop(pictures, random), turn)
        crops.append(_harm(np.ascontiguousarray(crop), HARMS[kind], strength, random))
        turns.append(turn), kinds.append(kind), strengths.append(strength if kind else 0.0)
    return np.float32(crops) / 255, (np.int32(turns), np.int32(kinds), np.float32(strengths))


def _batch_views(pictures, random, batch):
    """Return pairs of crops that overlap, degraded alike; of every place there are two pairs, degraded differently."""
    crops = []
    for _ in range(batch // 4):
        place = _crop(pictures, random, SIDE * 5 // 4)
        for kind in random.choice(HARMS, 2, replace=False):
            strength = random.random()
            for _ in range(2):
                y, x = random.integers(SIDE // 4 + 1, size=2)
                view = place[y : y + SIDE, x : x + SIDE]
                view = view[:, :: random.choice([-1, 1])]
                crops.append(_harm(np.ascontiguousarray(view), kind, strength, random))
    return np.float32(crops) / 255, np.arange(len(crops)) ^ 1  # the neighbour is the partner


@keras.saving.register_keras_serializable("imagesr")
class _Contrast(keras.losses.Loss):
    """NT-Xent, the normalised cross entropy of SimCLR, at a temperature of 0.2."""

    def call(self, partner, embeddings):
        embeddings = embeddings / (ops.norm(embeddings, axis=-1, keepdims=True) + 1e-6)
        alike = ops.matmul(embeddings, ops.transpose(embeddings)) / 0.2
        alike = alike - 1e9 * ops.eye(alike.shape[0] or ops.shape(alike)[0])
        return ops.sparse_categorical_crossentropy(ops.reshape(partner, (-1,)), alike, from_logits=True)


def _learner(task: str, features: keras.Model, steps: int) -> keras.Model:
    """Put the heads of a task behind an extractor, and compile it."""
    dense = keras.layers.Dense
    # Averages and spreads of every depth: what texture there is, and how much.
    crops = keras.Input((SIDE, SIDE, 3))
    maps, pooled = features(crops), []
    for x in maps:
        mean = ops.mean(x, (1, 2))
        pooled += [mean, ops.sqrt(ops.mean(ops.square(x), (1, 2)) - ops.square(mean) + 1e-3)]
    x = dense(128, "relu", name="mix")(ops.concatenate(pooled, axis=-1))
    optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(2e-3, steps), global_clipnorm=1.0)
    if task == "views":
        learner = keras.Model(crops, dense(64, name="embedding")(x))
        learner.compile(optimizer, _Contrast())
        return learner
    # Which way up is told by where things are: positions are kept, four by four of them.
    place = _conv(maps[-1], 32, 3, "place_0", ops.relu, strides=2)
    place = keras.layers.Flatten()(_conv(place, 32, 3, "place_1", ops.relu, strides=2))
    heads = [dense(4, name="turn")(place), dense(len(HARMS), name="harm")(x), dense(1, name="strength")(x)]
    learner = keras.Model(crops, heads)
    entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    learner.compile(optimizer, [entropy, entropy, "mse"], metrics=["accuracy", "accuracy", "mae"])
    return learner


_STEPS, _BATCH = 800, 32
_BATCHES = {"photos": _batch_photos, "views": _batch_views}


def train(task: str, data: Sequence[Path], out: Path, *, steps: int = _STEPS, seed: int = 0, licence: str = "") -> None:
    """Train the extractor of a task on the pictures of folders, and write `model.keras` and `card.json` into `out`.

    Every tenth picture is kept to measure on. Raises ValueError for a folder without pictures, or pictures too small.
    """
    files = find_images(data)
    pictures = [read_rgb(file) for file in files]
    if small := [file for file, p in zip(files, pictures, strict=True) if min(p.shape[:2]) < SIDE * 5 // 4]:
        raise ValueError(f"Expected pictures of {SIDE * 5 // 4} pixels a side and more. Received: {small[0]}")
    kept, rest = pictures[::10], [p for i, p in enumerate(pictures) if i % 10] or pictures
    keras.utils.set_random_seed(seed)
    features = ARCHITECTURES[task]()
    learner = _learner(task, features, steps)
    batches, random = _BATCHES[task], np.random.default_rng(seed)
    for step in range(steps):
        shown = learner.train_on_batch(*batches(rest, random, _BATCH), return_dict=True)
        if step % 100 == 99:
            print(step + 1, " ".join(f"{key} {float(value):.3f}" for key, value in shown.items()), flush=True)
            learner.reset_metrics()
    random = np.random.default_rng(seed + 1)
    measured = [learner.test_on_batch(*batches(kept, random, _BATCH), return_dict=True) for _ in range(10)]
    # The last of test_on_batch's values are means over all batches.
    record = {key: round(float(value), 3) for key, value in measured[-1].items()}
    crops = np.float32([_crop(rest, random) for _ in range(256)]) / 255
    sizes = [1 / float(np.sqrt(np.mean(np.square(x)))) for x in map(ops.convert_to_numpy, features(crops))]
    network = ARCHITECTURES[task](sizes)
    network.set_weights(features.get_weights())
    out.mkdir(parents=True, exist_ok=True)
    with whole(out / "model.keras", ending=".keras") as part:
        network.save(part)
    card = {
        "name": out.name,
        "task": task,
        "source": SOURCES[task],
        "parameters": network.count_params(),
        "config": {"steps": steps, "batch": _BATCH, "side": SIDE, "seed": seed},
        "data": [{"name": f"{folder.parent.name}/{folder.name}", "licence": licence} for folder in data],
        "measured": record,
        "sha256": {"model.keras": sha256(out / "model.keras")},
    }
    write_whole(out / "card.json", json.dumps(card, indent=1) + "\n")
    print(f"{task}: {card['parameters']:,} parameters, {record}: {out / 'model.keras'}")


def _train(options):
    train(**vars(options))
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = Parser(prog="imagesr.metrics.perceptual", description="Train a feature extractor without labels.")
    add = parser.add_argument
    add("task", choices=list(ARCHITECTURES), help="; ".join(f"{task}: {text}" for task, text in SOURCES.items()))
    add("--data", nargs="+", type=Path, required=True, metavar="DIR", help="folders of photographs")
    add("--out", type=Path, required=True, metavar="FOLDER", help="where model.keras and card.json go")
    add("--steps", type=int, default=_STEPS, help=f"default: {_STEPS}")
    add("--seed", type=int, default=0)
    add("--licence", default="", help="the pictures' licence, for the card")
    return run_command("perceptual", _train, parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
