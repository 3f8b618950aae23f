"""GIMP 3 with the plug-in in `extras/gimp`, headless, against a service that runs."""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import httpx
import numpy as np
import pytest
import pyvips
from conftest import picture
from running import running_service

PLUGIN = Path(__file__).parents[2] / "extras/gimp/imagesr_upscale"

SCRIPT = """
from gi.repository import Gimp, Gio

def file(name):
    return Gio.File.new_for_path({folder!r} + "/" + name)

def upscaled(name, url):
    image = Gimp.file_load(Gimp.RunMode.NONINTERACTIVE, file(name))
    procedure = Gimp.get_pdb().lookup_procedure("plug-in-imagesr-upscale")
    config = procedure.create_config()
    config.set_property("run-mode", Gimp.RunMode.NONINTERACTIVE)
    config.set_property("image", image)
    config.set_core_object_array("drawables", image.get_layers())
    for key, value in (("scale", 1.5), ("url", url), ("model", "fast")):
        config.set_property(key, value)
    status = procedure.run(config).index(0)
    print(name, status.value_nick, Gimp.get_pdb().get_last_error(), flush=True)
    if status == Gimp.PDBStatusType.SUCCESS:
        large, small = image.get_layers()
        image.remove_layer(small)
        image.resize_to_layers()
        Gimp.file_save(Gimp.RunMode.NONINTERACTIVE, image, file("large-" + name), None)

upscaled("none.png", "http://127.0.0.1:9")
for name in {names!r}:
    upscaled(name, {url!r})
"""


def gimp():
    """Return the command of GIMP 3 without a window, as $IMAGESR_GIMP names it or as it is installed; None of 2.10."""
    if given := os.environ.get("IMAGESR_GIMP"):
        return shlex.split(given)
    found = shutil.which("gimp-console-3.0") or shutil.which("gimp-console")
    version = found and subprocess.run([found, "--version"], capture_output=True, text=True).stdout
    return [found] if version and " 3." in version else None


@pytest.mark.stack
def test_gimp_sends_a_layer_and_gets_it_back_larger(tmp_path):
    command = gimp()
    if not command:
        pytest.skip("needs GIMP 3, as gimp-console or in $IMAGESR_GIMP")
    alpha = np.full((70, 90, 1), 65535, np.uint16)
    alpha[:, :20] = 0
    pictures = {
        "photo.png": picture(700, 300),  # two tiles
        "deep.png": np.concatenate([picture(90, 70).astype(np.uint16) * 257, alpha], -1),
        "grey.png": picture(90, 70)[..., :1],
        "none.png": picture(90, 70),
    }
    for name, pixels in pictures.items():
        kind = "grey16" if pixels.dtype == np.uint16 else "b-w"
        image = pyvips.Image.new_from_array(pixels)
        image.copy(interpretation=kind if pixels.shape[2] == 1 else "rgb16" if kind == "grey16" else "srgb").pngsave(
            str(tmp_path / name)
        )
    shutil.copytree(PLUGIN, tmp_path / "profile/plug-ins" / PLUGIN.name)
    names = ["photo.png", "deep.png", "grey.png"]
    with running_service("-n", "fast") as service:
        (tmp_path / "script.py").write_text(SCRIPT.format(folder=str(tmp_path), names=names, url=service.url))
        script = f"exec(open({str(tmp_path / 'script.py')!r}).read())"
        done = subprocess.run(
            [*command, "-i", "--batch-interpreter", "python-fu-eval", "-b", script, "--quit"],
            capture_output=True,
            text=True,
            env=os.environ | {"GIMP3_DIRECTORY": str(tmp_path / "profile")},
        )
        told = done.stdout + done.stderr
        assert "none.png execution-error No service answers at http://127.0.0.1:9: start it by" in told, told
        for name in names:
            assert f"{name} success" in told, told
            url = f"{service.url}/supersizeme?scale=1.5&model=fast"
            answer = httpx.post(url, content=(tmp_path / name).read_bytes(), timeout=120)
            wanted = pyvips.Image.new_from_buffer(answer.content, "").numpy()
            made = pyvips.Image.new_from_file(str(tmp_path / f"large-{name}")).numpy()
            made = made.reshape(*made.shape[:2], -1)
            wanted = wanted.reshape(*wanted.shape[:2], -1)
            assert made.shape[:2] == wanted.shape[:2]
            assert made.dtype == wanted.dtype
            seen = wanted[..., 3:] > 0 if wanted.shape[2] == 4 else True
            apart = np.where(seen, made[..., :3].astype(int) - wanted[..., :3], 0)
            assert np.abs(apart).max() <= (1 if wanted.dtype == np.uint8 else 257), name
            if wanted.shape[2] == 4:
                np.testing.assert_allclose(made[..., 3], wanted[..., 3], atol=257)
