"""Arrays in files as data sets: `.npz` is read row by row, compressed or not, and `.npy` is mapped into memory."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from bnfold.data.arrays import read_header
from bnfold.data.batches import LABELS, Array, Batch, usual_rows
from bnfold.data.feeds import InputDecl
from bnfold.errors import BnfoldError, UnreadableError, UnsafeError
from bnfold.wording import first_line, printable


class Arrays:
    """A `.npz` file, read in order.

    Raises:
        UnreadableError: It is damaged, empty, or its arrays are not of equal length.
        UnsafeError: It holds pickled objects.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        with self._reading(), zipfile.ZipFile(name) as archive:
            keys = [entry.removesuffix(".npy") for entry in archive.namelist() if entry.endswith(".npy")]
            heads = {key: _head(archive, key, name) for key in keys}
        self.labelled: bool | None = LABELS in heads
        self.arrays = tuple(heads)
        chosen = ["x"] if "x" in heads else [key for key in heads if key != LABELS]
        if not chosen:
            raise UnreadableError(f"{name} has no array with inputs", "Call the inputs x, and the labels y.")
        self._inputs: dict[str, _Head] = {key: heads[key] for key in chosen}
        self._all = {**self._inputs, **({LABELS: heads[LABELS]} if self.labelled else {})}
        lengths = {key: head.shape[0] if head.shape else None for key, head in self._all.items()}
        if len(set(lengths.values())) > 1:
            said = ", ".join(f"{key!r} has {'no rows' if rows is None else rows}" for key, rows in lengths.items())
            raise UnreadableError(f"the arrays of {name} are not of one length: {said}", "Give one label per row of x.")
        rows = next(iter(lengths.values()))
        if not rows:
            raise UnreadableError(f"{name} is empty: it has no rows", "Give data with at least one row.")
        self.rows: int | None = rows

    def batches(self, declared: Sequence[InputDecl], rows: int | None) -> Iterator[Batch]:
        """All rows, in the file's order."""
        assert self.rows is not None
        step = rows or usual_rows(sum(head.row_bytes for head in self._inputs.values()))
        name = next(iter(self._inputs))
        with self._reading(), ExitStack() as stack:
            readers = {key: _rows_of(self.name, key, head, stack) for key, head in self._all.items()}
            for start in range(0, self.rows, step):
                got = {key: read(min(step, self.rows - start)) for key, read in readers.items()}
                labels = got.pop(LABELS, None)
                only = name == "x" and len(got) == 1
                yield Batch({None if only else key: array for key, array in got.items()}, labels)

    def _reading(self) -> _Reading:
        return _Reading(self.name)


class OneArray:
    """A `.npy` file: inputs, and no labels."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.labelled: bool | None = False
        with _Reading(name):
            self._array = np.load(name, mmap_mode="r", allow_pickle=False)
        if not self._array.ndim or not len(self._array):
            raise UnreadableError(f"{name} is empty: it has no rows", "Give data with at least one row.")
        self.rows: int | None = len(self._array)

    def batches(self, declared: Sequence[InputDecl], rows: int | None) -> Iterator[Batch]:
        """All rows, in the file's order."""
        step = rows or usual_rows(self._array[:1].nbytes)
        for start in range(0, len(self._array), step):
            yield Batch({None: np.asarray(self._array[start : start + step])})


@dataclass(frozen=True)
class _Head:
    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]

    @property
    def row_bytes(self) -> int:
        return int(self.dtype.itemsize * math.prod(self.shape[1:]))

    @property
    def bytes(self) -> int:
        return int(self.dtype.itemsize * math.prod(self.shape))


class _Reading:
    """Turns what a damaged file makes NumPy and zipfile raise into words."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ValueError) and "allow_pickle" in str(error):
            raise UnsafeError(f"{self._name} holds pickled objects", "Save plain arrays of numbers.") from error
        if isinstance(error, Exception) and not isinstance(error, BnfoldError):
            raise UnreadableError(f"{self._name} is damaged: {first_line(error)}", "Write it again.") from error


def _head(archive: zipfile.ZipFile, key: str, name: str) -> _Head:
    with archive.open(f"{key}.npy") as file:
        head = _Head(*read_header(file))
    there = archive.getinfo(f"{key}.npy").file_size
    if not head.dtype.hasobject and (head.bytes > there):
        raise UnreadableError(
            f"'{printable(key)}' of {name} is said to have {head.bytes} bytes, and {there} are there", "Write it again."
        )
    if head.dtype.hasobject:
        raise UnsafeError(f"{name} holds pickled objects in '{printable(key)}'", "Save plain arrays of numbers.")
    if head.dtype.kind not in "biufc":
        raise UnreadableError(
            f"'{printable(key)}' of {name} is {head.dtype}, not numbers", "Save plain arrays of numbers."
        )
    return head


def _rows_of(name: str, key: str, head: _Head, stack: ExitStack) -> Callable[[int], Array]:
    """What returns the next rows of an array in a `.npz`; one stored column by column has to be read whole."""
    archive = stack.enter_context(zipfile.ZipFile(name))
    file = stack.enter_context(archive.open(f"{key}.npy"))
    read_header(file)
    if head.fortran and len(head.shape) > 1:
        whole = np.frombuffer(_exactly(file, head.row_bytes * head.shape[0]), head.dtype)
        rows = iter(whole.reshape(head.shape, order="F"))
        return lambda count: np.stack([next(rows) for _ in range(count)])
    return lambda count: np.frombuffer(_exactly(file, head.row_bytes * count), head.dtype).reshape(
        count, *head.shape[1:]
    )


def _exactly(file: IO[bytes], count: int) -> bytes:
    parts = []
    while count > 0:
        part = file.read(count)
        if not part:
            raise EOFError("it ends before its last row")
        parts.append(part)
        count -= len(part)
    return b"".join(parts)
