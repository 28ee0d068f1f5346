"""`--arch`: the code that builds the network a checkpoint's weights belong to.

This runs the user's own code, named on the command line; nothing here is taken from a model file.
"""

from __future__ import annotations

import ast
import copy
import hashlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from types import ModuleType
from typing import TYPE_CHECKING, Any

from bnfold.errors import UsageError
from bnfold.loading.factories import OFFERED, check_call, defined_in, failed
from bnfold.loading.libraries import from_library, nearest
from bnfold.loading.places import CHECK, nearest_file

if TYPE_CHECKING:
    import torch

Arch = str | Callable[..., Any]
FORMS = "Write it as pkg.mod:factory, path/file.py:factory, timm:NAME or torchvision:NAME."


def name_of(arch: object) -> str:
    """What messages call an `--arch`."""
    return arch if isinstance(arch, str) else str(getattr(arch, "__qualname__", type(arch).__qualname__))


def build(arch: Arch, arguments: Mapping[str, str] | None = None) -> torch.nn.Module:
    """The network of an `--arch`, in evaluation mode.

    Args:
        arch: `pkg.mod:factory`, `path/file.py:factory`, `timm:NAME` or `torchvision:NAME`; or the factory itself, e.g.
            the class. A network is copied.
        arguments: Keyword arguments of the factory as text; what reads as a Python literal is one.

    Raises:
        UsageError: There is no such code, or it fails, or it builds something else.
    """
    import torch

    keywords = {key: _value(text) for key, text in (arguments or {}).items()}
    built = _named(arch, keywords) if isinstance(arch, str) else _given(arch, keywords)
    if not isinstance(built, torch.nn.Module):
        raise UsageError(
            f"--arch {name_of(arch)} built an object of type {type(built).__name__}, not a torch.nn.Module",
            "Name another factory.",
        )
    return built.eval()


def check_arch(arch: str) -> tuple[str, str]:
    """Where the code of an `--arch` is and what it is called there, as far as can be told without running it.

    Raises:
        UsageError: It names no factory, or a file that is not there.
    """
    where, colon, name = arch.rpartition(":")
    if not (where and colon and name):
        path = where or arch.strip(":")
        defined = defined_in(path)[:OFFERED] if os.path.isfile(path) else []
        name = defined[0] if len(defined) == 1 else "NAME"
        hint = f"Pass --arch {path}:{name}. It defines {', '.join(defined)}." if defined else FORMS
        raise UsageError(f"--arch {arch!r} names no factory", hint)
    if _is_path(where):
        _check_source(where, arch, "--arch")
    return where, name


def _named(arch: str, keywords: Mapping[str, object]) -> object:
    where, name = check_arch(arch)
    with importable(os.path.dirname(os.path.abspath(where)) if _is_path(where) else os.getcwd()):
        if where in ("timm", "torchvision"):
            return from_library(where, name, arch, keywords)
        return _call(_factory(where, name, arch), arch, keywords)


def _given(factory: object, keywords: Mapping[str, object]) -> object:
    """A factory that is there as an object; the weights go into a network of its own."""
    with redirect_stdout(sys.stderr):
        return copy.deepcopy(_call(factory, name_of(factory), keywords))


def parse_arch_args(pairs: list[str]) -> dict[str, str]:
    """Reads every `--arch-arg key=value`.

    Raises:
        UsageError: One of them does not read.
    """
    parsed = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not (equals and key.isidentifier()):
            raise UsageError(f"--arch-arg {pair!r} is not key=value", "Write it like --arch-arg num_classes=10.")
        parsed[key] = value
    return parsed


def load_object(flag: str, text: str) -> Any:
    """The object that `pkg.mod:name` or `path/file.py:name` names: the caller's own code, as with `--arch`.

    Args:
        flag: The flag it was given with, for messages: `--data`.
        text: What was given.

    Raises:
        UsageError: There is no such code, or importing it fails.
    """
    where, colon, name = text.rpartition(":")
    if not (where and colon and name):
        raise UsageError(f"{flag} {text!r} names no object", "Write it as pkg.mod:name or path/file.py:name.")
    with importable(os.path.dirname(os.path.abspath(where)) if _is_path(where) else os.getcwd()):
        return _factory(where, name, text, flag)


def _value(text: str) -> object:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


def _is_path(where: str) -> bool:
    return where.endswith(".py") or "/" in where or os.sep in where


@contextmanager
def importable(folder: str) -> Iterator[None]:
    """Runs the caller's code with a folder first on the import path, and what it prints on stderr.

    A console script does not have the current folder there; stdout holds results only.
    """
    sys.path.insert(0, folder)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        if folder in sys.path:
            sys.path.remove(folder)


def _factory(where: str, name: str, arch: str, flag: str = "--arch") -> Any:
    module = _module_of_file(where, arch, flag) if _is_path(where) else _module_of_package(where, arch, flag)
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            names = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
            raise UsageError(
                f"{flag} {arch}: {where} has no {name!r}",
                f"It defines {', '.join(nearest(part, names)) or 'nothing that can be called'}.",
            )
        found = getattr(found, part)
    return found


def _module_of_package(where: str, arch: str, flag: str) -> ModuleType:
    try:
        return importlib.import_module(where)
    except ModuleNotFoundError as error:
        if error.name is not None and (where == error.name or where.startswith(error.name + ".")):
            name = "factory" if flag == "--arch" else "name"
            raise UsageError(
                f"{flag} {arch}: no module named {where!r}",
                f"Run from the folder that holds it, install it, or name its file: path/file.py:{name}.",
            ) from error
        raise failed(arch, f"importing {where}", error, flag) from error
    except (Exception, SystemExit) as error:
        raise failed(arch, f"importing {where}", error, flag) from error


def _module_of_file(where: str, arch: str, flag: str) -> ModuleType:
    path = os.path.abspath(where)
    _check_source(where, arch, flag)
    private = f"_bnfold_arch_{hashlib.sha256(path.encode()).hexdigest()[:16]}"
    spec = importlib.util.spec_from_file_location(private, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{flag} {arch}: {where} is not a Python file", "Name a file that ends in .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[private] = module  # dataclasses and pickling look a class's module up there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[private]
        raise failed(arch, f"importing {where}", error, flag) from error
    return module


def _check_source(where: str, arch: str, flag: str) -> None:
    if not os.path.isfile(where):
        hint = nearest_file(where, lambda name: name.endswith(".py")) or CHECK
        raise UsageError(f"{flag} {arch}: there is no file {where}", hint)


def _call(factory: Any, arch: str, keywords: Mapping[str, object]) -> object:
    import torch

    if isinstance(factory, torch.nn.Module) and not keywords:
        return factory
    if not callable(factory):
        raise UsageError(
            f"--arch {arch} is an object of type {type(factory).__name__}, not a factory", "Name a function or a class."
        )
    check_call(factory, arch, keywords)
    try:
        return factory(**keywords)
    except (Exception, SystemExit) as error:
        raise failed(arch, "calling it", error) from error
