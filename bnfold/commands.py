"""What every command does around its line of the pipeline: read words, draw progress, print, choose the exit code."""

from __future__ import annotations

import difflib
import sys
from typing import TYPE_CHECKING, Any

from bnfold.errors import CheckFailed, UsageError
from bnfold.terminal import Terminal, write
from bnfold.wording import to_json

if TYPE_CHECKING:
    from bnfold.report import Report


def run_command(command: str, arguments: dict[str, Any]) -> int:
    """Runs a command of the pipeline and prints what it found.

    Args:
        command: Its name in `pipeline`.
        arguments: What the command line gave, by the pipeline's names, and how to print it.

    Returns:
        The exit code.
    """
    json_file = arguments.pop("json_file")
    isolate, memory, seconds = (arguments.pop(name) for name in ("isolate", "max_memory", "max_time"))
    terminal = Terminal(
        verbosity=arguments.pop("verbose"),
        quiet=arguments.pop("quiet"),
        color=not arguments.pop("no_color"),
        progress=not arguments.pop("no_progress"),
    )

    def work() -> int:
        from bnfold import pipeline
        from bnfold.arch import parse_arch_args
        from bnfold.export import check_writable

        for repeatable in {"arch_args", "inputs", "dynamic", "mean", "std", "scale", "fail_on"} & set(arguments):
            arguments[repeatable] = arguments[repeatable] or []
        if "arch_args" in arguments:
            arguments["arch_args"] = parse_arch_args(arguments["arch_args"])
        if arguments.get("runtimes") is not None:
            arguments["runtimes"] = [name.strip() for name in arguments["runtimes"].split(",") if name.strip()]
        if isolate or memory is not None or seconds is not None:
            from bnfold.isolation import DEFAULT_SECONDS, Limits

            arguments["isolate"] = Limits(memory, DEFAULT_SECONDS if seconds is None else seconds)
        if json_file not in (None, "-"):
            check_writable(json_file, force=True)
        with terminal.reporting() as progress:
            report: Report = getattr(pipeline, command)(**arguments, progress=progress)
        _print(report, json_file, terminal)
        if report.passed:
            return 0
        terminal.error(_failure(report))
        return CheckFailed.exit_code

    return terminal.guard(work)


def explain_reasons(code: str | None, terminal: Terminal) -> int:
    """Prints what a reason code means, or what all of them do; returns the exit code."""

    def work() -> int:
        from bnfold.reasons import Reason

        reasons = {reason.code: reason for reason in Reason}
        if code is not None and code.upper() not in reasons:
            close = difflib.get_close_matches(code.upper(), reasons, n=1)
            guess = f"Did you mean {close[0]}? " if close else ""
            raise UsageError(f"no reason has the code {code!r}", f"{guess}See them all: bnfold explain.")
        wanted = list(reasons.values()) if code is None else [reasons[code.upper()]]

        from bnfold.render import print_reasons

        terminal.show(lambda console: print_reasons(wanted, console))
        return 0

    return terminal.guard(work)


def _print(report: Report, json_file: str | None, terminal: Terminal) -> None:
    from bnfold.render import print_report

    text = to_json(report.to_dict())
    if json_file == "-":
        write(sys.stdout, text)
        return
    terminal.show(lambda console: print_report(report, console, verbose=terminal.verbosity > 0))
    if json_file is not None:
        from bnfold.export import write_text

        write_text(text, json_file)


def _failure(report: Report) -> CheckFailed:
    verdict = report.verification
    found = [] if verdict is None else list(verdict.failures)
    if report.rejected is not None:
        hint = f"The folded model was left as {report.rejected} for inspection."
    elif found:
        hint = "If such a difference is acceptable, allow it with --rtol or --atol; names and shapes must agree."
    else:
        hint = "The report says what was measured; change the model or the condition."
    return CheckFailed("; ".join([*found, *report.failures]), hint)
