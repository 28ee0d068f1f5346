"""`python -m bnfold`: the command line, which takes Ctrl-C and SIGTERM well even before it has loaded."""

from __future__ import annotations

import contextlib
import os
import sys

from bnfold.interrupts import WORDS, exit_code, take, words


def main() -> int:
    """Runs the command line; returns the exit code."""
    try:
        take()
        from bnfold.cli.app import main as run

        code = run()
    except KeyboardInterrupt:
        code = exit_code()
        with contextlib.suppress(OSError, ValueError, AttributeError):
            sys.stderr.write(f"{words(code)}\n")
    if code in WORDS:
        # A Ctrl-C that was caught in the middle of an import makes Python end by the signal, whatever is returned here.
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)
    return code


if __name__ == "__main__":
    sys.exit(main())
