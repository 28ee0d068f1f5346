"""What a caller of two models would notice before running them, and what to do about each kind of failure."""

from __future__ import annotations

from collections.abc import Sequence

from bnfold.running.runners import Runner

OTHER_INPUTS = "These take different inputs; is it the right file?"
OTHER_OUTPUTS = "These give different outputs; is it the right file?"
DOES_NOT_RUN = "Make the second model run on its own first: bnfold bench AFTER."
NUMBERS = "If such a difference is acceptable, allow it with --rtol or --atol."
WEIGHTS = "See where they part with --per-site; if such a difference is acceptable, allow it with --rtol or --atol."

Declared = tuple[str, tuple[int | None, ...] | None]  # dtype, shape


def interface_differences(before: Runner, after: Runner) -> tuple[str, ...]:
    """What differs, one sentence each."""
    found: list[str] = []
    for kind, ours, theirs in (
        ("input", before.inputs, after.inputs),
        ("output", before.outputs, after.outputs),
    ):
        if ours is None or theirs is None:
            continue  # only a run can tell
        missing = [name for name in ours if name not in theirs]
        added = [name for name in theirs if name not in ours]
        found += [f"{kind} {name!r} is missing after" for name in missing]
        found += [f"{kind} {name!r} is new after" for name in added]
        if not missing and not added and list(ours) != list(theirs):
            found.append(f"the {kind}s are in the order {list(ours)} before and {list(theirs)} after")
        for name in ours:
            if name in theirs and (problem := _declared_problem(ours[name], theirs[name], pinned=kind == "input")):
                found.append(f"{kind} {name!r}: {problem}")
    return tuple(found)


def interface_advice(before: Runner, after: Runner) -> str:
    """What to do where the interfaces differ: other files, or a dimension that only one of them leaves open."""
    if list(before.inputs) != list(after.inputs):
        return OTHER_INPUTS
    fixed = ""
    for name, ours in before.inputs.items():
        theirs = after.inputs[name]
        if not _declared_problem(ours, theirs, pinned=True):
            continue
        if _declared_problem(ours, theirs, pinned=False):
            return OTHER_INPUTS
        axis, size = _fixed_after(ours, theirs)
        fixed = fixed or (
            f"Dimension {axis} of {name!r} is open before and fixed at {size} after: export the model after with it "
            "open, or that before with it fixed."
        )
    return fixed or OTHER_OUTPUTS


def _fixed_after(before: Declared, after: Declared) -> tuple[int, int]:
    """The first dimension that is open before and fixed after, and its size."""
    assert before[1] is not None
    assert after[1] is not None
    pairs = enumerate(zip(before[1], after[1], strict=True))
    return next((axis, theirs) for axis, (ours, theirs) in pairs if ours is None and theirs is not None)


def _declared_problem(before: Declared, after: Declared, *, pinned: bool) -> str:
    """Why two declarations disagree; with `pinned`, also where a dynamic dimension has become a fixed one."""
    if before[0] != after[0]:
        return f"its type is {before[0]} before and {after[0]} after"
    if before[1] is None or after[1] is None:
        return ""
    shapes = f"its shape is {_shape(before[1])} before and {_shape(after[1])} after"
    if len(before[1]) != len(after[1]):
        return shapes
    for one, other in zip(before[1], after[1], strict=True):
        if other is not None and one != other and (one is not None or pinned):
            return shapes
    return ""


def _shape(dims: Sequence[int | None]) -> str:
    return "×".join("?" if dim is None else str(dim) for dim in dims) or "a scalar"
