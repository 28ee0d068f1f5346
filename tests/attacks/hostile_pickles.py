"""Checkpoints made by hand: a zip archive around a pickle that is put together instruction by instruction."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

ARCH = ("--arch", "nets.py:net")


def network() -> nn.Sequential:
    """A convolution and its BatchNorm."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).eval()


def saved(content: Any) -> bytes:
    """What torch.save writes."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def rezipped(data: bytes, edit: Callable[[str, bytes], tuple[str, bytes] | None]) -> bytes:
    """The same archive with every member edited; None leaves it out."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w") as new:
        for info in old.infolist():
            kept = edit(info.filename, old.read(info))
            if kept is not None:
                new.writestr(*kept)
    return buffer.getvalue()


def archive(pickled: bytes, storages: Mapping[str, bytes] | None = None) -> bytes:
    """A checkpoint with this pickle and these storages."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        made.writestr("model/data.pkl", pickled)
        made.writestr("model/version", "3")
        made.writestr("model/byteorder", "little")
        for key, data in (storages or {}).items():
            made.writestr(f"model/data/{key}", data)
    return buffer.getvalue()


def pickled(*instructions: bytes) -> bytes:
    """`{"x": ...}` with the value that these instructions leave."""
    return b"\x80\x02}" + text("x") + b"".join(instructions) + b"s."


def name(module: str, what: str) -> bytes:
    """Imports something."""
    return f"c{module}\n{what}\n".encode()


def text(value: str) -> bytes:
    """A text."""
    data = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(data)) + data


def number(value: int) -> bytes:
    """An integer."""
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def row(*items: bytes) -> bytes:
    """A tuple."""
    return b"(" + b"".join(items) + b"t"


def call(function: bytes, *arguments: bytes) -> bytes:
    """What calling a function gives."""
    return function + row(*arguments) + b"R"


def storage(key: str = "0", count: int = 1, kind: str = "FloatStorage") -> bytes:
    """The bytes of a member of the archive."""
    return row(text("storage"), name("torch", kind), text(key), text("cpu"), number(count)) + b"Q"


def tensor(held: bytes, sizes: tuple[int, ...], strides: tuple[int, ...]) -> bytes:
    """A tensor on a storage."""
    return call(
        name("torch._utils", "_rebuild_tensor_v2"),
        held,
        number(0),
        row(*map(number, sizes)),
        row(*map(number, strides)),
        b"\x89",
        call(name("collections", "OrderedDict")),
    )
