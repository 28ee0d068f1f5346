"""A path that leads nowhere, or not to a file that can be read: what is there instead, and what to type next."""

from __future__ import annotations

import difflib
import os
import shlex
import stat
from collections.abc import Callable

from bnfold.errors import UnreadableError
from bnfold.wording import printable

CHECK = "Check the path."
MODEL_SUFFIXES = (".onnx", ".pt", ".pth", ".safetensors", ".pt2", ".ckpt")
OFFERED = 3  # files of a folder that a hint names


def check_file(path: str | os.PathLike[str], command: str = "") -> None:
    """Whether there is a file of that name which may be opened; it is not opened.

    Args:
        path: Where a model should be.
        command: What a file in a folder is offered with, like `"bnfold convert"`.

    Raises:
        UnreadableError: There is none.
    """
    name = os.fspath(path)
    try:
        mode = os.stat(name).st_mode
    except FileNotFoundError as error:
        raise no_file(name) from error
    except (OSError, ValueError) as error:
        raise cannot_open(name, error) from error
    if stat.S_ISDIR(mode):
        raise UnreadableError(f"{name} is a directory, not a model file", _inside(name, command))
    if not stat.S_ISREG(mode):
        raise UnreadableError(f"{name} is not a regular file", "Save it to a file first.")


def no_file(name: str) -> UnreadableError:
    """The error that nothing has that name, with what is called nearly so."""
    return UnreadableError(f"there is no file {name}", nearest_file(name) or CHECK)


def cannot_open(name: str, error: OSError | ValueError) -> UnreadableError:
    """The error that a file cannot be opened."""
    return UnreadableError(f"cannot open {name}: {getattr(error, 'strerror', None) or error}", advice(error, name))


def advice(error: Exception, name: str) -> str:
    """What to do about a path that does not open."""
    if isinstance(error, FileNotFoundError):
        return nearest_file(name) or CHECK
    if isinstance(error, PermissionError):
        shown, flag = (name, "") if os.path.exists(name) else (os.path.dirname(name) or ".", "d")
        return f"See who may read it: ls -l{flag} {shlex.quote(shown)}"
    return CHECK


def nearest_file(name: str, fits: Callable[[str], bool] = lambda name: True) -> str:
    """The files of the folder that are called nearly so, as a question; empty where there are none.

    Args:
        name: What was given.
        fits: Which of the folder's names count.
    """
    folder, wanted = os.path.split(name)
    try:
        there = [each for each in os.listdir(folder or ".") if fits(each)]
        found = difflib.get_close_matches(wanted, there, n=2)
    except (OSError, ValueError):
        return ""
    return f"Did you mean {printable(' or '.join(os.path.join(folder, each) for each in found))}?" if found else ""


def _inside(folder: str, command: str) -> str:
    """What to pass instead of a folder."""
    try:
        names = sorted(each for each in os.listdir(folder) if each.lower().endswith(MODEL_SUFFIXES))
    except OSError as error:
        return advice(error, folder)
    found = [os.path.normpath(os.path.join(folder, each)) for each in names]
    files = [shlex.quote(each) for each in found if os.path.isfile(each)]
    if not files:
        return "Pass the file inside it."
    others = f" (or {', '.join(files[1:OFFERED])})" if len(files) > 1 else ""
    return f"Pass the file inside it: {command}{' ' if command else ''}{files[0]}{others}"
