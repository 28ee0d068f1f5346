"""Data to measure a model on, as batches, from where it lies: it is never held as a whole.

    x.npz               the arrays `x` and `y`, or one array per input and `y`: read row by row, compressed or not
    x.npy               inputs without labels, mapped into memory
    folder/             images, one sub-folder per class, in alphabetical order (`imagefolder`)
    pkg.mod:loader      the caller's own: an iterable of batches, or a callable that returns one

A batch is `(x, y)`, or inputs by name with the labels as `"y"`, or inputs alone.
"""

from __future__ import annotations

import math
import os
import re
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bnfold.arch import load_object
from bnfold.errors import BnfoldError, UnreadableError, UnsafeError, UsageError
from bnfold.feeds import InputDecl
from bnfold.wording import first_line, printable

Array = NDArray[Any]

ROWS = 64  # of a batch, where the model leaves its size open
BATCH_BYTES = 32 << 20  # fewer rows where they are large

LABELS = "y"
KINDS = "Give a .npz file with the arrays x and y, a folder of images by class, or pkg.mod:loader."


@dataclass(frozen=True)
class Batch:
    """Some rows.

    Attributes:
        inputs: Arrays by name; None as the name of the only one that has none. Axis 0 is the row.
        labels: One per row, where there are any.
    """

    inputs: Mapping[str | None, Array]
    labels: Array | None = None


class Dataset(Protocol):
    """Where batches come from.

    Attributes:
        name: As the caller wrote it.
        rows: How many there are; None where only reading them all can tell.
        labelled: Whether there are labels; None where only a batch can tell.
    """

    name: str
    rows: int | None
    labelled: bool | None

    def batches(self, declared: Sequence[InputDecl], rows: int | None) -> Iterator[Batch]:
        """All rows from the start, at most `rows` at a time; None leaves the size to the data set."""


def open_dataset(given: str | os.PathLike[str] | Iterable[Any], flag: str = "--data", *, raw: bool = False) -> Dataset:
    """A data set, checked as far as can be without reading it.

    Args:
        given: A path, `pkg.mod:loader`, or (in Python) the loader itself.
        flag: What it was given with, for messages.
        raw: Whether images keep their 0 to 255 (`--scale` is part of the model), instead of 0 to 1.

    Raises:
        UnreadableError: There is nothing there, or it is damaged.
        UnsafeError: It holds pickled objects.
        UsageError: It is in no form that is read.
    """
    if not isinstance(given, (str, os.PathLike)):
        return Loader("the loader", given, flag)
    name = os.fspath(given)
    if os.path.isdir(name):
        from bnfold.imagefolder import ImageFolder

        return ImageFolder(name, raw=raw)
    if not os.path.exists(name) and re.search(r"[^:\\/]:[A-Za-z_][\w.]*$", name):
        return Loader(name, load_object(flag, name), flag)
    try:
        with open(name, "rb") as file:
            start = file.read(6)
    except OSError as error:
        raise UnreadableError(f"cannot read {name}: {error.strerror or error}", f"Check the path. {KINDS}") from error
    if start.startswith(b"PK\x03\x04"):
        return Arrays(name)
    if start.startswith(b"\x93NUMPY"):
        return OneArray(name)
    raise UnreadableError(f"{name} is no data set", KINDS)


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
            from bnfold.tensors import to_array

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


def usual_rows(row_bytes: int) -> int:
    """Rows of a batch whose size is ours to choose."""
    return max(1, min(ROWS, BATCH_BYTES // max(row_bytes, 1)))


@dataclass(frozen=True)
class _Head:
    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]

    @property
    def row_bytes(self) -> int:
        return int(self.dtype.itemsize * math.prod(self.shape[1:]))


class _Reading:
    """Turns what a damaged file makes NumPy and zipfile raise into words."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ValueError) and "allow_pickle" in str(error):
            raise UnsafeError(f"{self._name} holds pickled objects", "Save plain arrays of numbers.") from error
        if isinstance(error, (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error)):
            raise UnreadableError(f"{self._name} is damaged: {first_line(error)}", "Write it again.") from error


def _head(archive: zipfile.ZipFile, key: str, name: str) -> _Head:
    with archive.open(f"{key}.npy") as file:
        head = _read_head(file)
    if head.dtype.hasobject:
        raise UnsafeError(f"{name} holds pickled objects in '{printable(key)}'", "Save plain arrays of numbers.")
    if head.dtype.kind not in "biufc":
        raise UnreadableError(
            f"'{printable(key)}' of {name} is {head.dtype}, not numbers", "Save plain arrays of numbers."
        )
    return head


def _read_head(file: IO[bytes]) -> _Head:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return _Head(*np.lib.format.read_array_header_1_0(file))
    return _Head(*np.lib.format.read_array_header_2_0(file))


def _rows_of(name: str, key: str, head: _Head, stack: ExitStack) -> Callable[[int], Array]:
    """What returns the next rows of an array in a `.npz`; one stored column by column has to be read whole."""
    archive = stack.enter_context(zipfile.ZipFile(name))
    file = stack.enter_context(archive.open(f"{key}.npy"))
    _read_head(file)
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
