"""Let schemathesis hold a running service to its OpenAPI document."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from running import running_service

HERE = Path(__file__).parents[1]  # where pictures_hook.py is
PROGRAM = str(Path(sys.executable).with_name("schemathesis"))


NO_VIDEOS = ("--videos", "0")  # each costs a process
VIDEOS = ("--video-queue", "100000")
ONLY_VIDEO = ("--include-path-regex", "^/video", "--phases", "examples,fuzzing")


@pytest.mark.slow  # test_serve holds the document to what the service answers
@pytest.mark.parametrize(
    ("examples", "service_options", "options"), [(4, NO_VIDEOS, ()), (300, NO_VIDEOS, ()), (4, VIDEOS, ONLY_VIDEO)]
)
def test_the_service_keeps_its_word(examples, service_options, options, tmp_path):
    found = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"SCHEMATHESIS_HOOKS": "pictures_hook", "PYTHONPATH": found}
    with running_service("-n", "fast", *service_options) as service:
        command = [PROGRAM, "run", f"{service.url}/openapi.json", "--max-examples", str(examples), "--seed", "1"]
        command += ["--no-color", "--request-timeout", "60", *options]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
        assert done.returncode == 0, done.stdout[-8000:] + done.stderr
        assert "Traceback" not in service.log()
    assert int(re.search(r"(\d+) generated", done.stdout)[1]) > 100 * (not options)
