"""Memory that stays as it is while networks run: an operator that would write to it is refused, and that is noted.

Every operator of torch passes here, as the schema says what it writes to (`torch.utils._python_dispatch`), also behind
`.data` and views. What writes past torch, through NumPy say, is not seen; nor are the statistics that a BatchNorm in
training updates without saying so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Untouched(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A context in which nothing is written to some memory.

    Args:
        tensors: Whose memory.

    Attributes:
        refused: Whether something would have been.
    """

    def __init__(self, tensors: Iterable[torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.refused = False
        self._memory = {place for tensor in tensors if (place := memory_of(tensor)) is not None}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operator.

        Raises:
            RuntimeError: It would write to that memory.
        """
        if any(memory_of(tensor) in self._memory for tensor in _written(func, args, kwargs or {})):
            self.refused = True
            raise RuntimeError(f"{func} would write to memory that is shared")
        return func(*args, **(kwargs or {}))


def memory_of(tensor: torch.Tensor) -> int | None:
    """Where the memory of a tensor begins; None where it has none of one piece."""
    if tensor.layout != torch.strided or tensor.numel() == 0:
        return None
    return tensor.untyped_storage().data_ptr()


def _written(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[torch.Tensor]:
    """The tensors that an operator writes to."""
    if not func._schema.is_mutable:
        return
    for i, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[i] if i < len(args) else kwargs.get(argument.name)
            yield from (leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor))
