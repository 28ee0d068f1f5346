"""What the BatchNorms of an unfolded ONNX model see: the mean and variance of their inputs over a data set.

The model is run with reductions in place of its outputs (`probes`), so that a batch leaves 2·C numbers per BatchNorm;
batches go together in `moments`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from bnfold.data.batches import Dataset
from bnfold.data.feeds import model_inputs
from bnfold.data.streams import fixed_batch, stream
from bnfold.errors import UnsupportedError
from bnfold.running.runners import OrtRunner, runnable
from bnfold.statistics.moments import Moments
from bnfold.statistics.probes import Norm, inside, probed, reads

ONNX = ("", "ai.onnx")


@dataclass(frozen=True)
class Seen:
    """What a BatchNorm stores, and what it sees.

    Attributes:
        mean: float64[C], stored.
        variance: float64[C], stored.
        moments: Of its input over the data.
    """

    mean: NDArray[np.float64]
    variance: NDArray[np.float64]
    moments: Moments


def inlined(model: ir.Model) -> ir.Model:
    """A copy without local functions, in whose bodies BatchNorms would be out of sight."""
    from bnfold.frontends import inline

    return inline.inlined(model.clone())


def find_norms(model: ir.Model) -> tuple[tuple[Norm, ...], tuple[str, ...]]:
    """The BatchNorms of a model's main graph, in execution order, and one note on each kind of others."""
    varying: set[ir.Value] = set(model.graph.inputs)
    depths: dict[ir.Value, int] = {}
    norms: list[Norm] = []
    others = {"compute their statistics from the batch or from inputs": 0, "stand inside control flow": 0}
    for node in model.graph:
        read = [value for value in reads(node) if value is not None]
        depth = max((depths.get(value, 0) for value in read), default=0)
        others["stand inside control flow"] += sum(_is_norm(inner) for inner in inside(node))
        if _is_norm(node):
            stored, x = node.inputs[3:5], node.inputs[0]
            if _trains(node) or len(stored) < 2 or any(value is None or value in varying for value in stored):
                others["compute their statistics from the batch or from inputs"] += 1
            elif x in varying:
                output = node.outputs[0].name or ""
                norms.append(Norm(node.name or output, output, depth, _eps(node)))
                depth += 1
        if any(value in varying for value in read):
            varying.update(node.outputs)
        depths.update(dict.fromkeys(node.outputs, depth))
    said = (f"{count} BatchNorms {what} and are left as they are" for what, count in others.items() if count)
    return tuple(norms), tuple(sentence.replace("1 BatchNorms", "1 BatchNorm", 1) for sentence in said)


def collect(
    model: ir.Model,
    norms: Sequence[Norm],
    data: Dataset,
    progress: Callable[[float | None], None] | None = None,
) -> tuple[dict[str, Seen], int]:
    """One pass over the data.

    Args:
        model: The model; it is not changed.
        norms: Which of its BatchNorms to look at.
        data: The data set.
        progress: Called with the part done.

    Returns:
        What each saw, by `Norm.output`, and the number of rows.

    Raises:
        UsageError: The rows are not what the model takes.
        UnreadableError: The data is damaged.
        UnsupportedError: onnxruntime does not run the model, or a batch that had to be filled up cannot be cut again.
    """
    declared = model_inputs(model)
    stored: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]] = {}
    moments: dict[str, Moments] = {}
    runners: dict[int | None, OrtRunner] = {}
    rows = 0
    for fed in stream(data, declared):
        cut = fed.rows if fed.rows < fed.size else None
        if cut not in runners:
            with runnable(probed(model, norms, cut)) as file:
                runners[cut] = OrtRunner(file, optimize=False)
        got = list(runners[cut].run(fed.feeds).values())
        for index, norm in enumerate(norms):
            shape, mean, variance, old_mean, old_variance = got[5 * index : 5 * index + 5]
            if cut is not None and shape[0] != fed.size:
                raise UnsupportedError(
                    f"BatchNorm {norm.name!r} sees {shape[0]} rows for a batch of {fed.size}, so a batch that is not "
                    "full cannot be told apart",
                    f"Give a number of rows that {fixed_batch(declared)} divides, or export with an open batch.",
                )
            count = int((shape[0] if cut is None else cut) * np.prod(shape[2:]))
            part = Moments(count, mean, variance * count)
            moments[norm.output] = moments[norm.output].merge(part) if norm.output in moments else part
            stored[norm.output] = (old_mean, old_variance)
        rows += fed.rows
        if progress:
            progress(fed.done)
    return {key: Seen(*stored[key], found) for key, found in moments.items()}, rows


def _is_norm(node: ir.Node) -> bool:
    return node.op_type == "BatchNormalization" and node.domain in ONNX


def _trains(node: ir.Node) -> bool:
    mode = node.attributes.get("training_mode")
    return (mode is not None and bool(mode.as_int())) or sum(bool(value.name) for value in node.outputs) > 1


def _eps(node: ir.Node) -> float:
    attribute = node.attributes.get("epsilon")
    return 1e-5 if attribute is None else attribute.as_float()
