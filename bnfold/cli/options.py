"""The words of the command line: every argument and flag, defined once, so that it means the same in every command.

Only Typer is imported here. The choices are spelt out for the help and for shell completion; what counts is what the
pipeline accepts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

LEVELS = ("full", "quick", "off")
EXTERNAL_DATA = ("auto", "always", "never")
DUPLICATE = ("never", "auto", "always")
LEFTOVERS = ("keep", "affine", "conv")
DEVICES = ("cpu", "cuda")
RUNTIMES = ("ort", "ort-as-written", "torch", "torch-compile", "openvino")
METRICS = ("top1", "top5")
MIN_TIME_S = 2.0
MAX_BYTES = "32GB"


GROUPS = {
    "Input": (
        *("--arch", "--arch-arg", "--input", "--input-data", "--dynamic", "--seed", "--trust-pickle"),
        *("--mean", "--std", "--scale"),
    ),
    "Folding": ("--leftover", "--norm-affine", "--duplicate", "--exclude"),
    "Output": ("--output", "--opset", "--external-data", "--force"),
    "Checking": ("--verify", "--rtol", "--atol", "--per-site", "--fail-on"),
    "Timing": ("--bench", "--runtime", "--device", "--threads", "--min-time"),
    "Data": ("--data", "--metric", "--recalibrate"),
    "Report": ("--json", "--html", "--markdown", "--github", "--junit", "--graph"),
    "Limits": ("--max-bytes", "--isolate", "--max-memory", "--max-time"),
    "General": ("--verbose", "--quiet", "--no-color", "--no-progress"),
}


def option(*names: str, text: str, metavar: str | None = None, choices: tuple[str, ...] = (), **more: Any) -> Any:
    """A Typer option that completes its choices; what is not among them is refused by the pipeline, in its words."""
    completion = (
        (lambda incomplete: [choice for choice in choices if choice.startswith(incomplete)]) if choices else None
    )
    group = next(title for title, flags in GROUPS.items() if max(names, key=len) in flags)
    more = {"autocompletion": completion, "readable": False, "rich_help_panel": group, **more}
    return typer.Option(*names, help=text, metavar=metavar, **more)


def argument(metavar: str, text: str, **more: Any) -> Any:
    """A Typer argument. What is wrong with a file is not for Typer to say (`readable`): reading it has better words."""
    return typer.Argument(metavar=metavar, help=text, show_default=False, readable=False, **more)


def codes(incomplete: str) -> list[str]:
    """The reason codes that begin like this, for the shell's completion."""
    from bnfold.reasons import Reason

    return [reason.code for reason in Reason if reason.code.startswith(incomplete.upper())]


ModelFile = Annotated[
    Path,
    argument(
        "MODEL", "ONNX, checkpoint (.pt, .pth, .safetensors), module, TorchScript or .pt2; told apart by content."
    ),
]
BeforeFile = Annotated[Path, argument("BEFORE", "ONNX, .pt2, or a checkpoint with --arch; told apart by content.")]
AfterFile = Annotated[Path, argument("AFTER", "The model to compare it with; a folded state dict is restored first.")]

