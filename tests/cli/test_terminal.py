"""Where words go: errors are two lines, a closed pipe or a full disk is no bug, nothing odd reaches the terminal."""

from __future__ import annotations

import errno
import io
import os
import re
import sys
import time
from typing import Any

import pytest

from bnfold.cli import progress as progress_module
from bnfold.cli.progress import drawn
from bnfold.cli.terminal import Terminal, as_bug, make_console, print_error, write
from bnfold.errors import BnfoldError, OutputError, UnsupportedError, UsageError


class Pipe(io.StringIO):
    """A stream that fails in one way."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def write(self, text: str) -> int:
        raise self.error


class Tty(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def raising(error: BaseException) -> Any:
    def work() -> int:
        raise error

    return work


@pytest.mark.parametrize(
    ("work", "code", "stderr"),
    [
        (lambda: 0, 0, ""),
        (lambda: 1, 1, ""),
        (raising(UsageError("no such thing", "Try another.")), 2, "error[USAGE]: no such thing\nTry another.\n"),
        (raising(UnsupportedError("x")), 4, "error[UNSUPPORTED]: x\n"),
        (raising(KeyboardInterrupt()), 130, ""),
        (
            raising(ZeroDivisionError("division by zero")),
            6,
            "error[BUG]: ZeroDivisionError: division by zero\n"
            "This is a mistake in bnfold; please report it with the output of the same command and -vv.\n",
        ),
        (
            raising(AssertionError()),
            6,
            "error[BUG]: AssertionError\n"
            "This is a mistake in bnfold; please report it with the output of the same command and -vv.\n",
        ),
    ],
)
def test_what_is_raised_becomes_words_and_a_code(
    work: Any, code: int, stderr: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert Terminal().guard(work) == code
    assert capsys.readouterr() == ("", stderr)


@pytest.mark.parametrize("error", [UsageError("x"), ZeroDivisionError("x")])
def test_a_traceback_is_shown_at_vv_only(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    for verbosity, shown in ((0, False), (1, False), (2, True), (3, True)):
        Terminal(verbosity).guard(raising(error))
        text = capsys.readouterr().err
        assert ("Traceback (most recent call last)" in text) is shown
        assert text.splitlines()[-1 if error.args == ("x",) and isinstance(error, UsageError) else -2].startswith(
            "error["
        )


def test_an_error_is_one_line_each_whatever_it_holds(capsys: pytest.CaptureFixture[str]) -> None:
    print_error(UnsupportedError("one\ntwo \x1b[31m\u202e\tthree", "do\nthis"))
    assert capsys.readouterr().err == "error[UNSUPPORTED]: one two \ufffd[31m\ufffd three\ndo this\n"
    print_error(UnsupportedError("x" * 10_000))
    assert len(capsys.readouterr().err) < 2100


def test_an_error_is_coloured_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)

    def printed(stream: io.StringIO, *, color: bool = True) -> str:
        monkeypatch.setattr(sys, "stderr", stream)
        print_error(UsageError("x", "y"), color=color)
        return stream.getvalue()

    assert printed(Tty()) == "\x1b[1;31merror[USAGE]:\x1b[0m x\ny\n"
    assert printed(io.StringIO()) == "error[USAGE]: x\ny\n"
    assert printed(Tty(), color=False) == "error[USAGE]: x\ny\n"
    monkeypatch.setenv("NO_COLOR", "1")
    assert printed(Tty()) == "error[USAGE]: x\ny\n"


def test_a_report_is_coloured_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.text import Text

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")

    def printed(stream: io.StringIO, *, color: bool = True) -> str:
        monkeypatch.setattr(sys, "stdout", stream)
        Terminal(color=color).show(lambda console: console.print(Text("x", style="bold red")))
        return stream.getvalue()

    assert printed(Tty()) == "\x1b[1;31mx\x1b[0m\n"
    assert printed(io.StringIO()) == "x\n"
    assert printed(Tty(), color=False) == "x\n"
    monkeypatch.setenv("NO_COLOR", "1")
    assert printed(Tty()) == "x\n"


def test_a_report_takes_the_width_of_the_terminal_and_has_no_trailing_spaces(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.padding import Padding

    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    for width in (40, 200):
        monkeypatch.setenv("COLUMNS", str(width))
        seen: list[int] = []
        Terminal().show(
            lambda console, seen=seen: (seen.append(console.width), console.print(Padding("x", (0, 0, 0, 2))))
        )
        assert seen == [width]
    assert stream.getvalue() == "  x\n  x\n"


def test_quiet_prints_no_report(capsys: pytest.CaptureFixture[str]) -> None:
    Terminal(quiet=True).show(lambda console: console.print("x"))
    assert capsys.readouterr() == ("", "")


def test_markup_in_a_report_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    Terminal().show(lambda console: console.print("[bold]x[/bold] :smile:"))
    assert capsys.readouterr().out == "[bold]x[/bold] :smile:\n"


def test_a_reader_that_has_gone_is_no_error() -> None:
    stream = Pipe(BrokenPipeError())
    write(stream, "x")


def test_a_reader_that_has_gone_is_not_written_to_again() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream:
        write(stream, "x" * 100_000)
        write(stream, "y")


def test_a_full_disk_is_an_output_error() -> None:
    with pytest.raises(OutputError) as caught:
        write(Pipe(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))), "x")
    assert caught.value.what == "cannot write to standard output: No space left on device"


def test_a_failing_stderr_is_forgiven(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Pipe(OSError(errno.ENOSPC, "full")))
    print_error(UsageError("x"))


def test_closed_streams_are_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    Terminal().show(lambda console: console.print("x"))
    assert Terminal().guard(raising(UsageError("x"))) == 2
    with Terminal().reporting() as progress:
        progress("loading", None)


def test_characters_the_stream_does_not_know_are_replaced() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    write(stream, "1 → 0\n")
    assert raw.getvalue() == b"1 ? 0\n"


def test_progress_is_drawn_on_a_terminal_after_a_moment_and_taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(progress_module, "PROGRESS_DELAY_S", 0.05)
    stream = Tty()
    monkeypatch.setattr(sys, "stderr", stream)
    with Terminal().reporting() as progress:
        progress("exporting", None)
        time.sleep(0.4)
        progress("verifying", 0.5)
        time.sleep(0.2)
    text = stream.getvalue()
    assert "exporting" in text
    assert "verifying" in text
    assert text.rstrip().endswith("\x1b[2K")
    assert sys.stderr is stream


def test_progress_that_is_over_at_once_is_not_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Tty()
    monkeypatch.setattr(sys, "stderr", stream)
    with Terminal().reporting() as progress:
        progress("loading", None)
    assert stream.getvalue() == ""


@pytest.mark.parametrize(
    ("terminal", "stream"),
    [(Terminal(), io.StringIO()), (Terminal(progress=False), Tty()), (Terminal(quiet=True), Tty())],
    ids=["no-terminal", "no-progress", "quiet"],
)
def test_progress_is_not_drawn(terminal: Terminal, stream: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_module, "PROGRESS_DELAY_S", 0.01)
    monkeypatch.setattr(sys, "stderr", stream)
    with terminal.reporting() as progress:
        progress("loading", None)
        time.sleep(0.1)
    assert stream.getvalue() == ""


def test_a_step_that_can_tell_says_how_long_it_will_still_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(progress_module, "PROGRESS_DELAY_S", 0.0)
    stream = Tty()
    with drawn(make_console(stream, color=False)) as tell:
        tell("loading", None)
        time.sleep(0.3)
        before = stream.getvalue()
        for part in range(5):
            tell("verifying", part / 1000)
            time.sleep(0.15)
        measured = stream.getvalue()
        tell("writing", None)
        time.sleep(0.3)
    after = stream.getvalue()[len(measured) :]
    assert "loading" in before
    assert "left" not in before
    assert re.search(r"verifying .* \d\d:\d\d left", measured)
    assert "left" not in after.partition("writing")[2]


def test_a_console_reads_no_markup() -> None:
    stream = io.StringIO()
    make_console(stream, color=True).print("[red]x[/red] 17 :smile:")
    assert stream.getvalue() == "[red]x[/red] 17 :smile:\n"


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        raise ZeroDivisionError("x")
    bug = as_bug(caught.value)
    assert isinstance(bug, BnfoldError)
    assert bug.__traceback__ is caught.value.__traceback__
