"""Ways to break a file: its bytes, and what they mean. All is drawn from one generator, so a number repeats it."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from random import Random
from typing import Any

import onnx
from fuzz_corpus import Seed
from google.protobuf.message import Message

INTERESTING = (
    0,
    1,
    -1,
    2,
    7,
    127,
    128,
    255,
    256,
    65535,
    2**31 - 1,
    2**31,
    -(2**31),
    2**32,
    10**9,
    2**62,
    2**63 - 1,
    -(2**63),
)
FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-45, 1e38, -1e38, float("inf"), float("-inf"), float("nan"))
TEXTS = (
    "",
    "x",
    "y",
    "../secret",
    "/dev/zero",
    "a\x1b[2J\u202e[red]<b>",
    "x" * 5000,
    "\0",
    "Conv",
    "BatchNormalization",
    "Loop",
    "Expand",
    "w.data",
)
OPCODES = b"\x80\x85\x86\x87\x88\x89\x8a()]}cbehjlqrstuXKMJGNQR.\x81\x82\x8c\x93\x94\x95"


def mutated(seed: Seed, others: list[Seed], rng: Random) -> dict[str, bytes]:
    """The files of a seed, one of them broken in one to four ways."""
    files = dict(seed.files)
    victim = rng.choice([*files, next(iter(files)), next(iter(files))])
    data = files[victim]
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        ways = [_bytes]
        if victim.endswith(".onnx"):
            ways += [_message] * 4
        elif data.startswith(b"PK"):
            ways += [_member] * 3 + [_zip_field]
        elif victim.endswith(".safetensors"):
            ways += [_header] * 3
        elif rng.random() < 0.1:
            ways = [lambda data, rng: _spliced(data, next(iter(rng.choice(others).files.values())), rng)]
        data = rng.choice(ways)(data, rng)
    files[victim] = data
    return files


def _bytes(data: bytes, rng: Random) -> bytes:
    """Bits turned, bytes replaced, ranges cut, doubled or filled with numbers that are often wrong."""
    made = bytearray(data)
    at = rng.randrange(len(made) + 1)
    size = rng.choice((1, 1, 2, 4, 8, 16, 100))
    way = rng.randrange(7)
    if way == 0 and made:
        made[at % len(made)] ^= 1 << rng.randrange(8)
    elif way == 1:
        made[at : at + size] = rng.randbytes(size)
    elif way == 2:
        del made[at : at + size]
    elif way == 3:
        made[at:at] = made[at : at + size] or rng.randbytes(size)
    elif way == 4:
        width = rng.choice((1, 2, 4, 8))
        made[at : at + width] = (rng.choice(INTERESTING) % (1 << 8 * width)).to_bytes(
            width, rng.choice(("little", "big"))
        )
    elif way == 5:
        del made[at:]
    else:
        made[at:at] = rng.choice(TEXTS).encode()
    return bytes(made)


def _spliced(data: bytes, other: bytes, rng: Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]


def _message(data: bytes, rng: Random) -> bytes:
    """A field of an ONNX message gets another value, or its elements are doubled, dropped, exchanged or moved."""
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except Exception:  # it was broken before
        return _bytes(data, rng)
    message = proto
    for _ in range(rng.randrange(12)):
        inner = [value for field, value in message.ListFields() if field.message_type for value in _each(value)]
        if not inner:
            break
        message = rng.choice(inner)
    fields = [field for field in message.DESCRIPTOR.fields if rng.random() < 0.3 or field in dict(message.ListFields())]
    if fields:
        try:
            _change(message, rng.choice(fields), rng)
        except (ValueError, TypeError, OverflowError):
            return _bytes(data, rng)
    return proto.SerializeToString()


def _each(value: Any) -> list[Any]:
    return [value] if isinstance(value, Message) else list(value)


def _change(message: Any, field: Any, rng: Random) -> None:
    many = isinstance(getattr(message, field.name), Message) is False and hasattr(
        getattr(message, field.name), "append"
    )
    many = many or hasattr(getattr(message, field.name), "add")
    held = getattr(message, field.name)
    if many and len(held) and rng.random() < 0.6:
        at = rng.randrange(len(held))
        way = rng.randrange(3)
        if way == 0:
            del held[at]
        elif way == 1:
            held.append(held[at])
        elif field.message_type:
            held[at].CopyFrom(rng.choice(list(held)))
        else:
            held[at] = _value(field, rng)
    elif many and not field.message_type:
        held.append(_value(field, rng))
    elif many:
        held.add()
    elif field.message_type or rng.random() < 0.2:
        message.ClearField(field.name)
    else:
        setattr(message, field.name, _value(field, rng))


def _value(field: Any, rng: Random) -> Any:
    kind = field.cpp_type
    if kind in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
        return rng.choice(FLOATS)
    if kind == field.CPPTYPE_STRING:
        text = rng.choice(TEXTS)
        return text.encode() if field.type == field.TYPE_BYTES else text
    if kind in (field.CPPTYPE_INT32, field.CPPTYPE_ENUM):
        return rng.choice([number for number in INTERESTING if -(2**31) <= number < 2**31])
    return rng.choice([number for number in INTERESTING if kind == field.CPPTYPE_INT64 or number >= 0])


def _member(data: bytes, rng: Random) -> bytes:
    """A member of an archive is broken, and the archive around it is sound."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as old:
            held = [(info.filename, old.read(info)) for info in old.infolist()]
    except Exception:  # it was broken before
        return _bytes(data, rng)
    at = rng.randrange(len(held))
    if rng.random() < 0.7:
        likely = [i for i, (name, _) in enumerate(held) if name.endswith((".pkl", ".json", ".npy"))]
        at = rng.choice(likely) if likely else at
    name, content = held[at]
    held[at] = (
        rng.choice([name] * 60 + [text for text in TEXTS if text.strip("\0")]),
        rng.choice((_bytes, _instruction))(content, rng),
    )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as new:
        for entry in held:
            new.writestr(*entry)
    return buffer.getvalue()


