"""Makes a failing graph small: drops outputs, cuts graphs open, bypasses steps, as long as it still fails.

Hypothesis shrinks the draws, of which a graph keeps few; this works on the graph and takes seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from . import naive
from .spec import Spec, Step


def reduce(spec: Spec, fails: Callable[[Spec], bool]) -> Spec:
    """A smallest graph found on the way down from `spec` for which `fails` still holds."""
    found: Spec | None = spec
    while found is not None:
        spec = found
        found = next((smaller for smaller in _smaller(spec) if fails(smaller)), None)
    return spec


def _smaller(spec: Spec) -> Iterator[Spec]:
    if len(spec.outputs) > 1:
        for output in spec.outputs:
            yield _rebuilt(spec, spec.steps, (output,))
        for output in spec.outputs:
            yield _rebuilt(spec, spec.steps, [name for name in spec.outputs if name != output])
    for index, step in reversed(list(enumerate(spec.steps))):
        if not set(step.writes) & set(spec.outputs):
            yield _rebuilt(spec, spec.steps[:index] + spec.steps[index + 1 :], spec.outputs)
        elif set(step.reads) - set(spec.inputs):
            yield _rebuilt(spec, spec.steps, [name for name in (*spec.outputs, *step.reads) if name not in step.writes])
    for step in spec.steps:
        for name in step.reads:
            if len(step.writes) == 1 and spec.values[name].shape == spec.values[step.writes[0]].shape:
                yield _bypassed(spec, step, name)
    for key in ("shared", "overridable"):
        if getattr(spec, key):
            yield replace(spec, **{key: ()})
    for option in spec.options:
        if option != "opset":
            yield replace(spec, options={key: value for key, value in spec.options.items() if key != option})


def _bypassed(spec: Spec, gone: Step, name: str) -> Spec:
    renamed = {gone.writes[0]: name}
    steps = [
        replace(step, reads=tuple(renamed.get(read, read) for read in step.reads))
        for step in spec.steps
        if step is not gone
    ]
    return _rebuilt(spec, steps, [renamed.get(output, output) for output in spec.outputs])


def _rebuilt(spec: Spec, steps: Sequence[Step], outputs: Sequence[str]) -> Spec:
    """The part of these steps that the outputs need; what they read and nothing writes becomes a graph input."""
    outputs = tuple(dict.fromkeys(name for name in outputs if name not in spec.inputs)) or spec.outputs
    needed, kept = set(outputs), []
    for step in reversed(steps):
        if needed & set(step.writes):
            kept.append(step)
            needed |= set(step.reads)
    kept.reverse()
    written = {name for step in kept for name in step.writes}
    feeds = {name: spec.values[name] for name in spec.values if name in needed - written}
    return replace(
        spec,
        inputs=tuple(feeds),
        steps=tuple(kept),
        outputs=outputs,
        feeds=feeds,
        values=naive.evaluate(kept, feeds),
        shared=_moved(spec, kept, spec.shared),
        overridable=_moved(spec, kept, spec.overridable),
    )


def _moved(
    spec: Spec, kept: Sequence[Step], entries: Sequence[tuple[int | str, ...]]
) -> tuple[tuple[int | str, ...], ...]:
    """Entries that name steps by index, for the steps that are kept (by what they write)."""
    index_of = {step.writes: index for index, step in enumerate(kept)}
    moved = []
    for entry in entries:
        new = tuple(index_of.get(spec.steps[part].writes) if isinstance(part, int) else part for part in entry)
        if None not in new:
            moved.append(new)
    return tuple(moved)
