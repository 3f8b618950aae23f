"""What runs the service elsewhere: Dockerfile and systemd unit, linted, and what they call tried here."""

import configparser
import json
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from running import running_service

from imagesr.serve.__main__ import _parser
from imagesr.video.__main__ import _parser as video_parser

ROOT = Path(__file__).parents[1]
DOCKERFILE = ROOT / "Dockerfile"
UNIT = ROOT / "docs/imagesr.service"


def command(instruction):
    """Return the arguments of the last instruction of that name in the Dockerfile."""
    text = DOCKERFILE.read_text("utf-8").replace("\\\n", "")
    return json.loads(re.findall(rf"^{instruction} [^\[\n]*(\[.*\])$", text, re.M)[-1])


@pytest.mark.skipif(sys.platform != "linux", reason="its wheel is for Linux")
def test_the_dockerfile_is_clean():
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_image_runs_what_there_is():
    name, door, *arguments = command("ENTRYPOINT")
    assert (name, door) == ("imagesr", "serve")
    options = _parser().parse_args(arguments)
    assert (options.host, options.port) == ("0.0.0.0", 5000)
    assert "\nUSER 10001\n" in DOCKERFILE.read_text("utf-8")
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {"pyproject.toml", "README.md", "LICENSE", *wheel["packages"], *wheel["force-include"]}
    ignored = (ROOT / ".dockerignore").read_text("utf-8").split()
    assert ignored[0] == "*"
    assert {line[1:] for line in ignored if line[0] == "!"} == needed


def test_the_image_knows_whether_it_is_well():
    python, *check = command("HEALTHCHECK")
    assert python == "python"
    with running_service("-n", "fast") as service:
        here = [part.replace("http://127.0.0.1:5000", service.url) for part in check]
        assert here != check
        assert subprocess.run([sys.executable, *here], timeout=120).returncode == 0
    gone = subprocess.run([sys.executable, *here], timeout=120, capture_output=True)
    assert gone.returncode == 1


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
@pytest.mark.parametrize("name", ["imagesr.service", "imagesr-watch.service"])
def test_systemd_takes_the_unit(name, tmp_path):
    """Its program is not where the unit expects it, here: another stands for it."""
    unit = tmp_path / name
    unit.write_text(
        (UNIT.parent / name).read_text("utf-8").replace("/opt/imagesr/bin/imagesr", sys.executable), "utf-8"
    )
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def service_of(file):
    """Return the section of a unit that says what runs."""
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str
    unit.read(file, "utf-8")
    return unit["Service"]


def test_the_unit_that_watches_runs_what_there_is():
    service = service_of(UNIT.with_name("imagesr-watch.service"))
    name, command, *arguments = service["ExecStart"].split()
    assert (Path(name).name, command) == ("imagesr", "video")
    options = video_parser().parse_intermixed_args(arguments)
    assert options.watch
    assert service["ReadWritePaths"] == options.paths[-1]
    assert service["SuccessExitStatus"] == str(128 + signal.SIGTERM)


def test_the_unit_runs_what_there_is_and_lets_it_drain():
    service = service_of(UNIT)
    name, door, *arguments = service["ExecStart"].split()
    assert (Path(name).name, door) == ("imagesr", "serve")
    assert _parser().parse_args(arguments).host == "127.0.0.1"
    seconds = service["TimeoutStopSec"]
    assert int(seconds) > 60
    page = (ROOT / "docs/service.md").read_text("utf-8")
    assert f"`TimeoutStopSec={seconds}`, `docker stop -t {seconds}`" in page
    assert f"docker stop -t {seconds}." in DOCKERFILE.read_text("utf-8")
    assert service["KillSignal"] == "SIGTERM"
