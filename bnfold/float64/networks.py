"""PyTorch networks in float64, whatever dtypes stand in their code: `x.float()`, `zeros(n)`, `_to_copy(dtype=…)`.

Below the network, where every call of an operator passes (a dispatch mode), a float type that is asked for becomes
float64, and so does a tensor that comes in or goes out. So modules and exported programs need no rewriting.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from numpy.typing import NDArray
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from bnfold.errors import UnsupportedError
from bnfold.frontends.modules.prepare import copied
from bnfold.quiet import quiet
from bnfold.running.networks import Network
from bnfold.running.torchrunner import TorchRunner

NARROW = (torch.float32, torch.float16, torch.bfloat16)


class InFloat64(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While it is active, no operator makes or reads floats narrower than float64."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        args, kwargs = pytree.tree_map(_widened, (tuple(args), dict(kwargs or {})))
        return pytree.tree_map(_widened, func(*args, **kwargs))


def _widened(value: Any) -> Any:
    if isinstance(value, torch.dtype):
        return torch.float64 if value in NARROW else value
    if isinstance(value, torch.Tensor) and value.dtype in NARROW:
        return value.detach().double()
    return value


class Float64TorchRunner(TorchRunner):
    """A copy of a network with its weights widened, run in float64; the network itself is not changed.

    Raises:
        UnsupportedError: The network cannot be copied.
    """

    def __init__(self, network: Network, label: str = "the model") -> None:
        try:
            with quiet():
                wide = copied(network.module).double()
        except Exception as error:  # what copying somebody's class raises is not known
            said = " ".join(str(error).split())[:200]
            raise UnsupportedError(
                f"{label} cannot be copied to float64: {said}", "Pass an exported program, or --verify quick."
            ) from error
        super().__init__(replace(network, module=wide), label=label)
        self.name = "float64"

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """One inference; raises as `TorchRunner.run` does."""
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        try:
            with torch.inference_mode(False), InFloat64():  # type: ignore[no-untyped-call]
                return super().run(feeds)
        finally:
            torch.set_default_dtype(before)
