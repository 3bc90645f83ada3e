"""Train a network: the original project's command, equivalent to ``jtm train``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "code"))

try:
    from jtm.cli import train_main
except KeyboardInterrupt:
    print("jtm: stopped", file=sys.stderr)
    sys.exit(130)

if __name__ == "__main__":
    sys.exit(train_main())