Arch = Annotated[
    str | None,
    option(
        "--arch",
        metavar="WHERE:FACTORY",
        text="The code that builds the network of a checkpoint: pkg.mod:factory, path/file.py:factory, timm:NAME or "
        "torchvision:NAME.",
    ),
]
ArchArg = Annotated[
    list[str] | None,
    option("--arch-arg", metavar="KEY=VALUE", text="An argument of the factory; repeatable.", show_default=False),
]
Input = Annotated[
    list[str] | None,
    option(
        "--input",
        metavar="[NAME:]SHAPE[:DTYPE]",
        text="An input's shape, like 1x3x224x224; repeatable.",
        show_default=False,
    ),
]
InputData = Annotated[
    Path | None, option("--input-data", metavar="FILE", text="Arrays to use instead: a .npy or .npz file.")
]
Dynamic = Annotated[
    list[str] | None,
    option(
        "--dynamic",
        metavar="NAME:AXIS=SYMBOL",
        text="A dimension to leave open besides the batch, like x:2=height; repeatable.",
        show_default=False,
    ),
]
Mean = Annotated[
    list[str] | None,
    option(
        "--mean",
        metavar="[NAME:]X,...",
        text="Preprocessing (x*scale - mean)/std becomes part of the model and folds: what is subtracted, per channel "
        "or one for all, like 0.485,0.456,0.406; repeatable, for several inputs.",
        show_default=False,
    ),
]
Std = Annotated[
    list[str] | None,
    option("--std", metavar="[NAME:]X,...", text="What is divided by, after --mean.", show_default=False),
]
Scale = Annotated[
    list[str] | None,
    option(
        "--scale",
        metavar="[NAME:]X,...",
        text="What is multiplied by, before --mean, like 1/255.",
        show_default=False,
    ),
]
Opset = Annotated[
    int | None, option("--opset", metavar="N", text="The ONNX opset to export; torch's default if absent.")
]
Seed = Annotated[int, option("--seed", metavar="N", text="Seed of the inputs that are drawn at random.")]
TrustPickle = Annotated[
    bool, option("--trust-pickle", text="Run the code a file may hold. Only for files you would run as programs.")
]
MaxBytes = Annotated[
    str,
    option(
        "--max-bytes",
        metavar="SIZE",
        text="Refuse a file of more bytes, or whose tensors have more together, like 500MB or 8GB.",
    ),
]
Isolate = Annotated[
    bool,
    option(
        "--isolate", text="Work in a process of its own, with limits of memory and time; exceeding them is exit code 3."
    ),
]
MaxMemory = Annotated[
    str | None,
    option(
        "--max-memory",
        metavar="SIZE",
        text="The memory of that process, like 4GB; three quarters of the machine's if absent. Implies --isolate.",
    ),
]
MaxTime = Annotated[
    float | None,
    option(
        "--max-time",
        metavar="SECONDS",
        text="The time that process may take; 600 seconds if absent. Implies --isolate.",
    ),
]
Duplicate = Annotated[
    str,
    option(
        "--duplicate",
        metavar="WHEN",
        text=f"Copy a weight that operators share where that removes BatchNorms: {', '.join(DUPLICATE)}; auto: while "
        "the weights grow by at most 5 % or 1 MB.",
        choices=DUPLICATE,
    ),
]
Exclude = Annotated[
    list[str] | None,
    option(
        "--exclude",
        metavar="NAME",
        text="Keep this BatchNorm, or all in this module, as they are; * and ? as in a shell. Repeatable.",
    ),
]
Rtol = Annotated[
    float | None,
    option("--rtol", metavar="X", text="Largest error as a part of the output's scale; by dtype if absent."),
]
Atol = Annotated[float | None, option("--atol", metavar="X", text="What is allowed on top of it.")]
PerSite = Annotated[
    bool,
    option("--per-site", text="Also list the error at every site, worst first; by itself when a check fails."),
]
Runtimes = Annotated[
    str | None,
    option(
        "--runtime",
        metavar="NAME,...",
        text="Where to time: ort, ort-as-written (both if absent) and openvino for ONNX; torch and torch-compile for "
        "PyTorch.",
        choices=RUNTIMES,
    ),
]
Device = Annotated[
    str,
    option(
        "--device",
        metavar="NAME",
        text="Where to time: cpu; cuda, with CUDA events for PyTorch and onnxruntime-gpu for ONNX.",
        choices=DEVICES,
    ),
]
Threads = Annotated[int | None, option("--threads", metavar="N", text="Threads to time with; every core if absent.")]
MinTime = Annotated[float, option("--min-time", metavar="SECONDS", text="How long to time each runtime.")]
FailOn = Annotated[
    list[str] | None,
    option(
        "--fail-on",
        metavar="EXPR",
        text="Exit with 1 if this holds, like 'kept>0', 'error.rel>1e-5', 'top1.delta<-0.001' or 'speedup.low<0.98', "
        "or was not measured; repeatable.",
        show_default=False,
    ),
]
Json = Annotated[
    str | None,
    option("--json", metavar="FILE", text="Write the report as JSON; '-': to stdout, and nothing else there."),
]
Html = Annotated[
    str | None,
    option("--html", metavar="FILE", text="Write the report as a page: graphs, tables and charts in one file."),
]
Markdown = Annotated[str | None, option("--markdown", metavar="FILE", text="Write a summary as Markdown.")]
Github = Annotated[
    bool,
    option("--github", text="Append that summary to the one of the job, in GitHub Actions ($GITHUB_STEP_SUMMARY)."),
]
Junit = Annotated[str | None, option("--junit", metavar="FILE", text="Write the checks as JUnit XML.")]
Graph = Annotated[
    str | None,
    option("--graph", metavar="FILE", text="Draw the graph with the fate of every BatchNorm: .svg, .mmd or .dot."),
]
RunFile = Annotated[Path, argument("RUN", "A run that was written with --json.")]
ReportOutput = Annotated[
    Path | None,
    option(
        "-o",
        "--output",
        metavar="FILE",
        text="The file to write: .html for a page, .md for Markdown, .xml for JUnit; RUN-stem.html beside RUN if "
        "absent.",
    ),
]
Verbose = Annotated[
    int, option("-v", "--verbose", text="Say more; -vv shows tracebacks.", count=True, show_default=False, metavar="")
]
Quiet = Annotated[bool, option("-q", "--quiet", text="Print no report; errors still go to stderr.")]
NoColor = Annotated[bool, option("--no-color", text="Print without colours and emphasis.")]
NoProgress = Annotated[bool, option("--no-progress", text="Draw no progress.")]

