"""Run ``python -m jtm VERB``."""

import sys

from jtm.cli import main

if __name__ == "__main__":
    sys.exit(main())
