"""Input arrays: drawn from a seed, or read from `.npy` and `.npz` files (numbers only, never pickled objects)."""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Mapping, Sequence
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from bnfold.errors import BnfoldError, LimitError, UnreadableError, UnsafeError, UsageError
from bnfold.loading.places import advice
from bnfold.specs import MAX_BYTES, parse_bytes, written

Array = NDArray[Any]

LARGEST_DRAWN_VALUES = 2**29  # 4 GB while they are drawn
USUAL = "x"  # what data sets call the array that goes in, beside `y`


def draw(rng: np.random.Generator, shape: Sequence[int], dtype: str) -> Array:
    """Random values a network can digest: normal floats, integers 0 to 9, booleans.

    Raises:
        UsageError: The shape is absurdly large.
    """
    if math.prod(shape) > LARGEST_DRAWN_VALUES:
        raise UsageError(
            f"an input of shape {written(shape)} would hold {math.prod(shape)} values",
            f"Pass a shape of at most {LARGEST_DRAWN_VALUES} values.",
        )
    kind = numpy_dtype(dtype)
    if kind.kind == "b":
        return rng.integers(0, 2, shape).astype(kind)
    if kind.kind in "iu":
        return rng.integers(0, 10, shape).astype(kind)
    if kind.kind == "c":
        imaginary = 1j * rng.standard_normal(shape)
        return (rng.standard_normal(shape) + imaginary).astype(kind)
    return rng.standard_normal(shape).astype(kind)


def numpy_dtype(name: str) -> np.dtype[Any]:
    """The dtype of a name, bfloat16 and its kin included."""
    try:
        return np.dtype(name)
    except TypeError:
        import ml_dtypes

        kind: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
        return kind


def load_input_data(path: str | os.PathLike[str], max_bytes: int | str = MAX_BYTES) -> dict[str, Array] | Array:
    """The array of a `.npy` file, or the arrays of a `.npz` file by name; pickled objects are refused.

    Raises:
        UnreadableError: There is no such file, or it is damaged or something else.
        UnsafeError: It holds pickled objects.
        LimitError: Its arrays have more bytes than allowed.
    """
    limit = parse_bytes("--max-bytes", max_bytes)
    name = os.fspath(path)
    try:
        with open(name, "rb") as file:
            if not file.read(6).startswith((b"\x93NUMPY", b"PK\x03\x04")):
                raise UnreadableError(f"{name} is neither a .npy nor a .npz file", "Write it with numpy.save or savez.")
            file.seek(0)
            _check_claims(file, name, limit)
            file.seek(0)
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded
            with loaded:
                arrays = {key: loaded[key] for key in loaded.files}
    except OSError as error:
        raise UnreadableError(f"cannot read {name}: {error.strerror or error}", advice(error, name)) from error
    except BnfoldError:
        raise
    except Exception as error:  # NumPy and zipfile raise whatever a damaged file made them trip over
        if "allow_pickle" in str(error):
            raise UnsafeError(f"{name} holds pickled objects", "Save plain arrays of numbers.") from error
        said = str(error).splitlines() or [type(error).__name__]
        raise UnreadableError(f"{name} is damaged: {said[0]}", "Write it again.") from error
    if not all(isinstance(array, np.ndarray) for array in arrays.values()) or not arrays:
        raise UnreadableError(f"{name} is a zip file without arrays", "Write it with numpy.savez.")
    return arrays


def _check_claims(file: IO[bytes], name: str, limit: int) -> None:
    """Whether the arrays of a file are as large as their headers say, and not larger than allowed in all."""
    if file.read(1) == b"P":
        with zipfile.ZipFile(file) as archive:
            found = [info for info in archive.infolist() if info.filename.endswith(".npy")]
            total = sum(info.file_size for info in found)
            for info in found if total <= limit else ():
                with archive.open(info) as member:
                    _check_claim(member, info.file_size)
    else:
        total = file.seek(0, os.SEEK_END)
        file.seek(0)
        _check_claim(file, total)
    if total > limit:
        raise LimitError(f"the arrays of {name} have {total} bytes, more than {limit}", "Raise --max-bytes.")


def _check_claim(file: IO[bytes], size: int) -> None:
    shape, _, dtype = read_header(file)
    claimed = math.prod(shape) * dtype.itemsize
    if not dtype.hasobject and claimed > size:
        raise ValueError(f"its header says {claimed} bytes, and there are {size}")


def read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """The shape of an array in NumPy's format, whether it is stored column by column, and its dtype.

    Raises:
        ValueError: It is no such array.
    """
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    return shape, fortran, dtype


def for_the_only_input(data: Mapping[str, Array], names: Sequence[str]) -> tuple[Mapping[str, Array], str]:
    """Data under the name of a model's input, where there is one input and no doubt which array is meant for it.

    Args:
        data: Arrays by the names they have in a file.
        names: The model's inputs.

    Returns:
        The only array, or the one called `x`, under the input's name, and a note that says so; the data as it is and
        nothing to say where the names agree already or it is not clear.
    """
    if len(names) != 1 or names[0] in data or not (len(data) == 1 or USUAL in data):
        return data, ""
    chosen = next(iter(data)) if len(data) == 1 else USUAL
    others = ", ".join(repr(name) for name in data if name != chosen)
    unused = f"; {others} {'is' if len(data) == 2 else 'are'} not used" if others else ""
    return {names[0]: data[chosen]}, f"the input {names[0]!r} is fed the array {chosen!r}{unused}"
