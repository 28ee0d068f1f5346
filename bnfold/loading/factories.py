"""What the code of an `--arch` offers: what a file defines, and what a factory takes, said before either is run."""

from __future__ import annotations

import ast
import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from bnfold.errors import UsageError
from bnfold.wording import first_line

OFFERED = 12  # names that a hint lists


def defined_in(path: str) -> list[str]:
    """The public functions and classes of a Python file, in its order, read without running it; none if unreadable."""
    try:
        with open(path, "rb") as file:
            tree = ast.parse(file.read())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    kinds = (ast.FunctionDef, ast.ClassDef)
    return [node.name for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")]


def check_call(factory: Callable[..., Any], arch: str, keywords: Mapping[str, object]) -> None:
    """Whether a factory takes these keyword arguments; one that does not say what it takes is not asked.

    Raises:
        UsageError: It takes no such argument, or needs one that is missing.
    """
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):
        return
    if any(p.kind is p.POSITIONAL_ONLY and p.default is p.empty for p in parameters):
        return  # calling it says so
    named = {p.name: p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    takes = f"It takes {', '.join(_written(p) for p in named.values())}." if named else "It takes none."
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        for key, value in keywords.items():
            if key not in named:
                close = difflib.get_close_matches(key, list(named), n=1)
                meant = f"Did you mean --arch-arg {close[0]}={value}? " if close else ""
                raise UsageError(f"--arch {arch} takes no argument {key!r}", f"{meant}{takes}")
    missing = [p.name for p in named.values() if p.default is p.empty and p.name not in keywords]
    if missing:
        flags = " ".join(f"--arch-arg {name}=VALUE" for name in missing)
        what = f"the argument {missing[0]!r}" if len(missing) == 1 else f"the arguments {', '.join(map(repr, missing))}"
        raise UsageError(f"--arch {arch} needs {what}", f"Pass {flags}. {takes}")


def _written(parameter: inspect.Parameter) -> str:
    """`classes=10`, or the name alone where there is no default that is short."""
    simple = isinstance(parameter.default, (int, float, str, bool, type(None)))
    default = repr(parameter.default) if simple and parameter.default is not parameter.empty else ""
    return f"{parameter.name}={default}" if default and len(default) <= 20 else parameter.name


def failed(arch: str, doing: str, error: BaseException, flag: str = "--arch") -> UsageError:
    """The refusal of code that raised something of its own."""
    needs = "; pass what it needs by --arch-arg key=value" if flag == "--arch" else ""
    return UsageError(
        f"{flag} {arch}: {doing} raised {first_line(error)}", f"Make that code work on its own first{needs}."
    )
