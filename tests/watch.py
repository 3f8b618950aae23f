"""Measure films in the browser: the network alone, and a film that plays, in frames per second and processor time.

`python tests/watch.py [--seconds 20] [--size 640x360] [--by processor] [--screenshot FILE]` needs Chromium.
"""

import argparse
import os
import tempfile
import threading
import time
from contextlib import suppress
from fractions import Fraction
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import psutil
from conftest import chromium
from PIL import Image

from imagesr.serve.copying import copy_page
from imagesr.serve.web import RUNTIME
from imagesr.video.demo import scene

RATE = 24
ISOLATION = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}
OWN = """const { Kernel } = await import("/kernel.js"), { Network } = await import("/network.js");
  const kernel = await Kernel.open(await WebAssembly.compileStreaming(fetch("/film.wasm")));
  const at = kernel.room(LUMA.length), onnx = await (await fetch("/models/fast_x1.5/model.onnx")).arrayBuffer();
  const network = new Network(new Uint8Array(onnx), kernel, at, WIDTH, HEIGHT);
  kernel.view(at).set(LUMA);
  window.frame = async () => network.run(0, HEIGHT);"""
OTHER = """const ort = await import("/vendor/FOLDER/ort.wasm.min.mjs");
  Object.assign(ort.env.wasm, { numThreads: THREADS, wasmPaths: "/vendor/FOLDER/" });
  const session = await ort.InferenceSession.create("/FILE", { executionProviders: ["wasm"] });
  const luma = new ort.Tensor("uint8", LUMA, [1, HEIGHT, WIDTH, 1]);
  window.frame = async () => session.run({ [session.inputNames[0]]: luma });"""
TRIAL = """const [frames, done] = arguments, WIDTH = {width}, HEIGHT = {height};
  const LUMA = Uint8Array.from({{ length: WIDTH * HEIGHT }}, (_, i) => ((i * i) >> 4) & 255);
  (async () => {{
    if (!window.frame) {{ {script} }}
    let least = Infinity;
    for (let i = 0; i < frames; i++) {{
      const began = performance.now();
      await window.frame();
      least = Math.min(least, performance.now() - began);
    }}
    return least;
  }})().then(done, (error) => done(String(error.stack)));"""
FACTS = "return { ...document.getElementById('facts').dataset, now: performance.now() }"


class Isolated(SimpleHTTPRequestHandler):
    """Give files with the headers that let ONNX Runtime use several threads."""

    extensions_map = SimpleHTTPRequestHandler.extensions_map | {
        ".wasm": "application/wasm",
        ".js": "text/javascript",
        ".mjs": "text/javascript",
    }

    def end_headers(self):
        for header in ISOLATION.items():
            self.send_header(*header)
        super().end_headers()

    def log_message(self, *arguments):
        """Keep silent."""


def write_film(path, size, seconds):
    """Write a film of the demo's scene, with the camera moving."""
    picture = scene().convert("RGB")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"crf": "18", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for i in range(seconds * RATE):
            left, top = 400 + 3 * i % 1200, 300 + i % 600
            shown = picture.crop((left, top, left + 1280, top + 720)).resize(size, Image.Resampling.BICUBIC)
            frame = av.VideoFrame.from_image(shown).reformat(format="yuv420p")
            frame.pts, frame.time_base = i, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def spent(browser):
    """Return the seconds of processor time of the browser's processes."""
    total = 0.0
    for process in psutil.Process(browser.service.process.pid).children(recursive=True):
        with suppress(psutil.Error):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def network_alone(browser, url, name, script, size):
    """Print the least time of a frame in ten, and the least processor time of four runs of ten frames."""
    browser.get(url + "film.html")
    script = TRIAL.format(width=size[0], height=size[1], script=script)
    wall, cpu = browser.execute_async_script(script, 30), float("inf")
    for _ in range(4):
        before = spent(browser)
        wall = min(wall, browser.execute_async_script(script, 10))
        cpu = min(cpu, (spent(browser) - before) / 10)
    print(f"{name}: {wall:.1f} ms a frame, {1000 * cpu:.1f} ms of processor time, {load()}", flush=True)


def play(browser, url, film, options):
    """Print how a film plays."""
    browser.get(url + "film.html")
    browser.execute_script("document.getElementById('by').value = arguments[0]", options.by)
    browser.find_element("id", "file").send_keys(str(film))
    while not browser.execute_script(FACTS).get("enhanced"):
        time.sleep(0.1)
    browser.find_element("id", "play").click()
    time.sleep(2)
    first, before = browser.execute_script(FACTS), spent(browser)
    time.sleep(options.seconds)
    last, cpu = browser.execute_script(FACTS), spent(browser) - before
    frames = int(last["enhanced"]) - int(first["enhanced"])
    fps = 1000 * frames / (last["now"] - first["now"])
    dropped = int(last["dropped"]) - int(first["dropped"])
    print(f"film: {fps:.1f} fps, {dropped} of {frames + dropped} frames dropped, {last['spent']} ms a frame (median),")
    print(f"      {1000 * cpu / frames:.1f} ms of processor time for each enhanced frame, all processes, {load()}")
    if options.screenshot:
        browser.save_screenshot(str(options.screenshot))


def load():
    return f"load {os.getloadavg()[0]:.1f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--size", default="640x360")
    parser.add_argument("--by", default="processor", choices=["card", "processor"])
    parser.add_argument("--screenshot", type=Path)
    options = parser.parse_args()
    size = tuple(map(int, options.size.split("x")))
    with tempfile.TemporaryDirectory() as folder:
        site, film = Path(folder, "site"), Path(folder, "film.mp4")
        copy_page(site)
        page = site / "film.js"  # a busy machine does not end the measurement
        page.write_text(page.read_text("utf-8").replace("const ENOUGH = 0.6", "const ENOUGH = 0"), "utf-8")
        write_film(film, size, options.seconds + 6)
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Isolated, directory=site))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/"
        browser = chromium(size=(1200, 900))
        browser.set_script_timeout(600)
        try:
            play(browser, url, film, options)
            network_alone(browser, url, "film.wasm, one thread", OWN, size)
            if RUNTIME.is_dir():
                for threads in (1, 2):
                    script = OTHER.replace("FOLDER", RUNTIME.name).replace("THREADS", str(threads))
                    script = script.replace("FILE", "models/fast_x1.5/model.onnx")
                    network_alone(browser, url, f"ONNX Runtime Web, {threads} threads", script, size)
        finally:
            browser.quit()
            server.shutdown()


if __name__ == "__main__":
    main()
