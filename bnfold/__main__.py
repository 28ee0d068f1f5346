"""`python -m bnfold`: the command line, which takes Ctrl-C well even before it has loaded."""

from __future__ import annotations

import sys


def main() -> int:
    """Runs the command line; returns the exit code."""
    try:
        from bnfold.cli import main as run
    except KeyboardInterrupt:
        return 130
    return run()


if __name__ == "__main__":
    sys.exit(main())
