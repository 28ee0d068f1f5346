"""The command line: parses, calls the pipeline, prints, and leaves with an exit code. No arithmetic.

Only Typer is imported before a command runs: torch takes seconds, and `--help` must not. A command's parameters are
called what the pipeline calls them, and are passed on by name.
"""

from __future__ import annotations

import sys
from typing import Any

import typer

from bnfold.cli import options as o
from bnfold.cli.commands import explain_reasons, report_run, run_command
from bnfold.cli.defaults import IN_FORCE, Defaults, defaults
from bnfold.cli.helping import GroupedCommand, GroupedCommands, help_width
from bnfold.cli.terminal import Terminal, as_bug, print_error, write
from bnfold.cli.usage import usage_error
from bnfold.errors import BnfoldError, InternalError, UsageError
from bnfold.interrupts import INTERRUPTED, WORDS, exit_code, words

app = typer.Typer(
    name="bnfold",
    cls=GroupedCommands,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _examples(*lines: str) -> str:
    """What a help text ends with; the first line keeps Typer from joining the others."""
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])


@app.callback(
    invoke_without_command=True,
    epilog=_examples(
        "bnfold convert model.onnx",
        "bnfold convert weights.pt --arch nets.py:resnet50 --input 1x3x224x224",
        "bnfold inspect model.onnx",
        "bnfold verify model.onnx model.folded.onnx",
        "bnfold explain ZERO-PAD",
    ),
)
def _root(context: typer.Context, version: o.Version = False) -> None:
    """Take a trained model to inference without its BatchNorms, exactly, with proof."""
    if version:
        from bnfold.reporting.report import version as installed

        write(sys.stdout, f"bnfold {installed()}\n")
        raise typer.Exit
    if context.invoked_subcommand is None:
        write(sys.stderr, context.get_help() + "\n")
        raise typer.Exit(UsageError.exit_code)


@app.command(
    cls=GroupedCommand,
    epilog=_examples(
        "bnfold convert model.onnx",
        "bnfold convert weights.pt --arch nets.py:resnet --input 1x3x224x224",
        "bnfold convert weights.safetensors --arch timm:resnet50 --bench --html report.html",
        "bnfold convert weights.pt --arch nets.py:resnet -o resnet.pt2",
        "bnfold convert weights.pt --arch nets.py:resnet -o folded.safetensors",
        "bnfold convert model.onnx --scale 1/255 --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225",
        "bnfold convert model.onnx --data test.npz --metric top1 --fail-on 'top1.delta<-0.001'",
        "bnfold convert model.onnx --recalibrate deployed.npz --data test.npz",
        "bnfold convert model.onnx --fail-on 'kept>0' --json report.json",
    ),
)
def convert(
    model: o.ModelFile,
    output: o.Output = None,
    arch: o.Arch = None,
    arch_args: o.ArchArg = None,
    inputs: o.Input = None,
    input_data: o.InputData = None,
    dynamic: o.Dynamic = None,
    mean: o.Mean = None,
    std: o.Std = None,
    scale: o.Scale = None,
    opset: o.Opset = None,
    seed: o.Seed = 0,
    trust_pickle: o.TrustPickle = False,
    max_bytes: o.MaxBytes = o.MAX_BYTES,
    isolate: o.Isolate = False,
    max_memory: o.MaxMemory = None,
    max_time: o.MaxTime = None,
    leftover: o.Leftover = "keep",
    norm_affine: o.NormAffine = False,
    duplicate: o.Duplicate = "auto",
    exclude: o.Exclude = None,
    external_data: o.ExternalData = "auto",
    force: o.Force = False,
    verify: o.Level = "full",
    rtol: o.Rtol = None,
    atol: o.Atol = None,
    per_site: o.PerSite = False,
    bench: o.Bench = False,
    runtimes: o.Runtimes = None,
    device: o.Device = "cpu",
    threads: o.Threads = None,
    min_time: o.MinTime = o.MIN_TIME_S,
    data: o.Data = None,
    metric: o.Metric = None,
    recalibrate: o.Recalibrate = None,
    fail_on: o.FailOn = None,
    json_file: o.Json = None,
    html_file: o.Html = None,
    markdown_file: o.Markdown = None,
    github: o.Github = False,
    junit_file: o.Junit = None,
    verbose: o.Verbose = 0,
    quiet: o.Quiet = False,
    no_color: o.NoColor = False,
    no_progress: o.NoProgress = False,
) -> None:
    """Fold the BatchNorms and write the model, checked as written.

    The written file is compared with the unfolded model before it gets its name; one that is not the same function
    stays beside the output as OUT.rejected.
    """
    _leave("convert", locals())


