"""Train a feature extractor without labels: `python -m imagesr.train.extractors TASK --data DIR … --out FOLDER`."""

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
from imagesr.metrics.perceptual import ARCHITECTURES, conv
from imagesr.pixels import resize

SIDE = 64  # pixels a side of what extractors are trained on

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
    free = [n - int(side * zoom) for n in picture.shape[:2]]
    y, x = (random.integers(n + 1) for n in free)
    cut = np.ascontiguousarray(picture[y : y + int(side * zoom), x : x + int(side * zoom)])
    return cut if zoom == 1 else resize(cut, (side, side))


def _batch_photos(pictures, random, batch):
    """Return rotated and degraded crops, with the rotation, the degradation and its strength."""
    crops, rotations, kinds, strengths = [], [], [], []
    for _ in range(batch):
        rotation, kind, strength = random.integers(4), random.integers(len(HARMS)), random.random()
        crop = np.rot90(_crop(pictures, random), rotation)
        crops.append(_harm(np.ascontiguousarray(crop), HARMS[kind], strength, random))
        rotations.append(rotation), kinds.append(kind), strengths.append(strength if kind else 0.0)
    return np.float32(crops) / 255, (np.int32(rotations), np.int32(kinds), np.float32(strengths))


def _batch_views(pictures, random, batch):
    """Return pairs of overlapping crops that are degraded alike; each place gives two pairs, degraded differently."""
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
    # Means and deviations of every feature map describe texture and its strength.
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
    # The rotation shows in positions: 4×4 of them are kept.
    place = conv(maps[-1], 32, 3, "place_0", ops.relu, strides=2)
    place = keras.layers.Flatten()(conv(place, 32, 3, "place_1", ops.relu, strides=2))
    heads = [dense(4, name="turn")(place), dense(len(HARMS), name="harm")(x), dense(1, name="strength")(x)]
    learner = keras.Model(crops, heads)
    entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    learner.compile(optimizer, [entropy, entropy, "mse"], metrics=["accuracy", "accuracy", "mae"])
    return learner


_STEPS, _BATCH = 800, 32
_BATCHES = {"photos": _batch_photos, "views": _batch_views}


def train_extractor(
    task: str, data: Sequence[Path], out: Path, *, steps: int = _STEPS, seed: int = 0, licence: str = ""
) -> None:
    """Train the extractor of a task on the pictures of folders, and write `model.keras` and `card.json` into `out`.

    Every tenth picture is held out for validation. Raises ValueError for a folder without pictures, and small pictures.
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
    train_extractor(**vars(options))
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = Parser(prog="python -m imagesr.train.extractors", description="Train a feature extractor without labels.")
    add = parser.add_argument
    add("task", choices=list(ARCHITECTURES), help="; ".join(f"{task}: {text}" for task, text in SOURCES.items()))
    add("--data", nargs="+", type=Path, required=True, metavar="DIR", help="folders of photographs")
    add("--out", type=Path, required=True, metavar="FOLDER", help="the folder for model.keras and card.json")
    add("--steps", type=int, default=_STEPS, help=f"default: {_STEPS}")
    add("--seed", type=int, default=0)
    add("--licence", default="", help="the pictures' licence, for the card")
    return run_command("train.extractors", _train, parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
