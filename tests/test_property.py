"""The whole fold against its meaning, on random graphs: exact, maximal, idempotent, and well-formed.

`BNFOLD_EXAMPLES=20` runs twenty times as many graphs, from random seeds; without it the seeds are fixed.
A failure is reduced to a few steps, which are printed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from property.examples import EXAMPLES, Example
from property.feasible import Search, largest_removable
from property.reduce import reduce
from property.run_onnx import run
from property.spec import Builder, Spec
from property.strategy import specs
from property.to_onnx import to_onnx

from bnfold.frontends.onnx import fold_model
from bnfold.planning.choices import Choices
from bnfold.planning.plan import Plan

RELATIVE = 1e-9
INNER = 1e-12
WEIGHTED = {"Conv", "Gemm", "MatMul", "BatchNormalization", "Add"}
FACTOR = float(os.environ.get("BNFOLD_EXAMPLES", "1"))
RANDOM = "BNFOLD_EXAMPLES" in os.environ


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def fold(spec: Spec, duplicate: str = "auto") -> tuple[onnx.ModelProto, onnx.ModelProto, Plan]:
    """The model, the folded model and the plan."""
    before = to_onnx(spec)
    model = ir.from_proto(before)
    snapshot = ir.to_proto(model).SerializeToString(deterministic=True)
    folded, plan = fold_model(model, Choices(duplicate=duplicate))
    assert ir.to_proto(model).SerializeToString(deterministic=True) == snapshot, "fold_model changed its argument"
    return before, ir.to_proto(folded), plan


def check_same(got: Mapping[str, Any], want: Mapping[str, Any], inner: float = 0.0) -> None:
    """Equal to 1e-9 of each output's size (or 1e-12 of the largest value inside, where outputs cancel)."""
    assert list(got) == list(want), f"outputs {list(got)}, not {list(want)}"
    for name, value in want.items():
        assert got[name].shape == value.shape, f"output {name}: shape {got[name].shape}, not {value.shape}"
        error, size = np.abs(got[name] - value).max(initial=0.0), np.abs(value).max(initial=0.0)
        assert error <= RELATIVE * size + INNER * inner, f"output {name}: error {error:.3g}, values up to {size:.3g}"


def check_exact(spec: Spec, before: onnx.ModelProto, after: onnx.ModelProto) -> None:
    """The folded model computes what the spec means, also with its overridable initializers overridden."""
    inner = max(float(np.abs(value).max()) for value in spec.values.values())
    check_same(run(after, spec.feeds), {name: spec.values[name] for name in spec.outputs}, inner)
    if spec.overridable:
        other = {f"{i}.{key}": 0.5 + np.abs(spec.steps[i].consts[key]) * 1.25 for i, key in spec.overridable}
        check_same(run(after, {**spec.feeds, **other}), run(before, {**spec.feeds, **other}), inner)


def check_shape(spec: Spec, before: onnx.ModelProto, after: onnx.ModelProto, plan: Plan) -> None:
    """The folded model is valid ONNX with the same interface, and the plan says what happened to it."""
    onnx.checker.check_model(after, full_check=True)
    for side in ("input", "output"):
        old, new = getattr(before.graph, side), getattr(after.graph, side)
        assert [str(value) for value in old] == [str(value) for value in new], f"the graph's {side}s changed"
    assert [site.name for site in plan.sites] == [str(index) for index in spec.batch_norms]
    assert all((site.status == "kept") == (site.reason is not None) for site in plan.sites)
    assert plan.folded + plan.merged + plan.kept == plan.batch_norms == len(spec.batch_norms)
    norms = sum(node.op_type == "BatchNormalization" for node in after.graph.node)
    assert norms == plan.kept, f"the plan keeps {plan.kept} BatchNorms, the model has {norms}"
    count = len(after.graph.node) - new_biases(before, after)
    assert count <= len(before.graph.node), f"{len(before.graph.node)} nodes became {count}, and biases of matrices"


