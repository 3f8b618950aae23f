"""Upscale a video: `python -m imagesr.video`."""

import sys

from imagesr.video.upscale import main

if __name__ == "__main__":
    sys.exit(main())
