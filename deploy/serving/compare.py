#!/usr/bin/env python3
"""Compare servers around the same `upscale`, on this machine: `python deploy/serving/compare.py` prints a table.

Each server gets a virtual environment of its own in --folder, made once. In every round each is started in turn, runs
one process with the network, is warmed up, gets the same pictures from one client and from eight, and is stopped:
whatever else the machine does meanwhile hits all of them alike. All figures are medians of --rounds.
"""

import argparse
import http.client
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
import tomllib
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SERVERS = {  # what is installed beside the base of imagesr
    "imagesr serve": PROJECT["optional-dependencies"]["serve"],
    "LitServe": ["litserve", "python-multipart"],
    "BentoML": ["bentoml"],
    "Ray Serve": ["ray[serve]"],
    "Triton (pytriton)": ["nvidia-pytriton"],
}
# Of a package in two versions, what is installed last and what the server itself gets, before all else: Triton's own
# process of Python misreads arrays of NumPy 2 (each byte is the first one), and imagesr needs that.
TWICE = {"Triton (pytriton)": ("numpy<2", "numpy>=2")}
CLIENTS = (1, 8)
PATIENCE = 300  # seconds, for a start
BOUNDARY = "boundary-of-a-form"


def short(name):
    return "fastapi" if name.startswith("imagesr") else name.lower().split()[0]


def environment_of(name, folder, maker):
    """Make the virtual environment of a server where it is missing; return its Python and its megabytes."""
    place = folder / short(name)
    python = place / "bin/python"
    if not (place / "made").exists():
        subprocess.run([maker, "-m", "venv", "--clear", place], check=True)
        packages = [*PROJECT["dependencies"], *SERVERS[name]]
        subprocess.run([python, "-m", "pip", "install", "-q", "--no-compile", *packages], check=True)
        for package, more in zip(TWICE.get(name, ()), ([], ["--target", place / "first"]), strict=False):
            subprocess.run([python, "-m", "pip", "install", "-q", "--no-compile", *more, package], check=True)
        (place / "made").touch()
    files = (file for file in place.rglob("*") if file.is_file() and not file.is_symlink())
    size = sum(file.stat().st_size for file in files if file.suffix != ".pyc")
    return python, size / 1e6


def command_of(name, python, port, model):
    if name == "imagesr serve":
        return [python, "-m", "imagesr.serve", "--port", port, "-n", model, "--queue", "16", "--videos", "0"]
    return [python, HERE / f"serve_{short(name)}.py", port]


def lines_of(name):
    """Count the lines of a server's file that are neither empty nor comments."""
    if name == "imagesr serve":
        return 0
    lines = (HERE / f"serve_{short(name)}.py").read_text().splitlines()
    return sum(bool(line.strip()) and not line.strip().startswith("#") for line in lines)


