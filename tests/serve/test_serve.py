"""The service as its clients see it: one real process, real sockets; and the scheduler by itself."""

import asyncio
import base64
import errno
import gzip
import hashlib
import http.client
import io
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from unittest.mock import Mock
from urllib.parse import parse_qs

import httpx
import numpy as np
import psutil
import pytest
import pyvips
from conftest import picture, slow
from PIL import Image, ImageOps
from running import Running, until

import imagesr
from imagesr.media.photo_coding import examine_photo
from imagesr.scale import Scale
from imagesr.serve.guard import HEADERS
from imagesr.serve.refusal import Refusal
from imagesr.serve.scheduler import Places, Scheduler
from imagesr.serve.server import LoopErrors, listen
from imagesr.serve.uploads import MAX_BYTES

ROOT = Path(__file__).parents[2]
PLACES = 3
PATIENCE = 90  # seconds: the machine may be busy


class Server(Running):
    """The service with the network `fast`, which keeps what it has to in a folder."""

    def __init__(self, folder, *options, **more):
        self.folder = folder
        super().__init__("-n", "fast", *options, env=os.environ | {"TMPDIR": str(folder)}, **more)
        self.port = int(self.url.rpartition(":")[2])

    def post(self, body, query="", **more):
        return httpx.post(f"{self.url}/supersizeme{query}", content=body, timeout=PATIENCE, **more)

    def begin(self, body, query="", length=None):
        """Send a request, or its beginning, and return its connection."""
        connection = socket.create_connection(("127.0.0.1", self.port))
        head = f"POST /supersizeme{query} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length or len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        return connection

    def idle(self):
        """Tell whether nothing is under way, and nothing is left of what was."""
        none = not any(self.figure(name) for name in ("open", "uploads", "places_taken"))
        return none and not any(path for root in self.folder.iterdir() for path in root.iterdir())

    def decoders(self):
        """Return its processes that decode."""
        found = []
        for process in self.tree():
            with suppress(psutil.Error):
                if "spawn_main" in " ".join(process.cmdline()):
                    found.append(process)
        return sorted(found, key=lambda process: process.pid)

    def decoded(self):
        """Return the seconds of a processor that those have taken."""
        return sum(sum(process.cpu_times()[:2]) for process in self.decoders())


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Yield the service, with three places."""
    running = Server(tmp_path_factory.mktemp("serve"), "--queue", str(PLACES - 1)).ready()
    yield running
    running.process.terminate()
    assert running.end() == (0, "")
    assert not list(running.folder.iterdir())


@pytest.fixture(scope="module")
def slow_upload(server):
    """Return the answer to an upload that stops in the middle; it takes its time while other tests run."""
    connection = server.begin(png(picture(60, 44))[:100], length=1000)
    with ThreadPoolExecutor() as pool:
        yield pool.submit(answer, connection)


def answer(connection):
    with connection:
        response = http.client.HTTPResponse(connection)
        response.begin()
        return response.status, json.loads(response.read())


def saved(image, format="PNG", **more):
    file = io.BytesIO()
    image.save(file, format, **more)
    return file.getvalue()


def png(array):
    return saved(Image.fromarray(array))


def opened(data):
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


SMALL = png(picture(60, 44))
LARGE = png(np.tile(picture(300, 300), (4, 4, 1)))  # 25 tiles
NOISE = png(np.random.default_rng(0).integers(0, 256, (700, 700, 3), np.uint8))  # large as a file, too


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def header(width, height, bits=8, colour=2):
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))


# What is answered


@pytest.mark.usefixtures("slow_upload")
@pytest.mark.parametrize("path", ["/supersizeme", "/supersizeme/"])
@pytest.mark.parametrize(
    ("query", "scale", "format"),
    [
        ("", "2", "PNG"),
        ("?scale=1.5&format=jpeg", "1.5", "JPEG"),
        ("?scale=5/3&format=webp&model=best", "5/3", "WEBP"),
        ("?scale=1.0000000000000002&model=linear", "1.0000000000000002", "PNG"),
        ("?scale=8&model=best-photo", "8", "PNG"),
    ],
)
def test_a_picture_becomes_a_larger_one(server, path, query, scale, format):
    response = httpx.post(server.url + path + query, content=SMALL, timeout=PATIENCE)
    assert response.status_code == 200, response.text
    large = opened(response.content)
    scale = Scale.parse(scale)
    assert (large.format, large.size) == (format, (scale.grow(60), scale.grow(44)))
    assert response.headers["content-type"] == f"image/{format.lower()}"
    stages = re.findall(r"(\w+);dur=[0-9.]+", response.headers["server-timing"])
    assert stages == ["upload", "decode", "wait", "network", "encode"]
    assert {name.lower(): value for name, value in HEADERS.items()}.items() <= dict(response.headers).items()


@pytest.mark.parametrize("size", [(1, 1), (60, 44), (400, 290)])
def test_it_is_what_python_makes_of_it(server, size):
    """Tiles of one shape, mirrored out, are the same picture but for rounding."""
    lr = picture(*size)
    ours = np.asarray(opened(server.post(png(lr)).content)).astype(int)
    assert np.abs(ours - imagesr.upscale_image(lr, model="fast")).max() <= 1


@pytest.mark.parametrize(
    "query", ["?clean=0.7", "?clean=auto", "?scale=1", "?scale=1&clean=0.3&model=balanced", "?clean=0"]
)
def test_it_cleans_as_python_does(server, query):
    lr = np.random.default_rng(0).normal(picture(120, 90), 12).clip(0, 255).astype(np.uint8)
    asked = parse_qs(query[1:])
    clean = asked.get("clean", ["auto"])[0]
    clean = examine_photo(b"", lr).clean if clean == "auto" else float(clean)
    scale = int(asked.get("scale", ["2"])[0])
    ours = np.asarray(opened(server.post(png(lr), query).content)).astype(int)
    assert np.abs(ours - imagesr.upscale_image(lr, scale=scale, model="fast", clean=clean)).max() <= 1
    if clean and scale == 1:
        assert np.abs(ours - lr).mean() > 2


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_every_orientation_is_applied_once(server, format):
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[274], exif[271] = orientation, "A maker"
        data = saved(Image.fromarray(picture(60, 44)), format, exif=exif)
        upright = ImageOps.exif_transpose(opened(data))
        large = opened(server.post(data, "?clean=0").content)
        assert large.size == (2 * upright.width, 2 * upright.height)
        assert (large.getexif().get(274, 1), large.getexif()[271]) == (1, "A maker")
        np.testing.assert_array_equal(large, opened(server.post(saved(upright), "?clean=0").content))


@pytest.mark.parametrize(("mode", "becomes"), [("L", "L"), ("LA", "LA"), ("RGBA", "RGBA"), ("1", "L"), ("P", "RGB")])
def test_modes(server, mode, becomes):
    small = Image.fromarray(picture(60, 44))
    data = saved(small.quantize(32) if mode == "P" else small.convert(mode))
    assert opened(server.post(data).content).mode == becomes


def test_depth_profile_and_inks(server):
    deep = saved(Image.fromarray(picture(60, 44)[..., 0].astype(np.uint16) * 200))
    assert opened(server.post(deep).content).mode == "I;16"
    profile = pyvips.Image.profile_load("p3")
    data = saved(Image.fromarray(picture(60, 44)), icc_profile=profile)
    assert opened(server.post(data, "?format=jpeg").content).info["icc_profile"] == profile
    assert opened(server.post(saved(Image.new("CMYK", (60, 44), (90, 20, 0, 9)), "JPEG")).content).mode == "RGB"


def test_models_and_their_files(server):
    models = httpx.get(f"{server.url}/models").json()
    assert models["default"] == "fast"
    best = next(model for model in models["models"] if model["name"] == "best-photo")
    assert best["also"] == ["best"]
    assert [one["scale"] for one in best["scales"]] == ["1", "1.5", "2", "3", "4"]
    assert {model["clean"] for model in models["models"]} == {0}
    assert [one["clean"] for one in best["scales"]] == [0, None, None, None, None]
    card = json.loads((ROOT / "saved_models/best-photo_x2/card.json").read_text())
    told = best["scales"][2]
    assert next(model for model in models["models"] if model["name"] == "linear")["scales"][0]["detail"] is None
    assert (told["parameters"], told["psnr_y_b100"]) == (card["parameters"], card["measured"]["B100"]["fp32"]["psnr_y"])
    file = httpx.get(server.url + told["files"]["model.onnx"])
    assert hashlib.sha256(file.content).hexdigest() == card["sha256"]["model.onnx"]
    assert httpx.get(file.url, headers={"If-None-Match": file.headers["etag"]}).status_code == 304
    for path in ("best-photo_x2/card.json", "best-photo_x2/model.keras", "best_x1.5/model.onnx", "..%2f..%2fREADME.md"):
        response = httpx.get(f"{server.url}/models/{path}")
        assert (response.status_code, list(response.json())) == (404, ["error"])


def test_the_last_byte_that_is_allowed(server):
    assert server.post(SMALL + bytes(MAX_BYTES - len(SMALL))).status_code == 200


def test_probes_figures_and_the_page(server):
    assert httpx.get(f"{server.url}/healthz").json() == {"status": "alive"}
    assert httpx.get(f"{server.url}/readyz").json() == {"status": "ready"}
    assert server.figure("places") == PLACES
    pixels = server.figure("pixels_total")
    server.post(SMALL)
    assert server.figure("pixels_total") == pixels + 5 * 60 * 44
    assert server.figure("requests_total") > 0
    assert server.figure("picture_seconds_count") > 0
    assert (server.figure("build_info"), server.figure("queue_share")) == (1, 0)
    page = httpx.get(f"{server.url}/")
    assert page.headers["content-type"].startswith("text/html")
    assert page.headers["cache-control"] == "no-cache"
    assert "script-src 'self' 'wasm-unsafe-eval'" in page.headers["content-security-policy"]


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/models", "/metrics", "/openapi.json", "/", "/page.js"])
def test_head_is_get_without_its_body(server, path):
    got, head = (httpx.request(method, server.url + path) for method in ("GET", "HEAD"))
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == got.headers["content-type"]
    assert path == "/metrics" or head.headers["content-length"] == got.headers["content-length"]
    model = "/models/best-photo_x2/model.onnx"
    with httpx.Client(base_url=server.url) as client:  # and the connection goes on
        assert client.head(model).headers["content-length"] == str((ROOT / f"saved_models{model[7:]}").stat().st_size)
        assert client.head("/supersizeme").status_code == 405
        assert client.get("/healthz").status_code == 200


@pytest.mark.parametrize(("name", "format"), [("jpg", "JPEG"), ("JPG", "JPEG"), ("PNG", "PNG"), ("WebP", "WEBP")])
def test_formats_have_the_names_that_people_use(server, name, format):
    response = server.post(SMALL, f"?format={name}")
    assert (response.status_code, opened(response.content).format) == (200, format)
    assert response.headers["content-type"] == f"image/{format.lower()}"


@pytest.mark.parametrize("format", ["png", "jpeg", "webp"])
@pytest.mark.parametrize("source", ["PNG", "JPEG"])
def test_exif_is_not_made_up(server, source, format):
    """Nor the resolution, the size and the like that libvips would write into it."""
    large = opened(server.post(saved(Image.fromarray(picture(60, 44)), source), f"?format={format}").content)
    assert not large.getexif()
    assert "exif" not in large.info


def half_closed(server, body, query="", version="1.1"):
    """Send a request, close the sending side, and return the answer's status and body."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as connection:
        head = f"POST /supersizeme{query} HTTP/{version}\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        connection.shutdown(socket.SHUT_WR)
        response = http.client.HTTPResponse(connection)
        response.begin()
        data = response.read()
        assert connection.recv(1) == b""  # and the service closes its side
        return response.status, data


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize(("body", "query"), [(SMALL, ""), slow(LARGE, "?model=best&scale=4")])
def test_a_client_that_closes_its_side_gets_its_answer(server, body, query, version):
    status, data = half_closed(server, body, query, version)
    assert status == 200
    assert opened(data).format == "PNG"
    assert half_closed(server, b"no picture, of more than 16 bytes", "", version)[0] == 415


