"""The layers of a block whose branches were merged: one computes, the others contribute nothing."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from bnfold.branches.search import Merge
from bnfold.frontends.modules.probes import is_stock

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


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


def computing(layer: nn.Module, merge: Merge, weight: nn.Parameter, bias: nn.Parameter | None) -> nn.Module:
    """The layer that computes what a merge leaves.

    Args:
        layer: The layer in whose place it will stand.
        merge: The merge.
        weight: Its weight.
        bias: Its bias.
    """
    box, window = merge.box, merge.box.window
    made: nn.Module
    if window is None:
        made = nn.Linear(box.channels, box.outputs, bias=False, device="meta")
    else:
        make: Callable[..., nn.Module] = CONVOLUTIONS[len(window.kernel) - 1]
        slides = (window.kernel, window.strides, window.pads_begin, window.dilations)
        made = make(box.channels, box.outputs, *slides, box.groups, bias=False, device="meta")
    made.register_parameter("weight", weight)
    made.register_parameter("bias", bias)
    if is_stock(layer) and type(layer) is type(made):
        own = {key: value for key, value in vars(layer).items() if key not in vars(made)}
        vars(made).update(own)  # what somebody has noted on the layer
    return made
