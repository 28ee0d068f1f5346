"""Every way in which bnfold writes a file, twice: what stands there first, and what is to replace it."""

from __future__ import annotations

import functools
import hashlib
import io
import json
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import tiny

from bnfold.cli.terminal import Terminal
from bnfold.writing.export import Staged, staged, write_text

State = dict[str, str]


@dataclass(frozen=True)
class Writer:
    """One kind of output.

    Attributes:
        name: Of the kind.
        write: Writes an output into a folder: the first where `new` is false, else the one that replaces it.
        target: The name of the output, as messages have it.
    """

    name: str
    write: Callable[[Path, bool], None]
    target: str

    def run(self, folder: Path, new: bool = True) -> tuple[int, str]:
        """Writes as a command does; returns the exit code, and what was said on stderr."""
        said = io.StringIO()

        def work() -> int:
            self.write(folder, new)
            return 0

        with redirect_stderr(said):
            code = Terminal(color=False).guard(work)
        return code, said.getvalue()


def state(folder: Path) -> State:
    """Everything that is in a folder, by the hash of its content."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(_content(path)).hexdigest() if path.is_file() else "folder"
        for path in sorted(folder.rglob("*"))
    }


def _content(path: Path) -> bytes:
    """A file's bytes; of safetensors, whose library orders the header by chance, the header in order."""
    content = path.read_bytes()
    if path.suffix != ".safetensors" or len(content) < 8:
        return content
    end = 8 + int.from_bytes(content[:8], "little")
    return json.dumps(json.loads(content[8:end]), sort_keys=True).encode() + content[end:]


def model(scale: float) -> onnx_ir.Model:
    """A small model of which every weight says which one it is."""
    proto = tiny.conv_bn(channels=8)
    for tensor in proto.graph.initializer:
        tensor.CopyFrom(onnx.numpy_helper.from_array(np.full(tuple(tensor.dims), scale, np.float32), tensor.name))
    proto.doc_string = str(scale)
    return onnx_ir.serde.deserialize_model(proto)


def _onnx(folder: Path, new: bool, external_data: str, finish: Callable[[Staged], object]) -> None:
    with staged(model(2.0 if new else 1.0), folder / "out.onnx", external_data=external_data, force=True) as written:
        finish(written)


def _json(folder: Path, new: bool) -> None:
    write_text('{"new": true}\n' * 1000 if new else '{"new": false}\n', folder / "out.json")


@functools.cache
def _network(new: bool) -> tuple[object, object]:
    """A folded program, and a folded state."""
    import torch

    import bnfold
    from bnfold.recipes.folded import folded_state

    torch.manual_seed(int(new))
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU()).eval()
    x = torch.randn(1, 3, 8, 8)
    program = bnfold.fold(torch.export.export(net, (x,))).model
    return program, folded_state(net, bnfold.fold(net, x).model, sha256="0" * 64, version="0")


def _torch(folder: Path, new: bool, suffix: str) -> None:
    from bnfold.writing.torchexport import staged_program, staged_state

    program, folded = _network(new)
    target = folder / f"out{suffix}"
    make = staged_program(program, target, force=True) if suffix == ".pt2" else None  # type: ignore[arg-type]
    with make or staged_state(folded, target, force=True) as written:  # type: ignore[arg-type]
        written.publish()


LIGHT = (
    Writer("ONNX", lambda folder, new: _onnx(folder, new, "never", Staged.publish), "out.onnx"),
    Writer("ONNX + data", lambda folder, new: _onnx(folder, new, "always", Staged.publish), "out.onnx"),
    Writer("rejected", lambda folder, new: _onnx(folder, new, "always", Staged.reject), "out.onnx.rejected"),
    Writer("--json", _json, "out.json"),
)
TORCH = tuple(
    Writer(suffix, functools.partial(_torch, suffix=suffix), f"out{suffix}")
    for suffix in (".pt", ".safetensors", ".pt2")
)
