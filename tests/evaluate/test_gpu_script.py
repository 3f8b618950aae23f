"""The script that measures graphics cards: it has to run at once on the day that there is one."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "gpu.py"


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_every_model_is_timed_and_what_there_is_no_time_for_is_said(backend):
    if not importlib.util.find_spec(backend):
        pytest.skip(f"{backend} is not installed")
    environment = os.environ | {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, SCRIPT, "--backend", backend, "--minutes", "0"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "GRAPHICS CARD: figures of the CPU" in lines[0] or "on a graphics card" in lines[0]
    assert [line.split(":")[0].strip() for line in lines if "ms a frame" in line] == ["fast", "balanced", "best"]
    assert sum("left out, the time is over" in line for line in lines) == 6  # two networks, three precisions
