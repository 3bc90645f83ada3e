"""Train: the original project's command, which is also ``jtm train``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "code"))

from jtm.cli import train_main  # noqa: E402

if __name__ == "__main__":
    sys.exit(train_main())
