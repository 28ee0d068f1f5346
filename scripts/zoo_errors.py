"""How far a folded model is from the network: in float32, where rounding shows, and in float64, where it does not."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch.utils import _pytree as pytree
from zoo_double import exactness

from bnfold.running.runners import OrtRunner
from bnfold.verification.compare import difference

Outputs = list[list[NDArray[Any]]]  # per input, per output


def errors(before: bytes, after: bytes, module: torch.nn.Module, examples: list[torch.Tensor]) -> dict[str, Any]:
    """Largest differences of an output as a part of the output's scale, over some inputs, the models run as written.

    `difference` is between both models. `rounding_before` and `rounding_after` are what separates each from the network
    run in float64 by torch: of a network that magnifies rounding errors, no float32 model is any closer to another.
    `runtimes` is between onnxruntime and torch, both on the unfolded network in float32.

    `double` is between the model and its fold if everything is float64, on the first input, with
    `left` BatchNorms, and `logit` is the largest number that goes into a Softmax there.
    """
    try:
        runners = [OrtRunner(data, optimize=False) for data in (before, after)]
        [input_name] = runners[0].input_names
        outputs = [[list(r.run({input_name: x.numpy()}).values()) for x in examples] for r in runners]
        exact = exactness(before, {input_name: examples[0].numpy()})
    except Exception as error:
        return {"difference": str(error)}
    if exact.left != (counted := batch_norms(onnx.load_from_string(after))):
        return {"difference": f"folded in float64, {exact.left} BatchNorms are left, not {counted}"}
    with torch.no_grad():
        single = [_tensors(module(x)) for x in examples]
        double = [_tensors(module.double()(x.double())) for x in examples]
    found, rounding = worst(outputs[0], outputs[1]), worst(double, outputs[1])
    origin = [worst(double, outputs[0]), worst(double, single)]
    if found is None or rounding is None or None in origin:
        return {"difference": "outputs cannot be compared: shapes or non-finite elements differ"}
    return {
        "difference": found,
        "rounding_before": max(rel for rel in origin if rel is not None),
        "rounding_after": rounding,
        "runtimes": worst(single, outputs[0]),
        "double": exact.difference,
        "left": exact.left,
        "logit": exact.logit,
    }


def worst(one: Outputs, other: Outputs) -> float | None:
    """The largest difference of an output as a part of its scale; None where they cannot be compared."""
    arrays = zip(itertools.chain(*one), itertools.chain(*other), strict=True)
    found = [difference(a.astype(np.float64), b.astype(np.float64)).rel for a, b in arrays]
    return None if None in found else max(rel for rel in found if rel is not None)


def _tensors(output: Any) -> list[NDArray[Any]]:
    """The tensors that a network returns, alone, in containers or by name, in order."""
    return [leaf.numpy() for leaf in pytree.tree_leaves(output) if isinstance(leaf, torch.Tensor)]


def batch_norms(model: onnx.ModelProto) -> int:
    """How many BatchNormalizations a model has."""
    return sum(node.op_type == "BatchNormalization" for node in model.graph.node)
