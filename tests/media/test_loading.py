"""What the modules of `media` load."""

import subprocess
import sys


def test_photographs_load_no_ffmpeg():
    code = "import imagesr.media.photos, sys; sys.exit('av' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
