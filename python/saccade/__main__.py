"""`python -m saccade` is the command `saccade`."""

import sys

from saccade.cli import main

if __name__ == "__main__":
    sys.exit(main())
