"""Whole runs of the command line: signalled at moments spread over them, and many at once to one output."""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import onnx
import onnx_ir

from faults.campaign import Outcome
from faults.processes import Commands
from faults.writers import model, state

MOMENTS = 20
CODES = {"SIGINT": (130, "interrupted"), "SIGTERM": (143, "terminated"), "SIGHUP": (129, "hung up")}


def save_model(folder: Path, name: str, scale: float) -> None:
    """An unfolded model of which every weight is its scale."""
    onnx.save(onnx_ir.to_proto(model(scale)), folder / name)


def signalled_runs(commands: Commands, root: Path, name: str, moments: int = MOMENTS) -> Outcome:
    """Converts over an earlier output, and sends a signal at moments that cover the run from its start to its end."""
    outcome = Outcome("convert", name)
    template, folder = root / f"{name}-template", root / f"{name}-used"
    template.mkdir()
    arguments = ["-o", "out.onnx", "--external-data", "always", "--force", "--verify", "quick"]
    save_model(template, "old.onnx", 1.0)
    save_model(template, "new.onnx", 2.0)
    assert commands.run(template, "convert", "old.onnx", *arguments).code == 0
    old = state(template)
    shutil.copytree(template, folder)
    began = time.monotonic()
    assert commands.run(folder, "convert", "new.onnx", *arguments).code == 0
    length, new = time.monotonic() - began, state(folder)
    for moment in range(moments):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(template, folder)
        child = commands.start(folder, "convert", "new.onnx", *arguments)
        time.sleep(length * moment / (moments - 1))
        os.kill(child, getattr(signal, name))
        ended, found = commands.wait(child), state(folder)
        whole = {name: digest for name, digest in found.items() if not name.startswith(".bnfold-")}
        outcome.old += whole == old
        outcome.new += new.items() <= whole.items()
        at = f"convert, {name} at {moment} of {moments}"
        if name == "SIGKILL":
            right = ended.code in (0, -signal.SIGKILL) and (
                old.items() <= whole.items() or new.items() <= whole.items()
            )
        else:
            code, word = CODES[name]  # before the word stands what Python says where a destructor met the signal
            written = "out.onnx was written" if found == new else "nothing was written"
            said = re.search(rf"{word}(( while [a-z ]+)?; {written})?\n\Z", ended.err) is not None
            said = said and (found == old or ended.err.endswith(f"{written}\n"))
            right = found in (old, new) and ((ended.code == code and said) or ended.code == 0)
            right = right or (ended.code == -getattr(signal, name) and found == old)  # before the handlers were there
        if not right:
            outcome.problems.append(f"{at}: exit code {ended.code}, {ended.err!r}, left {sorted(found)}")
    again = commands.run(folder, "convert", "new.onnx", *arguments)
    if again.code != 0 or state(folder) != new:
        outcome.problems.append(f"convert after {name}: exit code {again.code}, left {sorted(state(folder))}")
    return outcome


def concurrent_runs(commands: Commands, folder: Path, runs: int = 20, models: int = 4) -> Outcome:
    """Runs to one output at once, whose models differ; meanwhile a reader opens what stands there."""
    outcome = Outcome("convert", f"{runs} at once")
    folder.mkdir()
    for index in range(models):
        save_model(folder, f"{index}.onnx", float(index + 1))
    arguments = ["-o", "out.onnx", "--external-data", "always", "--force", "--verify", "off"]
    children = [commands.start(folder, "convert", f"{run % models}.onnx", *arguments) for run in range(runs)]
    reads, target = 0, folder / "out.onnx"
    while not target.exists() or reads < 200:
        if target.exists():
            reads += _is_whole(target, outcome)
        elif not any(_is_alive(child) for child in children):
            break
    for child in children:
        ended = commands.wait(child)
        if ended.code != 0:
            outcome.problems.append(f"one of {runs}: exit code {ended.code}, {ended.err!r}")
    outcome.new = int(_is_whole(target, outcome))
    left = [name for name in os.listdir(folder) if not name[:1].isdigit()]
    if len(left) != 2:
        outcome.problems.append(f"{runs} at once left {sorted(left)}")
    return outcome


def _is_whole(path: Path, outcome: Outcome) -> bool:
    """Whether a model could be read; notes it if it found the weights of another one."""
    try:
        proto = onnx.load(path)
    except (FileNotFoundError, onnx.checker.ValidationError):  # it was replaced between its two files
        return False
    scale = float(proto.doc_string)
    wrong = [t.name for t in proto.graph.initializer if t.name == "weight" and not _is_of(t, scale)]
    if wrong:
        outcome.problems.append(f"{path.name} of model {scale} has the weights of another one")
    return True


def _is_of(tensor: onnx.TensorProto, scale: float) -> bool:
    """Whether a folded weight is that of the model that says it has this scale."""
    return bool(np.allclose(onnx.numpy_helper.to_array(tensor), scale * scale / np.sqrt(scale + 1e-5), rtol=1e-5))


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
