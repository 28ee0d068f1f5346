"""New statistics for BatchNorms, from data like those the model will get.

The running statistics of training are a moving average over mini-batches of training data. Here those of a whole data
set are computed instead, exactly: layer by layer, each from inputs that were normalised by the *new* statistics of all
layers before it, so that in the end every BatchNorm stores what it sees. (Wu and Johnson 2021, "Rethinking 'Batch' in
BatchNorm", section 3, on population statistics instead of moving averages. Their PreciseBN averages mini-batch
statistics in one pass; the layer-by-layer way needs more passes and does not depend on the batch size.)

BatchNorms none of which stands before another are done in one pass. A network whose longest chain has L BatchNorms
takes L passes over the data, each as far as the layers it is for: about L/2 times the work of running the model on it.

The variance is that of the population, divided by the count, as a BatchNorm uses in training; torch's running variance
is that of a sample, count/(count − 1) times as large. The data set is what the statistics are to describe, so nothing
is estimated, and for the count of any real data set (rows × positions) both round to nearly the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bnfold.data.batches import Dataset
from bnfold.errors import UnsupportedError, UsageError
from bnfold.statistics.drift import Layer, layer_of
from bnfold.units.affine import round_once

if TYPE_CHECKING:
    import onnx_ir

    from bnfold.statistics.normstats import Seen
    from bnfold.statistics.probes import Norm


@dataclass(frozen=True)
class Recalibration:
    """What was done.

    Attributes:
        data: Where the rows came from.
        n: How many there were.
        passes: How often they were read.
        layers: How far the old statistics were from the new ones, the worst first.
        notes: Which BatchNorms were left as they are, and what to know about others.
    """

    data: str
    n: int
    passes: int
    layers: tuple[Layer, ...]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The recalibration as it stands in `--json`."""
        layers = [layer.to_dict() for layer in self.layers]
        return {"data": self.data, "n": self.n, "passes": self.passes, "layers": layers}


def recalibrate(
    model: onnx_ir.Model, data: Dataset, progress: Callable[[float | None], None] | None = None
) -> tuple[onnx_ir.Model, Recalibration]:
    """A copy of an unfolded model whose BatchNorms store the statistics of their inputs over a data set.

    Args:
        model: The model, not changed.
        data: The data set, read once per pass; labels are not needed.
        progress: Called with the part done.

    Returns:
        The model with new means and variances, and what was done.

    Raises:
        UnsupportedError: There is no BatchNorm to do it for, onnxruntime does not run the model, or a statistic does
            not fit its dtype.
        UsageError: The rows are not what the model takes, or too few, or can be read only once.
        UnreadableError: The data is damaged.
    """
    from bnfold.statistics.normstats import collect, find_norms, inlined

    model = inlined(model)
    norms, notes = find_norms(model)
    if not norms:
        raise UnsupportedError("the model has no BatchNorm to recalibrate", "Give the model as it was before folding.")
    depths = sorted({norm.depth for norm in norms})
    layers: list[Layer] = []
    constant: list[str] = []
    rows = 0
    for index, depth in enumerate(depths):
        group = [norm for norm in norms if norm.depth == depth]
        seen, rows = collect(model, group, data, _part(progress, index, len(depths)))
        for norm in group:
            _check_count(norm, seen[norm.output], data.name)
            if not seen[norm.output].moments.variance.all():
                constant.append(norm.name)
            layers.append(layer_of(norm, seen[norm.output]))
        _store(model, group, seen)
    if constant:
        said = f"{constant[0]!r}" if len(constant) == 1 else f"{len(constant)} BatchNorms, {constant[0]!r} first"
        notes += (f"some channels of {said} are constant over the data; their variance is 0 now",)
    layers.sort(key=lambda layer: -layer.drift)
    return model, Recalibration(data.name, rows, len(depths), tuple(layers), notes)


def _part(
    progress: Callable[[float | None], None] | None, index: int, count: int
) -> Callable[[float | None], None] | None:
    if progress is None:
        return None
    return lambda done: progress(None if done is None else (index + done) / count)


def _check_count(norm: Norm, seen: Seen, source: str) -> None:
    if seen.moments.count < 2:
        raise UsageError(
            f"{source} gives BatchNorm {norm.name!r} a single value per channel, which has no variance",
            "Give more rows.",
        )


def _store(model: onnx_ir.Model, norms: Sequence[Norm], seen: dict[str, Seen]) -> None:
    """Puts the new statistics where the old ones were, as initializers of their own."""
    import onnx_ir as ir

    from bnfold.statistics.probes import nodes_by_output

    nodes = nodes_by_output(model)
    names = {value.name for value in (*model.graph.inputs, *model.graph.initializers.values())}
    names |= {value.name for node in ir.traversal.RecursiveGraphIterator(model.graph) for value in node.outputs}
    for norm in norms:
        node, moments = nodes[norm.output], seen[norm.output].moments
        for place, exact, what in ((3, moments.mean, "mean"), (4, moments.variance, "var")):
            old = node.inputs[place]
            assert old is not None
            kind = old.dtype or (old.const_value.dtype if old.const_value is not None else ir.DataType.FLOAT)
            array = round_once(exact, kind.numpy())
            if not np.isfinite(array.astype(np.float64)).all():
                raise UnsupportedError(
                    f"the {what} of BatchNorm {norm.name!r} over the data does not fit {kind.name}",
                    "Recalibrate the model in float32.",
                )
            name = f"{norm.output}_{what}"
            while name in names:
                name += "_"
            names.add(name)
            tensor = ir.Tensor(np.asarray(array, order="C"), dtype=kind, name=name)
            value = ir.Value(name=name, type=ir.TensorType(kind), shape=ir.Shape(array.shape), const_value=tensor)
            model.graph.register_initializer(value)
            node.replace_input_with(place, value)
            if old.is_initializer() and not old.uses() and not old.is_graph_output():
                model.graph.initializers.pop(old.name or "")