def request_of(name, body):
    """Return the path, body and headers by which a server takes a picture."""
    if name in ("LitServe", "BentoML"):
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="picture"; filename="a.png"\r\n'
        form = f"{head}Content-Type: image/png\r\n\r\n".encode() + body + f"\r\n--{BOUNDARY}--\r\n".encode()
        return "/upscale", form, {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    if name.startswith("Triton"):
        size = {"binary_data_size": len(body)}
        given = {"name": "picture", "shape": [len(body)], "datatype": "UINT8", "parameters": size}
        wanted = {"name": "large", "parameters": {"binary_data": True}}
        head = json.dumps({"inputs": [given], "outputs": [wanted]}).encode()
        headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
        return "/v2/models/upscale/infer", head + body, headers
    path = "/supersizeme?scale=2&clean=0" if name.startswith("imagesr") else "/upscale"
    return path, body, {"Content-Type": "image/png"}


def post(connection, request):
    """Send a picture; return whether one came back that is whole."""
    path, body, headers = request
    connection.request("POST", path, body, headers)
    answer = connection.getresponse()
    data = answer.read()
    return answer.status == 200 and b"\x89PNG" in data[:1000] and data[-8:-4] == b"IEND"


def load(port, requests, clients, seconds):
    """Post pictures from clients without pause; return the seconds of each, and how many a second."""
    spent, failed, until = [], [], time.monotonic() + seconds

    def run(number):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        while time.monotonic() < until:
            begun = time.perf_counter()
            good = post(connection, requests[(number + len(spent)) % len(requests)])
            (spent if good else failed).append(time.perf_counter() - begun)
        connection.close()

    begun = time.monotonic()
    threads = [threading.Thread(target=run, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise RuntimeError(f"{len(failed)} of {len(failed) + len(spent)} pictures did not come back")
    return spent, len(spent) / (time.monotonic() - begun)


class Memory(threading.Thread):
    """Watch the memory of a process and its children; what they share counts once (PSS)."""

    def __init__(self, process):
        super().__init__(daemon=True)
        self._process, self._ended, self.peak = psutil.Process(process.pid), threading.Event(), 0

    def run(self):
        while not self._ended.wait(0.5):
            total = 0
            for one in [self._process, *self._process.children(recursive=True)]:
                with suppress(psutil.Error):
                    total += one.memory_full_info().pss
            self.peak = max(self.peak, total)

    def end(self):
        self._ended.set()
        self.join()
        return self.peak / 1e6


def free_port():
    """Return a port that is free with the two behind it, which Triton takes, too."""
    for port in range(18_000, 28_000, 10):
        with suppress(OSError), ExitStack() as sockets:
            for number in range(port, port + 3):
                sockets.enter_context(socket.socket()).bind(("", number))
            return port
    raise RuntimeError("Expected three free ports in a row. Received: none")


def cores_of(process):
    """Return the processor time that a process and its children have taken, in seconds."""
    total = 0.0
    for one in [process, *process.children(recursive=True)]:
        with suppress(psutil.Error):
            total += sum(one.cpu_times()[:4])  # its own, and that of children which have ended
    return total


def started(name, python, model, request, log):
    """Start a server; return its process, its port, and the seconds to its first picture."""
    port = free_port()
    env = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (python.parents[1] / "first", ROOT, HERE)))}
    env |= {"MODEL": model}
    env |= {
        "BENTOML_DO_NOT_TRACK": "True",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "disabled",
        "RAY_worker_niceness": "0",  # by default 15: others come first
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "120",
        "PATH": f"{python.parent}:{os.environ['PATH']}",
    }
    begun = time.monotonic()
    command = [str(word) for word in command_of(name, python, port, model)]
    process = subprocess.Popen(command, stdout=log, stderr=log, env=env, start_new_session=True, cwd=HERE)
    try:
        while process.poll() is None and time.monotonic() - begun < PATIENCE:
            with suppress(OSError, http.client.HTTPException):
                if post(http.client.HTTPConnection("127.0.0.1", port, timeout=60), request):
                    return process, port, time.monotonic() - begun
            time.sleep(0.1)
        raise RuntimeError(f"it does not answer; {log.name} says why")
    except BaseException:
        end(process)
        raise


def end(process):
    """End a server and all that it has started."""
    children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        psutil.wait_procs(children, timeout=10)
    for child in children:  # some have sessions of their own
        with suppress(psutil.NoSuchProcess):
            child.kill()
    process.wait()


def measure(name, python, folder, pictures, options):
    """Start a server, load it, and stop it; return the figures of this round."""
    requests = [request_of(name, body) for body in pictures]
    with (folder / f"{short(name)}.log").open("a") as log:
        process, port, start = started(name, python, options.model, requests[0], log)
        memory = Memory(process)
        memory.start()
        found = {"start": start}
        try:
            load(port, requests, 1, 2)
            for clients in CLIENTS:
                tree = psutil.Process(process.pid)
                before = cores_of(tree)
                spent, found[f"rate {clients}"] = load(port, requests, clients, options.seconds)
                found["cores"] = 1000 * (cores_of(tree) - before) / len(spent)
                found |= {f"p{share} {clients}": 1000 * percentile(spent, share) for share in (50, 99)}
        finally:
            found["peak"] = memory.end()
            end(process)
    return found


