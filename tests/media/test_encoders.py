"""Encoders: what opening one leaves behind."""

import os

import pytest
from conftest import run_python, write_clip

CODE = """
import os, sys, threading
from pathlib import Path
import imagesr
imagesr.upscale_video(sys.argv[1], sys.argv[2], model="lanczos")
print({os.sched_getscheduler(int(thread)) for thread in os.listdir("/proc/self/task")})
"""


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="this system has no such scheduling")
def test_no_thread_is_real_time_after_av1(tmp_path):
    """As root, SVT-AV1 makes every thread of the process real-time, and nothing else runs beside them."""
    clip = write_clip(tmp_path / "in.mp4", frames=3, sound=None)
    done = run_python("-c", CODE, clip, tmp_path / "out.webm")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str({os.SCHED_OTHER})
