"""Small ONNX models, written concisely, folded, and run before and after: the plan counts, the function stays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from bnfold.frontends.onnx import fold_model
from bnfold.planning.choices import Choices
from bnfold.planning.plan import Plan

Feeds = dict[str, np.ndarray]
Shape = Sequence["int | str"]

SIZES: tuple[Mapping[str, int], ...] = ({"N": 2, "H": 6, "W": 6}, {"N": 1, "H": 8, "W": 6})  # of named dimensions


@dataclass
class Case:
    """A model being written; values are known by their names.

    Attributes:
        opset: Version of the default operator set.
        dtype: Of inputs and weights.
        ir_version: Of the file.
        seed: Of the weights.
    """

    opset: int = 18
    dtype: Any = np.float64
    ir_version: int = 8
    seed: int = 0
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    inputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    initializers: list[onnx.TensorProto] = field(default_factory=list)
    functions: list[onnx.FunctionProto] = field(default_factory=list)
    domains: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.names = 0

    def name(self, stem: str) -> str:
        self.names += 1
        return f"{stem}{self.names}"

    def input(self, *shape: int | str, name: str = "x", dtype: Any = None) -> str:
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype or self.dtype))
        self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def const(self, array: Any, name: str | None = None, dtype: Any = None) -> str:
        array = np.asarray(array)
        kind = dtype or (self.dtype if array.dtype.kind == "f" else array.dtype)
        name = name or self.name("c")
        self.initializers.append(numpy_helper.from_array(array.astype(kind), name))
        return name

    def ints(self, *values: int) -> str:
        return self.const(np.array(values, dtype=np.int64))

    def draw(self, *shape: int, low: float | None = None, name: str | None = None) -> str:
        """A random constant; at least `low` where that is given."""
        array = self.rng.standard_normal(shape)
        return self.const(array if low is None else low + np.abs(array), name)

    def op(self, op_type: str, *inputs: str, outputs: int | Sequence[str] = 1, **attributes: Any) -> Any:
        """A node; its result's name, or a list of them."""
        names = [self.name("v") for _ in range(outputs)] if isinstance(outputs, int) else list(outputs)
        label = attributes.pop("label", self.name(op_type.lower()))
        self.nodes.append(helper.make_node(op_type, list(inputs), names, name=label, **attributes))
        return names[0] if len(names) == 1 else names

    def conv(self, x: str, out: int, inner: int, *kernel: int, bias: bool = True, **attributes: Any) -> str:
        """`inner` is the number of input channels of one group."""
        operands = [x, self.draw(out, inner, *kernel)] + ([self.draw(out)] if bias else [])
        return self.op("Conv", *operands, **attributes)

    def bn_params(self, channels: int, **given: Any) -> list[str]:
        drawn = {
            "gamma": self.rng.uniform(0.5, 2, channels),
            "beta": self.rng.standard_normal(channels),
            "mean": self.rng.standard_normal(channels),
            "var": self.rng.uniform(0.5, 2, channels),
        }
        return [self.const(np.asarray(given.get(key, value), dtype=np.float64)) for key, value in drawn.items()]

    def bn(self, x: str, channels: int, **given: Any) -> str:
        """A BatchNormalization at inference, of random parameters (gamma positive) or given ones."""
        params = {key: given.pop(key) for key in ("gamma", "beta", "mean", "var") if key in given}
        if self.opset < 7:
            given.setdefault("is_test", 1)
        if self.opset < 6:
            given.setdefault("consumed_inputs", [0, 0, 0, 1, 1])
        return self.op("BatchNormalization", x, *self.bn_params(channels, **params), **given)

    def mixed(self, channels: int) -> np.ndarray:
        """A gamma with both signs."""
        return self.rng.uniform(0.5, 2, channels) * np.where(np.arange(channels) % 2, -1, 1)

    def body(self, name: str, outputs: Sequence[str], inputs: Sequence[Any] = (), first: int = 0) -> onnx.GraphProto:
        """The nodes written since the `first` as a body of control flow."""
        nodes, self.nodes = self.nodes[first:], self.nodes[:first]
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(self.dtype))
        made = [o if not isinstance(o, str) else helper.make_tensor_value_info(o, kind, None) for o in outputs]
        return helper.make_graph(nodes, name, list(inputs), made)

    def model(self, *outputs: str, shapes: Mapping[str, Shape] | None = None, **types: int) -> onnx.ModelProto:
        """The checked model.

        Args:
            outputs: Names of its outputs.
            shapes: Shapes of outputs that ONNX cannot infer.
            types: Element types of outputs that ONNX cannot infer; the case's own where it is left out.
        """
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(self.dtype))
        imports = [helper.make_opsetid("", self.opset), *(helper.make_opsetid(d, v) for d, v in self.domains.items())]
        bare = [onnx.ValueInfoProto(name=o) for o in outputs]
        graph = helper.make_graph(self.nodes, "case", self.inputs, bare, self.initializers)
        proto = helper.make_model(graph, opset_imports=imports, ir_version=self.ir_version, functions=self.functions)
        inferred = onnx.shape_inference.infer_shapes(proto)
        known = {i.name: i.type for i in (*inferred.graph.output, *inferred.graph.input)}
        known |= {t.name: helper.make_tensor_type_proto(t.data_type, t.dims) for t in self.initializers}
        for info in proto.graph.output:
            found = known.get(info.name)
            if found is not None and found.HasField("tensor_type") and found.tensor_type.HasField("shape"):
                info.type.CopyFrom(found)
                continue
            shape = (shapes or {}).get(info.name, ())
            info.CopyFrom(helper.make_tensor_value_info(info.name, types.get(info.name, kind), shape))
        onnx.checker.check_model(proto)
        return proto


