"""Times the folding itself and writes the tables into docs/benchmarks.md.

    python scripts/bench_fold.py            a few minutes
    python scripts/bench_fold.py --quick    fewer repetitions, and nothing is written

1. Linearity: chains of 1,000 to 16,000 nodes, one classic (Conv → BatchNorm → ReLU with residual sums), one of
   pre-activation blocks, whose shifts travel along the whole stream. Time per node must stay within a factor of 1.5.
2. The same bytes in, bytes out, through bnfold and through onnxsim, in random order in one process: the networks of
   models/ as exported without folding, and a chain of 4,000 nodes. A ratio above 1 says that bnfold was faster.

The exit status is 1 when a chain is not linear, or the median ratio is below 1.
"""

from __future__ import annotations

import argparse
import gc
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxsim
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from pages import BENCHMARKS, machine, write_section
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from bnfold import fold
from bnfold.frontends.onnx import fold_model
from bnfold.loading.load import load
from bnfold.tracing.capture import capture

ROOT = Path(__file__).resolve().parent.parent
SIZES = (1_000, 2_000, 4_000, 8_000, 16_000)
LINEAR = 1.5
CHANNELS = 8
NETWORKS = ("mlp", "resnet", "preact_resnet", "iresnet", "repvgg", "densenet", "unet", "tcn")


@dataclass(frozen=True)
class Row:
    """One model through both tools: times of each run in milliseconds, pairwise."""

    name: str
    nodes: int
    norms: int
    left: int
    sim_left: int
    ours: NDArray[np.float64]
    theirs: NDArray[np.float64]