def _instruction(data: bytes, rng: Random) -> bytes:
    """An instruction of a pickle is replaced, put in or doubled."""
    made = bytearray(data)
    places = [i for i, byte in enumerate(made) if byte in OPCODES] or [0]
    at = rng.choice(places)
    code = bytes([rng.choice(OPCODES)])
    made[at : at + rng.randrange(2)] = rng.choice(
        (code, code * 2, code + rng.randbytes(1), b"ctorch\nTensor\n", b"cos\nsystem\n")
    )
    return bytes(made)


def _zip_field(data: bytes, rng: Random) -> bytes:
    """A number in a header or the directory of an archive."""
    made = bytearray(data)
    marks = [i for mark in (b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06", b"PK\x06\x06") for i in _find_all(data, mark)]
    if not marks:
        return _bytes(data, rng)
    at = rng.choice(marks) + rng.randrange(4, 46)
    width = rng.choice((1, 2, 4))
    made[at : at + width] = (rng.choice(INTERESTING) % (1 << 8 * width)).to_bytes(width, "little")
    return bytes(made)


def _find_all(data: bytes, mark: bytes) -> list[int]:
    found, at = [], data.find(mark)
    while at >= 0:
        found.append(at)
        at = data.find(mark, at + 1)
    return found


def _header(data: bytes, rng: Random) -> bytes:
    """Something in the header of a safetensors file, whose length is put right."""
    length = int.from_bytes(data[:8], "little")
    try:
        header = json.loads(data[8 : 8 + length])
        text = json.dumps(_changed_json(header, rng)).encode()
    except (ValueError, RecursionError):
        return _bytes(data, rng)
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def _changed_json(value: Any, rng: Random) -> Any:
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        made = dict(value)
        way = rng.random()
        if way < 0.1:
            del made[key]
        elif way < 0.2:
            made[rng.choice(TEXTS)] = made.pop(key)
        else:
            made[key] = _changed_json(made[key], rng)
        return made
    if isinstance(value, list) and value and rng.random() < 0.8:
        at = rng.randrange(len(value))
        return [*value[:at], _changed_json(value[at], rng), *value[at + 1 :]]
    if isinstance(value, str) and value.startswith("{") and rng.random() < 0.9:
        return json.dumps(_changed_json(json.loads(value), rng))
    choices: list[Callable[[], Any]] = [
        lambda: rng.choice(INTERESTING),
        lambda: rng.choice(TEXTS),
        lambda: None,
        list,
        dict,
    ]
    return rng.choice(choices)()
