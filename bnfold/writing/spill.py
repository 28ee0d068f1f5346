"""New weights that are too many for memory: written to a file without a name, and mapped from there.

A fold computes every new weight before the first is written down, so that a plan whose numbers do not fit is seen in
time. For a model of several gigabytes they are kept on the disk meanwhile: memory holds one of them. The file has no
name, so nothing is left of it when the process ends, however it ends.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import weakref
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnfold.frontends.edit import Store, in_memory
from bnfold.writing.staging import BLOCK_BYTES, reported

LARGE_BYTES = 1_800_000_000  # of weights; models above have theirs in a file of their own, and stay mapped
SMALL_BYTES = 1 << 16  # such arrays stay in memory
SEGMENT_BYTES = 1 << 30


def store_for(weight_bytes: int, target: str | os.PathLike[str]) -> Store:
    """Where the new weights of a model go: into memory, or onto the disk of the output where the model is large."""
    return Spill(target) if weight_bytes >= LARGE_BYTES else in_memory


class Spill:
    """Keeps arrays on the disk.

    Args:
        target: The output; the file is on the same disk.
    """

    def __init__(self, target: str | os.PathLike[str]) -> None:
        self._target = os.fspath(target)
        self._segments: list[_Segment] = []

    def __call__(self, array: NDArray[Any]) -> NDArray[Any]:
        """The same array, read-only, mapped from the disk; a small one as it is.

        Raises:
            OutputError: The disk does not take it.
        """
        if array.nbytes < SMALL_BYTES or any(segment.holds(array) for segment in self._segments):
            return array
        with reported(self._target):
            if not self._segments or self._segments[-1].room < array.nbytes:
                size = max(SEGMENT_BYTES, array.nbytes)
                self._segments.append(_Segment(os.path.dirname(self._target) or ".", size))
            return self._segments[-1].keep(array)


class _Segment:
    """One file, as long as it may become from the start, so that it is mapped once."""

    def __init__(self, folder: str, size: int) -> None:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.truncate(size)
            self._map = np.frombuffer(mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ), np.uint8)
            self._file = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._file)
        self._end = 0

    @property
    def room(self) -> int:
        """Bytes that still fit."""
        return len(self._map) - self._end

    def holds(self, array: NDArray[Any]) -> bool:
        """Whether an array is mapped from here."""
        return bool(np.may_share_memory(self._map, array))

    def keep(self, array: NDArray[Any]) -> NDArray[Any]:
        """Write an array, and map it."""
        begin, end = self._end, self._end + array.nbytes
        content, written = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data, 0
        while written < array.nbytes:
            written += os.pwrite(self._file, content[written : written + BLOCK_BYTES], begin + written)
        self._end = -(-end // mmap.PAGESIZE) * mmap.PAGESIZE
        return self._map[begin:end].view(array.dtype).reshape(array.shape)