def new_biases(before: onnx.ModelProto, after: onnx.ModelProto) -> int:
    """Adds behind a MatMul that were not there before: what one BatchNorm adds, each of its readers has to."""
    old = {node.name for node in before.graph.node}
    products = {node.output[0] for node in after.graph.node if node.op_type == "MatMul"}
    adds = [node for node in after.graph.node if node.op_type == "Add" and node.name not in old]
    return sum(bool(products & set(node.input)) for node in adds)


def check_settled(after: onnx.ModelProto, plan: Plan, duplicate: str = "auto") -> None:
    """Folding twice finds nothing and touches nothing."""
    model, choices = ir.from_proto(after), Choices(duplicate=duplicate)
    again, second = fold_model(model, choices)
    assert (second.folded, second.merged, second.kept) == (0, 0, plan.kept), "folding twice found something"
    assert second == fold_model(model, choices)[1], "two folds of one model disagree"
    same = ir.to_proto(again).SerializeToString(deterministic=True) == after.SerializeToString(deterministic=True)
    assert same, "folding twice changed the model"


def check_all(spec: Spec, duplicate: str = "auto") -> Plan:
    """Everything but maximality."""
    before, after, plan = fold(spec, duplicate)
    check_exact(spec, before, after)
    check_shape(spec, before, after, plan)
    check_settled(after, plan, duplicate)
    return plan


def check_maximal(spec: Spec, duplicate: str = "auto") -> None:
    """Everything, and that no larger set of BatchNorms could vanish by units; merging branches may only add to it.

    A shared weight ties the units of its readers, unless it may be copied, or they become one operator.
    """
    plan, tied = check_all(spec, duplicate), duplicate == "never"
    at_least = largest_removable(spec, tied=tied)
    at_most = largest_removable(spec, exact=True, tied=tied and not has_twins(spec))
    norms = {site.name for site in plan.sites}
    twins = sum(site.status == "merged" and bool(norms & set(site.into)) for site in plan.sites)
    vanished = plan.folded + plan.merged - twins
    found = f"folded {plan.folded}, merged {plan.merged}, possible {at_least} (with joint shifts {at_most})"
    assert vanished >= at_least, found
    assert vanished <= at_most or merges_branches(spec), found


def has_twins(spec: Spec) -> bool:
    """Whether operators that share a weight read the same tensor."""
    return any(spec.steps[index].reads == spec.steps[owner].reads for index, _, owner in spec.shared)


def merges_branches(spec: Spec) -> bool:
    """Whether folding a graph leaves fewer sums of features in it."""
    before, after, _ = fold(spec)
    counts = []
    for model in (before, after):
        constants = {tensor.name for tensor in model.graph.initializer}
        counts.append(sum(n.op_type in ("Add", "Sub") and not constants & set(n.input) for n in model.graph.node))
    return counts[1] < counts[0]


def failure_of(check: Callable[[Spec], object], spec: Spec) -> Exception | None:
    """What a check has to say against a graph."""
    try:
        check(spec)
    except Exception as error:
        return error
    return None


def campaign(number: int, check: Callable[[Spec], object], count: int, **options: Any) -> Callable[..., None]:
    """A property test of `count` graphs. Its own function, so that workers can share the campaigns."""

    @settings(
        max_examples=int(count * FACTOR),
        deadline=None,  # a graph takes 20 ms, and the machine is shared
        database=None,
        phases=[Phase.generate],  # `reduce` shrinks the graph itself, in seconds where shrinking draws takes minutes
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
    )
    @given(specs(**options))
    def test(spec: Spec) -> None:
        failure = failure_of(check, spec)
        if failure is not None:
            small = reduce(spec, lambda smaller: type(failure_of(check, smaller)) is type(failure))
            pytest.fail(
                f"{failure_of(check, small)}\n\nof the graph\n\n{small}\n\nfirst seen as\n\n{spec}", pytrace=False
            )

    return test if RANDOM else seed(number)(test)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_theorem(example: Example) -> None:
    plan = check_all(example.spec)
    assert plan.batch_norms - plan.folded - plan.merged == example.left
    assert plan.merged == example.merged
    if example.affines_left is not None:
        assert sum(site.status == "kept" for site in plan.affines) == example.affines_left


