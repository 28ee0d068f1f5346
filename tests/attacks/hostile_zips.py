"""Zip archives whose parts contradict each other, made from sound ones by changing single fields."""

from __future__ import annotations

import io
import struct
import warnings
import zipfile

HEAD, ENTRY, END = 30, 46, 22


def names(data: bytes) -> list[str]:
    """The members."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return archive.namelist()


def appended(data: bytes, name: str, content: bytes, *, compressed: bool = False) -> bytes:
    """One member more, called as it is said, whatever that is."""
    buffer = io.BytesIO(data)
    stand_in = "".join(char if char.isalnum() else "_" for char in name) + "?"
    with zipfile.ZipFile(buffer, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        info = zipfile.ZipInfo(stand_in[: len(name)].ljust(len(name), "?"))
        info.compress_type = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
        archive.writestr(info, content)
    return buffer.getvalue().replace(info.filename.encode(), name.encode())


def edited(
    data: bytes,
    name: str,
    *,
    flags: int | None = None,
    size: int | None = None,
    packed: int | None = None,
    shift: int = 0,
    offset_of: str = "",
) -> bytes:
    """The entry of a member in the directory, changed."""
    made = bytearray(data)
    at = _entry(data, name)
    if flags is not None:
        struct.pack_into("<H", made, at + 8, flags)
    if packed is not None:
        struct.pack_into("<L", made, at + 20, packed)
    if size is not None:
        struct.pack_into("<L", made, at + 24, size)
    (offset,) = struct.unpack_from("<L", data, _entry(data, offset_of or name) + 42)
    struct.pack_into("<L", made, at + 42, offset + shift)
    return bytes(made)


def edited_local(data: bytes, name: str, *, size: int, flags: int) -> bytes:
    """The header in front of a member's bytes, changed."""
    made = bytearray(data)
    (at,) = struct.unpack_from("<L", data, _entry(data, name) + 42)
    struct.pack_into("<H", made, at + 6, flags)
    struct.pack_into("<LL", made, at + 18, size, size)
    return bytes(made)


def behind(prefix: bytes, data: bytes) -> bytes:
    """The same members behind other bytes, with offsets that count those."""
    buffer = io.BytesIO()
    buffer.write(prefix)
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "a") as new:
        for info in old.infolist():
            new.writestr(info.filename, old.read(info))
    return buffer.getvalue()


def commented(data: bytes, comment: bytes) -> bytes:
    """A comment at the end."""
    return data[:-2] + struct.pack("<H", len(comment)) + comment


def _entry(data: bytes, name: str) -> int:
    """Where the entry of a member begins."""
    (begin,) = struct.unpack_from("<L", data, len(data) - END + 16)
    return data.index(name.encode(), begin) - ENTRY