def test_a_form_with_one_picture_is_taken(server):
    """As curl -F image=@photo.png sends it."""
    pytest.importorskip("python_multipart")
    form = {"image": ("photo.png", SMALL, "image/png")}
    response = httpx.post(f"{server.url}/supersizeme?scale=3", files=form, timeout=PATIENCE)
    assert response.status_code == 200, response.text
    assert opened(response.content).size == (180, 132)
    full = {"image": ("photo.png", SMALL + bytes(MAX_BYTES - len(SMALL)), "image/png")}
    assert httpx.post(f"{server.url}/supersizeme", files=full, timeout=PATIENCE).status_code == 200
    for wrong, data, status in (
        ({"image": ("a.png", SMALL + bytes(MAX_BYTES))}, None, 413),
        ({"image": ("a.svg", SVG)}, None, 415),
        (form, {"scale": "2"}, 422),
        (form | {"more": ("b.png", SMALL)}, None, 422),
    ):
        response = httpx.post(f"{server.url}/supersizeme", files=wrong, data=data, timeout=PATIENCE)
        assert (response.status_code, list(response.json())) == (status, ["error"])


# What is refused

BOMB_TEXT = b"".join([header(60, 44), chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(200_000_000), 9)), SMALL[33:]])
JPEG_HEADER = b"\xff\xd8\xff\xc0\x00\x11\x08%s\x03\x01\x22\x00\x02\x11\x01\x03\x11\x01"
JPEG_HEADER += b"\xff\xda\x00\x0c\x03\x01\x00\x02\x11\x03\x11\x00\x3f\x00" + bytes(100)
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'
REFUSALS = {
    "empty": (400, b"", "", "Received: nothing"),
    "damaged": (400, LARGE[: len(LARGE) // 2], "", "damaged"),
    "header": (400, SMALL[:40], "", "Expected a picture"),
    "bytes": (413, bytes(MAX_BYTES + 1), "", "at most 5,242,880 bytes"),
    "pixels": (413, header(4001, 4000) + SMALL[33:], "", "at most 16 megapixels. Received: 4001x4000"),
    "bits": (413, header(30_000, 30_000, 1, 0) + chunk(b"IDAT", bytes(7000)), "", "30000x30000"),
    "jpeg": (413, JPEG_HEADER % (b"\xff\xdc" * 2), "", "65500x65500"),
    "limit": (400, JPEG_HEADER % (b"\xff\xff" * 2), "", "65500 pixels"),
    "text": (413, BOMB_TEXT, "", "4 MiB of text"),
    "svg": (415, SVG, "", "Expected a PNG or JPEG"),
    "short": (415, b"GIF8", "", "Received: GIF"),
    "gif": (415, saved(Image.new("L", (9, 9)), "GIF"), "", "Received: GIF"),
    "webp": (415, saved(Image.new("L", (9, 9)), "WEBP"), "", "Received: WebP"),
    "tiff": (415, saved(Image.new("L", (9, 9)), "TIFF"), "", "Received: TIFF"),
    "form": (
        415,
        b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\n' + SMALL,
        "",
        "a form whose Content-Type is",
    ),
    "gzip": (415, gzip.compress(SMALL), "", "--data-binary @FILE). Received: gzip"),
    "json": (415, b'{"image": "iVBORw0KGgo="}', "", "--data-binary @FILE). Received: JSON"),
    "short json": (415, b"[1]", "", "Received: JSON"),
    "base64": (415, base64.b64encode(SMALL), "", "--data-binary @FILE). Received: base64"),
    "base64 of JPEG": (415, base64.b64encode(b"\xff\xd8\xff\xe0" + bytes(99)), "", "Received: base64"),
    "data": (415, b"data:image/png;base64," + base64.b64encode(SMALL), "", "Received: base64"),
    "line ends": (415, SMALL.replace(b"\r", b"").replace(b"\n", b""), "", "as curl -d @FILE sends it"),
    "fields": (415, b"file=photo.jpg&scale=2", "", "x-www-form-urlencoded"),
    "video": (415, b"\0\0\0\x20ftypisom\0\0\2\0" + bytes(99), "", "Received: a video"),
    "scale": (422, SMALL, "?scale=0.9", "a scale from 1 to 8. Received: '0.9'"),
    "nine": (422, SMALL, "?scale=8.1", "from 1 to 8"),
    "exponent": (422, SMALL, "?scale=1e999999999", "from 1 to 8"),
    "zero": (422, SMALL, "?scale=3/0", "from 1 to 8"),
    "none": (422, SMALL, "?scale=", "from 1 to 8"),
    "clean": (422, SMALL, "?clean=1.1", "Expected a clean from 0 to 1. Received: 1.1"),
    "no clean": (422, SMALL, "?clean=some", "Expected a clean from 0 to 1, or auto. Received: 'some'"),
    "model": (422, SMALL, "?model=../saved_models/best-photo_x2", "Expected balanced, "),
    "format": (422, SMALL, "?format=tiff", "format as one of 'png', 'jpeg', 'webp'. Received: 'tiff'"),
    "detail": (422, SMALL, "?detail=1.1", "Expected a detail from 0 to 1. Received: 1.1"),
    "no number": (422, SMALL, "?detail=nan", "Expected a detail from 0 to 1. Received: 'nan'"),
    "no detail": (422, SMALL, "?detail=", "Expected a detail from 0 to 1. Received: ''"),
    "one end": (422, SMALL, "?detail=0.5&model=linear", "Expected a model that takes a detail ("),
    "misspelt": (422, SMALL, "?sacle=3", "Received: 'sacle'"),
    "result": (422, header(3999, 4000) + SMALL[33:], "?scale=3", "result of at most 64 megapixels"),
    "disk": (422, header(3000, 3400) + SMALL[33:], "?scale=2.01&model=best", "results of at most 1,024 MB"),
    "side": (422, header(9000, 9) + SMALL[33:], "?format=webp", "16383 pixels a side"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals_are_one_sentence(server, name):
    status, body, query, says = REFUSALS[name]
    response = server.post(body, query)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert list(response.json()) == ["error"]
    told = response.json()["error"]
    assert says in told
    assert "\n" not in told
    assert str(server.folder) not in told
    assert {name.lower(): value for name, value in HEADERS.items()}.items() <= dict(response.headers).items()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_bombs_take_no_memory(server):
    def peaks():
        return sum(server.peaks().values()) / 1000

    for _ in range(4):  # both processes have begun
        server.post(SMALL)
    before = peaks()
    for name in ("bits", "jpeg", "text"):
        server.post(REFUSALS[name][1])
    assert peaks() - before < 20_000


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/supersizeme", 405),
        ("DELETE", "/supersizeme/", 405),
        ("POST", "/models", 405),
        ("GET", "/nothing", 404),
        ("POST", "/nothing", 405),
        ("GET", "/../../pyproject.toml", 404),
        ("GET", "/docs", 404),
    ],
)
def test_other_paths_and_methods(server, method, path, status):
    response = httpx.request(method, server.url + path)
    assert (response.status_code, list(response.json())) == (status, ["error"])
    assert response.headers["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("POST", {"Sec-Fetch-Site": "cross-site"}, 403),
        ("POST", {"Sec-Fetch-Site": "same-site"}, 403),
        ("POST", {"Sec-Fetch-Site": "same-origin"}, 200),
        ("POST", {"Host": "rebound.example:5000"}, 403),
        ("GET", {"Host": "rebound.example"}, 403),
        ("GET", {"Host": "127.0.0.1.rebound.example"}, 403),
        ("POST", {"Host": "localhost:8080"}, 200),
        ("POST", {"Host": "[::1]:5000"}, 200),
    ],
)
def test_pages_of_others_are_refused(server, method, headers, status):
    path = "/supersizeme" if method == "POST" else "/models"
    body = SMALL if method == "POST" else None
    response = httpx.request(method, server.url + path, content=body, headers=headers, timeout=PATIENCE)
    assert response.status_code == status
    assert status == 200 or list(response.json()) == ["error"]


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br"])
def test_an_encoded_body_is_told_so_before_it_is_read(server, encoding):
    response = server.post(gzip.compress(SMALL), headers={"Content-Encoding": encoding})
    assert response.status_code == 415
    assert f"curl --data-binary @FILE). Received: Content-Encoding '{encoding}'" in response.json()["error"]
    assert server.post(SMALL, headers={"Content-Encoding": "identity"}).status_code == 200


def test_what_is_no_http_is_told_so_in_json(server):
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(b"not at all\r\n\r\n")
        assert answer(connection)[0] == 400


def test_early_refusals_reach_those_who_are_still_sending(server):
    """Six megabytes that nobody reads, by three clients; then what is too much without saying so before."""
    body = bytes(6_000_000)
    for _ in range(3):
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        connection.request("POST", "/supersizeme", body)
        assert connection.getresponse().status == 413
        connection.close()
        assert server.post(body).status_code == 413
    chunks = [SMALL, *[bytes(100_000)] * 60]
    assert server.post(iter(chunks)).status_code == 413
    command = ["curl", "-s", "-H", "Expect:", "-w", "%{http_code}", "-o", os.devnull, "--data-binary", "@-"]
    done = subprocess.run([*command, f"{server.url}/supersizeme"], input=body, capture_output=True)
    assert done.stdout == b"413", done


def test_the_openapi_document_keeps_its_word(server):
    """Every example in it is taken, or is what is answered; every status of this file stands in it."""
    document = httpx.get(f"{server.url}/openapi.json").json()
    post = document["paths"]["/supersizeme"]["post"]
    assert set(post["requestBody"]["content"]) == {"image/png", "image/jpeg", "multipart/form-data"}
    statuses = {"200", "400", "403", "408", "413", "415", "422", "429", "500", "503"}
    assert set(post["responses"]) == statuses
    error = {"$ref": "#/components/schemas/Error"}
    for status in statuses - {"200"}:
        assert post["responses"][status]["content"]["application/json"]["schema"] == error
    for parameter in post["parameters"]:
        schema = parameter["schema"]
        for value in [*schema.get("examples", []), *schema.get("enum", []), *filter(None, [schema.get("default")])]:
            assert server.post(SMALL, f"?{parameter['name']}={value}").status_code == 200
    parts = document["paths"]["/models/{folder}/{file}"]["get"]["parameters"]
    path = "/".join(part["schema"]["examples"][0] for part in parts)
    assert httpx.get(f"{server.url}/models/{path}").status_code == 200
    schemas = document["components"]["schemas"]
    assert server.post(SVG).json()["error"] == schemas["Error"]["properties"]["error"]["examples"][0]
    models = httpx.get(f"{server.url}/models").json()
    best = next(model for model in models["models"] if model["name"] == "best-photo")
    for told, name in ((best, "Model"), (best["scales"][2], "Measured")):
        for key, schema in schemas[name]["properties"].items():
            for example in schema.get("examples", []):
                assert example.items() <= told[key].items() if isinstance(example, dict) else example == told[key]


def test_the_openapi_document_tells_of_forms(server):
    pytest.importorskip("python_multipart")
    paths = httpx.get(f"{server.url}/openapi.json").json()["paths"]
    for path, sent, status in (("/supersizeme", SMALL, 200), ("/video", SVG, 415)):
        form = paths[path]["post"]["requestBody"]["content"]["multipart/form-data"]
        (name,) = form["schema"]["required"]
        for kind in form["encoding"][name]["contentType"].split(", "):
            response = httpx.post(server.url + path, files={name: ("file", sent, kind)}, timeout=PATIENCE)
            assert response.status_code == status, response.text


# Waiting


def test_a_small_picture_is_not_stuck_behind_a_large_one(server):
    with ThreadPoolExecutor() as pool:
        large = pool.submit(server.post, LARGE, "?model=best")
        until(lambda: server.figure("places_taken"))
        assert server.post(SMALL).status_code == 200
        assert not large.done()
        assert server.figure("places_taken") == 1
        assert large.result().status_code == 200


def test_one_more_than_there_are_places_is_told_when_to_come_again(server):
    connections = [server.begin(LARGE, "?model=best&scale=4") for _ in range(PLACES)]
    until(lambda: server.figure("places_taken") == PLACES)
    response = server.post(SMALL)
    assert response.status_code == 429
    assert 1 <= int(response.headers["retry-after"]) <= 60
    assert "try again in" in response.json()["error"]
    for connection in connections:
        connection.close()
    until(server.idle)


@pytest.mark.parametrize("stage", ["upload", "work", "download"])
def test_a_client_that_hangs_up_leaves_nothing_behind(server, stage):
    until(lambda: server.figure("places_taken") == 0)
    if stage == "upload":
        connection = server.begin(LARGE[:2000], length=len(LARGE))
        until(lambda: server.figure("uploads") >= 1)
    else:
        connection = server.begin(LARGE if stage == "work" else NOISE, "?scale=4&model=linear")
        until(lambda: server.figure("places_taken") == 1)
    if stage == "download":
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")
        assert server.figure("places_taken") == 0  # however slowly it is taken
        assert server.figure("open") >= 1
    connection.close()
    until(lambda: server.figure("open") - server.figure("uploads") == 0 == server.figure("places_taken"))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_decoder_that_falls_over_costs_one_picture(server):
    # Damaged at its very end, so that the answer says which of the two it was.
    body = png(np.zeros((3900, 4000, 3), np.uint8))[:-20]
    killed = 0
    with ThreadPoolExecutor() as pool:
        for _ in range(8):
            before = server.decoded()
            future = pool.submit(server.post, body)
            until(lambda: server.decoded() > before + 0.02 or future.done())  # noqa: B023
            for process in server.decoders():
                process.kill()
            response = future.result()
            assert response.status_code == 400
            killed += "It cannot" in response.json()["error"]
            assert server.post(SMALL).status_code == 200
            if killed:
                break
    assert killed
    until(lambda: server.figure("places_taken") == 0)
    until(lambda: len(server.decoders()) == 2)
    for _ in range(3):  # while it has nothing to do
        server.decoders()[0].kill()
        time.sleep(0.5)
        assert server.post(SMALL).status_code == 200
    until(lambda: len(server.decoders()) == 2)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_client_that_hangs_up_costs_no_decoder(server):
    until(lambda: len(server.decoders()) == 2)
    before = server.decoders()
    body = png(np.zeros((3900, 4000, 3), np.uint8))[:-20]
    for _ in range(5):
        connection = server.begin(body)
        time.sleep(0.15)  # most often it is at work then
        connection.close()
        until(lambda: server.figure("open") == server.figure("uploads"))
        assert server.post(SMALL).status_code == 200
    assert server.decoders() == before


def test_an_upload_that_stops_is_told_after_ten_seconds(server, slow_upload):
    status, told = slow_upload.result()
    assert (status, list(told)) == (408, ["error"])
    assert "within 10 s" in told["error"]
    until(server.idle)


# How it begins and ends


def test_sigterm_loses_nothing_that_was_accepted(tmp_path):
    server = Server(tmp_path)
    assert httpx.get(f"{server.url}/healthz").status_code == 200  # before it is warm
    server.ready()
    with ThreadPoolExecutor() as pool:
        answers = [pool.submit(server.post, LARGE) for _ in range(2)]
        until(lambda: server.figure("places_taken") == 2)
        upload = server.begin(SMALL[:100], length=len(SMALL))
        until(lambda: server.figure("uploads") == 1)
        server.process.send_signal(signal.SIGTERM)
        until(lambda: httpx.get(f"{server.url}/readyz").status_code == 503)
        late = server.post(SMALL)
        assert (late.status_code, late.json()) == (503, {"error": "Expected a service that stays. It is being stopped"})
        upload.sendall(SMALL[100:])
        with upload:
            response = http.client.HTTPResponse(upload)
            response.begin()
            assert opened(response.read()).size == (120, 88)
        assert [opened(future.result().content).size for future in answers] == [(2400, 2400)] * 2
    assert server.end() == (0, "")
    assert not list(tmp_path.iterdir())


def test_what_is_written_leaves_at_once():
    """Else the second part of an answer waits until the first is acknowledged (RFC 896), 40 ms on Linux."""
    with listen("127.0.0.1", 0) as place, socket.create_connection(place.getsockname()), place.accept()[0] as peer:
        assert peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_second_signal_ends_it_at_once(tmp_path):
    server = Server(tmp_path).ready()
    connection = server.begin(LARGE, "?scale=5")
    until(lambda: server.figure("places_taken") == 1)
    server.process.send_signal(signal.SIGTERM)
    until(lambda: httpx.get(f"{server.url}/readyz").status_code == 503)
    server.process.terminate()
    code, told = server.end()
    assert code == 143
    assert told.splitlines()[-1:] == ["imagesr serve: terminated"]
    assert not list(tmp_path.iterdir())
    with connection, suppress(ConnectionResetError):
        assert connection.recv(1000) == b""  # and not a word that is no JSON


def limited(kind, most):
    """Return what sets a limit of the system's for a process that is to begin."""
    resource = pytest.importorskip("resource")
    return lambda: resource.setrlimit(getattr(resource, kind), (most, most))


def test_a_full_disk_is_told(tmp_path):
    """A file that may not grow stands for a disk that is full: of what is decoded, and of rows."""
    server = Server(tmp_path, preexec_fn=limited("RLIMIT_FSIZE", 1_000_000)).ready()
    for body, query in ((LARGE, ""), (png(picture(300, 300)), "?scale=4"), (NOISE, "")):
        response = server.post(body, query)
        assert (response.status_code, response.headers["retry-after"]) == (503, "10")
        assert "room" in response.json()["error"]
    assert server.post(SMALL).status_code == 200
    until(server.idle)
    server.process.terminate()
    assert server.end() == (0, "")


def test_more_uploads_than_the_system_has_files_for(tmp_path):
    server = Server(tmp_path, preexec_fn=limited("RLIMIT_NOFILE", 300)).ready()
    connections = [server.begin(SMALL[:100], length=1000) for _ in range(45)]
    until(lambda: server.figure("uploads") == server.figure("open") >= 36)
    assert server.post(SMALL).status_code == 429
    assert httpx.get(f"{server.url}/healthz").status_code == 200
    more = [server.begin(SMALL[:100], length=1000) for _ in range(400)]
    for connection in connections + more:
        connection.close()

    def none_open():
        with suppress(httpx.TransportError):  # above its limit the service resets connections, this one too
            return server.figure("open") == 0

    until(none_open)
    assert server.post(SMALL).status_code == 200
    server.process.terminate()
    code, told = server.end()
    assert code == 0
    # A slow machine may run out before the first connections are refused.
    assert told in (
        "",
        "imagesr serve: Expected a free file for every connection. Received: Too many open files; "
        "new connections wait\n",
    )


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_files_that_run_out_are_told_once_a_minute(number, capsys):
    loop = Mock(time=Mock(side_effect=[100.0, 101.0, 159.0, 161.0, 162.0]))
    report = LoopErrors()
    for _ in range(4):
        report(loop, {"exception": OSError(number, os.strerror(number)), "message": "accept"})
    assert capsys.readouterr().err.count("Expected a free file") == 2
    loop.default_exception_handler.assert_not_called()
    report(loop, {"message": "another"})
    loop.default_exception_handler.assert_called_once()


def test_the_line_in_the_readme_works(server, tmp_path):
    line = next(line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("curl "))
    (tmp_path / "photo.jpg").write_bytes(saved(Image.fromarray(picture(60, 44)), "JPEG"))
    command = line.replace("http://127.0.0.1:5000", server.url)
    shell = shutil.which("zsh") or "sh"
    assert subprocess.run([shell, "-c", command], cwd=tmp_path, capture_output=True).returncode == 0
    assert opened((tmp_path / "large.png").read_bytes()).size == (120, 88)


# The scheduler by itself


def test_jobs_take_turns():
    log = []

    def work(name, steps):
        for step in range(steps):
            log.append((name, step))
            time.sleep(0.01)
            yield
        return name

    async def all_of_them():
        scheduler = Scheduler()
        done = await asyncio.gather(*(scheduler.run(work(name, n)) for name, n in (("a", 20), ("b", 2), ("c", 3))))
        scheduler.close()
        return done

    results = asyncio.run(all_of_them())
    assert [result for result, _ in results] == ["a", "b", "c"]
    assert results[0][1] >= 0.2
    assert log.index(("b", 1)) < log.index(("a", 4))
    assert log.index(("c", 2)) < log.index(("a", 6))


def test_what_is_given_up_is_closed_and_what_fails_fails_alone():
    closed = threading.Event()

    def endless():
        try:
            while True:
                time.sleep(0.001)
                yield
        finally:
            closed.set()

    def failing():
        yield
        raise ZeroDivisionError

    def short():
        yield
        return 7

    async def scene():
        scheduler = Scheduler()
        task = asyncio.create_task(scheduler.run(endless()))
        await asyncio.sleep(0.05)
        with pytest.raises(ZeroDivisionError):
            await scheduler.run(failing())
        assert (await scheduler.run(short()))[0] == 7
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert closed.is_set()
        closed.clear()
        left = asyncio.create_task(scheduler.run(endless()))
        await asyncio.sleep(0.05)
        await asyncio.to_thread(scheduler.close)
        with pytest.raises(RuntimeError):
            await left
        assert closed.is_set()

    asyncio.run(scene())


def test_places_are_bounded_and_given_back():
    places = Places(2)
    with places.one(), places.one():
        with pytest.raises(Refusal) as refused, places.one():
            pass
        assert (refused.value.status, refused.value.headers) == (429, {"Retry-After": "1"})
    assert places.taken == 0
    with pytest.raises(KeyError), places.one():
        raise KeyError
    assert places.taken == 0
