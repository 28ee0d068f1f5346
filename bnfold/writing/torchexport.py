"""Writes PyTorch's formats, and reads back what was written.

torch writes into memory, and the file is written here: where the disk is full, torch.export.save does not raise but
ends the process (torch 2.13: its zip writer throws in a destructor).
"""

from __future__ import annotations

import io
import os
from contextlib import AbstractContextManager

import torch
from torch.export import ExportedProgram

from bnfold.errors import UnsupportedError
from bnfold.loading.weights import STATE
from bnfold.quiet import quiet
from bnfold.recipes.recipe import KEY, PREFIX
from bnfold.recipes.remodel import FoldedState
from bnfold.wording import first_line
from bnfold.writing.export import Staged, staged_file
from bnfold.writing.staging import save


def staged_program(
    program: ExportedProgram, path: str | os.PathLike[str], *, force: bool = False
) -> AbstractContextManager[Staged]:
    """An exported program as a `.pt2` file that is not yet in its place; see `export.staged`.

    Raises:
        UnsupportedError: torch cannot write it.
        OutputError: The file cannot be written.
    """
    buffer = io.BytesIO()
    with quiet():
        try:
            torch.export.save(program, buffer)
        except MemoryError:
            raise
        except Exception as error:
            raise UnsupportedError(
                f"torch {torch.__version__} cannot write the folded program: {first_line(error)}",
                "Give the output the suffix .onnx, or fold in Python: bnfold.fold(exported_program).",
            ) from error
    return staged_file(lambda place: save(place, [buffer.getbuffer()]), path, force=force)


def read_program(path: str) -> ExportedProgram:
    """A program that was just written here; of one from elsewhere `load` asks whether it is trusted."""
    with quiet(), open(path, "rb") as file:
        return torch.export.load(io.BytesIO(file.read()))


def staged_state(
    folded: FoldedState, path: str | os.PathLike[str], *, force: bool = False
) -> AbstractContextManager[Staged]:
    """A folded state dict with its recipe as a file that is not yet in its place; the suffix picks the format.

    Raises:
        UnsupportedError: safetensors has no type for one of the tensors.
        OutputError: The file cannot be written.
    """
    tensors = _apart({PREFIX + name: value.detach().cpu().contiguous() for name, value in folded.tensors.items()})
    if os.fspath(path).lower().endswith(".safetensors"):
        import safetensors.torch

        try:
            data = safetensors.torch.save(tensors, {KEY: folded.recipe.to_json(), "format": "pt"})
        except KeyError as error:
            raise UnsupportedError(
                f"safetensors has no type for {error.args[0]}", "Give the output the suffix .pt or .pt2."
            ) from error
        return staged_file(lambda place: save(place, [data]), path, force=force)
    buffer = io.BytesIO()
    torch.save({STATE: tensors, KEY: folded.recipe.to_dict()}, buffer)
    return staged_file(lambda place: save(place, [buffer.getbuffer()]), path, force=force)


def _apart(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same tensors, none on memory of another or of more than it needs: safetensors takes none such."""
    seen: set[int] = set()
    found = {}
    for name, tensor in tensors.items():
        storage = tensor.untyped_storage()
        shared = storage.data_ptr() in seen or storage.nbytes() != tensor.numel() * tensor.element_size()
        seen.add(storage.data_ptr())
        found[name] = tensor.clone() if shared else tensor
    return found
