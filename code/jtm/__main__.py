"""Run ``python -m jtm VERB``, which is also the console script ``jtm``."""

import sys


def main():
    """
    Run a command; Ctrl-C during imports prints one line.

    Returns
    -------
    int
        Exit code; see :func:`jtm.cli.main`.
    """
    try:
        from jtm import cli
    except KeyboardInterrupt:
        print("jtm: stopped", file=sys.stderr)
        return 130
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
