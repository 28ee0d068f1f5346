"""Folds modules of models/ and of the zoo with `bnfold.fold`, and writes a section of docs/benchmarks.md.

    python scripts/modules.py                           all, those that are missing in docs/modules.json
    python scripts/modules.py --only repvgg_a0 --again
    python scripts/modules.py timm:mobileone_s0@64x64 torchvision:resnet50@224x224

Every network has a process of its own and is written as soon as it is done. Errors are against the unfolded network in
float64: the root mean square of the difference in parts of that of the output, the median over five drawn inputs, since
a ratio of two largest rounding errors says little. The exit status is 1 where the ONNX front end leaves another number
of BatchNorms, the error is more than twice the original's, or a network fails.
"""

from __future__ import annotations

import argparse
import copy
import ctypes
import gc
import importlib
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import torch
from pages import DOCS, paragraph
from tables import Table, add_again, has_failed
from workers import serve
from zoo_models import Entry, add_selection, build, export, import_shim, selection

DATA = DOCS / "modules.json"
MODELS = Path(__file__).resolve().parent.parent / "models"
PACKAGES = ("torch", "timm", "torchvision")
INPUTS = 5
COLUMNS = (
    *("network", "BatchNorms", "left, ONNX", "left", "merged, ONNX", "merged", "same class", "error before"),
    *("error after", "ratio", "export", "fold", "trial", "memory of the fold", "of all"),
)
WORDS = (
    "Written by `scripts/modules.py`: {machine}, one thread. `bnfold.fold(module, example)`: BatchNorms that stay "
    "through the ONNX front end and as a module, those that go with a merge of branches (likewise), and whether an "
    "object of the same class comes back. Errors are root mean squares against the unfolded network in float64, "
    "medians over {inputs} inputs. Seconds are processor time: of `torch.export`, of the fold, and of the two calls "
    "of the network that compare the result roughly; the garbage collector rests meanwhile. Memory is in parts of the "
    "weights: the peak that the fold adds itself, which is the new weights and what computing them takes, and that of "
    "the process with what `torch.export` and the calls need, which is most of it in small networks."
)
LARGE = Entry("torchvision", "resnet50", (1, 3, 224, 224))
LIMIT = 2.0  # the largest error in parts of the original's


def measure(task: Mapping[str, Any]) -> dict[str, Any]:
    """Everything there is to know about one network.

    Args:
        task: `source`, `name`, `input`, `seed`, `shim`.
    """
    import bnfold
    from bnfold.frontends.modules import fold as module_fold

    torch.set_num_threads(1)
    import_shim(task["shim"])
    module, example = _network(task)
    peak = PeakMemory()
    seconds = [_timed(module_fold, name, peak) for name in ("_exported", "do_the_same_unwritten", "do_the_same")]
    bnfold.fold(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4)).eval(), torch.ones(1, 3, 4, 4))
    for each in seconds:
        each.clear()
    gc.collect()
    gc.disable()  # a collection costs more than folding a small network, and comes in any of the parts
    started = time.process_time()
    bnfold.fold(module, example)
    total, taken = time.process_time() - started, [sum(each) for each in seconds]
    gc.enable()
    with peak:
        folded = bnfold.fold(module, example)
    through_onnx = bnfold.fold(export(module, example, optimize=False).model_proto).plan
    before, after = _errors(module, folded.model, example)
    plan = folded.plan
    return {
        "input": list(example.shape),
        "norms": plan.batch_norms,
        "left": [through_onnx.kept, plan.kept],
        "merged": [through_onnx.merged, plan.merged],
        "same_class": type(folded.model) is type(module),
        "notes": list(plan.notes),
        "error": [before, after],
        "seconds": {"export": taken[0], "trial": taken[1] + taken[2], "fold": total - sum(taken)},
        "weights": sum(t.nbytes for t in (*module.parameters(), *module.buffers())),
        "peak_bytes": {"fold": peak.bytes, "all": peak.all_bytes},
    }


def _network(task: Mapping[str, Any]) -> tuple[torch.nn.Module, torch.Tensor]:
    if task["source"] != "models":
        return build(Entry(task["source"], task["name"], task["input"] and tuple(task["input"])), seed=task["seed"])
    sys.path.insert(0, str(MODELS))
    architectures = importlib.import_module("architectures")
    factory = {"preact_collapsed": "preact_resnet"}.get(task["name"], task["name"])
    module = getattr(architectures, factory)()
    module.load_state_dict(torch.load(MODELS / f"{task['name']}.pt", weights_only=True))
    given = module.example_input_array
    torch.manual_seed(task["seed"])
    return module.eval(), torch.randn_like(given)


