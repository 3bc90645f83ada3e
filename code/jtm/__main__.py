"""Run ``python -m jtm VERB``, which is also the console script ``jtm``."""

import sys


def main():
    """
    Run a command, of which Ctrl-C may come before all is imported.

    Returns
    -------
    int
        Exit code, as of :func:`jtm.cli.main`.
    """
    try:
        from jtm import cli
    except KeyboardInterrupt:
        print("jtm: stopped", file=sys.stderr)
        return 130
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
