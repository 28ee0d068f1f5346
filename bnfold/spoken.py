"""Messages in the words of who reads them.

A message is written once, with the flags of the command line: `Pass --min-time 1, for example.` Who called a function
of `bnfold` reads its arguments instead: `Pass min_time=1, for example.` Only the public functions translate (`bnfold`
wraps them), so that what is caught and raised again inside stays as it was written.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

from bnfold.errors import BnfoldError

FLAG = re.compile(
    r"(?<![\w-])--([a-z][a-z-]*[a-z])(?: (?P<value>[^\s,;]*[^\s,;:.]))?|(?<![\w-])-o (?P<output>[A-Z]+)\b"
)
SWITCHES = frozenset({"bench", "force", "norm-affine", "per-site", "trust-pickle"})
CHOICES = ("affine", "always", "auto", "conv", "full", "keep", "never", "off", "quick", "top1", "top5")
WORDS = frozenset({*CHOICES, "cpu", "cuda", "openvino", "ort", "torch", "torch-compile"})  # values like any word
VALUE = re.compile(r"[A-Z]+|.*[0-9:=/.<>\[\]*'].*")  # FILE, 1, 1x3x224x224, pkg.mod:name, kept>0, 'a name'
RENAMED = {"input": "inputs", "runtime": "runtimes", "arch-arg": "arch_args"}
LISTS = frozenset({"inputs", "runtimes", "dynamic", "fail_on", "exclude"})
LIMITS = {"max-memory": "memory", "max-time": "seconds"}  # fields of bnfold.Limits
TAKES_ARRAYS = ("verify", "bench")  # as `inputs`, of which they are told no shape
SHAPE = re.compile(r"\d+(?:x\d+)*")


def in_python(text: str, function: str) -> str:
    """A message with the arguments of a function in place of flags.

    Args:
        text: The message.
        function: Name of the public function that was called.
    """

    def argument(match: re.Match[str]) -> str:
        if match["output"]:
            return f"output={match['output']}"
        flag, value = match[1], match["value"]
        if value is None:
            return _named(flag, None, function)
        if flag in SWITCHES or not (value in WORDS or VALUE.fullmatch(value)):
            return f"{_named(flag, None, function)} {value}"
        return _named(flag, value, function)

    if function in TAKES_ARRAYS:
        text = text.replace(", or --input-data FILE", "")
    return FLAG.sub(argument, text)


def spoken(function: Callable[..., Any]) -> Callable[..., Any]:
    """A public function whose errors name its arguments."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except BnfoldError as error:
            error.what = in_python(error.what, function.__name__)
            error.hint = in_python(error.hint, function.__name__)
            error.args = (error.what,)
            raise

    call.__module__ = "bnfold"  # where pickle finds it
    return call


def _named(flag: str, value: str | None, function: str) -> str:
    if flag in LIMITS:
        return f"isolate=bnfold.Limits({LIMITS[flag]}={'...' if value is None else _literal(value)})"
    if function in TAKES_ARRAYS and flag in ("input", "input-data"):
        drawn = value is not None and SHAPE.fullmatch(value)
        return f"inputs=torch.randn({value.replace('x', ', ')})" if value and drawn else "inputs"
    if function == "verify" and flag == "verify":
        flag = "level"
    name = RENAMED.get(flag, flag.replace("-", "_"))
    if value is None:
        return f"{name}=True" if flag in SWITCHES else name
    if flag == "arch-arg":
        key, _, what = value.partition("=")
        return f'{name}={{"{key}": "{what}"}}'
    return f"{name}=[{_literal(value)}]" if name in LISTS else f"{name}={_literal(value)}"


def _literal(value: str) -> str:
    """A value as Python writes it: numbers, quoted text and placeholders as they are."""
    as_it_is = re.fullmatch(r"-?\d+(\.\d+)?(e-?\d+)?|'.*'|[A-Z]+", value)
    return value if as_it_is else f'"{value}"'
