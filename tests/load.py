"""Measure the service under load: `python tests/load.py --seconds 60` prints a table.

Locust makes the load of many clients; slow uploads, and clients that disconnect, are plain sockets.
"""

import argparse
import io
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

# Locust patches sockets, and must come before all else that opens some: it runs in a process of its own.
if "--clients" in sys.argv:
    from gevent import monkey

    monkey.patch_all()

import httpx
import numpy as np
import psutil
from conftest import picture, write_clip
from PIL import Image
from running import PeakMemory, running_service, until

QUERY = "scale=2&model=fast"
PATH = f"/supersizeme?{QUERY}"
KIND = {"Content-Type": "image/png"}


def png(width, height):
    """Return a picture as the bytes of a PNG file."""
    out = io.BytesIO()
    tile = picture(min(width, 500), min(height, 500))
    whole = np.tile(tile, (-(-height // tile.shape[0]), -(-width // tile.shape[1]), 1))
    Image.fromarray(whole[:height, :width]).save(out, "PNG")
    return out.getvalue()


# Clients without pause, by Locust


def clients(url, number, seconds, width, height):
    """Post a picture from many clients without pause; returns (status, seconds) of every answer."""
    from locust import HttpUser, constant, task
    from locust.env import Environment

    body, answers = png(width, height), []

    class Client(HttpUser):
        host, wait_time = url, constant(0)

        @task
        def enlarge(self):
            begun = time.perf_counter()
            with self.client.post(PATH, data=body, headers=KIND, catch_response=True) as answer:
                answers.append((answer.status_code, time.perf_counter() - begun))
                answer.success()

    environment = Environment(user_classes=[Client])
    environment.create_local_runner()
    environment.runner.start(number, spawn_rate=number)
    import gevent

    gevent.sleep(seconds)
    environment.runner.stop()
    environment.runner.quit()
    return answers


def by_locust(url, number, seconds, size):
    """Run `clients` in a process of its own."""
    command = [sys.executable, __file__, "--clients", url, number, seconds, *size]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=seconds + 120)
    assert done.returncode == 0, done.stderr
    return [(int(status), float(spent)) for status, spent in map(str.split, done.stdout.splitlines())]


# What happens beside


class Health(threading.Thread):
    """Ask /healthz ten times a second; `times` are in seconds, infinite where no good answer came."""

    def __init__(self, url):
        super().__init__(daemon=True)
        self._url, self._ended, self.times = url, threading.Event(), []

    def run(self):
        """Ask."""
        with httpx.Client(base_url=self._url, timeout=30) as client:
            while not self._ended.wait(0.1):
                begun = time.perf_counter()
                try:
                    good = client.get("/healthz").status_code == 200
                except httpx.HTTPError:
                    good = False
                self.times.append(time.perf_counter() - begun if good else float("inf"))

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        self.join()


def begin(url, body, length=None):
    """Open a connection and send a request's head and a body, or its beginning."""
    host, port = url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=60)
    length = len(body) if length is None else length
    head = f"POST {PATH} HTTP/1.1\r\nHost: {host}\r\nContent-Type: image/png\r\nContent-Length: {length}\r\n\r\n"
    connection.sendall(head.encode() + body)
    return connection


@contextmanager
def slow_uploads(url, number, body):
    """Keep so many uploads under way, a byte every second each; an upload that is cut off begins again."""
    ended, cut = threading.Event(), []

    def run():
        connections = [None] * number
        while not ended.wait(1):
            for i, connection in enumerate(connections):
                try:
                    if connection is None:
                        connections[i] = begin(url, body[:20], len(body))
                    else:
                        connection.sendall(b"x")
                except OSError:
                    cut.append(time.monotonic())
                    connections[i] = None
        for connection in connections:
            if connection:
                connection.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield cut
    finally:
        ended.set()
        thread.join()


# The measurements: each prints lines of the table, and returns whether all is as it should be


def percentile(values, share):
    """Return a percentile in seconds."""
    return float(np.percentile(values, share)) if values else float("nan")


def row(what, found, wanted, good):
    """Print a line of the table."""
    print(f"| {what} | {found} | {wanted} | {'yes' if good else '**no**'} |", flush=True)
    return good


def throughput(seconds, size, number=24):
    """Measure goodput of one client and of many, with slow uploads beside."""
    good = []
    with running_service("-n", "fast") as service:
        places = service.figure("places")
        alone = [spent for status, spent in by_locust(service.url, 1, seconds, size) if status == 200]
        single = len(alone) / seconds
        with Health(service.url) as health, PeakMemory(service, every=0.5) as memory:
            answers = by_locust(service.url, number, seconds, size)
        statuses = Counter(status for status, _ in answers)
        served = [spent for status, spent in answers if status == 200]
        many, most = len(served) / seconds, 1.5 * places * percentile(alone, 50)
        width, height = size
        print(f"| {width}x{height} in, x2, `fast` | | | |")
        good.append(row("one client", f"{single:.1f} pictures/s, {1000 * percentile(alone, 50):.0f} ms each", "", True))
        told = ", ".join(f"{count} × {status}" for status, count in sorted(statuses.items()))
        good.append(row(f"{number} clients, {seconds} s", told, "200, 429, 503", set(statuses) <= {200, 429, 503}))
        good.append(row("their goodput", f"{many:.1f}/s, {many / single:.0%}", "≥ 80 % of one", many >= 0.8 * single))
        slow = percentile(served, 99)
        good.append(row("their p99", f"{slow:.2f} s", f"≤ {most:.2f} s", slow <= most))
        slowest = max(health.times)
        good.append(row("/healthz, slowest", f"{1000 * slowest:.0f} ms", "< 100 ms", slowest < 0.1))
        good.append(row("memory, peak", f"{memory.peak / 1e6:.0f} MB", "", True))

        with slow_uploads(service.url, 100, png(200, 200)) as cut:
            time.sleep(2)
            with ThreadPoolExecutor(2) as pool:
                statuses = Counter(
                    pool.map(lambda _: polite(service.url, png(*size), seconds), range(max(20, seconds)))
                )
        share = statuses[200] / statuses.total()
        found = f"{share:.1%} of {statuses.total()} served, {len(cut)} uploads cut"
        good.append(row("100 slow uploads beside", found, "≥ 99 %", share >= 0.99))
    return all(good)


def polite(url, body, patience):
    """Post a picture, and again when told to; returns the last status."""
    until = time.monotonic() + patience + 30
    while True:
        try:
            answer = httpx.post(url + PATH, content=body, headers=KIND, timeout=120)
        except httpx.TransportError:
            return 0
        if answer.status_code not in (429, 503) or time.monotonic() > until:
            return answer.status_code
        time.sleep(float(answer.headers["Retry-After"]))


def draining(size, number=24):
    """Stop a service under load: what was accepted is answered."""
    body, began = png(*size), threading.Event()
    results = []

    def run():
        while True:
            try:
                answer = httpx.post(service.url + PATH, content=body, headers=KIND, timeout=120)
            except httpx.ConnectError:  # nobody listens any more: it was never accepted
                return
            except httpx.TransportError as error:
                results.append(type(error).__name__)
                return
            results.append(answer.status_code)
            began.set()
            if answer.status_code == 503:
                return

    with running_service("-n", "fast") as service:
        threads = [threading.Thread(target=run, daemon=True) for _ in range(number)]
        for thread in threads:
            thread.start()
        began.wait(60)
        time.sleep(random.uniform(0.5, 1.5))
        before = service.figure("places_taken")
        service.process.send_signal(signal.SIGTERM)
        begun = time.monotonic()
        for thread in threads:
            thread.join(max(0, begun + 120 - time.monotonic()))
        results += ["no answer"] * sum(thread.is_alive() for thread in threads)
        code = service.process.wait(120)
        spent = time.monotonic() - begun
    counts = Counter(results)
    lost = sum(count for status, count in counts.items() if status not in (200, 429, 503))
    told = ", ".join(f"{count} × {status}" for status, count in sorted(counts.items(), key=str))
    found = f"{lost} lost of {before:.0f} under way; ended with {code} after {spent:.1f} s; {told}"
    return row(f"SIGTERM under {number} clients", found, "none lost", not lost)


def hanging_up(count, size):
    """Let many clients hang up, while they send, while they wait, while they are answered; and look what is left."""
    body, source = png(*size), random.Random(0)

    def hang_up(_):
        length = source.choice((len(body), len(body), len(body) // 2))
        connection = begin(service.url, body[:length], len(body))
        time.sleep(source.choice((0, 0.01, 0.1, 0.5)))
        if source.random() < 0.5:  # with a reset instead of a farewell
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        connection.close()

    with running_service("-n", "fast") as service:
        with ThreadPoolExecutor(32) as pool:
            list(pool.map(hang_up, range(count)))
        begun = time.monotonic()
        names = ("places_taken", "open", "uploads")
        while (left := sum(service.figure(name) for name in names)) and time.monotonic() < begun + 60:
            time.sleep(0.05)
        spent = time.monotonic() - begun
        status = polite(service.url, body, 60)
        leaks = "Traceback" in service.log()
    found = f"{left:.0f} places taken {spent:.1f} s later, the next one answered {status}"
    return row(f"{count:,} clients that hang up", found, "0, and 200", not left and status == 200 and not leaks)


def beside_a_video(seconds, size, rounds=8):
    """Measure one client with a video job beside, and without: the job is stopped and goes on in turns."""
    body, spent = png(*size), ([], [])
    with tempfile.TemporaryDirectory() as folder, running_service("-n", "fast") as service:
        clip = write_clip(Path(folder, "clip.mp4"), size=(640, 360), frames=900, sound=None)
        answer = httpx.post(f"{service.url}/video?model=best&scale=2", content=clip.read_bytes(), timeout=600)
        video = service.url + answer.headers["location"]
        until(lambda: httpx.get(video).json()["frames"], seconds=600)
        worker = next(one for one in service.tree() if "video_worker" in " ".join(one.cmdline()))
        # On a busy machine this runs by `nice -n -20`: the video, 19 behind pictures, comes before others, too.
        for thread in worker.threads():
            os.setpriority(os.PRIO_PROCESS, thread.id, min(19, psutil.Process().nice() + 19))
        frames = 0
        for number in range(2 * rounds):
            beside = number % 2
            (worker.resume if beside else worker.suspend)()
            until_then, before = time.monotonic() + seconds / (2 * rounds), httpx.get(video).json()["frames"]
            with httpx.Client(base_url=service.url, timeout=120) as client:
                while time.monotonic() < until_then:
                    begun = time.perf_counter()
                    assert client.post(PATH, content=body, headers=KIND).status_code == 200
                    spent[beside].append(time.perf_counter() - begun)
            frames += beside * (httpx.get(video).json()["frames"] - before)
        worker.resume()
        assert httpx.get(video).json()["state"] == "running", "the video is too short"
        httpx.delete(video, timeout=60)
    good = True
    for share in (50, 99):
        without, beside = (percentile(times, share) for times in spent)
        times = beside / without
        found = f"{1000 * beside:.0f} ms beside, {1000 * without:.0f} ms without: {times:.2f} times"
        good = (
            row(f"p{share} of a picture, {len(spent[1])} beside a video", found, "≤ 1.5 times", times <= 1.5) and good
        )
    row("the video meanwhile", f"{frames / (seconds / 2):.1f} frames/s", "", True)
    return good


def beside_votes(seconds, size, database="", rounds=8):
    """Measure one client with a flood of votes beside, valid and not, and without: in turns."""
    body, spent, answers, flooding, ended = png(*size), ([], []), Counter(), threading.Event(), threading.Event()
    requests = []

    def flood(client):
        while not ended.is_set():
            flooding.wait(0.2)
            if not flooding.is_set():
                continue
            vote = {"request": requests.pop() if requests else "forged", "vote": "up", "words": "w" * 1000}
            answers[client.post("/feedback", json=vote).status_code] += 1

    with tempfile.TemporaryDirectory() as folder:
        options = ("-n", "fast", "--videos", "0", "--feedback", database or f"sqlite:///{folder}/votes.db")
        with running_service(*options) as service, httpx.Client(base_url=service.url, timeout=120) as voter:
            threads = [threading.Thread(target=flood, args=(voter,), daemon=True) for _ in range(4)]
            for thread in threads:
                thread.start()
            for number in range(2 * rounds):
                beside = number % 2
                (flooding.set if beside else flooding.clear)()
                until_then = time.monotonic() + seconds / (2 * rounds)
                with httpx.Client(base_url=service.url, timeout=120) as client:
                    while time.monotonic() < until_then:
                        begun = time.perf_counter()
                        answer = client.post(PATH, content=body, headers=KIND)
                        spent[beside].append(time.perf_counter() - begun)
                        requests.append(answer.headers["imagesr-request"])
            ended.set()
            for thread in threads:
                thread.join()
    told = ", ".join(f"{count} × {status}" for status, count in sorted(answers.items()))
    row("votes", f"{told}; {answers.total() / (seconds / 2):.0f} a second", "201, 422, 429", True)
    good = True
    for share in (50, 99):
        without, beside = (percentile(times, share) for times in spent)
        found = f"{1000 * beside:.0f} ms beside, {1000 * without:.0f} ms without: {beside / without:.2f} times"
        what = f"p{share} of a picture, {len(spent[1])} beside a flood of votes"
        good = row(what, found, "≤ 1.2 times", beside <= 1.2 * without) and good
    return good


def memory_of_large(megapixels):
    """Measure the memory that the largest picture takes."""
    width = round((megapixels * 1e6 * 4 / 3) ** 0.5)
    body = png(width, int(megapixels * 1e6 / width))
    with running_service("-n", "fast") as service, PeakMemory(service, every=0.05) as memory:
        answer = httpx.post(service.url + PATH, content=body, headers=KIND, timeout=600)
        assert answer.status_code == 200, answer.text
        spent = answer.elapsed.total_seconds()
    found = f"{memory.peak / 1e6:.0f} MB, {spent:.1f} s"
    return row(f"{megapixels:g} Mpx in, x2: memory of all processes", found, "≤ 1,000 MB", memory.peak <= 1e9)


def main():
    """Measure and print."""
    if sys.argv[1:2] == ["--clients"]:
        url, *numbers = sys.argv[2:]
        for status, spent in clients(url, *map(int, numbers)):
            print(status, spent)
        return 0
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--seconds", type=int, default=60, help="of the load (default: 60)")
    add("--size", default="400x300", help="of a picture (default: 400x300)")
    add("--hang-ups", type=int, default=1000, help="clients that hang up (default: 1000)")
    add("--megapixels", type=float, default=16, help="of the largest picture (default: 16)")
    add("--only-video", action="store_true", help="measure a video beside pictures, and nothing else")
    add("--only-votes", action="store_true", help="measure a flood of votes beside pictures, and nothing else")
    add("--database", default="", metavar="URL", help="of the votes (default: an SQLite file)")
    options = parser.parse_args()
    size = tuple(map(int, options.size.split("x")))
    print("| measured | found | wanted | held |\n| --- | --- | --- | --- |")
    if options.only_video:
        return 0 if beside_a_video(options.seconds, size) else 1
    if options.only_votes:
        return 0 if beside_votes(options.seconds, size, options.database) else 1
    good = [
        throughput(options.seconds, size),
        draining(size),
        hanging_up(options.hang_ups, size),
        beside_a_video(options.seconds, size),
        beside_votes(options.seconds, size, options.database),
        memory_of_large(options.megapixels),
    ]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
