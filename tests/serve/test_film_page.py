"""Films in the browser: what the page makes of a frame beside the engine, films that play, and films that cannot."""

import base64
import functools
import json
import re
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path

import av
import numpy as np
import pytest
from conftest import chromium, drop, paste, picture, run_python, write_clip
from running import running_service

from imagesr.engines import load_engine
from imagesr.serve import web
from imagesr.serve.copying import copy_page

SIZE = (204, 130)  # no multiples of 4


class Silent(SimpleHTTPRequestHandler):
    """Give files, as a plain web server does, and without the headers that isolate a page."""

    extensions_map = SimpleHTTPRequestHandler.extensions_map | {".wasm": "application/wasm", ".js": "text/javascript"}

    def log_message(self, *arguments):
        """Keep silent."""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Return the address of a copy of the page in a folder of a plain web server, and that folder."""
    folder = tmp_path_factory.mktemp("site")
    copy_page(folder / "sub")
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Silent, directory=folder))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/sub/", folder / "sub"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Return a clip of 10 s with sound."""
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", size=SIZE, frames=250)


@pytest.fixture(scope="module")
def service():
    """Return the address of a service, whose headers isolate the page."""
    with running_service() as running:
        yield running.url + "/"


@pytest.fixture(scope="module")
def browser():
    """Start a Chromium whose graphics card is played by the processor."""
    browser = chromium(
        "--use-angle=swiftshader",
        "--enable-unsafe-swiftshader",
        "--autoplay-policy=no-user-gesture-required",
        size=(1200, 900),
    )
    browser.set_script_timeout(300)
    yield browser
    browser.quit()


def run(browser, script, *arguments):
    """Return what the body of an async function returns in the page; its errors are raised."""
    script = f"""const done = arguments[arguments.length - 1], given = [...arguments].slice(0, -1);
    const base64 = (bytes) => btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
    const failed = (error) => done({{ error: String(error.stack) }});
    (async () => {{ {script} }})().then((value) => done({{ value }}), failed);"""
    answer = browser.execute_async_script(script, *arguments)
    assert "error" not in answer, answer
    return answer["value"]


def codes(text, width, height):
    return np.frombuffer(base64.b64decode(text), np.uint8).reshape(height, width).astype(int)


@pytest.fixture(scope="module")
def engine():
    return load_engine(web.film_card(), engine="onnx", precision="fp32")


def upscaled(engine, luma):
    """Return what the engine makes of (H, W) luma, whose edges are repeated up to multiples of 4."""
    height, width = luma.shape
    whole = np.pad(luma, ((0, -height % 4), (0, -width % 4)), "edge")
    return np.array(engine(whole[None, ..., None]))[0, ..., 0].astype(int)


def test_the_network_in_webassembly_is_the_engine(browser, site, engine):
    luma = np.random.default_rng(0).integers(0, 256, (64, 96), np.uint8)
    luma[:32] = picture(96, 32)[..., 1]
    browser.get(site[0] + "film.html")
    text = run(
        browser,
        """const [{ Kernel }, { Network }] = await Promise.all([import("./kernel.js"), import("./network.js")]);
        const onnx = new Uint8Array(await (await fetch("models/fast_x1.5/model.onnx")).arrayBuffer());
        const kernel = await Kernel.open(await WebAssembly.compileStreaming(fetch("film.wasm")));
        const at = kernel.room(96 * 64);
        const network = new Network(onnx, kernel, at, 96, 64);
        kernel.view(at).set(Uint8Array.from(atob(given[0]), (c) => c.charCodeAt(0)));
        network.run(0, 24); // as two workers do, of which each has some rows
        network.run(24, 64);
        return base64(kernel.view(network.result, 144 * 96));""",
        base64.b64encode(luma.tobytes()).decode(),
    )
    assert np.abs(codes(text, 144, 96) - upscaled(engine, luma)).max() <= 1


# Of the frame that the film shows at a time: the luma that was made of it by a way, and its size.
FRAME = """
  const [url, seconds, way] = given;
  const video = document.createElement("video");
  const file = await (await fetch(url)).blob(); // in which the browser can seek
  Object.assign(video, { muted: true, preload: "auto", src: URL.createObjectURL(file) });
  await new Promise((resolve, reject) => Object.assign(video, { oncanplay: resolve, onerror: reject }));
  video.currentTime = seconds;
  let frame = new VideoFrame(video);
  while (Math.abs(frame.timestamp / 1e6 - seconds) > 0.1) { // the first frame is shown before
    frame.close();
    await new Promise((resolve) => setTimeout(resolve, 50));
    frame = new VideoFrame(video);
  }
  const time = frame.timestamp / 1e6;
  const get = (file) => fetch(`models/fast_x1.5/${file}`);
  const wasm = await WebAssembly.compileStreaming(fetch("film.wasm"));
  const { format } = frame;
  const height = 4 * Math.ceil(frame.visibleRect.height / 4);
  let planes;
  if (way === "processor") {
    const { Processor } = await import("./processor.js");
    const path = new Processor(wasm, new Uint8Array(await (await get("model.onnx")).arrayBuffer()));
    (await path.run({ frame, first: 0, last: 64 })).image.close();
    const { image, size } = await path.run({ frame, first: 64, last: height });
    image.close();
    frame.close();
    const [width, rows] = path.network.out;
    const luma = base64(path.kernel.view(path.network.result, width * rows));
    return { format, time, size, width, rows, luma };
  }
  const { Card } = await import("./card.js");
  const path = new Card(wasm, await (await get("model.glsl")).text(), { forced: true });
  const { size } = await path.run({ frame });
  const { frame: target, size: [width, rows] } = path.textures.get("RESULT");
  const floats = new Float32Array(4 * width * rows);
  path.gl.bindFramebuffer(path.gl.FRAMEBUFFER, target);
  path.gl.readPixels(0, 0, width, rows, path.gl.RGBA, path.gl.FLOAT, floats);
  const luma = Uint8Array.from({ length: width * rows }, (_, i) => Math.round(255 * floats[4 * i]));
  frame.close();
  return { format, time, size, width, rows, luma: base64(luma) };
"""


