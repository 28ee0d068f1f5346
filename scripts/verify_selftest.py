"""Tries the certificate on itself: every one of many broken folds must be refused, and no clean fold.

    python scripts/verify_selftest.py                    1,000 mutations and 1,000 clean folds, a few minutes
    python scripts/verify_selftest.py --count 100        a tenth of it
    python scripts/verify_selftest.py --seed 1 --write   others, and the counts into docs/benchmarks.md

Clean folds are those of random graphs (the generator of the property tests) and of the networks of models/ with other
statistics each time. Mutations are made to folded networks: one weight off by 1e-5 of its value, a bias lost, two
channels swapped, an epsilon left out, a group mixed up, an operator that reads another tensor. The exit status is 1
when a mutation is missed or a clean fold is refused; what it was is printed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from pages import BENCHMARKS, machine, paragraph, write_json, write_section  # noqa: E402 (beside this script)
from property.strategy import specs  # noqa: E402 (the generator stands beside the tests)
from property.to_onnx import to_onnx  # noqa: E402

from bnfold.certificate import certify  # noqa: E402
from bnfold.frontends.onnx import fold_model  # noqa: E402
from bnfold.loading.load import load  # noqa: E402
from bnfold.tracing.capture import capture  # noqa: E402

NETWORKS = ("mlp", "resnet", "preact_resnet", "iresnet", "repvgg", "densenet", "unet", "tcn")
RELATIVE = 1e-5
Random = np.random.Generator


def network(name: str) -> onnx.ModelProto:
    """A network of models/ as ONNX with its BatchNorms in place."""
    loaded = load(ROOT / "models" / f"{name}.pt", arch=f"{ROOT / 'models' / 'architectures.py'}:{name}")
    return ir.to_proto(capture(loaded).model)


def redrawn(model: onnx.ModelProto, rng: Random) -> onnx.ModelProto:
    """The same network with other statistics, as trained ones have them."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type != "BatchNormalization":
            continue
        draws = (
            lambda n: rng.uniform(0.5, 1.5, n),
            lambda n: rng.normal(0, 0.3, n),
            lambda n: rng.normal(0, 0.3, n),
            lambda n: rng.uniform(0.5, 2.0, n),
        )
        for operand, draw in zip(node.input[1:5], draws, strict=True):
            put(stored[operand], draw(stored[operand].dims[0]))
    return model


def put(tensor: onnx.TensorProto, array: NDArray[np.float64]) -> None:
    """Store other numbers, as float32."""
    tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float32), tensor.name))


def single(model: onnx.ModelProto) -> onnx.ModelProto:
    """A float64 model with float32 in its place."""
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.DOUBLE:
            put(tensor, numpy_helper.to_array(tensor))
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        if value.type.tensor_type.elem_type == TensorProto.DOUBLE:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    return model


