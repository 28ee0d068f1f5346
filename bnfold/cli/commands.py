"""What every command does around its line of the pipeline: read words, draw progress, print, choose the exit code."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnfold.cli.defaults import IN_FORCE, Defaults
from bnfold.cli.terminal import Terminal, write
from bnfold.errors import CheckFailed, UsageError
from bnfold.interrupts import begin, doing
from bnfold.reporting.reportfiles import Files
from bnfold.wording import guess, printable
from bnfold.writing.files import is_same_file

if TYPE_CHECKING:
    from bnfold.reporting.report import Report


REPEATABLE = {"arch_args", "inputs", "dynamic", "mean", "std", "scale", "exclude", "fail_on"}


def run_command(command: str, arguments: dict[str, Any]) -> int:
    """Runs a command of the pipeline and prints what it found.

    Args:
        command: Its name in `pipeline`.
        arguments: What the command line gave, by the pipeline's names, and how to print it.

    Returns:
        The exit code.
    """
    wanted = Files.popped_from(arguments)
    isolate, memory, seconds = (arguments.pop(name) for name in ("isolate", "max_memory", "max_time"))
    terminal = Terminal(
        verbosity=arguments.pop("verbose"),
        quiet=arguments.pop("quiet"),
        color=not arguments.pop("no_color"),
        progress=not arguments.pop("no_progress"),
        blamed=lambda error: IN_FORCE.get(Defaults()).blamed(error, command),
    )

    begin(certain=not (isolate or memory is not None or seconds is not None))

    def work() -> int:
        from bnfold.loading.arch import parse_arch_args
        from bnfold.pipeline import line as pipeline
        from bnfold.writing.export import check_writable

        for repeatable in REPEATABLE & set(arguments):
            arguments[repeatable] = arguments[repeatable] or []
        if "arch_args" in arguments:
            arguments["arch_args"] = parse_arch_args(arguments["arch_args"])
        if arguments.get("runtimes") is not None:
            arguments["runtimes"] = [name.strip() for name in arguments["runtimes"].split(",") if name.strip()]
        if isolate or memory is not None or seconds is not None:
            from bnfold.pipeline.isolation import DEFAULT_SECONDS, Limits

            arguments["isolate"] = Limits(memory, DEFAULT_SECONDS if seconds is None else seconds)
        if wanted.paths:
            _check_inputs(command, arguments)
        for path in wanted.paths:
            check_writable(path, force=True)
            _check_report_file(path, arguments)
        if "html_file" in wanted.asked:  # the command has something to draw
            arguments["picture"] = wanted.need_picture
        with terminal.reporting() as draw:

            def progress(stage: str, done: float | None) -> None:
                doing(stage)
                draw(stage, done)

            report: Report = getattr(pipeline, command)(**arguments, progress=progress)
        doing("writing the report")
        _print(report, wanted.asked.get("json_file"), terminal)
        wanted.write(report)
        if report.passed:
            return 0
        terminal.error(_failure(report))
        return CheckFailed.exit_code

    return terminal.guard(work)


def _check_inputs(command: str, arguments: dict[str, Any]) -> None:
    """Refuses a model that is not there before anything is said about outputs.

    Raises:
        UnreadableError: There is no such file.
    """
    from bnfold.loading.places import check_file

    for name in ("model", "before", "after"):
        if arguments.get(name) is not None:
            check_file(arguments[name], f"bnfold {command}" if name == "model" else "")


def _check_report_file(path: str, arguments: dict[str, Any]) -> None:
    """Refuses a report in the place of what the command reads or writes.

    Raises:
        UsageError: It would be.
    """
    from bnfold.pipeline.line import default_output

    named = ("model", "before", "after", "data", "input_data", "recalibrate", "output")
    files = [str(arguments[name]) for name in named if arguments.get(name) is not None]
    if "output" in arguments and arguments["output"] is None:
        files.append(str(default_output(arguments["model"])))
    if any(is_same_file(path, file) for file in files):
        raise UsageError(f"{path} is a file that the command reads or writes", "Give the report a name of its own.")


def explain_reasons(code: str | None, terminal: Terminal) -> int:
    """Prints what a reason code means, or what all of them do; returns the exit code."""

    def work() -> int:
        from bnfold.reasons import Reason

        reasons = {reason.code: reason for reason in Reason}
        if code is not None and code.upper() not in reasons:
            raise UsageError(
                f"no reason has the code {code!r}", f"{guess(code.upper(), list(reasons))}See them all: bnfold explain."
            )
        from bnfold.reporting.explaining import print_explanation, print_reasons

        if code is None:
            terminal.show(lambda console: print_reasons(list(reasons.values()), console))
        else:
            terminal.show(lambda console: print_explanation(reasons[code.upper()], console))
        return 0

    return terminal.guard(work)


def report_run(run: Path, output: Path | None, force: bool, terminal: Terminal) -> int:
    """Makes a page of a run that was written with `--json`; returns the exit code."""

    def work() -> int:
        from bnfold.reporting.page.formats import form_of, render
        from bnfold.reporting.page.read import read_run
        from bnfold.writing.export import check_writable, write_text

        target = os.fspath(run.with_name(f"{run.stem}.html") if output is None else output)
        form = form_of(target)
        content = read_run(run)
        check_writable(target, force=force, source=run)
        write_text(render(form, content), target)
        terminal.show(lambda console: console.print(f"Written to {printable(target)}"))
        return 0

    return terminal.guard(work)


def _print(report: Report, json_file: str | None, terminal: Terminal) -> None:
    from bnfold.reporting.render import print_report

    if json_file == "-":
        write(sys.stdout, report.to_json())
        return
    terminal.show(lambda console: print_report(report, console, verbose=terminal.verbosity > 0))


def _failure(report: Report) -> CheckFailed:
    verdict = report.verification
    found = [] if verdict is None else list(verdict.failures)
    if report.rejected is not None:
        hint = f"The folded model was left as {report.rejected} for inspection."
    elif verdict is not None and found:
        hint = verdict.advice
    else:
        hint = "The report says what was measured; change the model or the condition."
    return CheckFailed("; ".join([*found, *report.failures]), hint)