def frame_of(browser, url, seconds, way):
    told = run(browser, FRAME, url, seconds, way)
    return told, codes(told["luma"], told["width"], told["rows"])


def luma_of(film, numbers):
    """Return the luma of some frames of a film, as PyAV decodes them."""
    with av.open(str(film)) as container:
        frames = list(islice(container.decode(video=0), max(numbers) + 1))
    return [frames[i].to_ndarray()[: frames[i].height, : frames[i].width] for i in numbers]


@pytest.mark.slow
@pytest.mark.parametrize("way", ["processor", "card"])
def test_frames_of_a_film_are_within_one_code_of_the_engine(browser, site, engine, clip, way):
    (site[1] / "clip.mp4").write_bytes(clip.read_bytes())
    browser.get(site[0] + "film.html")
    frames = luma_of(clip, range(50))
    for seconds in (0.14, 1.62):
        told, luma = frame_of(browser, "clip.mp4", seconds, way)
        lr = frames[round(25 * told["time"])]
        assert told["format"] in ("I420", "NV12"), "the samples as they were decoded"
        assert told["size"] == [306, 196]
        assert np.abs(luma - upscaled(engine, lr)).max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize("way", ["processor", "card"])
def test_real_frames_are_within_one_code_of_the_engine(browser, site, engine, data, way):
    source = data / "clips" / "cockatoo_yuv420.mp4"
    (site[1] / source.name).write_bytes(source.read_bytes())
    browser.get(site[0] + "film.html")
    _, luma = frame_of(browser, source.name, 0, way)
    assert np.abs(luma - upscaled(engine, luma_of(source, [0])[0])).max() <= 1


def facts(browser):
    return browser.execute_script("return {...document.getElementById('facts').dataset}")


def wait(browser, condition, seconds=180):
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, seconds, 0.05).until(lambda _: condition())


def message(browser):
    found = browser.find_element("id", "message")
    return found.text if found.is_displayed() else ""


def pixels(browser, name):
    """Return the pixels of a canvas of the stage, (H, W, 3)."""
    script = """const canvas = document.querySelector(given[0]);
    const { data, width, height } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    return { width, height, data: base64(data) };"""
    told = run(browser, script, name)
    array = np.frombuffer(base64.b64decode(told["data"]), np.uint8)
    return array.reshape(told["height"], told["width"], 4)[..., :3].astype(int)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["processor", "card"])
def test_a_film_plays_and_keeps_its_colours(browser, service, clip, way):
    browser.get(service + "film.html")
    browser.execute_script("document.getElementById('by').value = arguments[0]", way)
    browser.get_log("performance"), browser.get_log("browser")  # of the tests before
    browser.find_element("id", "file").send_keys(str(clip))
    wait(browser, lambda: facts(browser).get("enhanced") or message(browser))
    assert message(browser) == ""
    sr, lr = pixels(browser, ".after canvas"), pixels(browser, ".before canvas")
    assert (sr.shape, lr.shape) == ((196, 306, 3), (130, 204, 3))
    # In the middle of every other pixel of `lr` lies one of `sr`.
    assert np.abs(sr[1:-2:3, 1::3].mean((0, 1)) - lr[:-1:2, ::2].mean((0, 1))).max() < 1.5
    assert np.abs(sr[:-1].reshape(65, 3, 102, 3, 3).mean((1, 3)) - lr.reshape(65, 2, 102, 2, 3).mean((1, 3))).mean() < 2
    browser.find_element("id", "play").click()
    # However slow the machine is: the reader insists, and plays it again.
    again = """document.querySelector("#message button")?.click();
    const video = document.getElementById("video");
    if (video.ended) video.play();"""
    wait(browser, lambda: browser.execute_script(again) or int(facts(browser).get("enhanced", 0)) >= 3)
    told = facts(browser)
    assert re.search(r"fps · \d+ of \d+ frames dropped", browser.find_element("id", "facts").text)
    assert int(told["enhanced"]) + int(told["dropped"]) <= 25 * float(told["time"]) + 10
    sent = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requests = [event["params"]["request"] for event in sent if event["method"] == "Network.requestWillBeSent"]
    assert {request["method"] for request in requests} == {"GET"}, "nothing is uploaded"
    told = [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert told == []
    assert "graphics card" in browser.find_element("id", "facts").text or way == "processor"


def test_dropped_and_pasted_films_are_taken(browser, site, clip):
    browser.get(site[0] + "film.html")
    browser.execute_script("document.getElementById('by').value = 'none'")
    drop(browser, clip)
    wait(browser, lambda: browser.find_element("id", "play").is_displayed() or message(browser))
    assert message(browser) == ""
    paste(browser, b"no film", "video/mp4")
    wait(browser, lambda: "cannot play" in message(browser))


@pytest.mark.slow
def test_what_cannot_be_played_is_said(browser, site, tmp_path):
    browser.get(site[0] + "film.html")
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no film" * 100)
    browser.find_element("id", "file").send_keys(str(broken))
    wait(browser, lambda: "cannot play" in message(browser))
    assert not browser.find_element("id", "result").is_displayed()
    sound = tmp_path / "sound.m4a"
    with av.open(str(sound), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=48000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 48000), np.float32), "fltp", "mono")
        frame.sample_rate = 48000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    browser.find_element("id", "file").send_keys(str(sound))
    wait(browser, lambda: "no picture" in message(browser))


