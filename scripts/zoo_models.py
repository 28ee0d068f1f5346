"""The networks of the zoo: named in a list or on the command line, built with weights and statistics drawn by a seed.

Nothing is downloaded. BatchNorms get what trained networks have: gamma 0.5 to 1.5, beta and mean of σ 0.3, variance 0.5
to 2. Where a network is wanted with negative gammas, each channel's gamma changes its sign with that probability.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bnfold.quiet import quiet

DEFAULT_INPUT = (1, 3, 224, 224)
LIST = Path(__file__).resolve().parent.parent.parent / "shared" / "zoo" / "dev.json"
ZOO = Path(__file__).resolve().parent.parent / "docs" / "zoo.json"
SHIM = LIST.with_name("tvshim.py")


@dataclass(frozen=True)
class Entry:
    """One network.

    Attributes:
        source: `"timm"` or `"torchvision"`.
        name: What it is called there.
        input: Shape of the example input; None for the network's own.
    """

    source: str
    name: str
    input: tuple[int, ...] | None = None

    @property
    def key(self) -> str:
        """Both parts of the name, as `--arch` takes them."""
        return f"{self.source}:{self.name}"


def read_list(path: Path) -> list[Entry]:
    """A JSON list of `{"model", "source", "input"}`; what else stands there is not needed."""
    return [Entry(item["source"], item["model"], tuple(item["input"])) for item in json.loads(path.read_text())]


def measured_before(path: Path) -> list[Entry]:
    """The networks of a `zoo.json`, for a clone that has no list."""
    models = json.loads(path.read_text())["models"] if path.is_file() else {}
    return [Entry(*key.split(":", 1), tuple(model["input"])) for key, model in models.items() if "input" in model]


def parse_entry(text: str) -> Entry:
    """Reads `[timm:|torchvision:]NAME[@HEIGHTxWIDTH]`; without a source it is timm."""
    name, _, size = text.partition("@")
    source, colon, rest = name.rpartition(":")
    shape = (1, 3, *(int(side) for side in size.split("x"))) if size else None
    return Entry(source if colon else "timm", rest, shape)


def add_selection(parser: argparse.ArgumentParser) -> None:
    """The arguments that say which networks are meant."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="networks instead of the list: timm:resnet50@96x96")
    parser.add_argument("--list", type=Path, default=LIST, help="a JSON list of networks; those of zoo.json if absent")
    parser.add_argument("--only", help="of the list, only these: NAME,NAME")
    parser.add_argument("--shim", default=str(SHIM), help="a Python file to run before torchvision, if it is there")
    parser.add_argument("--seed", type=int, default=0)


def selection(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> list[Entry]:
    """The networks that the arguments mean."""
    entries = [parse_entry(name) for name in arguments.names]
    if not entries:
        entries = read_list(arguments.list) if arguments.list.is_file() else measured_before(ZOO)
    if not entries:
        parser.error(f"there is no list {arguments.list}; pass --list FILE or name networks")
    wanted = set((arguments.only or "").split(",")) - {""}
    unknown = wanted - {name for entry in entries for name in (entry.name, entry.key)}
    if unknown:
        parser.error(f"the list has no {', '.join(sorted(unknown))}")
    return [entry for entry in entries if not wanted or {entry.name, entry.key} & wanted]


def import_shim(name: str | Path | None) -> None:
    """Runs a file that makes torchvision importable beside a torch it was not built for, where that is needed."""
    path = Path(name or "")
    if not path.is_file() or path.stem in sys.modules:
        return
    try:
        importlib.import_module("torchvision")
        return
    except (ImportError, RuntimeError):  # its operators, compiled for another torch, cannot be loaded
        pass
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # what it registers with torch lives as long as the module
    spec.loader.exec_module(module)


def build(entry: Entry, *, seed: int, negative: float = 0.0) -> tuple[torch.nn.Module, torch.Tensor]:
    """A network in evaluation mode with drawn weights and statistics, and an example input.

    Args:
        entry: Which one.
        seed: Of everything drawn.
        negative: Part of the channels whose gamma is negative.
    """
    torch.manual_seed(seed)
    if entry.source == "timm":
        module: torch.nn.Module = importlib.import_module("timm").create_model(entry.name, pretrained=False)
    else:
        library: Any = importlib.import_module("torchvision.models")
        extra = {"init_weights": True} if entry.name in ("googlenet", "inception_v3") else {}
        module = library.get_model(entry.name, weights=None, **extra)
    draw_statistics(module, negative)
    config = getattr(module, "default_cfg", None) or {}
    shape: Sequence[int] = entry.input or (1, *config.get("input_size", DEFAULT_INPUT[1:]))
    return module.eval(), torch.randn(*shape)


def draw_statistics(module: torch.nn.Module, negative: float) -> None:
    """Gives every BatchNorm parameters and statistics as training leaves them."""
    for norm in module.modules():
        if not isinstance(norm, torch.nn.modules.batchnorm._BatchNorm):
            continue
        with torch.no_grad():
            if norm.affine:
                norm.weight.uniform_(0.5, 1.5)
                norm.weight[torch.rand_like(norm.weight) < negative] *= -1
                norm.bias.normal_(0, 0.3)
            if norm.running_mean is not None and norm.running_var is not None:
                norm.running_mean.normal_(0, 0.3)
                norm.running_var.uniform_(0.5, 2)


def draw_normalisations(module: torch.nn.Module) -> int:
    """Gives every other normalisation with one number per channel a scale and a bias like those of the BatchNorms.

    Returns:
        How many there are.
    """
    count = 0
    for norm in module.modules():
        weight = getattr(norm, "weight", None)
        batch = isinstance(norm, torch.nn.modules.batchnorm._BatchNorm)
        if batch or "Norm" not in type(norm).__name__ or not isinstance(weight, torch.Tensor) or weight.ndim != 1:
            continue
        count += 1
        with torch.no_grad():
            weight.uniform_(0.5, 1.5)
            if isinstance(bias := getattr(norm, "bias", None), torch.Tensor):
                bias.normal_(0, 0.3)
    return count


def export(module: torch.nn.Module, example: torch.Tensor, *, optimize: bool) -> Any:
    """The network as an ONNX program; without `optimize`, nothing is folded."""
    with quiet():
        return torch.onnx.export(module, (example,), dynamo=True, optimize=optimize, verbose=False)


def watched(entries: Sequence[Entry]) -> Iterator[Entry]:
    """The networks one by one, with a progress bar on stderr."""
    columns = (TextColumn("{task.description:28}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("", total=len(entries))
        for entry in entries:
            progress.update(bar, description=entry.name)
            yield entry
            progress.advance(bar)
