"""What torch.nn has no layer for: a branch of a sum that contributes nothing."""

from __future__ import annotations

import torch
from torch import nn


class Zero(nn.Module):
    """A branch whose part of a sum another branch has taken over: a single 0, whatever it is called with.

    In eager mode, adding it costs less than adding the branch did, since one operand is a single number; compilers
    leave it out.
    """

    zero: torch.Tensor

    def __init__(self, dtype: torch.dtype | None = None, device: torch.device | None = None) -> None:
        super().__init__()
        self.register_buffer("zero", torch.zeros((), dtype=dtype, device=device), persistent=False)

    def forward(self, *inputs: object) -> torch.Tensor:
        """The number 0, as a tensor without axes; it does not change the type of what it is added to."""
        return self.zero
