"""Make a trained network runnable: `python -m imagesr.export`."""

import sys

from imagesr.export.export import main

if __name__ == "__main__":
    sys.exit(main())
