"""Measure the loop of docs/mlops.md: `python tests/loop.py kills|copies|gate|swaps|overhead` prints figures.

`kills` ends extract, transform and load by SIGKILL at random moments. `copies` plants pictures and looks for them.
`gate` promotes the networks of trainings, and worse ones in between. `swaps` asks a service while its champion changes.
`overhead` times the steps of a training with and without its mirror.
"""

import argparse
import multiprocessing
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

COUNTS = {"train": 8, "validation": 2, "urban100": 2, "bsd100": 2}
FORK = multiprocessing.get_context("fork")


def texture(seed, side=160):
    """Return a picture that is like no other."""
    small = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (12, 12, 3), np.uint8))
    return small.resize((side, side), Image.Resampling.BICUBIC)


# kills


def command(words):
    """Run `imagesr datasets` in this process, silently, and leave with its exit code."""
    from imagesr.datasets.__main__ import main

    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        sys.exit(main(words))


def run(words, kill_after=None):
    """Run a command in a process of its own; return its exit code and seconds."""
    begun = time.monotonic()
    process = FORK.Process(target=command, args=(words,))
    process.start()
    process.join(kill_after)
    if process.exitcode is None:
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    return process.exitcode, time.monotonic() - begun


def raw_pictures(folder, first):
    """Write the pictures of a mini set as they are downloaded."""
    for number, (name, count) in enumerate(COUNTS.items()):
        place = folder / ("div2k" if name in ("train", "validation") else "") / name
        place.mkdir(parents=True)
        for index in range(count):
            texture(first + 100 * number + index).save(place / f"{index}.png")


def kills(folder, count):
    """Kill each step `count` times; readers must see the old version or the new one, and a repetition ends well."""
    import cv2  # noqa: F401 - once, for all the processes that are forked
    import imagehash  # noqa: F401

    from imagesr.store.versions import current, fetch, list_tree, open_store

    expect = ["--expect", *(f"{name}={number}" for name, number in COUNTS.items())]

    def steps(place, pictures):
        sources = [f"{name}={pictures / name}" for name in ("div2k", "urban100", "bsd100")]
        yield "extract", ["extract", *sources, "--out", str(place / "raw")]
        yield "transform", ["transform", str(place / "raw"), str(place / "tree"), *expect]
        yield "load", ["load", str(place / "tree"), str(place / "store")]

    for number, name in enumerate(("old", "new")):
        raw_pictures(folder / f"pictures-{name}", 10_000 * number)
        (folder / name).mkdir()
        for _, words in steps(folder / name, folder / f"pictures-{name}"):
            assert run(words)[0] == 0
    whole = {step: list_tree(folder / "new" / place) for step, place in (("extract", "raw"), ("transform", "tree"))}
    whole["load"] = list_tree(fetch(str(folder / "new/store")))
    old = current(open_store(folder / "old/store"))
    for step in whole:
        took, killed = None, 0
        while killed < count:
            place = folder / "trial"
            shutil.rmtree(place, ignore_errors=True)
            shutil.copytree(folder / "old/store", place / "store")
            words = dict(steps(place, folder / "pictures-new"))[step]
            for before in {"extract": [], "transform": ["raw"], "load": ["tree"]}[step]:
                shutil.copytree(folder / "new" / before, place / before)
            if took is None:
                took = run(words)[1]
                continue
            killed += run(words, random.uniform(0, took))[0] == -signal.SIGKILL
            seen = {"extract": place / "raw", "transform": place / "tree", "load": fetch(str(place / "store"))}[step]
            if step == "load":
                assert seen.name == old or list_tree(seen) == whole[step]
            elif seen.exists():
                assert list_tree(seen) == whole[step]
            assert run(words)[0] == 0
            seen = seen if step != "load" else fetch(str(place / "store"))
            assert list_tree(seen) == whole[step]
        print(
            f"{step}: killed {killed} times within {took:.2f} s; old or new each time, whole when repeated", flush=True
        )


# copies


