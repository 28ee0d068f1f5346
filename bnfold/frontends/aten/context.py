"""What a reader of ATen operators may ask: arguments by name, constants, shapes, names.

A program is an exported graph in functional form: every node makes a new value, none changes one. What is computed from
parameters alone is a constant as well; it is evaluated in float64 and rounded once, when somebody asks for it.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

from bnfold.frontends.aten.nodes import (
    BATCH_NORMS,
    NAMED_AFTER_MODULES,
    UNINITIALISED,
    fake,
    module_stack,
    numpy_dtype,
    opname,
    results,
    to_numpy,
)
from bnfold.frontends.aten.stored import identities
from bnfold.planning.exclusion import excluded
from bnfold.reasons import Reason
from bnfold.units.affine import Array, round_once
from bnfold.units.graph import Op, Rigid, Shape, Value

FLOATS = {torch.float32: 24, torch.float64: 53, torch.float16: 11, torch.bfloat16: 8}  # bits of the significand
RANDOM = ("bernoulli", "dropout", "multinomial", "normal", "rand", "randint", "randn", "randperm", "rrelu_with_noise")


class Context:
    """One exported program being read.

    Attributes:
        graph: Its graph, in functional form.
        tensors: The tensor behind each placeholder that is the same at every run.
        shapes: Shapes of native and intermediate values, symbolic sizes by their expression.
        labels: The unique display name of every node.
        kept: BatchNorms that are no constant affine, with the reason, by label.
        held: Nodes that must stay as they are, because whoever carries out the plan cannot change them.
        any_size: Whether the plan must hold for images of other sizes than those of the program.
        norm_affine: Whether the scale and bias of normalisations are affines of their own.
        excluded: Labels of the BatchNorms that the caller wants to keep.
    """

    def __init__(
        self,
        graph: fx.Graph,
        tensors: dict[fx.Node, torch.Tensor],
        held: frozenset[str] = frozenset(),
        labels: dict[fx.Node, str] | None = None,
        *,
        any_size: bool = False,
        norm_affine: bool = False,
        exclude: Sequence[str] = (),
    ) -> None:
        self.graph = graph
        self.tensors = tensors
        self.held = held
        self.any_size = any_size
        self.norm_affine = norm_affine
        self.shapes: dict[Value, Shape] = {}
        self.labels = {} if labels is None else labels
        label_nodes(graph, self.labels)
        self.excluded = excluded(exclude, _norms(graph, self.labels)) if exclude else frozenset()
        self.kept: dict[str, Reason] = {}
        self._identity = identities(tensors)
        self._placeholders: dict[object, list[fx.Node]] = {}
        for node, key in self._identity.items():
            self._placeholders.setdefault(key, []).append(node)
        self._is_const: dict[fx.Node, bool] = {}
        self._exact: dict[fx.Node, Any] = {}
        self._arrays: dict[fx.Node, NDArray[Any]] = {}
        for node in graph.nodes:
            tensor = fake(node)
            if tensor is not None:
                self.shapes[node] = tuple(s if isinstance(s, int) else str(s) for s in tensor.shape)

    def shape(self, node: fx.Node) -> Shape:
        """The shape of a value."""
        return self.shapes[node]

    def rank(self, node: fx.Node) -> int:
        """The number of axes of a value."""
        return len(self.shapes[node])

    def label(self, node: fx.Node) -> str:
        """The node's unique name."""
        return self.labels[node]

    def extra(self, node: fx.Node, tag: str, shape: Sequence[int | str | None]) -> Value:
        """A value that exists only in the solver's graph."""
        key = (node, tag)
        self.shapes[key] = tuple(shape)
        return key

    def is_const(self, node: object) -> bool:
        """Whether a value is the same at every run."""
        if not isinstance(node, fx.Node):
            return False
        known = self._is_const.get(node)
        if known is None:
            known = self._is_const[node] = node in self.tensors or self._is_computed_const(node)
        return known

    def _is_computed_const(self, node: fx.Node) -> bool:
        if node.op != "call_function":
            return False
        if node.target is not operator.getitem and (
            not isinstance(node.target, torch._ops.OpOverload)
            or opname(node) in RANDOM + UNINITIALISED
            or node.target._schema.is_mutable
        ):
            return False
        return _has_tensors(node) and all(self.is_const(n) for n in node.all_input_nodes)

    def const(self, node: object) -> NDArray[Any] | None:
        """A value's array where it is the same at every run, else None."""
        if not isinstance(node, fx.Node) or not self.is_const(node):
            return None
        array = self._arrays.get(node)
        if array is None:
            tensor = self._wide(node) if node not in self.tensors else self.tensors[node]
            declared = fake(node)
            assert declared is not None
            array = to_numpy(tensor)
            if node not in self.tensors and declared.dtype in FLOATS:
                array = round_once(array, numpy_dtype(declared.dtype)) if tensor.dtype == torch.float64 else array
            self._arrays[node] = array
        return array

    def _wide(self, node: fx.Node) -> Any:
        """A constant as float64, before any rounding, where it is a float."""
        if node not in self._exact:
            if node in self.tensors:
                tensor = self.tensors[node].detach()
                self._exact[node] = tensor.double() if tensor.dtype in FLOATS else tensor
            else:
                with torch.no_grad():
                    args, kwargs = fx.map_arg((node.args, node.kwargs), self._wide)
                    made = node.target(*args, **kwargs)  # type: ignore[operator]
                self._exact[node] = made.double() if _is_float(made) else made
        return self._exact[node]

    def feature(self, node: object) -> bool:
        """Whether an argument is a tensor that depends on the inputs."""
        return isinstance(node, fx.Node) and fake(node) is not None and not self.is_const(node)

    def features(self, node: fx.Node) -> tuple[fx.Node, ...]:
        """What a node reads that is not the same at every run."""
        return tuple(n for n in node.all_input_nodes if self.feature(n))

    def identity(self, node: fx.Node) -> object:
        """What a stored constant is: two placeholders of one tensor are the same."""
        return self._identity.get(node) or node

    def entangled(self, node: fx.Node) -> bool:
        """Whether a stored constant shares its memory with another one that is not the same tensor."""
        return self._identity.get(node) is None and node in self.tensors

    def aliases(self, node: fx.Node) -> list[fx.Node]:
        """Every placeholder of the tensor behind a placeholder, itself included."""
        mine = self._identity.get(node)
        return [node] if mine is None else self._placeholders[mine]

    def readers(self, node: fx.Node) -> list[fx.Node]:
        """Every node that reads a constant, under any of its names."""
        return [user for each in self.aliases(node) for user in each.users]

    def rigid(self, node: fx.Node, reason: Reason) -> list[Op]:
        """A node that keeps all units around it."""
        return [Rigid(self.label(node), self.features(node), results(node), reason)]