def random_graphs(count: int, seed: int) -> list[onnx.ModelProto]:
    """Random graphs of all operators, with zero gammas and other traps in half of them."""
    found: list[onnx.ModelProto] = []
    for anything in (False, True):

        @seeded(seed)
        @settings(
            max_examples=count // 2,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(specs(anything=anything))
        def draw(spec: object) -> None:
            found.append(single(to_onnx(spec)))  # type: ignore[arg-type]

        draw()
    return found


Mutation = Callable[[onnx.ModelProto, onnx.ModelProto, Random], onnx.ModelProto | None]


def weights(model: onnx.ModelProto, least: int = 2) -> list[tuple[onnx.NodeProto, onnx.TensorProto]]:
    """Operators with the weight they read alone."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    uses = Counter(name for node in model.graph.node for name in node.input)
    return [
        (node, stored[node.input[1]])
        for node in model.graph.node
        if node.op_type in ("Conv", "Gemm", "MatMul", "ConvTranspose")
        and node.input[1] in stored
        and uses[node.input[1]] == 1
        and len(stored[node.input[1]].dims) >= least
    ]


def weight_off(before: onnx.ModelProto, after: onnx.ModelProto, rng: Random) -> onnx.ModelProto | None:
    """One weight off by 1e-5 of its value."""
    _, tensor = pick(weights(after), rng)
    array = numpy_helper.to_array(tensor).copy()
    flat = array.reshape(-1)
    place = pick(np.flatnonzero(np.abs(flat) > 1e-3 * np.abs(flat).max()), rng)
    flat[place] *= 1 + RELATIVE * (1 if rng.random() < 0.5 else -1)
    put(tensor, array)
    return after


def bias_lost(before: onnx.ModelProto, after: onnx.ModelProto, rng: Random) -> onnx.ModelProto | None:
    """A bias lost."""
    nodes = [
        node for node in after.graph.node if node.op_type in ("Conv", "Gemm", "ConvTranspose") and len(node.input) > 2
    ]
    if not nodes:
        return None
    node = pick(nodes, rng)
    bias = next(t for t in after.graph.initializer if t.name == node.input[2])
    if not np.any(numpy_helper.to_array(bias)):
        return None
    del node.input[2]
    return after


def channels_swapped(before: onnx.ModelProto, after: onnx.ModelProto, rng: Random) -> onnx.ModelProto | None:
    """Two output channels of a weight swapped."""
    node, tensor = pick(weights(after), rng)
    array = numpy_helper.to_array(tensor).copy()
    axis = 1 if node.op_type in ("MatMul", "ConvTranspose") else 0
    if node.op_type == "Gemm" and not any(a.name == "transB" and a.i for a in node.attribute):
        axis = 1
    if array.shape[axis] < 2:
        return None
    one, two = rng.choice(array.shape[axis], 2, replace=False)
    order = np.arange(array.shape[axis])
    order[[one, two]] = order[[two, one]]
    put(tensor, array.take(order, axis=axis))
    return after


def epsilon_ignored(before: onnx.ModelProto, after: onnx.ModelProto, rng: Random) -> onnx.ModelProto | None:
    """One BatchNorm folded as if its epsilon were 0."""
    wrong = onnx.ModelProto.FromString(before.SerializeToString())
    node = pick([node for node in wrong.graph.node if node.op_type == "BatchNormalization"], rng)
    for attribute in list(node.attribute):
        if attribute.name == "epsilon":
            node.attribute.remove(attribute)
    node.attribute.append(helper.make_attribute("epsilon", 0.0))
    return ir.to_proto(fold_model(ir.from_proto(wrong))[0])


def group_mixed_up(before: onnx.ModelProto, after: onnx.ModelProto, rng: Random) -> onnx.ModelProto | None:
    """Input channels of a weight in the order of another grouping."""
    _, tensor = pick(weights(after), rng)
    array = numpy_helper.to_array(tensor).copy()
    axis = 1 if array.shape[1] % 2 == 0 and array.shape[1] > 2 else 0
    if array.shape[axis] % 2 or array.shape[axis] < 4:
        return None
    order = np.arange(array.shape[axis]).reshape(2, -1).T.reshape(-1)
    put(tensor, array.take(order, axis=axis))
    return after


def consumer_rewired(before: onnx.ModelProto, after: onnx.ModelProto, rng: Random) -> onnx.ModelProto | None:
    """An operator reads another tensor of the same shape."""
    shapes = {
        value.name: tuple(d.dim_value or d.dim_param for d in value.type.tensor_type.shape.dim)
        for value in onnx.shape_inference.infer_shapes(after).graph.value_info
    }
    made: list[str] = []
    choices = []
    for node in after.graph.node:
        reads = [name for name in node.input if name in shapes]
        choices += [
            (node, i, other)
            for i, name in enumerate(node.input)
            if name in reads
            for other in made
            if other != name and shapes[other] == shapes[name] and other not in node.input
        ]
        made += [name for name in node.output if name in shapes]
    if not choices:
        return None
    node, index, other = choices[rng.integers(len(choices))]
    node.input[index] = other
    return after


MUTATIONS: tuple[Mutation, ...] = (
    weight_off,
    bias_lost,
    channels_swapped,
    epsilon_ignored,
    group_mixed_up,
    consumer_rewired,
)


def pick(things: object, rng: Random) -> object:
    """One of them."""
    return things[rng.integers(len(things))]  # type: ignore[arg-type,index]


def mutants(
    networks: dict[str, onnx.ModelProto], count: int, seed: int
) -> Iterator[tuple[str, onnx.ModelProto, onnx.ModelProto]]:
    """What was done, the network, and its broken fold."""
    made, attempt = 0, 0
    names = list(networks)
    while made < count:
        rng = np.random.default_rng((seed, attempt))
        mutation, name = MUTATIONS[attempt % len(MUTATIONS)], names[(attempt // len(MUTATIONS)) % len(names)]
        attempt += 1
        before = redrawn(networks[name], rng)
        folded = ir.to_proto(fold_model(ir.from_proto(before))[0])
        broken = mutation(before, folded, rng)
        if broken is None:
            continue
        made += 1
        yield f"{mutation.__doc__} {name}, attempt {attempt - 1}", before, broken


DATA = ROOT / "docs" / "selftest.json"


def recorded(seed: int, caught: int, accepted: int, count: int) -> None:
    """Keeps the counts of a seed, and writes those of all seeds into the page."""
    known = json.loads(DATA.read_text(encoding="utf-8")) if DATA.is_file() else {"seeds": {}}
    known["machine"] = machine("numpy", "onnx", "onnx_ir", "hypothesis")
    known["seeds"][str(seed)] = {"caught": caught, "accepted": accepted, "count": count}
    write_json(DATA, known)
    text = (
        f"Written by `scripts/verify_selftest.py --write`: {known['machine']}. Clean folds are those of random graphs "
        "in float32 (half of all) and of the eight trained networks with drawn statistics; all must be proved. "
        "Mutations are made to folded networks (one weight off by 1e-5 of its value, a bias lost, two channels "
        "swapped, an epsilon left out, a group mixed up, an operator that reads another tensor); none may be proved."
    )
    rows = [
        f"| {number} | {row['caught']:,} of {row['count']:,} | {row['accepted']:,} of {row['count']:,} |"
        for number, row in sorted(known["seeds"].items(), key=lambda item: int(item[0]))
    ]
    table = ["| seed | mutations caught | clean folds accepted |", "|--:|--:|--:|", *rows]
    write_section(BENCHMARKS, "selftest", "\n".join(["## The certificate on itself", "", *paragraph(text), *table]))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=1_000, help="mutations, and clean folds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="the counts into docs/benchmarks.md")
    arguments = parser.parse_args()
    count, seed = arguments.count, arguments.seed
    networks = {name: network(name) for name in NETWORKS}
    missed: list[str] = []
    alarms: list[str] = []
    columns = (TextColumn("{task.description:12}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("clean folds", total=2 * count)
        clean = [(f"random graph {i}", graph) for i, graph in enumerate(random_graphs(count // 2, seed))]
        names = list(networks)
        rng = np.random.default_rng(seed)
        while len(clean) < count:
            name = names[len(clean) % len(names)]
            clean.append((f"{name}, {len(clean)}", redrawn(networks[name], rng)))
        for what, before in clean[:count]:
            model = ir.from_proto(before)
            certificate = certify(model, fold_model(model)[0])
            if not certificate.proved:
                alarms.append(f"{what}: {certificate.problems[:1]}")
            progress.update(task, advance=1)
        progress.update(task, description="mutations")
        for what, before, broken in mutants(networks, count, seed):
            if certify(ir.from_proto(before), ir.from_proto(broken)).proved:
                missed.append(what)
            progress.update(task, advance=1)
    for line in (*(f"missed: {what}" for what in missed), *(f"false alarm: {what}" for what in alarms)):
        print(line)
    if arguments.write:
        recorded(seed, count - len(missed), count - len(alarms), count)
    print(f"mutations caught: {count - len(missed):,} of {count:,}")
    print(f"clean folds accepted: {count - len(alarms):,} of {count:,}")
    return int(bool(missed or alarms))


if __name__ == "__main__":
    sys.exit(main())
