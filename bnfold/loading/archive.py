"""A zip archive looked at before anything reads it: one file as one list of members that every reader agrees on.

Two readers of one archive must not see two things, so what leaves room for that is refused: a member that stands twice,
under a path that leads elsewhere, compressed or encrypted (torch writes neither), with other sizes or another name in
front of its bytes than in the directory, over another member, or bytes before the first and after the last.

    [ local header | name | extra | bytes ]...  [ directory ]  [ zip64 end | its locator ]  end
"""

from __future__ import annotations

import os
import re
import struct
import zipfile
from collections.abc import Sequence
from typing import IO

from bnfold.errors import UnreadableError, UnsafeError
from bnfold.wording import printable

AGAIN = "Download or save it again."
SAVE = "Save it again with today's torch.save."

LOCAL = struct.Struct("<4s5H3L2H")
END = struct.Struct("<4s4H2LH")
END64 = struct.Struct("<4sQ2H2L4Q")
LOCATOR = struct.Struct("<4sLQL")
MAX32 = 0xFFFFFFFF
SIZES_FOLLOW = 0x08  # the local header was written before its sizes were known
ENCRYPTED = 0x41


def members(file: IO[bytes], name: str) -> list[zipfile.ZipInfo]:
    """The members of an open archive, as its directory lists them.

    Raises:
        UnreadableError: It is damaged.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            return archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError, OSError, struct.error) as error:
        raise UnreadableError(f"{name} is a damaged or truncated zip archive", AGAIN) from error


def check_archive(file: IO[bytes], listed: Sequence[zipfile.ZipInfo], name: str) -> None:
    """Whether an archive is what torch writes: plain members, one after another, under one folder.

    Args:
        file: The open archive.
        listed: Its members.
        name: What errors call it.

    Raises:
        UnreadableError: Its parts do not fit each other.
        UnsafeError: Two readers might see two things in it.
    """
    directory = _directory(file, name)
    seen: set[str] = set()
    for info in listed:
        shown = printable(info.filename)
        if info.filename in seen:
            raise UnsafeError(f"{name} holds '{shown}' twice", SAVE)
        seen.add(info.filename)
        if not _is_plain(info):
            raise UnsafeError(f"{name} holds a member with the path '{shown}'", SAVE)
        if info.flag_bits & ENCRYPTED:
            raise UnsafeError(f"'{shown}' of {name} is encrypted", SAVE)
        if info.compress_type != zipfile.ZIP_STORED:
            raise UnsafeError(f"'{shown}' of {name} is compressed, which torch never does", SAVE)
        if info.file_size != info.compress_size:
            raise UnreadableError(
                f"'{shown}' of {name} is stored as {info.compress_size} bytes and said to have {info.file_size}", AGAIN
            )
    if len({info.filename.partition("/")[0] for info in listed}) > 1:
        raise UnsafeError(f"{name} holds more than one folder at its top", SAVE)
    _check_bytes(file, listed, directory, name)


def _is_plain(info: zipfile.ZipInfo) -> bool:
    path = info.orig_filename
    parts = path.split("/")
    return path == info.filename and ".." not in parts and "." not in parts and not re.search(r"^/|^$|//|[\\\0:]", path)


def _check_bytes(file: IO[bytes], listed: Sequence[zipfile.ZipInfo], directory: int, name: str) -> None:
    """Whether members stand where the directory says, each with its own header, and none over another."""
    free = 0
    for info in sorted(listed, key=lambda info: info.header_offset):
        shown = printable(info.filename)
        file.seek(info.header_offset)
        head = file.read(LOCAL.size)
        if len(head) < LOCAL.size or not head.startswith(b"PK\x03\x04"):
            raise UnreadableError(f"'{shown}' of {name} does not stand where its directory says", AGAIN)
        _, _, flags, method, _, _, _, packed, size, name_length, extra_length = LOCAL.unpack(head)
        own = file.read(name_length)
        start = info.header_offset + LOCAL.size + name_length + extra_length
        if info.header_offset < free:
            raise UnsafeError(f"'{shown}' of {name} stands over another member", SAVE)
        if own.decode("utf-8" if flags & 0x800 else "cp437", "replace") != info.orig_filename:
            raise UnsafeError(
                f"'{shown}' of {name} is called '{printable(own.decode('utf-8', 'replace'))}' there", SAVE
            )
        follow = bool(flags & SIZES_FOLLOW) and size == packed == 0
        if method != info.compress_type or (not follow and {size, packed} - {MAX32} - {info.file_size}):
            raise UnsafeError(
                f"'{shown}' of {name} has {size} bytes by its header and {info.file_size} by the directory", SAVE
            )
        free = start + info.file_size
        if free > directory:
            raise UnreadableError(
                f"'{shown}' of {name} ends at byte {free}, and the directory begins at {directory}", AGAIN
            )
    if listed and min(info.header_offset for info in listed) > 0:
        raise UnsafeError(f"{name} holds bytes before its first member", SAVE)


def _directory(file: IO[bytes], name: str) -> int:
    """Where the directory begins; it must reach to the end record, and that to the end of the file."""
    size = file.seek(0, os.SEEK_END)
    at = size - END.size
    file.seek(max(at, 0))
    end = file.read(END.size)
    if len(end) < END.size or not end.startswith(b"PK\x05\x06"):
        raise UnsafeError(f"{name} holds bytes behind its end", SAVE)
    _, _, _, _, count, length, begin, comment = END.unpack(end)
    if comment:
        raise UnsafeError(f"{name} holds bytes behind its end", SAVE)
    if at >= LOCATOR.size + END64.size:
        file.seek(at - LOCATOR.size)
        locator = LOCATOR.unpack(file.read(LOCATOR.size))
        if locator[0] == b"PK\x06\x07":
            at -= LOCATOR.size + END64.size
            file.seek(at)
            end64 = END64.unpack(file.read(END64.size))
            if locator[2] != at or end64[0] != b"PK\x06\x06":
                raise UnreadableError(f"{name} is a damaged or truncated zip archive", AGAIN)
            if {count, end64[7]} - {0xFFFF, end64[7]} or {length, end64[8], begin, end64[9]} - {MAX32, *end64[8:]}:
                raise UnsafeError(f"{name} has two ends that point to two directories", SAVE)
            length, begin = end64[8], end64[9]
    if begin + length != at:
        raise UnsafeError(f"{name} has a directory of {length} bytes at {begin}, and its end stands at {at}", SAVE)
    return int(begin)
