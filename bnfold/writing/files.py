"""Puts files in their place whole or not at all.

Everything is written into a temporary folder beside the output (`staging`), and moved by `os.replace`, which is atomic.
Until then the output is as it was, whatever happens: a full disk, Ctrl-C, an error, a power cut.

A model with external data is two files, and no file system moves two at once. So the data is called after its content,
`OUT.onnx.<16 digits of its SHA-256>.data`, and never replaces other data: it is put beside the old, and the one move of
OUT.onnx, which names it, changes from the old pair to the new. Then the old data goes. At no moment is there a model
that finds the weights of another one.
"""

from __future__ import annotations

import mmap
import os
import re
import shlex
import stat
from collections.abc import Iterable
from contextlib import suppress

from bnfold.errors import OutputError
from bnfold.interrupts import check, placed, shielded
from bnfold.wording import printable
from bnfold.writing.staging import HASH_DIGITS, locked, mode_of, reported, save, sync_folder, temporary_folder

OTHER = "Name another output: -o FILE."
REJECTED = ".rejected"
LONGEST_NAME = 255  # bytes, where the file system does not say


def check_folder(name: str) -> None:
    """Whether a file of that name could be made.

    Raises:
        OutputError: It could not.
    """
    if "\0" in name:
        raise OutputError(f"'{printable(name)}' is no name of a file: it holds a NUL", OTHER)
    folder = os.path.dirname(name) or "."
    if not os.path.basename(name) or os.path.isdir(name):
        raise OutputError(f"{name} is a directory", OTHER)
    if not os.path.exists(folder):
        raise OutputError(f"the folder {folder} does not exist", f"Create it first: mkdir -p {folder}")
    if not os.path.isdir(folder):
        raise OutputError(f"{folder} is not a folder", OTHER)
    if not os.access(folder, os.W_OK | os.X_OK):
        where = os.path.abspath(folder)
        hint = f"See who may write there: ls -ld {shlex.quote(where)}; or name another output: -o FILE."
        raise OutputError(f"the folder {where} is not writable", hint)


def check_name(name: str, room: int = 0) -> None:
    """Whether the file system takes a name of that length.

    Args:
        name: The path of a file in a folder that exists.
        room: Bytes of what may be appended to it.

    Raises:
        OutputError: It does not.
    """
    limit = LONGEST_NAME
    with suppress(OSError, ValueError, AttributeError):
        limit = os.pathconf(os.path.dirname(name) or ".", "PC_NAME_MAX")
    length = len(os.fsencode(os.path.basename(name)))
    if length + room > limit:
        raise OutputError(
            f"the name {os.path.basename(name)} is too long: it has {length} bytes, and {limit - room} fit", OTHER
        )


def check_target(name: str, *, force: bool, source: str | os.PathLike[str] | None = None) -> None:
    """Whether what stands there may be replaced; `source` never may.

    Raises:
        OutputError: It may not.
    """
    try:
        status = os.lstat(name)
    except OSError:
        return
    if source is not None and is_same_file(source, name):
        raise OutputError(f"{name} is the input itself", OTHER)
    if not (stat.S_ISREG(status.st_mode) or (stat.S_ISLNK(status.st_mode) and _may_be_replaced(name))):
        raise OutputError(f"{name} is not a regular file", OTHER)
    if not force:
        raise OutputError(f"{name} already exists", "Pass --force to replace it, or name another output: -o FILE.")


def is_same_file(path: str | os.PathLike[str], other: str | os.PathLike[str]) -> bool:
    """Whether two paths are one file, there or not yet."""
    try:
        return os.path.realpath(path) == os.path.realpath(other) or os.path.samefile(path, other)
    except (OSError, ValueError):
        return False


def _may_be_replaced(link: str) -> bool:
    """Whether a link, which is replaced itself and not followed, is one to a file: /dev/stdout is a link, too."""
    with suppress(OSError):
        return stat.S_ISREG(os.stat(link).st_mode) and not os.readlink(link).startswith("/proc/")
    return True  # it dangles


def write_text(text: str, path: str | os.PathLike[str], *, force: bool = True) -> None:
    """Writes a text file, all or nothing.

    Raises:
        OutputError: It cannot be written.
    """
    target = os.fspath(path)
    check_folder(target)
    check_name(target)
    check_target(target, force=force)
    with temporary_folder(target) as folder, reported(target):
        written = os.path.join(folder, os.path.basename(target))
        save(written, [text.encode()])
        move(written, target, force=force)


def data_name(target: str, digest: str) -> str:
    """What the external data of a model is called: after the model and its own content."""
    return f"{os.path.basename(target)}.{digest[:HASH_DIGITS]}.data"


def move(
    written: str, target: str, *, force: bool, data: str = "", keep: Iterable[str | os.PathLike[str]] = ()
) -> None:
    """Puts a written file in its place, with the data that it names.

    Args:
        written: The file.
        target: Its place.
        force: Whether an existing file may be replaced.
        data: The name of its data, a file beside both `written` and, then, `target`; empty for none.
        keep: Files that are not to be removed, although they are called like earlier data of the target.

    Raises:
        OSError: It cannot be moved; the place is as it was.
        OutputError: It may not be.
    """
    folder = os.path.dirname(target) or "."
    check()
    with locked(folder), shielded():
        check_target(target, force=force)
        mode = mode_of(target)
        if mode is not None:
            os.chmod(written, mode)
        if data:
            _move_pair(written, target, data, mode)
        else:
            os.replace(written, target)
        placed(target)
        _remove_unnamed(target, keep)
        try:
            sync_folder(folder)
        except OSError as error:
            raise OutputError(
                f"{target} is in its place, but the disk does not confirm it: {error.strerror or error}",
                "Check the disk before you rely on it.",
            ) from error


def _move_pair(written: str, target: str, data: str, mode: int | None) -> None:
    """Moves data that nothing names yet, then the file that names it."""
    staged, place = os.path.join(os.path.dirname(written), data), os.path.join(os.path.dirname(target), data)
    if mode is not None:
        os.chmod(staged, mode)
    was_there = os.path.lexists(place)
    try:
        os.replace(staged, place)
        sync_folder(os.path.dirname(target) or ".")
        os.replace(written, target)
    except BaseException:
        if not was_there:  # else it is the data, by its content, of what stands there
            with suppress(FileNotFoundError):
                os.unlink(place)
        raise


def _remove_unnamed(target: str, keep: Iterable[str | os.PathLike[str]]) -> None:
    """Removes earlier data of an output: called like it, and named neither by it nor by what was rejected in its place.

    What cannot be removed stays until the next time; it does no harm.
    """
    target = target.removesuffix(REJECTED)
    folder, name = os.path.split(target)
    own = re.compile(re.escape(name) + rf"\.[0-9a-f]{{{HASH_DIGITS}}}\.data")
    with suppress(OSError, MemoryError):
        for found in [each for each in os.listdir(folder or ".") if own.fullmatch(each)]:
            place = os.path.join(folder, found)
            named = any(_holds(model, found) for model in (target, target + REJECTED))
            if not named and not any(is_same_file(other, place) for other in keep):
                os.unlink(place)


def _holds(path: str, text: str) -> bool:
    """Whether a file holds a text; a file that cannot be asked may."""
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.find(os.fsencode(text)) >= 0
    except FileNotFoundError:
        return False
    except (OSError, ValueError):  # ValueError: an empty file cannot be mapped
        return os.path.getsize(path) > 0
