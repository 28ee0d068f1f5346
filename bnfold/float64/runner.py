"""An ONNX model in float64 as a runner beside those of `runners`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from numpy.typing import NDArray

from bnfold.running.runners import Declared


class Float64Runner:
    """An ONNX model run in float64: a `Runner` like the others, whose outputs are float64.

    Args:
        model: An `onnx_ir.Model`, ModelProto or path; it is not changed.
        label: What messages call it.

    Raises:
        UnsupportedError: It is no ONNX model.
    """

    name = "float64"

    def __init__(self, model: object, label: str = "the model") -> None:
        from bnfold.float64.evaluator import Evaluator

        self._evaluator = Evaluator(model, label)
        self.notes: tuple[str, ...] = self._evaluator.notes
        graph = self._evaluator.graph
        self.inputs: Declared = {
            value.name or "": _declared(value) for value in graph.inputs if value.name not in graph.initializers
        }
        self.outputs: Declared = {value.name or "": _declared(value) for value in graph.outputs}

    @property
    def input_names(self) -> tuple[str, ...]:
        """The inputs that must be fed."""
        return tuple(self.inputs)

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """One inference; the outputs by name, floats as float64.

        Raises:
            UsageError: An input is missing.
            UnsupportedError: An operator has no float64 meaning here.
        """
        return self._evaluator.run(feeds)

    def prepared(self, feeds: Mapping[str, NDArray[Any]]) -> Callable[[], Any]:
        """A function that does one inference."""
        return lambda: self.run(feeds)


def _declared(value: Any) -> tuple[str, tuple[int | None, ...] | None]:
    """Type and dimensions as onnxruntime says them."""
    kind = "" if value.dtype is None else value.dtype.name.lower()
    dims = None if value.shape is None else tuple(dim if isinstance(dim, int) else None for dim in value.shape)
    return f"tensor({kind})", dims