@pytest.mark.slow
def test_a_film_that_is_too_large_goes_on_plain(browser, site, clip):
    browser.get(site[0] + "film.html")
    browser.execute_script("document.getElementById('by').value = 'processor'")
    browser.find_element("id", "file").send_keys(str(clip))
    wait(browser, lambda: facts(browser).get("enhanced"))
    # As if every frame took half a second.
    run(
        browser,
        """const { Enhancer } = await import("./enhancer.js");
        const { run } = Enhancer.prototype;
        Enhancer.prototype.run = async function (frame) {
          await new Promise((resolve) => setTimeout(resolve, 500));
          return run.call(this, frame);
        };
        const video = document.getElementById("video");
        await video.play();""",
    )
    wait(browser, lambda: "too large" in message(browser))
    assert "would do" in message(browser)
    assert not browser.find_elements("css selector", ".after canvas")
    assert browser.execute_script("return !document.getElementById('video').paused")
    browser.find_element("css selector", "#message button").click()
    wait(browser, lambda: browser.find_elements("css selector", ".after canvas"))


@pytest.mark.slow
def test_without_simd_or_webcodecs_the_film_plays_plain(browser, site, clip):
    for lacks, told in (("self.VideoFrame = undefined", "WebCodecs"), ("", "SIMD")):
        browser.get(site[0] + "film.html")
        browser.execute_script(f"{lacks}; document.getElementById('by').value = 'processor'")
        if not lacks:
            (site[1] / "film.wasm").write_bytes(b"\0asm\1\0\0\0\xff\0")
        browser.find_element("id", "file").send_keys(str(clip))
        wait(browser, lambda told=told: told in message(browser))
        assert browser.find_element("id", "stage").is_displayed()
    copy_page(site[1])


def test_the_copy_is_whole_and_never_over_the_page_itself(tmp_path):
    copy_page(tmp_path / "page")
    made = {str(file.relative_to(tmp_path / "page")) for file in (tmp_path / "page").rglob("*") if file.is_file()}
    assert {
        "index.html",
        "film.html",
        "film.wasm",
        "models/fast_x1.5/model.onnx",
        "models/fast_x1.5/model.glsl",
    } <= made
    models = json.loads((tmp_path / "page" / "models.json").read_text())
    files = [file for model in models["models"] for scale in model["scales"] for file in scale["files"].values()]
    assert "models/best-photo_x2/model.onnx" in files and not any(file.startswith("/") for file in files)
    assert not [file for file in made if file.endswith(".part") or file.startswith("video.")]
    assert "video.html" not in (tmp_path / "page" / "index.html").read_text("utf-8")
    for folder in (web.STATIC, web.STATIC / "more"):
        with pytest.raises(ValueError, match="Expected a folder of your own"):
            copy_page(folder)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="Expected a folder of your own"):
        copy_page(tmp_path / "file")


def test_the_kernel_is_built_from_its_source(tmp_path):
    ziglang = pytest.importorskip("ziglang", reason="needs ziglang==0.17.1 (pip), which builds film.wasm")
    source = Path(web.STATIC).parent / "kernel" / "film.c"
    options = re.search(r"ziglang cc (.*?) imagesr/serve", source.read_text().replace("\\\n", ""), re.S)[1].split()
    if not ziglang.__file__ or run_python("-m", "ziglang", "version").stdout.strip() != "0.17.1":
        pytest.skip("needs ziglang==0.17.1")
    built = run_python("-m", "ziglang", "cc", *options, source, "-o", tmp_path / "film.wasm")
    assert built.returncode == 0, built.stderr
    assert (tmp_path / "film.wasm").read_bytes() == (web.STATIC / "film.wasm").read_bytes()
