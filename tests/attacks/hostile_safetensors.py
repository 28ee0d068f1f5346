"""Safetensors files put together by hand."""

from __future__ import annotations

import json
from typing import Any


def st(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, Any]:
    """What a header says of a tensor."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def file(header: dict[str, Any] | bytes, size: int) -> bytes:
    """A file with this header and so many bytes of tensors."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(size)