test_exact_1 = campaign(1, check_all, 500, anything=True)
test_exact_2 = campaign(2, check_all, 500, anything=True)
test_exact_3 = campaign(3, check_all, 500, anything=True)
test_exact_and_maximal_1 = campaign(4, check_maximal, 250)
test_exact_and_maximal_2 = campaign(5, check_maximal, 250)
test_exact_and_maximal_with_shared_weights = campaign(6, lambda spec: check_maximal(spec, "never"), 200, sharing=True)
test_exact_and_maximal_with_copied_weights = campaign(7, lambda spec: check_maximal(spec, "always"), 200, sharing=True)


# The adversary itself


@pytest.mark.parametrize(
    "example", [e for e in EXAMPLES if not e.dead and not e.merged], ids=lambda example: example.name
)
def test_search_knows_the_theorems(example: Example) -> None:
    assert len(example.spec.batch_norms) - largest_removable(example.spec, exact=True) == example.left


def test_search_says_which_equation_refuses() -> None:
    b = Builder()
    x = b.input(3, 4, 4)
    b.conv(b.pool(b.bn(x, "negative")))
    b.op("rigid", b.bn(x, "scale_only"), kind="Tanh")
    b.conv(b.bn(x), 2, (3, 3), (1, 1, 1, 1))
    b.conv(b.bn(x), 2)
    search = Search(b.finish())
    assert [search.refusal([norm]) for norm in search.norms] == ["sign", "scale", "shift", None]
    assert search.feasible([])


def in_float32(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model for onnxruntime, which has no float64 Conv."""
    narrow = onnx.ModelProto()
    narrow.CopyFrom(model)
    for tensor in narrow.graph.initializer:
        if tensor.data_type == onnx.TensorProto.DOUBLE:
            values = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    del narrow.graph.value_info[:]
    for value in (*narrow.graph.input, *narrow.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    return narrow


@settings(max_examples=100, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@seed(0)
@given(specs(anything=True))
def test_evaluators_agree_with_onnxruntime(spec: Spec) -> None:
    model = to_onnx(spec)
    check_same(run(model, spec.feeds), {name: spec.values[name] for name in spec.outputs}, 1.0)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(in_float32(model).SerializeToString(), options, providers=["CPUExecutionProvider"])
    narrow = {name: value.astype(np.float32) for name, value in spec.feeds.items()}
    inner = max(float(np.abs(value).max()) for value in spec.values.values())
    for name, value in zip(spec.outputs, session.run(list(spec.outputs), narrow), strict=True):
        np.testing.assert_allclose(value, spec.values[name], rtol=1e-4, atol=1e-5 * inner)


@pytest.mark.parametrize("name", ["preact_stream", "iresnet", "repvgg", "features", "matmul_add_reshape_bn"])
def test_a_changed_weight_is_noticed(name: str) -> None:
    spec = next(example.spec for example in EXAMPLES if example.name == name)
    before, after, _ = fold(spec)
    readers = {name: node.op_type for node in after.graph.node for name in node.input}
    weights = [tensor for tensor in after.graph.initializer if readers[tensor.name] in WEIGHTED]
    assert weights
    for tensor in weights:
        kept = tensor.SerializeToString()
        values = numpy_helper.to_array(tensor)
        tensor.CopyFrom(numpy_helper.from_array(values + 1e-6 * (1.0 + np.abs(values)), tensor.name))
        with pytest.raises(AssertionError, match="error"):
            check_exact(spec, before, after)
        tensor.ParseFromString(kept)


@settings(max_examples=200, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@seed(0)
@given(st.data())
def test_feasible_sets_are_downward_closed(data: st.DataObject) -> None:
    search = Search(data.draw(specs()))
    if search.norms:
        subset = data.draw(st.sets(st.sampled_from(search.norms), min_size=1))
        removed = data.draw(st.sampled_from(sorted(subset)))
        if search.feasible(sorted(subset)):
            assert search.feasible(sorted(subset - {removed}))
