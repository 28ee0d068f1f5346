"""What every writer does before its file gets its name: a folder beside the output, files synced and read back.

The folder lies on the output's file system, so that a file in it can be moved to its place by `os.replace`, which is
atomic. It is locked while its owner lives. One that was left by a process that was killed is not, and the next run that
writes beside it removes it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from bnfold.errors import OutputError
from bnfold.interrupts import shielded
from bnfold.loading.digests import sha256_of

try:
    import fcntl
except ImportError:  # no such locks on this system: what a killed process leaves stays
    fcntl = None  # type: ignore[assignment]

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
UNSYNCABLE = {errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EPERM, errno.EBADF, errno.EISDIR}
BLOCK_BYTES = 1 << 22
HASH_DIGITS = 16

Piece = bytes | memoryview


@contextmanager
def reported(target: str) -> Iterator[None]:
    """Turns what the operating system says while writing into an OutputError."""
    try:
        yield
    except OSError as error:
        advice = "Free some space" if error.errno in FULL else "Name another output"
        raise OutputError(
            f"cannot write {target}: {error.strerror or error}", f"{advice}; what was there before is untouched."
        ) from error


@contextmanager
def temporary_folder(target: str) -> Iterator[str]:
    """A folder on the output's file system, removed with what is left in it.

    Raises:
        OutputError: It cannot be made.
    """
    parent = os.path.dirname(target) or "."
    made: list[tuple[str, int | None]] = []
    try:
        with reported(target), shielded():
            _remove_stale(parent)
            made.append(_make(parent))
        yield made[0][0]
    finally:
        with shielded():
            for folder, lock in made:
                shutil.rmtree(folder, ignore_errors=True)
                if lock is not None:
                    os.close(lock)


def save(path: str, pieces: Iterable[Piece]) -> str:
    """Writes a new file, syncs it, and reads it back.

    Args:
        path: The file; there must be none.
        pieces: Its bytes.

    Returns:
        The SHA-256 of what was given, which is that of what stands on the disk.

    Raises:
        OSError: It cannot be written, or other bytes came back.
    """
    digest = hashlib.sha256()
    with open(path, "xb") as file:
        for piece in pieces:
            view = memoryview(piece).cast("B")
            for start in range(0, len(view), BLOCK_BYTES):
                file.write(view[start : start + BLOCK_BYTES])
                digest.update(view[start : start + BLOCK_BYTES])
        file.flush()
        os.fsync(file.fileno())
    if _digest_on_disk(path) != digest.hexdigest():
        raise OSError(errno.EIO, "what was read back is not what was written")
    return digest.hexdigest()


def sync_folder(folder: str) -> None:
    """Waits until the names in a folder are on the disk, where the file system can do that."""
    try:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in UNSYNCABLE:
            raise


@contextmanager
def locked(folder: str) -> Iterator[None]:
    """One process of this program at a time, where the file system knows locks."""
    handle = _lock(folder, wait=True)
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)


def _digest_on_disk(path: str) -> str:
    with open(path, "rb") as file:
        if hasattr(os, "posix_fadvise"):  # from the disk, and not from what memory remembers of it
            with suppress(OSError):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return sha256_of(file)


def _prefix() -> str:
    """Of the folders of this machine: a lock says nothing about the processes of another one on the same disk."""
    node = os.uname().nodename if hasattr(os, "uname") else ""
    return f".bnfold-{hashlib.sha256(node.encode('utf-8', 'replace')).hexdigest()[:8]}-"


def _make(parent: str) -> tuple[str, int | None]:
    """A new folder and what holds its lock; made again if somebody took it for stale before it was locked."""
    while True:
        folder = tempfile.mkdtemp(prefix=_prefix(), dir=parent)
        lock = _lock(folder, wait=True)
        if _is_there(folder, lock):
            return folder, lock
        if lock is not None:
            os.close(lock)


def _is_there(folder: str, lock: int | None) -> bool:
    """Whether the folder of that name still is the one that is locked."""
    try:
        found = os.stat(folder)
        return lock is None or os.path.samestat(found, os.fstat(lock))
    except FileNotFoundError:
        return False


def _remove_stale(parent: str) -> None:
    """Removes folders whose owners were killed."""
    prefix = _prefix()
    with suppress(OSError):
        for name in os.listdir(parent):
            if name.startswith(prefix):
                folder = os.path.join(parent, name)
                lock = _lock(folder, wait=False)
                if lock is not None:
                    shutil.rmtree(folder, ignore_errors=True)
                    os.close(lock)


def _lock(folder: str, *, wait: bool) -> int | None:
    """A lock on a folder, as the file that holds it; None where there is none to be had."""
    locks: Any = fcntl
    if locks is None:
        return None
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | (0 if wait else os.O_NOFOLLOW))
    except OSError:
        return None
    try:
        locks.flock(handle, locks.LOCK_EX | (0 if wait else locks.LOCK_NB))
    except OSError:
        os.close(handle)
        return None
    return handle


def mode_of(path: str) -> int | None:
    """The permissions of a regular file; None where there is none."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_mode & 0o777 if stat.S_ISREG(status.st_mode) else None
