"""Runs models: what a runtime offers, onnxruntime, and the form of an ONNX model that it can open.

`ort` is onnxruntime as everybody calls it: it rewrites the graph while loading (it folds a Conv and its BatchNorm,
for one). `ort-as-written` runs exactly the operators that stand in the file. Comparing two models under `ort` may
compare a fold with a fold, so correctness is always judged as written. PyTorch networks run in `torch`
and `torch-compile` (`torchrunner`), ONNX models also in `openvino` (`openvinorunner`).
"""

from __future__ import annotations

import os
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bnfold.errors import UnsupportedError, UsageError
from bnfold.wording import guess_among

Inputs = Mapping[str, ArrayLike] | Sequence[ArrayLike] | NDArray[Any]
Declared = Mapping[str, tuple[str, tuple[int | None, ...] | None]]  # type and dimensions by name, as far as known

OPENVINO = "openvino"
ORT_RUNTIMES = ("ort", "ort-as-written")
ONNX_RUNTIMES = (*ORT_RUNTIMES, OPENVINO)
TORCH_RUNTIMES = ("torch", "torch-compile")
RUNTIMES = (*ORT_RUNTIMES, *TORCH_RUNTIMES, OPENVINO)

ORT_PROVIDERS = {
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("CUDAExecutionProvider", "CPUExecutionProvider"),
}

IN_MEMORY_LIMIT_BYTES = 1_800_000_000  # protobuf refuses messages of 2 GiB and more


class Runner(Protocol):
    """What every runtime offers."""

    @property
    def name(self) -> str:
        """The runtime's name, as `--runtime` takes it."""

    @property
    def input_names(self) -> tuple[str, ...]:
        """The inputs that must be fed."""

    @property
    def inputs(self) -> Declared:
        """What the model declares of its inputs."""

    @property
    def outputs(self) -> Declared | None:
        """What the model declares of its outputs; None where only a run can tell."""

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """One inference; the outputs by name, in the model's order."""

    def prepared(self, feeds: Mapping[str, NDArray[Any]]) -> Callable[[], Any]:
        """A function that does one inference and nothing else, to be timed."""


