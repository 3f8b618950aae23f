"""Compare two videos on one page: `python -m imagesr.compare`."""

import sys

from imagesr.compare.compare import main

if __name__ == "__main__":
    sys.exit(main())
