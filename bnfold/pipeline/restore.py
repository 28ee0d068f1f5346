"""`bnfold.restore`: a folded state dict back into a fresh network of its class."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from bnfold.errors import UsageError

if TYPE_CHECKING:
    from torch import nn


def restore(module: nn.Module, path: str | os.PathLike[str]) -> nn.Module:
    """Makes a fresh network the folded one, in place, and loads its weights.

    Everything is checked before anything is changed: a network that is not the one that was folded stays as it is.

    Args:
        module: The network as its class builds it, also on the meta device; its weights do not matter.
        path: What `bnfold convert -o X.safetensors` (or `.pt`) wrote.

    Returns:
        The same object, without a wrapper if it had one, in evaluation mode.

    Raises:
        UsageError: It is not a module.
        InputError: It is not the network that was folded; or the file is unreadable, unsafe or no folded state dict.
        UnsupportedError: The network cannot be copied, or a later version of bnfold wrote the file.
    """
    import torch

    from bnfold.frontends.modules.prepare import unwrapped
    from bnfold.loading.load import read_folded
    from bnfold.recipes.remodel import restore_into

    if not isinstance(module, torch.nn.Module):
        raise UsageError(
            f"bnfold.restore takes a torch.nn.Module, not a {type(module).__name__}", "Build the network first."
        )
    inner, _ = unwrapped(module)
    restore_into(inner, read_folded(path), os.fspath(path), type(inner).__name__)
    return inner
