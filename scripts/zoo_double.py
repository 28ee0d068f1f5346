"""Whether a fold is the same function, seen without rounding: the network and its fold, both in float64.

What separates two float32 models of one network is rounding, and a network may magnify that until little is left to
see. So the network is made float64, folded as such, and both are run in float64 by bnfold's evaluator.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from bnfold.float64.evaluator import Evaluator
from bnfold.verification.compare import difference

Array = NDArray[Any]
SINGLE, DOUBLE = TensorProto.FLOAT, TensorProto.DOUBLE
KEPT_SINGLE = {"Resize": (1, 2)}  # operands that are float32 whatever the feature is: roi and scales


class Exactness(NamedTuple):
    """A network and its fold, both in float64.

    Attributes:
        difference: The largest of an output as a part of the output's scale, NaN where they cannot be compared.
        left: BatchNorms in the fold.
        logit: The largest number, without its sign, that goes into a Softmax; 0 where there is none.
    """

    difference: float
    left: int
    logit: float


def exactness(raw: bytes, feeds: Mapping[str, Array]) -> Exactness:
    """Folds a network in float64 and runs both.

    Args:
        raw: A float32 model.
        feeds: Its inputs.
    """
    import bnfold

    before = in_float64(onnx.load_from_string(raw))
    after: onnx.ModelProto = bnfold.fold(before).model
    wide = {name: value.astype(np.float64) if value.dtype == np.float32 else value for name, value in feeds.items()}
    logits, largest = set(_read_by_softmax(before)), [0.0]

    def look(node: Any, results: tuple[Any, ...]) -> None:
        largest.extend(
            float(result.abs().max())
            for value, result in zip(node.outputs, results, strict=False)
            if value.name in logits
        )

    one, other = Evaluator(before).run(wide, look), Evaluator(after).run(wide)
    found = [difference(value, other[name]).rel for name, value in one.items()]
    rel = float("nan") if None in found else max(rel for rel in found if rel is not None)
    left = sum(node.op_type == "BatchNormalization" for node in after.graph.node)
    return Exactness(rel, left, max(largest))


def _read_by_softmax(model: onnx.ModelProto) -> list[str]:
    return [node.input[0] for node in model.graph.node if node.op_type == "Softmax"]


def in_float64(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network in float64: weights, constants, casts, inputs and outputs."""
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    graph = wide.graph
    single = {
        name
        for node in graph.node
        for place, name in enumerate(node.input)
        if place in KEPT_SINGLE.get(node.op_type, ())
    }
    for tensor in graph.initializer:
        if tensor.name not in single:
            _widen(tensor)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t") and not single & set(node.output):
                _widen(attribute.t)
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == SINGLE:
                attribute.i = DOUBLE
    del graph.value_info[:]
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type == SINGLE:
            value.type.tensor_type.elem_type = DOUBLE
    return wide


def _widen(tensor: onnx.TensorProto) -> None:
    if tensor.data_type == SINGLE:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))
