"""OpenVINO as a runtime of ONNX models: on the CPU, one stream, as fast as a single answer can be had.

It fuses while loading, as onnxruntime does. Where the CPU multiplies bfloat16 it would round to that; here it keeps the
precision of the model, as the other runtimes do, so that their times can be compared.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Mapping
from typing import Any

from numpy.typing import NDArray

from bnfold.errors import UnsupportedError, UsageError
from bnfold.running.runners import OPENVINO
from bnfold.wording import printable

CONFIGURATION = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1", "EXECUTION_MODE_HINT": "ACCURACY"}

TYPES = {
    **{"f16": "float16", "f32": "float", "f64": "double", "bf16": "bfloat16", "boolean": "bool"},
    **{f"{sign}{width}": f"{name}{width}" for sign, name in (("i", "int"), ("u", "uint")) for width in (8, 16, 32, 64)},
}


def require_openvino() -> None:
    """Refuses to go on where OpenVINO is not installed.

    Raises:
        UnsupportedError: It is not.
    """
    if importlib.util.find_spec("openvino") is None:
        raise UnsupportedError("OpenVINO is not installed here", "pip install openvino, or name other runtimes.")


class OpenVinoRunner:
    """A model compiled by OpenVINO for the CPU.

    Args:
        model: The file's path, or the serialised model.
        threads: Threads within an operator; None leaves it to OpenVINO.
        label: What an error message calls the model.

    Raises:
        UnsupportedError: OpenVINO is not installed, or does not compile the model.
    """

    def __init__(self, model: str | bytes, *, threads: int | None = None, label: str = "the model") -> None:
        require_openvino()
        import openvino

        self.name = OPENVINO
        self._label = label
        configuration: dict[str, Any] = CONFIGURATION | ({"INFERENCE_NUM_THREADS": threads} if threads else {})
        core = openvino.Core()
        try:
            compiled = core.compile_model(core.read_model(model), "CPU", configuration)
            self._request = compiled.create_infer_request()
        except Exception as error:
            raise UnsupportedError(
                f"OpenVINO {openvino.__version__.partition('-')[0]} does not load {label}: {_reason(error)}",
                "Check the model with another runtime.",
            ) from error
        self.inputs = {port.any_name: _declaration(port) for port in compiled.inputs}
        self.outputs = {port.any_name: _declaration(port) for port in compiled.outputs}

    @property
    def input_names(self) -> tuple[str, ...]:
        """The inputs that must be fed."""
        return tuple(self.inputs)

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """One inference; the outputs by name, in the model's order.

        Raises:
            UsageError: The model does not take these inputs.
        """
        results = self.prepared(feeds)()
        return {name: results[index].copy() for index, name in enumerate(self.outputs)}

    def prepared(self, feeds: Mapping[str, NDArray[Any]]) -> Callable[[], Any]:
        """A function that does one inference on these arrays, which are copied once; it raises as `run` does."""
        from openvino import Tensor

        missing = [name for name in self.inputs if name not in feeds]
        if missing:
            raise self._refused(feeds, f"it also takes {', '.join(missing)}")
        tensors = {name: Tensor(array) for name, array in feeds.items()}

        def infer() -> Any:
            try:
                return self._request.infer(tensors, share_inputs=True, share_outputs=True)
            except RuntimeError as error:
                raise self._refused(feeds, _reason(error)) from error

        return infer

    def _refused(self, feeds: Mapping[str, NDArray[Any]], why: str) -> UsageError:
        fed = ", ".join(f"{name} {'×'.join(map(str, array.shape))} {array.dtype}" for name, array in feeds.items())
        return UsageError(
            f"{self._label} does not run on {fed}: {why}",
            "Pass inputs it accepts: --input [NAME:]SHAPE[:DTYPE], or --input-data FILE.",
        )


def _declaration(port: Any) -> tuple[str, tuple[int | None, ...] | None]:
    """Type and dimensions of an input or output, as onnxruntime would say them."""
    name = port.element_type.get_type_name()
    shape = port.partial_shape
    if shape.rank.is_dynamic:
        return f"tensor({TYPES.get(name, name)})", None
    return f"tensor({TYPES.get(name, name)})", tuple(dim.get_length() if dim.is_static else None for dim in shape)


def _reason(error: Exception) -> str:
    """What OpenVINO says, without the places in its source."""
    lines = [re.sub(r" at src/\S+:$", "", line.strip()) for line in str(error).splitlines()]
    told = [line for line in lines if line and not line.startswith(("Exception from ", "Check '"))]
    return printable(" ".join(told) or type(error).__name__, 300)
