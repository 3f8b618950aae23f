"""Train a network: `python -m imagesr.train`."""

import sys

from imagesr.train.fit import main

if __name__ == "__main__":
    sys.exit(main())