def copies(folder, photos, others):
    """Plant copies of photographs among others, and count those that are found, and false alarms on real sets."""
    from imagesr.datasets.leaks import leaks
    from imagesr.media.images import find_images

    files = find_images([photos])
    planted = files[:10]
    (folder / "train").mkdir()
    (folder / "test").mkdir()
    for number, file in enumerate(planted):
        picture = Image.open(file).convert("RGB")
        width, height = picture.size
        left, top = width // 40, height // 40
        picture.save(folder / "train" / f"{number}.png")
        picture.save(folder / "test" / f"{number}-encoded.jpg", quality=50)
        picture.resize((width * 3 // 5, height * 3 // 5), Image.Resampling.LANCZOS).save(
            folder / "test" / f"{number}-resized.png"
        )
        picture.crop((left, top, width - left, height - top)).save(folder / "test" / f"{number}-cropped.png")
        ImageOps.mirror(picture).save(folder / "test" / f"{number}-mirrored.png")
    for file in files[10:30]:
        shutil.copyfile(file, folder / "test" / f"other-{file.name}")
    found = leaks(folder / "train", folder / "test").leaks
    right = {Path(leak.b).name for leak in found if Path(leak.a).stem == Path(leak.b).name.partition("-")[0]}
    print(f"{len(right)} of {4 * len(planted)} copies found, {len(found) - len(right)} false alarms", flush=True)
    for other in others:
        result = leaks(photos, other)
        print(f"{photos} and {other}: {result.pictures}, {len(result.leaks)} alarms", flush=True)
        for leak in result.leaks:
            print(f"  {leak.a} {leak.b} {leak}")


# gate


def challengers(folder, photos, crops, steps, seed):
    """Train a network, and then twice as long; yield what challenges, and a run of it.

    The better one then meets worse ones: itself with noise on the weights, the one before, one that was trained on a
    JPEG of a picture that is measured on; and itself once more.
    """
    import keras

    from imagesr.tracking.lineage import write_lineage
    from imagesr.train.config import Config
    from imagesr.train.training import data_files, train

    def trained(name, init, steps, *more):
        data = (f"folder={photos}", *(f"folder={place}" for place in more))
        how = {"model": "espcn", "scale": "2", "architecture": {"filters": 16}, "learning_rate": 2e-3}
        how |= {"batch": 8, "patch": 64, "loss": "log_mse", "seed": seed}
        config = Config(data=data, val=(f"folder={crops}",), steps=steps, init=init and str(init), **how)
        keras.utils.clear_session()
        train(config, folder / name)
        write_lineage(folder / name, data_files(config), init)
        return folder / name

    def copy(run, name, noise=0.0):
        place = folder / name
        shutil.copytree(run, place, ignore=shutil.ignore_patterns("tracking.json", "decision-*"))
        if noise:
            network = keras.saving.load_model(run / "model.keras")
            random = np.random.default_rng(seed)
            network.set_weights(
                [w + noise * w.std() * random.normal(size=w.shape).astype(w.dtype) for w in network.get_weights()]
            )
            network.save(place / "model.keras")
        return place

    leak = folder / "leak"
    leak.mkdir()
    Image.open(crops / "03.png").save(leak / "holiday.jpg", quality=50)
    first = trained("first", None, steps)
    yield "first", first
    better = trained("better", first, steps)
    yield "better", better
    yield "noise of 1 %", copy(better, "noise-1", 0.01)
    yield "noise of 2 %", copy(better, "noise-2", 0.02)
    yield "stale", copy(first, "stale")
    yield "trained on a leak", trained("leak", better, steps // 4, leak)
    yield "same", copy(better, "same")


def gate(folder, photos, pictures, steps):
    """Promote worse and better networks of five trainings, and count what the gate lets in."""
    from imagesr.media.images import find_images
    from imagesr.mlops.promote import promote, tell
    from imagesr.mlops.registry import CHAMPION
    from imagesr.tracking.server import Server

    crops, limits = folder / "crops", folder / "limits.toml"
    crops.mkdir()
    for number, file in enumerate(find_images([pictures])[:12]):
        Image.open(file).convert("RGB").crop((0, 0, 192, 192)).save(crops / f"{number:02}.png")
    limits.write_text("seconds_size = [640, 360]\n")  # all others are those that are shipped
    uri, counts = f"sqlite:///{folder}/mlflow.db", {}
    for seed in range(5):
        (folder / str(seed)).mkdir()
        for what, run in challengers(folder / str(seed), photos, crops, steps, seed):
            how = {"pictures": {"crops": sorted(crops.iterdir())}, "limits": limits}
            number, passed, file = promote(run, f"gate{seed}", uri, **how)
            print(f"{what}: {run}", flush=True)
            tell(number, passed, file)
            assert (Server(uri).alias(f"gate{seed}_x2", CHAMPION).number == number) == passed
            counts.setdefault(what, []).append(passed)
    for what, passed in counts.items():
        print(f"{what}: {sum(passed)} of {len(passed)} promoted")


# swaps


def swaps(folder, requests):
    """Ask a service without pause while its champion changes ten times, and is rolled back by the command then."""
    import dataclasses
    import threading
    from collections import Counter

    import httpx
    from running import Running, until

    from imagesr.card import SAVED_MODELS, ModelCard
    from imagesr.mlops.registry import CHAMPION, crown, register
    from imagesr.tracking.server import Server

    name, uri = "mine_x2", f"sqlite:///{folder}/mlflow.db"
    server, versions = Server(uri), []
    run = server.find_run("swaps", name="swaps", started=0)
    for model in ("fast", "fast-photo"):
        place = folder / model / name
        shutil.copytree(SAVED_MODELS / f"{model}_x2", place)
        dataclasses.replace(ModelCard.read(place), name="mine", folder=place).write()
        versions.append(register(server, run, ModelCard.read(place)))
    crown(server, versions[0], None)
    picture = folder / "a.png"
    texture(0, 32).save(picture)
    data, seen, failed, ended = picture.read_bytes(), Counter(), [], threading.Event()
    service = Running("--registry", uri, "--follow", name, env=os.environ | {"IMAGESR_CACHE": str(folder / "cache")})

    def ask():
        with httpx.Client(timeout=90) as client:
            while not ended.is_set():
                try:
                    answer = client.post(f"{service.url}/supersizeme", content=data)
                    answer.raise_for_status()
                    seen[answer.headers["Imagesr-Model"]] += 1
                except Exception as error:
                    failed.append(repr(error))

    def served(version):
        label, before = f"{name}/{version.number}", seen[f"{name}/{version.number}"]
        until(lambda: seen[label] > before, service.process)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    try:
        service.ready()
        for thread in threads:
            thread.start()
        served(versions[0])
        for number in range(1, 11):
            before, now = versions[(number - 1) % 2], versions[number % 2]
            until(lambda part=number / 11: seen.total() >= part * requests, service.process, seconds=3600)
            crown(server, now, before)
            served(now)
        command = [sys.executable, "-m", "imagesr", "promote", "--rollback", "--name", name, "--registry", uri]
        subprocess.run(command, check=True)
        assert server.alias(name, CHAMPION).number == versions[1].number
        served(versions[1])
        until(lambda: seen.total() >= requests, service.process, seconds=3600)
    finally:
        ended.set()
        for thread in threads:
            thread.join()
        swapped = service.figure("promotions_total")
        service.process.terminate()
        service.end()
    print(f"{seen.total()} answered, {dict(seen)}, over {swapped:.0f} swaps; {len(failed)} failed {failed[:3]}")


# overhead


def overhead(folder, epochs, steps):
    """Time the steps of one training whose mirror is stopped in every second epoch."""
    import keras

    import imagesr.models
    from imagesr.tracking import address
    from imagesr.tracking.follow import Follower

    model = imagesr.models.build("realtime", scale=2, filters=8, blocks=2)
    model.compile("adam", "mse")
    lr = np.random.default_rng(0).random((16 * steps, 24, 24, 1), np.float32)
    hr = np.repeat(np.repeat(lr, 2, 1), 2, 2)
    run = folder / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "history.csv").write_text("step,loss\n")
    model.fit(lr, hr, batch_size=16, epochs=2, verbose=0)
    follower = Follower(run, address(None, folder))
    while follower._said in ("starting", "connecting") and follower._process.poll() is None:
        time.sleep(0.2)
    times = {signal.SIGCONT: [], signal.SIGSTOP: []}

    class Clock(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.signal = signal.SIGSTOP if epoch % 2 else signal.SIGCONT
            follower._process.send_signal(self.signal)

        def on_train_batch_begin(self, batch, logs=None):
            self.begun = time.perf_counter()

        def on_train_batch_end(self, batch, logs=None):
            times[self.signal].append(time.perf_counter() - self.begun)

        def on_epoch_end(self, epoch, logs=None):
            step = (epoch + 1) * steps
            with (run / "history.csv").open("a") as file:
                file.write(f"{step},{logs['loss']}\n")
            for old in run.glob("checkpoints/*"):
                old.unlink()
            (run / f"checkpoints/{step}.weights.h5").touch()

    model.fit(lr, hr, batch_size=16, epochs=epochs, verbose=0, callbacks=[Clock()])
    follower._process.send_signal(signal.SIGCONT)
    begun = time.monotonic()
    sent = follower.end()
    ours, theirs = (1000 * statistics.median(times[which]) for which in (signal.SIGCONT, signal.SIGSTOP))
    print(f"{epochs} epochs of {steps} steps: {ours:.3f} ms with the mirror, {theirs:.3f} ms while it is stopped")
    print(f"the end took {time.monotonic() - begun:.2f} s; all rows sent: {sent}")


def main():
    """Measure what the first argument names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="what", required=True)
    commands.add_parser("kills").add_argument("--count", type=int, default=20)
    one = commands.add_parser("copies")
    one.add_argument("photos", type=Path)
    one.add_argument("others", type=Path, nargs="*")
    one = commands.add_parser("gate")
    one.add_argument("photos", type=Path, help="to train on")
    one.add_argument("pictures", type=Path, help="to measure on")
    one.add_argument("--steps", type=int, default=4000, help="of each training (default: 4000)")
    commands.add_parser("swaps").add_argument("--requests", type=int, default=10_000)
    one = commands.add_parser("overhead")
    one.add_argument("--epochs", type=int, default=40)
    one.add_argument("--steps", type=int, default=50)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="imagesr-loop-") as name:
        folder = Path(name)
        if options.what == "kills":
            kills(folder, options.count)
        elif options.what == "copies":
            copies(folder, options.photos, options.others)
        elif options.what == "gate":
            gate(folder, options.photos, options.pictures, options.steps)
        elif options.what == "swaps":
            swaps(folder, options.requests)
        else:
            overhead(folder, options.epochs, options.steps)


if __name__ == "__main__":
    main()
