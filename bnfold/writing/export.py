"""Writes models: where they can be read back and checked first, then into their place.

Weights below protobuf's limit stand inside the ONNX file; above, in a file beside it that belongs to it (`files`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bnfold.errors import OutputError, UsageError
from bnfold.loading.onnxfile import data_files, weight_bytes
from bnfold.writing.files import OTHER, REJECTED, check_folder, check_name, check_target, is_same_file, move, write_text
from bnfold.writing.onnxwrite import write_onnx
from bnfold.writing.staging import HASH_DIGITS, reported, temporary_folder

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["Staged", "check_writable", "staged", "staged_file", "write_model", "write_text"]

EXTERNAL_DATA = ("auto", "always", "never")
INSIDE_LIMIT_BYTES = 1_800_000_000  # protobuf refuses 2 GiB; the rest is room for the graph

StrPath = str | os.PathLike[str]


def check_writable(
    path: StrPath,
    *,
    force: bool,
    source: StrPath | None = None,
    external_data: str = "never",
    may_be_rejected: bool = False,
) -> None:
    """Says before the work starts whether an output can be written.

    Args:
        path: The output.
        force: Whether an existing file may be replaced.
        source: The input, which is never replaced.
        external_data: As for `staged`.
        may_be_rejected: Whether it may have to be kept under another name.

    Raises:
        OutputError: It cannot.
        UsageError: `external_data` is none of its three values.
    """
    if external_data not in EXTERNAL_DATA:
        raise UsageError(f"--external-data {external_data!r} is unknown", f"Use one of: {', '.join(EXTERNAL_DATA)}.")
    name = os.fspath(path)
    check_folder(name)
    room = len(REJECTED) if may_be_rejected else 0
    check_name(name, len(f".{'0' * HASH_DIGITS}.data") if external_data == "always" else room)
    check_target(name, force=force, source=source)


def write_model(model: onnx_ir.Model, path: StrPath, *, external_data: str = "auto", force: bool = False) -> None:
    """Writes a model, all or nothing; see `staged`."""
    with staged(model, path, external_data=external_data, force=force) as written:
        written.publish()


@dataclass(frozen=True)
class Staged:
    """A model that is written and not yet in its place.

    Attributes:
        path: Where it can be read.
        target: Where it belongs.
        force: Whether an existing file may be replaced.
        data: The name of the file with its weights, beside it; empty where they are inside.
        keep: Files that are never removed: the weights of the input.
    """

    path: str
    target: str
    force: bool
    data: str = ""
    keep: tuple[str, ...] = ()

    def publish(self) -> None:
        """Moves it into its place.

        Raises:
            OutputError: It cannot be moved there; the place is as it was.
        """
        with reported(self.target):
            move(self.path, self.target, force=self.force, data=self.data, keep=self.keep)

    def reject(self) -> str:
        """Keeps it for inspection as `OUT.rejected`, and says where; the output itself is not touched.

        Raises:
            OutputError: It cannot be kept.
        """
        kept = f"{self.target}{REJECTED}"
        with reported(kept):
            move(self.path, kept, force=True, data=self.data, keep=self.keep)
        return kept


@contextmanager
def staged(
    model: onnx_ir.Model,
    path: StrPath,
    *,
    external_data: str = "auto",
    force: bool = False,
    sources: Iterable[StrPath] = (),
) -> Iterator[Staged]:
    """Writes a model where it can be read back, and moves it into its place only when told to.

    What was neither published nor rejected by the end of the context is gone.

    Args:
        model: The model; it is not changed.
        path: The output.
        external_data: `"never"` puts the weights into the file, `"always"` beside it, `"auto"` decides by their size.
        force: Whether an existing file may be replaced.
        sources: Files the model came from, which are neither replaced nor removed.

    Raises:
        OutputError: It cannot be written.
    """
    target = os.fspath(path)
    check_writable(target, force=force, external_data=external_data)
    keep = (*(os.fspath(source) for source in sources), *data_files(model))
    _check_own_source(target, keep)
    beside = _goes_beside(model, external_data)
    with temporary_folder(target) as folder:
        written = os.path.join(folder, os.path.basename(target))
        with reported(target):
            data = write_onnx(model, written, beside=beside)
        yield Staged(written, target, force, data, keep)


@contextmanager
def staged_file(write: Callable[[str], object], path: StrPath, *, force: bool = False) -> Iterator[Staged]:
    """The same for anything that is written by a function.

    Args:
        write: Writes it to a path.
        path: The output.
        force: Whether an existing file may be replaced.

    Raises:
        OutputError: It cannot be written.
    """
    target = os.fspath(path)
    check_target(target, force=force)
    with temporary_folder(target) as folder:
        written = os.path.join(folder, os.path.basename(target))
        with reported(target):
            write(written)
        yield Staged(written, target, force)


def _goes_beside(model: onnx_ir.Model, external_data: str) -> bool:
    size = weight_bytes(model)
    if external_data == "never" and size >= INSIDE_LIMIT_BYTES:
        raise OutputError(
            f"the model has {size:,} bytes of weights, too many for one ONNX file", "Drop --external-data never."
        )
    return external_data == "always" or (external_data == "auto" and size >= INSIDE_LIMIT_BYTES)


def _check_own_source(target: str, sources: Iterable[str]) -> None:
    if any(is_same_file(path, target) for path in sources):
        raise OutputError(f"{target} holds the weights of the input", OTHER)