class OrtRunner:
    """A model loaded by onnxruntime.

    Args:
        model: The file's path, or the serialised model.
        optimize: False runs the operators as written; True is onnxruntime's default.
        threads: Threads within an operator; None leaves it to onnxruntime.
        label: What an error message calls the model.
        device: `"cpu"` or `"cuda"`, where operators that CUDA does not have still run on the CPU.

    Raises:
        UnsupportedError: onnxruntime does not load the model, or not on that device.
    """

    def __init__(
        self,
        model: str | bytes,
        *,
        optimize: bool,
        threads: int | None = None,
        label: str = "the model",
        device: str = "cpu",
    ) -> None:
        import onnxruntime

        self.name = "ort" if optimize else "ort-as-written"
        self._label, self._device = label, device
        options = session_options(optimize=optimize, threads=threads)
        providers = ORT_PROVIDERS[device]
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=list(providers))
        except Exception as error:
            raise UnsupportedError(
                f"onnxruntime {onnxruntime.__version__} does not load {label}: {_one_line(error)}",
                "Check the model with another runtime, or convert with --verify off.",
            ) from error
        if self._session.get_providers()[0] != providers[0]:  # it falls back to the CPU with no more than a remark
            raise UnsupportedError(
                f"onnxruntime {onnxruntime.__version__} does not start {providers[0]} for {label}",
                "Check that the GPU is visible and that CUDA and cuDNN are the versions onnxruntime-gpu asks for.",
            )
        self.inputs: dict[str, tuple[str, tuple[int | None, ...] | None]] = {
            arg.name: (arg.type, _dims(arg.shape)) for arg in self._session.get_inputs()
        }
        self.outputs: dict[str, tuple[str, tuple[int | None, ...] | None]] = {
            arg.name: (arg.type, _dims(arg.shape)) for arg in self._session.get_outputs()
        }

    @property
    def input_names(self) -> tuple[str, ...]:
        """The inputs that must be fed (an overridable initializer need not be)."""
        return tuple(self.inputs)

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """One inference; the outputs by name, in the model's order.

        Raises:
            UsageError: The model's declaration refuses these inputs.
            UnsupportedError: An operator does.
        """
        try:
            values = self._session.run(None, dict(feeds))
        except Exception as error:
            fed = ", ".join(f"{name} {'×'.join(map(str, array.shape))} {array.dtype}" for name, array in feeds.items())
            rejected = type(error).__name__ == "InvalidArgument" or isinstance(error, ValueError)
            raise (UsageError if rejected else UnsupportedError)(
                f"{self._label} does not run on {fed}: {_one_line(error)}",
                "Pass inputs it accepts: --input [NAME:]SHAPE[:DTYPE], or --input-data FILE.",
            ) from error
        named: dict[str, NDArray[Any]] = {}
        for name, value in zip(self.outputs, values, strict=True):
            items = (
                {f"{name}[{index}]": item for index, item in enumerate(value)}
                if isinstance(value, list)
                else {name: value}
            )
            named |= {key: np.asarray(item) for key, item in items.items()}
        return named

    def prepared(self, feeds: Mapping[str, NDArray[Any]]) -> Callable[[], Any]:
        """A function that does one inference on these arrays; it raises as `run` does.

        On another device than the CPU inputs and outputs stay there, and it returns when the device is done.
        """
        if self._device == "cpu":
            return lambda: self.run(feeds)
        self.run(feeds)  # refuses in words what the binding would not
        return self._bound(feeds, self._device)

    def _bound(self, feeds: Mapping[str, NDArray[Any]], device: str) -> Callable[[], Any]:
        """One inference from arrays that lie on a device to new ones there."""
        from onnxruntime import OrtValue

        binding = self._session.io_binding()
        for name, array in feeds.items():
            binding.bind_ortvalue_input(name, OrtValue.ortvalue_from_numpy(array, device, 0))
        for name in self.outputs:
            binding.bind_output(name, device)

        def infer() -> Any:
            self._session.run_with_iobinding(binding)
            return binding.get_outputs()

        return infer


def make_runner(
    runtime: str, model: str | bytes, *, threads: int | None = None, label: str = "the model", device: str = "cpu"
) -> OrtRunner:
    """The runner of onnxruntime by its name.

    Raises:
        UsageError: There is no such runtime.
        UnsupportedError: It does not load the model.
    """
    check_runtime(runtime)
    if runtime not in ORT_RUNTIMES:
        raise wrong_runtime(runtime, "ONNX", ORT_RUNTIMES)
    return OrtRunner(model, optimize=runtime == "ort", threads=threads, label=label, device=device)


def check_runtime(runtime: str) -> None:
    """Refuses a runtime that does not exist.

    Raises:
        UsageError: It does not.
    """
    if runtime not in RUNTIMES:
        raise UsageError(f"no runtime is called {runtime!r}", guess_among(runtime, RUNTIMES))


def wrong_runtime(runtime: str, kind: str, usable: Sequence[str]) -> UsageError:
    """The refusal of a runtime that runs another kind of model than this one."""
    runs = "a PyTorch network" if runtime in TORCH_RUNTIMES else "an ONNX model"
    return UsageError(
        f"runtime {runtime!r} runs {runs}, and this is {'an ONNX model' if kind == 'ONNX' else 'a PyTorch network'}",
        f"Use one of: {', '.join(usable)}.",
    )


