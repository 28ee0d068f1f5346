"""What Typer found wrong with a call, in our words: what it was, and the next thing to type."""

from __future__ import annotations

import difflib
import os
import re
import shlex
from typing import Any

from bnfold.errors import UsageError
from bnfold.wording import one_line

SYNONYMS = {
    **dict.fromkeys(
        ("fold", "fuse", "export", "optimize", "optimise", "simplify", "merge", "remove", "run"), "convert"
    ),
    **dict.fromkeys(("check", "compare", "diff", "test", "validate", "prove"), "verify"),
    **dict.fromkeys(("benchmark", "time", "profile", "speed"), "bench"),
    **dict.fromkeys(("show", "list", "plan", "analyze", "analyse", "info", "print", "summary"), "inspect"),
    **dict.fromkeys(("why", "reason", "reasons", "codes"), "explain"),
    **dict.fromkeys(("page", "html", "render"), "report"),
    **dict.fromkeys(("statistics", "stats", "shift"), "drift"),
}
TAKES = {"verify": "two models", "bench": "two models", "report": "one run", "explain": "one code"}


def usage_error(error: Any) -> UsageError:
    """What Typer found wrong with the arguments.

    Args:
        error: An exception of Typer's, of whichever version: only its fields are read.
    """
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "bnfold"
    see = f"See {path} --help."
    parameter = getattr(error, "param", None)
    message = str(getattr(error, "message", "") or error.format_message())
    if word := re.match(r"No such command '(.*?)'", message):
        return _no_command(word[1], message, see)
    if extra := re.match(r"Got unexpected extra arguments?(?:\(s\))? \((.*)\)", message):
        return _too_many(extra[1], context, see)
    if parameter is not None and type(error).__name__ == "MissingParameter":
        option = parameter.param_type_name == "option"
        what = f"missing {max(parameter.opts, key=len) if option else f'argument {parameter.metavar!r}'}"
        example = _example(context)
        return UsageError(what, f"Like: {example} (see {path} --help)" if example else see)
    if parameter is not None:
        return _wrong_value(error, message, parameter, see)
    what, _, guess = message.partition(" Did you mean ")
    meant, possibilities = str(getattr(error, "option_name", "")), getattr(error, "possibilities", None) or []
    possibilities = difflib.get_close_matches(meant, possibilities, n=2, cutoff=0.75) or sorted(possibilities)
    if possibilities:
        guess = f"{' or '.join(possibilities)}?"
    return UsageError(what[:1].lower() + what[1:].rstrip("."), f"Did you mean {guess} {see}" if guess else see)


def _no_command(word: str, message: str, see: str) -> UsageError:
    if os.path.isfile(word):
        return UsageError(f"{word!r} is a file, not a command", f"To fold it: bnfold convert {shlex.quote(word)}")
    guess = message.partition(" Did you mean ")[2]
    synonym = SYNONYMS.get(word.lower())
    if synonym is not None:
        guess = f"{synonym!r}?"
    return UsageError(f"no such command {word!r}", f"Did you mean {guess} {see}" if guess else see)


def _too_many(extra: str, context: Any, see: str) -> UsageError:
    command = getattr(getattr(context, "command", None), "name", None) or ""
    what = f"{command} takes {TAKES.get(command, 'one model')}, and was given {one_line(extra)!r} as well"
    model = shlex.quote(str(context.params.get("model", "MODEL"))) if context is not None else "MODEL"
    if command == "convert":
        return UsageError(what, f"Name the output with -o: bnfold convert {model} -o {extra}")
    if command == "inspect":
        return UsageError(what, f"To compare two models: bnfold verify {model} {extra}")
    return UsageError(what, see)


def _example(context: Any) -> str:
    """The first example of a command's help."""
    epilog = getattr(getattr(context, "command", None), "epilog", None) or ""
    return next((line.strip() for line in epilog.splitlines() if line.strip().startswith("bnfold ")), "")


def _wrong_value(error: Any, message: str, parameter: Any, see: str) -> UsageError:
    kind = next((kind for kind in ("integer", "number", "float") if kind in message), "")
    value = _given(error, message)
    if not kind or value is None:
        what = str(error.format_message())
        return UsageError(what[:1].lower() + what[1:].rstrip("."), see)
    flag = max(parameter.opts, key=len)
    noun = "whole number" if kind == "integer" else "number"
    return UsageError(f"{flag} {value!r} is no {noun}", f"Pass {flag} {parameter.metavar}, a {noun}.")


def _given(error: Any, message: str) -> str | None:
    """What was given: Typer's message says it, or the error of pydantic's that is behind it."""
    said = re.match(r"'(.*)' is not a valid ", message)
    if said:
        return said[1]
    try:
        return str(error.__cause__.errors()[0]["input"])
    except (AttributeError, IndexError, KeyError, TypeError):
        return None