Data = Annotated[
    str | None,
    option(
        "--data",
        metavar="DATA",
        text="Data to measure on, in batches: a .npz file with the arrays x and y; a folder of images, one sub-folder "
        "per class in alphabetical order; or pkg.mod:loader, which yields batches (x, y). Images are resized to the "
        "model's input, as RGB, NxCxHxW, divided by 255 unless --scale is given; what else training did to them says "
        "--mean and --std.",
    ),
]
Metric = Annotated[
    str | None,
    option(
        "--metric",
        metavar="NAME",
        text="What to measure on --data, before and after: top1 (if absent), top5, or pkg.mod:function of "
        "(output, y), one score per row.",
        choices=METRICS,
    ),
]
DriftData = Annotated[
    str,
    option(
        "--data",
        metavar="DATA",
        text="What the model will get, in batches, labelled or not: a .npz file with the array x, a .npy file, a "
        "folder of images, or pkg.mod:loader. Images are resized to the model's input, as RGB, NxCxHxW, divided by 255 "
        "unless --scale is given; what else training did to them says --mean and --std.",
        show_default=False,
    ),
]
Recalibrate = Annotated[
    str | None,
    option(
        "--recalibrate",
        metavar="DATA",
        text="Before folding, replace the mean and variance of every BatchNorm by those over this data, layer by layer "
        "and exactly. Read like --data, labelled or not, once per BatchNorm on the longest chain of them.",
    ),
]

Output = Annotated[
    Path | None,
    option(
        "-o",
        "--output",
        metavar="FILE",
        text="The file to write, its format by its suffix: .onnx, .pt2, or .safetensors and .pt for the folded state "
        "dict; MODEL-stem.folded.onnx beside MODEL if absent.",
    ),
]
Leftover = Annotated[
    str,
    option(
        "--leftover",
        metavar="AS",
        text="What a BatchNorm that must stay becomes: keep; affine: Mul and Add, a single Add where its scale can go "
        "elsewhere; conv: a depthwise 1x1 Conv.",
        choices=LEFTOVERS,
    ),
]
NormAffine = Annotated[
    bool,
    option(
        "--norm-affine",
        text="Fold the scale and bias of LayerNormalization, RMSNormalization, GroupNormalization and "
        "InstanceNormalization as well.",
    ),
]
ExternalData = Annotated[
    str,
    option(
        "--external-data",
        metavar="WHEN",
        text=f"Put the weights into a file beside the output: {', '.join(EXTERNAL_DATA)}.",
        choices=EXTERNAL_DATA,
    ),
]
Force = Annotated[bool, option("--force", text="Replace an existing output.")]
Level = Annotated[
    str,
    option(
        "--verify",
        metavar="LEVEL",
        text="How to check the written file: full proves from the weights that it is the same function, and runs both "
        "models; quick only runs them; off.",
        choices=LEVELS,
    ),
]
Bench = Annotated[bool, option("--bench", text="Time both models as well.")]
OptionalAfterFile = Annotated[
    Path | None,
    argument("[AFTER]", "The model to time it against; itself if absent."),
]
Code = Annotated[
    str | None,
    argument("[CODE]", "A reason code; all if absent.", autocompletion=codes),
]
Version = Annotated[bool, typer.Option("--version", help="Print the version and exit.")]
