"""Measure models on pictures and clips: `python -m imagesr.evaluate`."""

import sys

from imagesr.evaluate.protocol import main

if __name__ == "__main__":
    sys.exit(main())