def session_options(*, optimize: bool, threads: int | None = None) -> Any:
    """The onnxruntime options bnfold runs every model with."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what matters is raised; the rest would be written to the user's stderr
    options.inter_op_num_threads = 1
    options.intra_op_num_threads = threads or 0
    # Idle threads of one session would otherwise spin for a while on the cores the next session is timed on.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimize else levels.ORT_DISABLE_ALL
    return options


def as_ir(model: object) -> Any:
    """The `onnx_ir.Model` of a path, a ModelProto or an `onnx_ir.Model`; tensors of a file stay on disk.

    Raises:
        UnsupportedError: It is something else.
    """
    import onnx_ir

    if isinstance(model, onnx_ir.Model):
        return model
    if isinstance(model, (str, os.PathLike)):
        from bnfold.loading.load import load

        advice = "Convert it to ONNX first: bnfold convert MODEL -o OUT.onnx."
        try:
            loaded = load(model)
        except UsageError as error:  # weights without their network, for which there is no --arch here
            raise UnsupportedError(f"{model} holds weights only; what is run must be an ONNX model", advice) from error
        if isinstance(loaded.model, onnx_ir.Model):
            return loaded.model
        raise UnsupportedError(f"{model} is a {loaded.format} file; what is run must be an ONNX model", advice)
    import onnx

    if isinstance(model, onnx.ModelProto):
        return onnx_ir.from_proto(model)
    raise UnsupportedError(
        f"a {type(model).__module__}.{type(model).__name__} cannot be run directly",
        "Pass a torch.nn.Module, a torch.export.ExportedProgram, an onnx.ModelProto, an onnx_ir.Model, or a path.",
    )


@contextmanager
def runnable(model: object) -> Iterator[str | bytes]:
    """The form of a model a runtime opens: its path as it is, else its bytes, else a temporary file beside its tensors.

    The temporary file serves models whose tensors lie in files of their own or do not fit one protobuf message, and is
    gone when the context ends.
    """
    if isinstance(model, (str, os.PathLike)):
        yield str(Path(model).absolute())
        return
    import onnx_ir

    opened = as_ir(model)
    tensors = [value.const_value for graph in opened.graphs() for value in graph.initializers.values()]
    in_files = any(isinstance(tensor, onnx_ir.ExternalTensor) for tensor in tensors)
    if not in_files and sum(tensor.nbytes for tensor in tensors if tensor is not None) < IN_MEMORY_LIMIT_BYTES:
        yield onnx_ir.to_proto(opened).SerializeToString()
        return
    with tempfile.TemporaryDirectory(prefix="bnfold-") as folder:
        path = Path(folder) / "model.onnx"
        onnx_ir.save(opened, path, external_data="model.data")
        yield str(path)


def named_inputs(inputs: Inputs, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """The arrays a caller passed, by input name.

    Raises:
        UsageError: Arrays without names are not as many as the inputs.
    """
    if isinstance(inputs, Mapping):
        return {str(name): np.asarray(array) for name, array in inputs.items()}
    arrays = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
    if len(arrays) != len(names):
        raise UsageError(
            f"{len(arrays)} input arrays were passed, and the model has {len(names)} inputs: {', '.join(names)}",
            "Pass one array per input, in that order, or pass them by name.",
        )
    return {name: np.asarray(array) for name, array in zip(names, arrays, strict=True)}


def count_operators(model: Any) -> dict[str, int]:
    """Nodes by operator type in an `onnx_ir.Model`, bodies and functions included, most frequent first."""
    import onnx_ir

    graphs = [model.graph, *model.functions.values()]
    counts = Counter(node.op_type for graph in graphs for node in onnx_ir.traversal.RecursiveGraphIterator(graph))
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def batch_norms_after_load(model: str | bytes) -> int | None:
    """How many BatchNormalizations are left once onnxruntime has done its own basic rewriting.

    None where the model is too large to have it written out, or cannot be.
    """
    import onnx_ir
    import onnxruntime

    size = len(model) if isinstance(model, bytes) else Path(model).stat().st_size
    if size > IN_MEMORY_LIMIT_BYTES:
        return None
    with tempfile.TemporaryDirectory(prefix="bnfold-") as folder:
        options = session_options(optimize=True)
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
        try:
            onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
            optimized = onnx_ir.load(options.optimized_model_filepath)
        except Exception:  # the runtime has many ways to refuse, and this is only an explanation in a table
            return None
    return count_operators(optimized).get("BatchNormalization", 0)


def _dims(shape: list[int | str | None] | None) -> tuple[int | None, ...] | None:
    if shape is None:
        return None
    return tuple(dim if isinstance(dim, int) else None for dim in shape)


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : ", "", text).removesuffix(
        "Please fix either the inputs/outputs or the model."
    )
    return text.strip() if len(text) <= 300 else text[:297] + "..."