def chain(nodes: int, *, preact: bool) -> onnx.ModelProto:
    """About `nodes` nodes of residual blocks, float32, 8 channels."""
    rng = np.random.default_rng(nodes)
    made: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []

    def constant(name: str, value: NDArray[np.float64]) -> str:
        weights.append(numpy_helper.from_array(value.astype(np.float32), name))
        return name

    def node(op: str, *inputs: str, **attributes: object) -> str:
        name = f"{op}_{len(made)}"
        made.append(helper.make_node(op, inputs, [f"{name}_out"], name=name, **attributes))
        return f"{name}_out"

    def conv(x: str) -> str:
        weight = constant(f"w{len(made)}", rng.normal(size=(CHANNELS, CHANNELS, 3, 3)) / 9)
        bias = constant(f"b{len(made)}", rng.normal(size=CHANNELS))
        return node("Conv", x, weight, bias, kernel_shape=[3, 3], pads=[1, 1, 1, 1])

    def norm(x: str) -> str:
        key = len(made)
        scale, var = (constant(f"{part}{key}", rng.uniform(0.8, 1.25, CHANNELS)) for part in ("gamma", "var"))
        shift, mean = (constant(f"{part}{key}", rng.normal(size=CHANNELS) / 4) for part in ("beta", "mean"))
        return node("BatchNormalization", x, scale, shift, mean, var)

    def block(x: str) -> str:
        if preact:
            return node("Add", x, conv(node("Relu", norm(conv(node("Relu", norm(x)))))))
        return node("Relu", node("Add", x, norm(conv(node("Relu", norm(conv(x)))))))

    x = conv("x")
    while len(made) < nodes - 7:
        x = block(x)
    x = conv(x)
    size = ["N", CHANNELS, 8, 8]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, size)]
    outputs = [helper.make_tensor_value_info(x, TensorProto.FLOAT, size)]
    graph = helper.make_graph(made, "chain", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def exported(name: str) -> bytes:
    """A network of models/ as ONNX with its BatchNorms in place."""
    loaded = load(ROOT / "models" / f"{name}.pt", arch=f"{ROOT / 'models' / 'architectures.py'}:{name}")
    captured = capture(loaded)
    return ir.to_proto(captured.model).SerializeToString()


def by_bnfold(data: bytes) -> bytes:
    """Bytes to bytes through bnfold."""
    folded: onnx.ModelProto = fold(onnx.load_from_string(data)).model
    return folded.SerializeToString()


def by_onnxsim(data: bytes) -> bytes:
    """Bytes to bytes through onnxsim, with its own defaults."""
    simplified, _ = onnxsim.simplify(onnx.load_from_string(data))
    return simplified.SerializeToString()


def clock(function: Callable[[], object]) -> float:
    """Milliseconds of one call, with the garbage collector at rest."""
    gc.collect()
    gc.disable()
    start = time.perf_counter()
    function()
    elapsed = time.perf_counter() - start
    gc.enable()
    return 1e3 * elapsed


def norms_in(data: bytes) -> int:
    """BatchNormalization nodes of a serialized model."""
    return sum(node.op_type == "BatchNormalization" for node in onnx.load_from_string(data).graph.node)


def interval(ratios: NDArray[np.float64]) -> tuple[float, float, float]:
    """Median, and the bootstrap's 2.5th and 97.5th percentile of the median."""
    rng = np.random.default_rng(0)
    medians = np.median(rng.choice(ratios, (5_000, len(ratios))), axis=1)
    low, high = np.percentile(medians, [2.5, 97.5])
    return float(np.median(ratios)), float(low), float(high)


def measure_chains(repeats: int, tick: Callable[[str], None]) -> dict[bool, dict[int, list[float]]]:
    """Milliseconds of `fold_model` by kind of chain and number of nodes, sizes in random order."""
    times: dict[bool, dict[int, list[float]]] = {}
    shuffle = random.Random(0)
    for preact in (False, True):
        models = {size: ir.from_proto(chain(size, preact=preact)) for size in SIZES}
        fold_model(models[SIZES[0]])
        times[preact] = {size: [] for size in SIZES}
        for _ in range(repeats):
            for size in shuffle.sample(SIZES, len(SIZES)):
                model = models[size]
                times[preact][size].append(clock(lambda model=model: fold_model(model)))
                tick(f"{size:,} nodes")
    return times


def measure_tools(repeats: int, tick: Callable[[str], None]) -> list[Row]:
    """Bnfold against onnxsim on the same bytes, each pair in random order."""
    rows = []
    shuffle = random.Random(0)
    models = {f"`{name}`": exported(name) for name in NETWORKS}
    models["chain"] = chain(4_000, preact=False).SerializeToString()
    models["pre-activation chain"] = chain(4_000, preact=True).SerializeToString()
    for name, data in models.items():
        left, sim_left = norms_in(by_bnfold(data)), norms_in(by_onnxsim(data))
        times: dict[Callable[[bytes], bytes], list[float]] = {by_bnfold: [], by_onnxsim: []}
        for _ in range(repeats):
            for tool in shuffle.sample(list(times), 2):
                times[tool].append(clock(lambda tool=tool, data=data: tool(data)))
            tick(name)
        nodes = len(onnx.load_from_string(data).graph.node)
        ours, theirs = (np.array(times[tool]) for tool in (by_bnfold, by_onnxsim))
        rows.append(Row(name, nodes, norms_in(data), left, sim_left, ours, theirs))
    return rows


def chain_table(times: dict[bool, dict[int, list[float]]]) -> tuple[list[str], float]:
    """The first table, and the worst ratio of times per node."""
    lines = [
        "| chain | " + " | ".join(f"{size:,} nodes" for size in SIZES) + " | largest / smallest |",
        "|---" * 7 + "|",
    ]
    worst = 0.0
    for preact, label in (
        (False, "Conv → BatchNorm → ReLU, residual sums"),
        (True, "BatchNorm → ReLU → Conv, residual sums"),
    ):
        each = [1e3 * float(np.median(times[preact][size])) / size for size in SIZES]
        worst = max(worst, max(each) / min(each))
        lines.append(
            f"| {label} | " + " | ".join(f"{value:.0f} µs" for value in each) + f" | {max(each) / min(each):.2f} |"
        )
    return lines, worst


def tool_table(rows: list[Row]) -> tuple[list[str], float]:
    """The second table, and the median over the models of onnxsim's time over bnfold's."""
    lines = [
        "| model | nodes | BatchNorms | left by bnfold, onnxsim | bnfold | onnxsim | onnxsim / bnfold (95 %) |",
        "|---" * 7 + "|",
    ]
    ratios = []
    for row in rows:
        ratio, low, high = interval(row.theirs / row.ours)
        ratios.append(ratio)
        lines.append(
            f"| {row.name} | {row.nodes:,} | {row.norms:,} | {row.left:,}, {row.sim_left:,} "
            f"| {np.median(row.ours):.1f} ms | {np.median(row.theirs):.1f} ms | {ratio:.2f} ({low:.2f} – {high:.2f}) |"
        )
    median = float(np.median(ratios))
    lines += ["", f"Median of the ratios: **{median:.2f}**."]
    return lines, median


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="three repetitions; write nothing")
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    repeats = 3 if arguments.quick else arguments.repeats
    columns = (TextColumn("{task.description:28}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, auto_refresh=False) as progress:
        task = progress.add_task("exporting", total=repeats * (2 * len(SIZES) + len(NETWORKS) + 2))

        def tick(what: str) -> None:
            progress.update(task, advance=1, description=what, refresh=True)

        rows = measure_tools(repeats, tick)
        times = measure_chains(repeats, tick)

    chains, worst = chain_table(times)
    tools, median = tool_table(rows)
    text = "\n".join([
        "## Time of folding",
        "",
        f"Written by `scripts/bench_fold.py`: {machine('onnx', 'onnx-ir', 'onnxsim', 'numpy')}, default threads;",
        f"medians of {repeats} runs, in random order in one process.",
        "",
        "Time of the fold per node of the model, from a model in memory to a model in memory:",
        "",
        *chains,
        "",
        "The same bytes in, bytes out (parsing and writing included), bnfold and onnxsim with its defaults. The",
        "networks are those of `models/`, exported without folding; onnxsim also does what bnfold does not, such as",
        "general clean-up.",
        "",
        *tools,
    ])  # fmt: skip
    print(text)
    if not arguments.quick:
        write_section(BENCHMARKS, "fold", text)
    if worst > LINEAR:
        print(f"not linear: time per node varies by {worst:.2f}, more than {LINEAR}", file=sys.stderr)
    if median < 1.0:
        print(f"slower than onnxsim: the median ratio is {median:.2f}", file=sys.stderr)
    return int(worst > LINEAR or median < 1.0)


if __name__ == "__main__":
    sys.exit(main())