@dataclass(frozen=True)
class Folded:
    """What came of a model.

    Attributes:
        before: The model.
        after: The folded one.
        plan: What was done.
    """

    before: onnx.ModelProto
    after: onnx.ModelProto
    plan: Plan

    def ops(self) -> list[str]:
        """Operator types of the main graph, in order."""
        return [node.op_type for node in self.after.graph.node]

    def initializer(self, name: str) -> np.ndarray:
        return next(numpy_helper.to_array(t) for t in self.after.graph.initializer if t.name == name)

    @property
    def into(self) -> list[tuple[str, ...]]:
        return [site.into for site in self.plan.sites]


def fold(proto: onnx.ModelProto, *, check: bool = True, duplicate: str = "auto") -> Folded:
    """Fold a model, and check what holds for every fold: the argument stays, a second fold finds nothing."""
    original = ir.from_proto(proto)
    written = ir.to_proto(original).SerializeToString(deterministic=True)
    planned = fold_model(original, Choices(duplicate=duplicate))[1]
    model, plan = fold_model(original, Choices(duplicate=duplicate))
    assert ir.to_proto(original).SerializeToString(deterministic=True) == written, "the argument was changed"
    assert planned == plan, "the plan alone and the fold's plan differ"
    after = ir.to_proto(model)
    if check:
        onnx.checker.check_model(after)
    assert [i.name for i in proto.graph.output] == [i.name for i in after.graph.output]
    weights = {t.name for t in proto.graph.initializer} if proto.ir_version < 4 else set()
    assert [i.name for i in proto.graph.input if i.name not in weights] == [i.name for i in after.graph.input]
    _, again = fold_model(ir.from_proto(after), Choices(duplicate=duplicate))
    assert again.folded == again.merged == 0, f"a second fold found {[s for s in again.sites if s.status != 'kept']}"
    return Folded(proto, after, plan)


def codes(plan: Plan) -> tuple[str, ...]:
    """Why each BatchNorm that stays does, in graph order."""
    return tuple("" if site.reason is None else site.reason.code for site in plan.sites if site.status == "kept")


def check(
    proto: onnx.ModelProto,
    *kept: str,
    ort: bool = False,
    sizes: Sequence[Mapping[str, int]] = SIZES,
    values: Mapping[str, Any] | None = None,
    duplicate: str = "auto",
) -> Folded:
    """Fold a model; exactly the BatchNorms with these reason codes stay, and the function is the same.

    Args:
        proto: The model.
        kept: Reason codes of the BatchNorms that stay, in graph order.
        ort: Whether to run it on onnxruntime in the model's own dtype, where ONNX's reference is slow or wrong.
        sizes: Sizes of the named dimensions, one mapping per run.
        values: Inputs that are not to be drawn.
        duplicate: Whether shared weights may be copied.
    """
    folded = fold(proto, duplicate=duplicate)
    assert codes(folded.plan) == kept, [(s.name, s.status, s.reason) for s in folded.plan.sites]
    same_function(folded, ort=ort, sizes=sizes, values=values)
    return folded


def same_function(
    folded: Folded,
    *,
    ort: bool = False,
    sizes: Sequence[Mapping[str, int]] = SIZES,
    values: Mapping[str, Any] | None = None,
) -> None:
    named = {d.dim_param for i in folded.before.graph.input for d in i.type.tensor_type.shape.dim if d.dim_param}
    for seed, known in enumerate(sizes if named else ({}, {})):
        feeds = draw(folded.before, {**dict.fromkeys(named, 3), **known}, seed, values or {})
        before, after = (run(m, feeds, ort) for m in (folded.before, folded.after))
        assert_same(before, after)


def draw(proto: onnx.ModelProto, sizes: Mapping[str, int], seed: int, values: Mapping[str, Any]) -> Feeds:
    """Inputs: read-only, so that a hidden write fails."""
    rng = np.random.default_rng(seed)
    initialized = {t.name for t in proto.graph.initializer}
    feeds: Feeds = {}
    for info in proto.graph.input:
        if info.name in initialized:
            continue
        kind = helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)
        shape = [sizes[d.dim_param] if d.dim_param else d.dim_value for d in info.type.tensor_type.shape.dim]
        array = rng.standard_normal(shape) * 2 if kind.kind not in "iub" else rng.integers(0, 2, shape)
        feeds[info.name] = np.asarray(values.get(info.name, array)).astype(kind)
        feeds[info.name].setflags(write=False)
    return feeds


def run(proto: onnx.ModelProto, feeds: Feeds, ort: bool = False) -> list[Any]:
    if not ort:
        with np.errstate(all="ignore"):
            return list(ReferenceEvaluator(proto).run(None, feeds))
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, feeds))


TOLERANCE = {"float64": 1e-9, "float32": 3e-5, "float16": 2e-2, "bfloat16": 1e-1}


def assert_same(before: Sequence[Any], after: Sequence[Any]) -> None:
    """Outputs agree in number, type, shape, and in value relative to the largest one."""
    assert len(before) == len(after)
    for expected, found in zip(before, after, strict=True):
        assert expected.dtype == found.dtype, f"{expected.dtype} became {found.dtype}"
        assert expected.shape == found.shape, f"{expected.shape} became {found.shape}"
        if expected.dtype.name not in TOLERANCE:
            np.testing.assert_array_equal(expected, found)
            continue
        a, b = expected.astype(np.float64), found.astype(np.float64)
        np.testing.assert_array_equal(np.isfinite(a), np.isfinite(b))
        scale = np.abs(a[np.isfinite(a)]).max(initial=1.0)
        np.testing.assert_allclose(b, a, rtol=0, atol=TOLERANCE[expected.dtype.name] * scale)