def _timed(owner: Any, name: str, peak: PeakMemory) -> list[float]:
    """Seconds of processor time of each call of a function, from now on, whose memory is no part of the fold's."""
    called, seconds = getattr(owner, name), []

    def timed(*args: Any) -> Any:
        peak.pause()
        started = time.process_time()
        try:
            return called(*args)
        finally:
            seconds.append(time.process_time() - started)
            peak.go_on()

    setattr(owner, name, timed)
    return seconds


class PeakMemory:
    """The largest resident size beyond that at the start, looked at every half millisecond.

    Attributes:
        all_bytes: That.
        bytes: The same without what is used, and what is not given back, while it pauses.
    """

    def __init__(self) -> None:
        self.bytes = self.all_bytes = self._start = self._others = self._before = 0
        self._paused, self._done = False, threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> PeakMemory:
        self.bytes = self.all_bytes = self._others = 0
        self._start = _trimmed()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def pause(self) -> None:
        """Leave out what is used from now on."""
        if self._thread is not None:
            self._look()
            self._paused, self._before = True, _trimmed()

    def go_on(self) -> None:
        """Count again."""
        if self._thread is not None:
            self._look()
            self._others += _trimmed() - self._before
            self._paused = False

    def _look(self) -> None:
        beyond, paused = _resident() - self._start, self._paused
        self.all_bytes = max(self.all_bytes, beyond)
        if not paused and not self._paused:
            self.bytes = max(self.bytes, beyond - self._others)

    def _watch(self) -> None:
        while not self._done.wait(0.0005):
            self._look()

    def __exit__(self, *_: object) -> None:
        self._look()
        self._done.set()
        if self._thread is not None:
            self._thread.join()
        self._thread = None


def _trimmed() -> int:
    """The resident size once what is free has been given back."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    return _resident()


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def _errors(module: torch.nn.Module, folded: torch.nn.Module, example: torch.Tensor) -> tuple[float, float]:
    """Errors of a network and of what it was folded to."""
    exact = copy.deepcopy(module).double()
    pairs = []
    for seed in range(INPUTS):
        x = torch.randn(example.shape, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            truth = _first(exact(x.double()))
            errors = [(_first(each(x)).double() - truth).square().mean().sqrt() for each in (module, folded)]
            pairs.append([float(error / truth.square().mean().sqrt()) for error in errors])
    before, after = zip(*pairs, strict=True)
    return median(before), median(after)


def _first(y: Any) -> torch.Tensor:
    return next(v for v in torch.utils._pytree.tree_leaves(y) if isinstance(v, torch.Tensor))


def section(data: Mapping[str, Any]) -> str:
    """The section of the page."""
    return "\n".join([
        "## Modules",
        "",
        *paragraph(WORDS.format(machine=data["machine"], inputs=INPUTS)),
        f"| {' | '.join(COLUMNS)} |",
        "|---|--:|--:|--:|--:|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|",
        *(_row(name, model) for name, model in data["models"].items()),
        "",
        *(f"- `{name}`: {note}" for name, m in data["models"].items() for note in m.get("notes", ())),
    ])  # fmt: skip


def _row(name: str, model: Mapping[str, Any]) -> str:
    if has_failed(model):
        return f"| `{name}` | {model['error']} | | | | | | | | | | | | | |"
    (onnx_left, left), (onnx_merged, merged), (before, after) = model["left"], model["merged"], model["error"]
    seconds, peak = model["seconds"], model["peak_bytes"]
    return (
        f"| `{name}` | {model['norms']} | {onnx_left} | {left} | {onnx_merged} | {merged} "
        f"| {'yes' if model['same_class'] else 'graph'} | {before:.1e} | {after:.1e} | {_ratio(model):.2f} "
        f"| {seconds['export']:.2f} s | {seconds['fold']:.2f} s | {seconds['trial']:.2f} s "
        f"| {peak['fold'] / model['weights']:.2f} | {peak['all'] / model['weights']:.2f} |"
    )


def _ratio(model: Mapping[str, Any]) -> float:
    before, after = model["error"]
    return after / before if before else float(after > 0) * float("inf") if after else 1.0


def shortfalls(models: Mapping[str, Any]) -> list[str]:
    """What is not as promised."""
    found = []
    for name, model in models.items():
        if has_failed(model):
            found.append(f"{name}: {model['error']}")
            continue
        if len(set(model["left"])) > 1:
            found.append(f"{name}: ONNX leaves {model['left'][0]}, the module {model['left'][1]}")
        if _ratio(model) > LIMIT:
            found.append(f"{name}: the error is {_ratio(model):.2f} times the original's")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_selection(parser)
    add_again(parser)
    arguments = parser.parse_args()
    entries = selection(parser, arguments)
    if not arguments.names and not arguments.only:
        entries = [*(Entry("models", path.stem) for path in sorted(MODELS.glob("*.pt"))), LARGE, *entries]
    return Table("modules", Path(__file__), DATA, PACKAGES, section, shortfalls).measure(entries, arguments)


if __name__ == "__main__":
    sys.exit(main() if not serve(measure) else 0)
