"""A large network written to disk piece by piece, and the memory a command takes on it."""

from __future__ import annotations

import itertools
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

ROWS = 512  # of a weight, drawn at once


@dataclass(frozen=True)
class Large:
    """A model with its weights in another file.

    Attributes:
        path: The model.
        bytes: Of all weights.
        largest: Of the largest tensor.
        batch_norms: How many there are.
    """

    path: Path
    bytes: int
    largest: int
    batch_norms: int


def make(path: Path, width: int, layers: int, wide: int, seed: int = 0) -> Large:
    """A perceptron, of which one layer is wide: Gemm, BatchNormalization and Relu in turn.

    Before every other Gemm stands a second BatchNormalization, whose scale and shift go forward into it.

    Args:
        path: Where to write it; the weights go to `path` with `.data` appended.
        width: Features of most layers.
        layers: How many there are.
        wide: Features between the two layers in the middle.
        seed: Of the weights.
    """
    rng, nodes, tensors, at = np.random.default_rng(seed), [], [], "x"
    sizes = [width] * (layers // 2) + [wide] + [width] * (layers - layers // 2)
    location, norms, largest = f"{path.name}.data", 0, 0
    with open(path.with_name(location), "wb") as file:

        def store(name: str, pieces: Sequence[np.ndarray] | list[int], scale: float = 1.0) -> None:
            begin, shape = file.tell(), [int(n) for n in pieces] if isinstance(pieces[0], int) else [len(pieces[0])]
            if isinstance(pieces[0], int):
                for start in range(0, shape[0], ROWS):
                    rows = min(ROWS, shape[0] - start)
                    file.write((rng.standard_normal((rows, shape[1]), np.float32) * np.float32(scale)).tobytes())
            else:
                file.write(np.asarray(pieces[0], np.float32).tobytes())
            tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape)
            tensor.data_location = TensorProto.EXTERNAL
            place = {"location": location, "offset": str(begin), "length": str(file.tell() - begin)}
            for key, value in place.items():
                tensor.external_data.add(key=key, value=value)
            tensors.append(tensor)

        def norm(name: str, features: int) -> None:
            nonlocal at, norms
            parameters = {
                "gamma": rng.uniform(0.8, 1.2, features),
                "beta": rng.normal(0, 0.2, features),
                "mean": rng.normal(0, 0.2, features),
                "var": rng.uniform(0.8, 1.2, features),
            }
            for key, values in parameters.items():
                store(f"{name}.{key}", [values])
            names = [f"{name}.{key}" for key in parameters]
            nodes.append(helper.make_node("BatchNormalization", [at, *names], [name], name=name))
            at, norms = name, norms + 1

        for i, (features, out) in enumerate(itertools.pairwise(sizes)):
            if i % 2:
                norm(f"before{i}", features)
            store(f"weight{i}", [out, features], scale=(2 / features) ** 0.5)
            largest = max(largest, out * features * 4)
            store(f"bias{i}", [rng.normal(0, 0.1, out)])
            nodes.append(
                helper.make_node("Gemm", [at, f"weight{i}", f"bias{i}"], [f"gemm{i}"], name=f"gemm{i}", transB=1)
            )
            at = f"gemm{i}"
            norm(f"norm{i}", out)
            nodes.append(helper.make_node("Relu", [at], [f"relu{i}"], name=f"relu{i}"))
            at = f"relu{i}"
        total = file.tell()
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", sizes[0]])
    y = helper.make_tensor_value_info(at, TensorProto.FLOAT, ["N", sizes[-1]])
    graph = helper.make_graph(nodes, "perceptron", [x], [y], initializer=tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return Large(path, total, largest, norms)


@dataclass(frozen=True)
class Memory:
    """What a process took.

    Attributes:
        peak: Bytes of memory of its own: anonymous, or shared and in no file. Pages of mapped files, which the system
            takes back when it needs them, are not counted.
        seconds: How long it ran.
        code: Its exit code.
        said: What it wrote.
    """

    peak: int
    seconds: float
    code: int
    said: str


def measured(command: Sequence[str], every: float = 0.002) -> Memory:
    """Runs a command, and looks at its memory all the while."""
    began, peak = time.monotonic(), 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        while process.poll() is None:
            peak = max(peak, own_bytes(process.pid))
            time.sleep(every)
        assert process.stdout is not None
        return Memory(peak, time.monotonic() - began, process.returncode, process.stdout.read())


def own_bytes(process: int) -> int:
    """Memory of a process that is in no file."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    found = [line.split() for line in lines if line.startswith(("RssAnon:", "RssShmem:"))]
    return sum(int(words[1]) * 1024 for words in found)