@app.command(
    cls=GroupedCommand,
    epilog=_examples(
        "bnfold inspect model.onnx",
        "bnfold inspect model.onnx -v",
        "bnfold inspect model.onnx --graph model.svg",
        "bnfold inspect weights.pt --arch nets.py:resnet --fail-on 'kept>0'",
    ),
)
def inspect(
    model: o.ModelFile,
    arch: o.Arch = None,
    arch_args: o.ArchArg = None,
    inputs: o.Input = None,
    input_data: o.InputData = None,
    dynamic: o.Dynamic = None,
    mean: o.Mean = None,
    std: o.Std = None,
    scale: o.Scale = None,
    opset: o.Opset = None,
    seed: o.Seed = 0,
    trust_pickle: o.TrustPickle = False,
    max_bytes: o.MaxBytes = o.MAX_BYTES,
    isolate: o.Isolate = False,
    max_memory: o.MaxMemory = None,
    max_time: o.MaxTime = None,
    norm_affine: o.NormAffine = False,
    duplicate: o.Duplicate = "auto",
    exclude: o.Exclude = None,
    fail_on: o.FailOn = None,
    json_file: o.Json = None,
    html_file: o.Html = None,
    markdown_file: o.Markdown = None,
    github: o.Github = False,
    junit_file: o.Junit = None,
    graph_file: o.Graph = None,
    verbose: o.Verbose = 0,
    quiet: o.Quiet = False,
    no_color: o.NoColor = False,
    no_progress: o.NoProgress = False,
) -> None:
    """Say what would become of every BatchNorm, and why.

    Nothing is written.
    """
    _leave("inspect", locals())


@app.command(
    cls=GroupedCommand,
    epilog=_examples(
        "bnfold verify model.onnx model.folded.onnx",
        "bnfold verify model.onnx simplified.onnx --input x:1x3x320x320 --rtol 1e-4",
        "bnfold verify model.onnx model.folded.onnx --input-data images.npz",
        "bnfold verify model.onnx simplified.onnx --per-site -v",
        "bnfold verify model.onnx model.folded.onnx --data images/ --metric top5",
        "bnfold verify weights.pt folded.safetensors --arch nets.py:resnet",
    ),
)
def verify(
    before: o.BeforeFile,
    after: o.AfterFile,
    arch: o.Arch = None,
    arch_args: o.ArchArg = None,
    inputs: o.Input = None,
    input_data: o.InputData = None,
    seed: o.Seed = 0,
    trust_pickle: o.TrustPickle = False,
    max_bytes: o.MaxBytes = o.MAX_BYTES,
    isolate: o.Isolate = False,
    max_memory: o.MaxMemory = None,
    max_time: o.MaxTime = None,
    rtol: o.Rtol = None,
    atol: o.Atol = None,
    per_site: o.PerSite = False,
    data: o.Data = None,
    metric: o.Metric = None,
    fail_on: o.FailOn = None,
    json_file: o.Json = None,
    html_file: o.Html = None,
    markdown_file: o.Markdown = None,
    github: o.Github = False,
    junit_file: o.Junit = None,
    verbose: o.Verbose = 0,
    quiet: o.Quiet = False,
    no_color: o.NoColor = False,
    no_progress: o.NoProgress = False,
) -> None:
    """Check whether AFTER is the same function as BEFORE.

    Any two models, whichever tool made them: ONNX files run with every optimisation of the runtime off, PyTorch
    operator by operator. One may be ONNX and the other PyTorch.
    """
    _leave("verify", locals())


@app.command(
    cls=GroupedCommand,
    epilog=_examples(
        "bnfold drift model.onnx --data deployed.npz",
        "bnfold drift weights.pt --arch nets.py:resnet --data images/ --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225",
        "bnfold drift model.onnx --data deployed.npz --fail-on 'drift.drifted>0' --json drift.json",
    ),
)
def drift(
    model: o.ModelFile,
    data: o.DriftData,
    arch: o.Arch = None,
    arch_args: o.ArchArg = None,
    inputs: o.Input = None,
    input_data: o.InputData = None,
    mean: o.Mean = None,
    std: o.Std = None,
    scale: o.Scale = None,
    opset: o.Opset = None,
    seed: o.Seed = 0,
    trust_pickle: o.TrustPickle = False,
    max_bytes: o.MaxBytes = o.MAX_BYTES,
    isolate: o.Isolate = False,
    max_memory: o.MaxMemory = None,
    max_time: o.MaxTime = None,
    fail_on: o.FailOn = None,
    json_file: o.Json = None,
    verbose: o.Verbose = 0,
    quiet: o.Quiet = False,
    no_color: o.NoColor = False,
    no_progress: o.NoProgress = False,
) -> None:
    """Compare the statistics every BatchNorm stores with those of data.

    They come from the training data. Where the data that a model gets look different, BatchNorms normalise wrongly.
    Nothing is written, and the exit code is 0 unless --fail-on says otherwise.
    """
    _leave("drift", locals())


