"""A network traced with its batch dimension open, and fixed where it does not allow that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from bnfold.errors import UsageError
from bnfold.specs import DynamicDim
from bnfold.tracing.examples import Example, OpenDims, open_dims
from bnfold.wording import printable

Traced = TypeVar("Traced")


def traced(
    example: Example,
    dynamic: Sequence[DynamicDim],
    trace: Callable[[Example, OpenDims], Traced],
    closed: Callable[[Traced, OpenDims], str],
    failed: Callable[[Exception], Exception],
) -> tuple[Traced, tuple[str, ...]]:
    """What tracing makes of a network, and a note where the batch could not stay open.

    A dimension of size 1 is traced at size 2, because torch may specialise a program to sizes 0 and 1, and a program
    traced at 2 also holds for the others.

    Args:
        example: The call to trace.
        dynamic: Dimensions the caller wants open besides the batch.
        trace: Traces a call with some of its dimensions open.
        closed: Which dimensions did not stay open after all, in words.
        failed: The error to raise where the network cannot be traced at all.

    Raises:
        UsageError: A dimension in `dynamic` cannot stay open.
    """
    dims = open_dims(example, dynamic)
    notes: tuple[str, ...] = ()
    if dims:
        try:
            made = trace(example.stretched(dims), dims)
        except Exception as error:
            reason = innermost(error)
        else:
            fixed = closed(made, dims)
            if not fixed:
                return made, ()
            reason = f"torch fixed {fixed}"
        if dynamic:
            asked = ", ".join(f"{dim.name}:{dim.axis}={dim.symbol}" for dim in dynamic)
            raise UsageError(
                f"the network does not leave --dynamic {asked} open: {reason}",
                "Drop --dynamic, or rewrite the part of forward that depends on the size.",
            )
        notes = (f"the batch dimension is fixed, because the network does not leave it open: {reason}",)
    try:
        return trace(example, {}), notes
    except Exception as error:
        raise failed(error) from error


def innermost(error: BaseException) -> str:
    """The innermost cause in one line; the outer ones only say which step of torch's exporter failed."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip(" -") for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return printable(" ".join(lines[:2]) if lines[0].endswith(":") else lines[0], 300)
