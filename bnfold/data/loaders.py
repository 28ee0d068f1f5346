"""The caller's own batches as a data set."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from bnfold.data.batches import LABELS, Array, Batch
from bnfold.data.feeds import InputDecl
from bnfold.errors import BnfoldError, UsageError
from bnfold.wording import first_line


class Loader:
    """The caller's own batches: an iterable, or a callable that returns one."""

    def __init__(self, name: str, made: Any, flag: str) -> None:
        self.name, self._made, self._flag, self._used = name, made, flag, False
        self.rows: int | None = None
        self.labelled: bool | None = None
        if not callable(made) and not hasattr(made, "__iter__"):
            raise UsageError(
                f"{flag} {name} is an object of type {type(made).__name__}, not a loader",
                "Name an iterable of (x, y) batches, or a callable that returns one.",
            )

    def batches(self, declared: Sequence[InputDecl], rows: int | None) -> Iterator[Batch]:
        """The batches as they come."""
        source = iter(self._iterable())
        index = 0
        while True:
            try:
                item = next(source)
            except StopIteration:
                return
            except BnfoldError:
                raise
            except Exception as error:
                raise self._failed(f"batch {index} raised {first_line(error)}") from error
            yield self._read(item, index, declared)
            index += 1

    def _iterable(self) -> Iterable[Any]:
        made = self._made
        if callable(made) and not hasattr(made, "__iter__"):
            try:
                made = made()
            except Exception as error:
                raise self._failed(f"calling it raised {first_line(error)}") from error
            if not hasattr(made, "__iter__"):
                raise UsageError(
                    f"{self._flag} {self.name} returned an object of type {type(made).__name__}, not batches",
                    "Return an iterable of (x, y) batches.",
                )
        elif hasattr(made, "__next__"):
            if self._used:
                raise UsageError(
                    f"{self._flag} {self.name} is an iterator, which can be read once, and is needed again",
                    "Name a function that returns a new one, or an iterable like a DataLoader.",
                )
            self._used = True
        return made  # type: ignore[no-any-return]

    def _read(self, item: Any, index: int, declared: Sequence[InputDecl]) -> Batch:
        labels = None
        if isinstance(item, Mapping):
            inputs: dict[str | None, Any] = {str(key): value for key, value in item.items() if key != LABELS}
            labels = item.get(LABELS)
        elif isinstance(item, (tuple, list)) and len(item) == 2:
            x, labels = item
            inputs = {str(key): value for key, value in x.items()} if isinstance(x, Mapping) else {None: x}
        elif isinstance(item, (tuple, list)):
            raise self._failed(f"batch {index} has {len(item)} parts, and (x, y) has two")
        else:
            inputs = {None: item}
        arrays = {key: self._array(value, index) for key, value in inputs.items()}
        given = None if labels is None else self._array(labels, index)
        lengths = {len(array) if array.ndim else None for array in arrays.values()}
        if given is not None:
            lengths.add(len(given) if given.ndim else None)
        if len(lengths) != 1 or None in lengths:
            shapes = [array.shape for array in (*arrays.values(), *(() if given is None else (given,)))]
            said = " and ".join("×".join(map(str, shape)) or "a scalar" for shape in shapes)
            raise self._failed(f"batch {index} does not have as many labels as rows: {said}")
        return Batch(arrays, given)

    def _array(self, value: Any, index: int) -> Array:
        torch = sys.modules.get("torch")
        if torch is not None and isinstance(value, torch.Tensor):
            from bnfold.data.tensors import to_array

            return to_array(value)
        try:
            array = np.asarray(value)
        except ValueError as error:
            raise self._failed(f"batch {index} is no array: {first_line(error)}") from error
        if array.dtype.kind not in "biufcV":
            raise self._failed(f"batch {index} is no array of numbers: {type(value).__name__}")
        return array

    def _failed(self, what: str) -> UsageError:
        return UsageError(f"{self._flag} {self.name}: {what}", "Make it yield (x, y) with arrays of equal length.")
