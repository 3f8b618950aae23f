"""Play a video upscaled: `python -m imagesr.play`."""

import sys

from imagesr.live.play import main

if __name__ == "__main__":
    sys.exit(main())
