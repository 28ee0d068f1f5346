"""What calling the functions in a checkpoint's pickle would give, and what its tensors claim of the bytes there are.

`tape` follows the instructions; the values are stand-ins: numbers and texts are themselves, tuples know how much is in
them, everything else is only known by its kind.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bnfold.errors import LimitError

CONTIGUOUS = "Save a copy that stands for itself: tensor.contiguous()."

WIDTHS = {
    "torch.DoubleStorage": 8, "torch.FloatStorage": 4, "torch.HalfStorage": 2, "torch.BFloat16Storage": 2,
    "torch.LongStorage": 8, "torch.IntStorage": 4, "torch.ShortStorage": 2, "torch.CharStorage": 1,
    "torch.ByteStorage": 1, "torch.BoolStorage": 1, "torch.ComplexDoubleStorage": 16, "torch.ComplexFloatStorage": 8,
    "torch.QInt8Storage": 1, "torch.QUInt8Storage": 1, "torch.QInt32Storage": 4, "torch.QUInt4x2Storage": 1,
    "torch.QUInt2x4Storage": 1, "torch.storage.UntypedStorage": 1, "torch.UntypedStorage": 1,
}  # fmt: skip
DTYPES = {
    "float64": 8, "double": 8, "complex64": 8, "complex128": 16, "complex32": 4, "float32": 4, "float16": 2,
    "bfloat16": 2, "int64": 8, "uint64": 8, "int32": 4, "uint32": 4, "int16": 2, "uint16": 2,
}  # fmt: skip
LIGHT = {
    "collections.OrderedDict", "collections.Counter", "builtins.set", "builtins.complex", "torch.Size", "torch.device",
    "torch.nn.parameter.Parameter", "torch.serialization._get_layout", "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_parameter_with_state", "torch._utils._rebuild_sparse_tensor",
    "torch._utils._rebuild_meta_tensor_no_storage", "torch._utils._rebuild_device_tensor_from_cpu_tensor",
}  # fmt: skip
ON_STORAGE = {
    "torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor_v3",
    "torch._utils._rebuild_qtensor",
}  # fmt: skip
ENCODINGS = (("latin1",), ("latin-1",), ("utf-8",))
JUDGED = ("torch.", "builtins.", "collections.", "_codecs.")  # what torch takes by itself; the rest the caller allowed


class Refused(Exception):
    """The instructions are none that torch.save writes.

    Args:
        what: Which, or what is wrong with them.
        damaged: Whether they are none at all.
    """

    def __init__(self, what: str, *, damaged: bool = False) -> None:
        super().__init__(what)
        self.damaged = damaged


@dataclass(frozen=True)
class Global:
    """Something imported."""

    name: str


@dataclass(frozen=True)
class Storage:
    """The bytes behind tensors."""

    nbytes: int
    width: int


class Tensor:
    """A tensor or a parameter."""


class Bytes:
    """Bytes, made from text that stands in the pickle."""


@dataclass(frozen=True, eq=False)
class Row:
    """A tuple.

    Attributes:
        items: What is in it.
        weight: How many elements it has, counted as often as they stand in it.
    """

    items: tuple[Any, ...]
    weight: int


class Opaque:
    """Anything else."""


@dataclass
class Claims:
    """What the tensors of one file claim.

    Args:
        sizes: Bytes of every storage in the archive, by its key.
        name: What errors call the file.
        limit: Bytes that all tensors may claim together.
    """

    sizes: Mapping[str, int]
    name: str
    limit: int
    claimed: int = 0

    def storage(self, given: Any) -> Storage:
        """The bytes that a persistent id names."""
        if not isinstance(given, Row) or len(given.items) < 5:
            raise Refused("a persistent id")
        _, kind, key, _, count = given.items[:5]
        width = WIDTHS.get(kind.name) if isinstance(kind, Global) else None
        if width is None or not isinstance(key, str) or type(count) is not int:
            raise Refused("a persistent id")
        if key not in self.sizes:
            raise Refused(f"it lacks the storage '{key}'", damaged=True)
        return Storage(self.sizes[key], width)

    def made(self, function: Any, arguments: Any) -> Any:
        """What calling an imported function gives."""
        if not isinstance(function, Global) or not isinstance(arguments, Row):
            return Opaque()
        items = arguments.items
        if function.name == "torch._tensor._rebuild_from_type_v2" and len(items) > 1:
            return self.made(items[0], items[2] if len(items) > 2 else None)
        if function.name in ON_STORAGE:
            self._claim(items, items[6] if function.name.endswith("_v3") and len(items) > 6 else None)
            return Tensor()
        if function.name in LIGHT:
            return Tensor() if "arameter" in function.name or "tensor" in function.name else Opaque()
        if function.name == "_codecs.encode" and items[1:] in ENCODINGS and isinstance(items[0], str):
            return Bytes()
        if function.name == "builtins.bytearray" and (
            not items or isinstance(items[0], Bytes) or (len(items) == 2 and isinstance(items[0], str))
        ):
            return Opaque()
        if function.name.startswith(JUDGED):
            raise Refused(function.name)
        return Opaque()

    def _claim(self, items: Sequence[Any], dtype: Any) -> None:
        """Counts what a tensor says it holds against the bytes behind it; `dtype` is None for that of its storage."""
        if len(items) < 4 or not isinstance(items[0], Storage) or not isinstance(items[2], Row):
            raise Refused("a tensor without a storage")
        storage, sizes = items[0], items[2].items
        if not all(type(size) is int and size >= 0 for size in sizes):
            raise Refused("the size of a tensor")
        width = DTYPES.get(dtype.name.removeprefix("torch."), 1) if isinstance(dtype, Global) else storage.width
        nbytes = math.prod(sizes) * width
        if nbytes > storage.nbytes:
            shape = "x".join(map(str, sizes[:8])) or "a scalar"
            raise LimitError(
                f"{self.name} holds a tensor of {shape}, which is {nbytes} bytes, on {storage.nbytes} bytes", CONTIGUOUS
            )
        self.claimed += nbytes
        if self.claimed > self.limit:
            raise LimitError(
                f"the tensors of {self.name} have more than {self.limit} bytes in all", "Raise --max-bytes."
            )
