"""A data set as what a model is fed, batch by batch: under its inputs' names, in its dtype, in the batch size it fixes.

A model whose batch size is fixed gets the rest of the rows filled up with copies of their last one; `Fed.rows` says how
many rows count.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bnfold.data.arrays import for_the_only_input
from bnfold.data.batches import Array, Batch, Dataset
from bnfold.data.feeds import InputDecl, make_feeds
from bnfold.errors import UnreadableError, UsageError


@dataclass(frozen=True)
class Fed:
    """A batch for a model.

    Attributes:
        feeds: Arrays by the names of its inputs.
        labels: One per row that counts, where there are any.
        rows: How many rows count, from the first.
        size: How many rows there are.
        done: The part of the data set that has been read after it; None where that is not known.
    """

    feeds: Mapping[str, Array]
    labels: Array | None
    rows: int
    size: int
    done: float | None


def fixed_batch(declared: Sequence[InputDecl]) -> int | None:
    """The batch size a model fixes; None where it is open.

    Raises:
        UsageError: It has an input without an axis for rows, or fixes several sizes.
    """
    if not declared or not all(decl.shape for decl in declared):
        raise UsageError("the model has no input with an axis for the rows of the data", "Measure another model.")
    sizes = {decl.shape[0] for decl in declared if decl.shape[0] is not None}
    if len(sizes) > 1:
        raise UsageError(
            f"the model's inputs have {' and '.join(map(str, sorted(sizes)))} rows at a time, not one batch size",
            "Measure a model whose inputs begin with one batch axis.",
        )
    return next(iter(sizes), None)


def stream(data: Dataset, declared: Sequence[InputDecl]) -> Iterator[Fed]:
    """All rows of a data set.

    Args:
        data: The data set.
        declared: The inputs of the model.

    Raises:
        UsageError: The rows are not what the model takes.
        UnreadableError: A row holds NaN or infinity, or there are no rows.
    """
    size = fixed_batch(declared)
    read = 0
    for batch in data.batches(declared, size):
        inputs = _by_name(batch, declared, data.name)
        count = len(next(iter(inputs.values())))
        for start in range(0, count, size or max(count, 1)):
            rows = min(size or count, count - start)
            part = {name: array[start : start + rows] for name, array in inputs.items()}
            _finite(part, read, data.name)
            if size is not None and rows < size:
                part = {name: _filled(array, size) for name, array in part.items()}
            feeds = make_feeds(declared, batch=rows, seed=0, data=part)
            read += rows
            labels = None if batch.labels is None else batch.labels[start : start + rows]
            yield Fed(feeds, labels, rows, size or rows, None if data.rows is None else read / data.rows)
    if not read:
        raise UnreadableError(f"{data.name} is empty: it has no rows", "Give data with at least one row.")


def _by_name(batch: Batch, declared: Sequence[InputDecl], source: str) -> dict[str, Array]:
    names = [decl.name for decl in declared]
    if None in batch.inputs:
        if len(names) != 1:
            raise UsageError(
                f"{source} has one array, and the model has {len(names)} inputs: {', '.join(names)}",
                "Give an array for each of them, by their names, and the labels as y.",
            )
        return {names[0]: batch.inputs[None]}
    given, _ = for_the_only_input({str(key): array for key, array in batch.inputs.items()}, names)
    missing = [name for name in names if name not in given]
    if missing:
        raise UsageError(
            f"{source} has the arrays {', '.join(map(str, batch.inputs))}, and none for the input {missing[0]!r}",
            "Call each array by the name of its input, and the labels y.",
        )
    return {name: given[name] for name in names}


def _finite(arrays: Mapping[str, Array], read: int, source: str) -> None:
    for name, array in arrays.items():
        if array.dtype.kind not in "fcV" or not array.size:
            continue
        bad = ~np.isfinite(array.reshape(len(array), -1)).all(axis=1)
        if bad.any():
            raise UnreadableError(
                f"{source} holds NaN or infinity in row {read + int(np.argmax(bad))} (input {name!r})",
                "Leave such rows out.",
            )


def _filled(array: Array, size: int) -> Array:
    return np.concatenate([array, np.repeat(array[-1:], size - len(array), axis=0)])
