"""Upscale a camera as it films: `python -m imagesr.webcam`."""

import sys

from imagesr.live.webcam import main

if __name__ == "__main__":
    sys.exit(main())