def label_nodes(graph: fx.Graph, labels: dict[fx.Node, str]) -> None:
    """A name for every node that has none: the path of the module it is the operator of where that says it all."""
    nodes = list(graph.nodes)
    for gone in labels.keys() - set(nodes):
        del labels[gone]
    used = set(labels.values())
    for node in nodes:
        if node in labels:
            continue
        stack = module_stack(node)
        name = stack[-1] if stack and stack[-1] and opname(node) in NAMED_AFTER_MODULES else node.name
        label, n = name, 2
        while label in used:
            label, n = f"{name}#{n}", n + 1
        used.add(label)
        labels[node] = label


def _has_tensors(node: fx.Node) -> bool:
    value = node.meta.get("val")
    values: Iterable[object] = value if isinstance(value, list | tuple) else [value]
    return all(
        isinstance(v, torch.Tensor) and all(isinstance(s, int) for s in v.shape) for v in values if v is not None
    )


def _is_float(value: object) -> bool:
    return isinstance(value, torch.Tensor) and value.dtype in FLOATS


def wide(array: NDArray[Any] | None, size: int, default: float) -> Array:
    """A parameter as float64[size]; what is absent is the same everywhere."""
    return np.full(size, default) if array is None else np.asarray(array).astype(np.float64).reshape(-1)


def _norms(graph: fx.Graph, labels: Mapping[fx.Node, str]) -> dict[str, str]:
    """The module of every BatchNorm, by its label."""
    norms = [node for node in graph.nodes if opname(node) in BATCH_NORMS]
    return {labels[node]: (module_stack(node) or ("",))[-1] for node in norms}
