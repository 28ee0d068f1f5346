"""What a data set gives: batches of rows, and their labels where there are any."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

from bnfold.data.feeds import InputDecl

Array = NDArray[Any]

ROWS = 64  # of a batch, where the model leaves its size open
BATCH_BYTES = 32 << 20  # fewer rows where they are large

LABELS = "y"


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


def usual_rows(row_bytes: int) -> int:
    """Rows of a batch whose size is ours to choose."""
    return max(1, min(ROWS, BATCH_BYTES // max(row_bytes, 1)))
