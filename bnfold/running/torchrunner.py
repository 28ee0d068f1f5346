"""PyTorch as a runtime: a network as it stands (`torch`), or compiled (`torch-compile`)."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from numpy.typing import NDArray
from torch.utils import _pytree as pytree

from bnfold.data.tensors import named_arrays, to_tensor
from bnfold.errors import BnfoldError, UnsupportedError, UsageError
from bnfold.quiet import quiet
from bnfold.running.networks import Network
from bnfold.wording import first_line, printable


class TorchRunner:
    """A network run by PyTorch, on the device where it is, without gradients.

    Args:
        network: The network.
        compiled: Whether `torch.compile` gets it first, with its defaults.
        label: What an error message calls the model.
    """

    def __init__(self, network: Network, *, compiled: bool = False, label: str = "the model") -> None:
        self.name = "torch-compile" if compiled else "torch"
        self.inputs, self.outputs = network.inputs, network.outputs
        self._network, self._compiled, self._label = network, compiled, label
        self._call: Callable[..., Any] = network.module
        if compiled:
            with quiet():
                self._call = torch.compile(network.module)
        self._device = device_of(network.module)

    @property
    def input_names(self) -> tuple[str, ...]:
        """The inputs that must be fed."""
        return tuple(decl.name for decl in self._network.declared)

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """One inference; the outputs by name, in the network's order.

        A network that draws random numbers or counts its calls gives the same each time: both are put back.

        Raises:
            UsageError: The network does not take these inputs.
            UnsupportedError: It cannot be compiled, or returns what cannot be compared.
        """
        with unchanged(self._network.module), torch.random.fork_rng(devices=[]), quiet():
            torch.manual_seed(0)
            value = self.prepared(feeds)()
        return named_arrays("output", value, self._label)

    def prepared(self, feeds: Mapping[str, NDArray[Any]]) -> Callable[[], Any]:
        """A function that does one inference on arrays that are converted once; it raises as `run` does."""
        args, kwargs = self._network.bind({name: to_tensor(array, self._device) for name, array in feeds.items()})

        def infer() -> Any:
            try:
                with torch.no_grad():
                    return self._call(*args, **kwargs)
            except Exception as error:
                raise self._refused(feeds, error) from error

        return infer

    def _refused(self, feeds: Mapping[str, NDArray[Any]], error: Exception) -> BnfoldError:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        if self._compiled and type(error).__module__.startswith("torch._"):
            return UnsupportedError(
                f"torch.compile does not compile {self._label}: {printable(lines[0], 300)}",
                "Leave out --runtime torch-compile; it needs a C++ compiler.",
            )
        fed = ", ".join(f"{name} {'×'.join(map(str, array.shape))} {array.dtype}" for name, array in feeds.items())
        return UsageError(
            f"{self._label} does not run on {fed}: {printable(lines[0], 300)}",
            "Pass inputs it accepts: --input [NAME:]SHAPE[:DTYPE], or --input-data FILE.",
        )


def device_of(module: torch.nn.Module) -> torch.device:
    """Where a network's tensors are; the CPU where it has none."""
    tensors = itertools.chain(module.parameters(), module.buffers())
    return next((tensor.device for tensor in tensors), torch.device("cpu"))


def moved(module: torch.nn.Module, device: str, label: str = "the model") -> torch.nn.Module:
    """A copy of a network on another device.

    In a traced graph a device stands where a tensor is made or moved, too, and is replaced there.

    Raises:
        UnsupportedError: It cannot be copied, or does not fit there.
    """
    try:
        with quiet():
            copied = copy.deepcopy(module).to(device)
    except Exception as error:  # what copying somebody's class raises is not known
        raise UnsupportedError(
            f"{label} cannot be copied to {device}: {first_line(error, 300)}",
            f"Move it there yourself, model.to({device!r}), and pass that.",
        ) from error
    for graph in copied.modules():
        if isinstance(graph, torch.fx.GraphModule):
            for node in graph.graph.nodes:
                node.args, node.kwargs = pytree.tree_map_only(
                    torch.device, lambda _: torch.device(device), (node.args, dict(node.kwargs))
                )
            graph.recompile()
    return copied


@contextmanager
def unchanged(module: torch.nn.Module) -> Iterator[None]:
    """Puts back what a network keeps in its buffers."""
    kept = [(buffer, buffer.clone()) for buffer in module.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, before in kept:
                buffer.copy_(before)


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Limits the threads within an operator, and puts back what was set before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
