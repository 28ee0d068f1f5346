"""Puts files in their place whole or not at all.

Everything is written into a temporary folder beside the output, synced to the disk, and moved by `os.replace`, which is
atomic. Until then the output is as it was, whatever happens: a full disk, Ctrl-C, an error. A model with external data
is two files; the data is moved first, and moved back if the model cannot follow.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from bnfold.errors import OutputError

OTHER = "Name another output: -o FILE."
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def check_folder(name: str) -> None:
    """Whether a file of that name could be made.

    Raises:
        OutputError: It could not.
    """
    folder = os.path.dirname(name) or "."
    if not os.path.basename(name) or os.path.isdir(name):
        raise OutputError(f"{name} is a directory", OTHER)
    if not os.path.exists(folder):
        raise OutputError(f"the folder {folder} does not exist", f"Create it first: mkdir -p {folder}")
    if not os.path.isdir(folder):
        raise OutputError(f"{folder} is not a folder", OTHER)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"the folder {folder} is not writable", OTHER)


def check_target(name: str, *, force: bool, source: str | os.PathLike[str] | None = None) -> None:
    """Whether what stands there may be replaced; `source` never may.

    Raises:
        OutputError: It may not.
    """
    try:
        status = os.lstat(name)
    except OSError:
        return
    if source is not None and os.path.exists(source) and os.path.exists(name) and os.path.samefile(source, name):
        raise OutputError(f"{name} is the input itself", OTHER)
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode)):
        raise OutputError(f"{name} is not a regular file", OTHER)
    if not force:
        raise OutputError(f"{name} already exists", "Pass --force to replace it, or name another output: -o FILE.")


def write_text(text: str, path: str | os.PathLike[str], *, force: bool = True) -> None:
    """Writes a text file, all or nothing.

    Raises:
        OutputError: It cannot be written.
    """
    target = os.fspath(path)
    check_folder(target)
    check_target(target, force=force)
    with temporary_folder(target) as folder, reported(target):
        written = os.path.join(folder, os.path.basename(target))
        save(written, text.encode())
        move(written, target)


@contextmanager
def temporary_folder(target: str) -> Iterator[str]:
    """A folder on the output's file system, removed with what is left in it."""
    with reported(target):
        folder = tempfile.mkdtemp(prefix=".bnfold-", dir=os.path.dirname(target) or ".")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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


def save(path: str, data: bytes | memoryview) -> None:
    """Writes and syncs a file."""
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync(path: str) -> None:
    """Waits until a file or folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def move(written: str, target: str, companion: str = "") -> None:
    """Puts a written file in its place with the file that belongs to it, both or none.

    Args:
        written: The file.
        target: Its place.
        companion: What is appended to both names for the file that belongs to it, if there is one.
    """
    extra, extra_target = written + companion, target + companion
    with_extra = bool(companion) and os.path.exists(extra)
    previous = f"{extra}.previous"
    if os.path.isfile(target):
        shutil.copymode(target, written)
    try:
        if with_extra:
            if os.path.exists(extra_target):
                _keep(extra_target, previous)
            os.replace(extra, extra_target)
        os.replace(written, target)
    except BaseException:
        if with_extra and os.path.exists(written) and not os.path.exists(extra):
            if os.path.exists(previous):
                os.replace(previous, extra_target)
            else:
                os.unlink(extra_target)
        raise
    with suppress(OSError):  # some file systems cannot sync a folder; the files themselves are
        sync(os.path.dirname(target) or ".")


def _keep(path: str, copy: str) -> None:
    try:
        os.link(path, copy)
    except OSError:  # a file system without hard links
        shutil.copy2(path, copy)
