"""Where words go: results to stdout, progress and errors to stderr; a closed pipe or a poor terminal harms neither.

Everything heavy is imported when it is used: `bnfold --help` reads this file too.
"""

from __future__ import annotations

import io
import logging
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from bnfold.errors import BnfoldError, InternalError, OutputError, UnsupportedError
from bnfold.interrupts import exit_code
from bnfold.wording import one_line, printable_lines

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Terminal:
    """What the user asked for about output.

    Attributes:
        verbosity: How often `-v` was given; two show tracebacks.
        quiet: Whether the report is left out.
        color: Whether colours may be used where the terminal has them.
        progress: Whether progress may be drawn where stderr is a terminal.
        blamed: Takes an error to the one that is printed: it may say which file a wrong value came from.
    """

    verbosity: int = 0
    quiet: bool = False
    color: bool = True
    progress: bool = True
    blamed: Callable[[BnfoldError], BnfoldError] = lambda error: error

    def guard(self, work: Callable[[], int]) -> int:
        """Runs a command's work and turns what it raises into words and an exit code."""
        try:
            with _plain_warnings():
                return work()
        except BnfoldError as error:
            self.error(error)
            return error.exit_code
        except KeyboardInterrupt:
            return exit_code()
        except MemoryError as error:
            self.error(out_of_memory(error))
            return UnsupportedError.exit_code
        except Exception as error:  # the outermost frame: whatever escapes is a mistake in bnfold
            self.error(as_bug(error))
            return InternalError.exit_code

    def error(self, error: BnfoldError) -> None:
        """Prints an error as one line of what and one line of what to do; with -vv, its traceback before."""
        if self.verbosity > 1 and error.__traceback__ is not None:
            write(sys.stderr, printable_lines("".join(traceback.format_exception(error))))
        print_error(self.blamed(error), color=self.color)

    def show(self, draw: Callable[[Console], None]) -> None:
        """Prints to stdout what `draw` draws."""
        if self.quiet or sys.stdout is None:
            return
        drawn = io.StringIO()
        draw(make_console(drawn, color=self.color, like=sys.stdout))
        write(sys.stdout, re.sub(" +\n", "\n", drawn.getvalue()))

    @contextmanager
    def reporting(self) -> Iterator[Callable[[str, float | None], None]]:
        """Draws progress on stderr, if it is a terminal, once the work has taken a moment."""
        if not self.progress or self.quiet or not _is_terminal(sys.stderr):
            yield lambda stage, done: None
            return
        from bnfold.cli.progress import drawn

        with drawn(make_console(sys.stderr, color=self.color)) as tell:
            yield tell


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Prints warnings of libraries, and what they log, in one line each: they may hold names from a model."""

    def show(message: Warning | str, *_: object, **more: object) -> None:
        write(sys.stderr, f"warning: {one_line(str(message))}\n")

    log, logging.lastResort = logging.lastResort, _PlainLog(logging.WARNING)
    talkative = logging.getLogger("onnx_ir")  # says what it leaves out of every file it writes
    level = talkative.level
    talkative.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = show
            yield
    finally:
        logging.lastResort = log
        talkative.setLevel(level)


class _PlainLog(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        write(sys.stderr, f"{one_line(self.format(record))}\n")


def make_console(stream: TextIO, *, color: bool, like: TextIO | None = None) -> Console:
    """A rich console that prints what it is given: no markup, no guessing of numbers, no colour unless wanted.

    Args:
        stream: Where it prints.
        color: Whether it may use colours and emphasis.
        like: The stream whose width and abilities it takes; None for its own.
    """
    from rich.console import Console

    plain = not color or bool(os.environ.get("NO_COLOR"))
    seen = Console(file=like or stream)
    return Console(
        file=stream,
        width=seen.width,
        force_terminal=seen.is_terminal,
        color_system=None if plain else seen.color_system,  # type: ignore[arg-type]
        markup=False,
        highlight=False,
        emoji=False,
    )


def print_error(error: BnfoldError, *, color: bool = True) -> None:
    """Prints `error[CODE]: what` and the hint on stderr, each on one line of its own."""
    lines = [one_line(f"error[{error.code}]: {error.what}"), error.hint]
    if color and _is_terminal(sys.stderr) and not os.environ.get("NO_COLOR"):
        label, _, rest = lines[0].partition(" ")
        lines[0] = f"\x1b[1;31m{label}\x1b[0m {rest}"
    write(sys.stderr, "".join(f"{line}\n" for line in lines if line))


def as_bug(error: Exception) -> InternalError:
    """An exception nobody expected, as an error of ours."""
    bug = InternalError(
        f"{type(error).__name__}: {error}" if str(error) else type(error).__name__,
        "This is a mistake in bnfold; please report it with the output of the same command and -vv.",
    )
    return bug.with_traceback(error.__traceback__)


def out_of_memory(error: MemoryError) -> UnsupportedError:
    """The end of memory, as an error: nobody's mistake."""
    what = f"there is not enough memory ({error})" if str(error) else "there is not enough memory"
    short = UnsupportedError(what, "Free some memory, or use a machine with more.")
    return short.with_traceback(error.__traceback__)


def write(stream: TextIO | None, text: str) -> None:
    """Writes to a stream that may be closed, whose reader may have gone, and which may not know every character.

    Raises:
        OutputError: The stream takes no more, as on a full disk.
    """
    if stream is None:
        return
    try:
        try:
            stream.write(text)
        except UnicodeEncodeError:
            encoding = stream.encoding or "ascii"
            stream.write(text.encode(encoding, "replace").decode(encoding))
        stream.flush()
    except BrokenPipeError:
        _forget(stream)
    except OSError as error:
        _forget(stream)
        if stream is not sys.stderr:
            raise OutputError(
                f"cannot write to standard output: {error.strerror or error}", "Send the output somewhere else."
            ) from error


def _forget(stream: TextIO) -> None:
    """Lets what is still to come go nowhere; else the interpreter fails to flush it when it ends."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
    except (OSError, ValueError):
        pass


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty()