@app.command(
    cls=GroupedCommand,
    epilog=_examples(
        "bnfold bench model.onnx model.folded.onnx",
        "bnfold bench model.onnx model.folded.onnx --runtime ort --threads 1",
        "bnfold bench model.onnx --input 8x3x224x224 --min-time 10",
        "bnfold bench weights.pt folded.safetensors --arch nets.py:resnet --runtime torch,torch-compile",
        "bnfold bench weights.pt folded.safetensors --arch nets.py:resnet --device cuda",
    ),
)
def bench(
    before: o.BeforeFile,
    after: o.OptionalAfterFile = None,
    arch: o.Arch = None,
    arch_args: o.ArchArg = None,
    inputs: o.Input = None,
    input_data: o.InputData = None,
    seed: o.Seed = 0,
    trust_pickle: o.TrustPickle = False,
    max_bytes: o.MaxBytes = o.MAX_BYTES,
    isolate: o.Isolate = False,
    max_memory: o.MaxMemory = None,
    max_time: o.MaxTime = None,
    runtimes: o.Runtimes = None,
    device: o.Device = "cpu",
    threads: o.Threads = None,
    min_time: o.MinTime = o.MIN_TIME_S,
    fail_on: o.FailOn = None,
    json_file: o.Json = None,
    html_file: o.Html = None,
    markdown_file: o.Markdown = None,
    github: o.Github = False,
    junit_file: o.Junit = None,
    verbose: o.Verbose = 0,
    quiet: o.Quiet = False,
    no_color: o.NoColor = False,
    no_progress: o.NoProgress = False,
) -> None:
    """Time two models against each other, or one alone.

    Both run in one process, in turns and in random order; the control is a model against itself.
    """
    _leave("bench", locals())


@app.command(
    cls=GroupedCommand,
    epilog=_examples(
        "bnfold report run.json",
        "bnfold report run.json -o report.html",
        "bnfold report run.json -o summary.md",
    ),
)
def report(
    run: o.RunFile,
    output: o.ReportOutput = None,
    force: o.Force = False,
    verbose: o.Verbose = 0,
    quiet: o.Quiet = False,
    no_color: o.NoColor = False,
) -> None:
    """Make a page of a run that was written with --json.

    The page is the same that --html writes with the run.
    """
    terminal = Terminal(verbosity=verbose, quiet=quiet, color=not no_color)
    raise typer.Exit(report_run(run, output, force, terminal))


@app.command(
    cls=GroupedCommand,
    epilog=_examples(
        "bnfold explain",
        "bnfold explain ZERO-PAD",
    ),
)
def explain(code: o.Code = None, no_color: o.NoColor = False) -> None:
    """Say what a reason code means and what to do about it."""
    raise typer.Exit(explain_reasons(code, Terminal(color=not no_color)))


def _leave(command: str, arguments: dict[str, Any]) -> None:
    raise typer.Exit(run_command(command, arguments))


def _defaults(command: Any) -> tuple[Defaults, dict[str, dict[str, Any]]]:
    """What a file says the flags are by default, and the same by command and parameter."""
    parameters = {
        name: {max(p.opts, key=len).removeprefix("--"): p for p in sub.params if p.param_type_name == "option"}
        for name, sub in command.commands.items()
    }
    flags = {name: {flag: p.multiple for flag, p in each.items()} for name, each in parameters.items()}
    found = defaults(flags)
    return found, {
        name: {parameters[name][flag].name: value for flag, value in each.items()}
        for name, each in found.values.items()
    }


def main(argv: list[str] | None = None) -> int:
    """Runs the command line.

    Args:
        argv: The arguments; None takes those of the process.

    Returns:
        The exit code.
    """
    command = typer.main.get_command(app)
    given = sys.argv[1:] if argv is None else argv
    if given[:1] == ["help"]:
        given = [*given[1:], "--help"]
    IN_FORCE.set(Defaults())
    try:
        found, values = _defaults(command)
        IN_FORCE.set(found.beside(given))
        code = command.main(
            args=given, prog_name="bnfold", standalone_mode=False, default_map=values, terminal_width=help_width()
        )
    except BnfoldError as error:
        print_error(error)
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except SystemExit as stop:  # shell completion ends this way, and help whose reader has gone
        if isinstance(stop.__context__, BrokenPipeError):
            return 0
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except Exception as error:
        if not hasattr(error, "format_message"):  # Typer's own errors have it; where their class lives has changed
            print_error(as_bug(error))
            return InternalError.exit_code
        context = getattr(error, "ctx", None)
        print_error(IN_FORCE.get().blamed(usage_error(error), getattr(context, "info_name", None) or ""))
        return UsageError.exit_code
    if code == INTERRUPTED:  # from Typer, if the signal came before our own work
        code = exit_code()
    if code in WORDS:
        write(sys.stderr, f"{words(code)}\n")
    return code if isinstance(code, int) else 0