def median(rounds):
    return {name: statistics.median(found[name] for found in rounds) for name in rounds[0]}


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, len(values) * share // 100)]


def pictures_of(folder, maker, number=5):
    """Make pictures of 400x300, PNG; the client itself needs no NumPy."""
    code = """
import io, sys
from pathlib import Path
import numpy as np
from PIL import Image
for number in range(int(sys.argv[2])):
    y, x = np.mgrid[0:300, 0:400]
    waves = [127 + 60 * np.sin(x / (9 + k + number)) + 60 * np.cos(y / (7 + 2 * k) + x / 31) for k in range(3)]
    noise = np.random.default_rng(number).normal(0, 4, (300, 400, 3))
    picture = np.clip(np.stack(waves, 2) + noise, 0, 255).astype(np.uint8)
    Image.fromarray(picture).save(Path(sys.argv[1], f"{number}.png"))
"""
    place = folder / "pictures"
    place.mkdir(parents=True, exist_ok=True)
    python, _ = environment_of("imagesr serve", folder, maker)
    subprocess.run([python, "-c", code, place, str(number)], check=True)
    return [file.read_bytes() for file in sorted(place.glob("*.png"))]


def row(name, found, price):
    """Return a line of the table."""
    words = [name]
    for clients in CLIENTS:
        rate = found[f"rate {clients}"]
        words += [f"{found[f'p50 {clients}']:.0f}", f"{found[f'p99 {clients}']:.0f}", f"{rate:.1f}"]
    words += [f"{found[key]:.0f}" for key in ("cores", "peak", "size")] + [f"{found['start']:.1f}", lines_of(name)]
    words.append(f"{found['cores'] / 3600 * price:.4f}")  # of 1,000 pictures, by milliseconds of one
    return "| " + " | ".join(map(str, words)) + " |"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--folder", type=Path, default=Path("/tmp/imagesr-serving"), help="for virtual environments and logs")
    add("--seconds", type=float, default=20, help="of each load (default: 20)")
    add("--rounds", type=int, default=3, help="of which the median is told (default: 3)")
    add("--python", default=sys.executable, metavar="FILE", help="the Python of the environments (default: this one)")
    add("--model", default="fast", help="default: fast")
    add("--price", type=float, default=0.04, help="of a core-hour (default: 0.04)")
    add("--only", nargs="+", default=list(SERVERS), metavar="NAME", help=", ".join(SERVERS))
    options = parser.parse_args()
    folder = options.folder.absolute()
    pictures = pictures_of(folder, options.python)
    made = {name: environment_of(name, folder, options.python) for name in options.only}
    rounds, loads, code = {}, [], 0
    for number in range(options.rounds):
        for name, (python, _) in made.items():
            loads.append(os.getloadavg()[0])
            try:
                rounds.setdefault(name, []).append(measure(name, python, folder, pictures, options))
            except (RuntimeError, OSError, http.client.HTTPException) as error:
                print(f"{name}, round {number + 1}: {error}", file=sys.stderr, flush=True)
                code = 1
    heads = [f"{what}, {n}" for n in CLIENTS for what in ("p50, ms", "p99, ms", "pictures/s")]
    heads += ["CPU, ms", "peak, MB", "installed, MB", "start, s", "lines of glue", "price per 1,000"]
    print(f"| server | {' | '.join(heads)} |\n{'|---' * (len(heads) + 1)}|")
    for name, found in rounds.items():
        if found:
            print(row(name, median(found) | {"size": made[name][1]}, options.price))
    least, most = min(loads), max(loads)
    print(f"\n{os.cpu_count()} cores, load {least:.1f} to {most:.1f}, medians of {options.rounds} rounds in turns")
    return code


if __name__ == "__main__":
    sys.exit(main())
