"""Small PyTorch networks with statistics as training leaves them, and the same ones damaged."""

from __future__ import annotations

import copy

import torch
from torch import nn

from bnfold.quiet import quiet


def conv_bn(width: int = 4, *, bias: bool = False) -> nn.Sequential:
    """x[n, 3, 6, 6] → Conv → BatchNorm → ReLU."""
    torch.manual_seed(0)
    return drawn(nn.Sequential(nn.Conv2d(3, width, 3, bias=bias), nn.BatchNorm2d(width), nn.ReLU())).eval()


def drawn(module: nn.Module) -> nn.Module:
    """The module with drawn gammas, betas and statistics."""
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(layer.running_var, 0.5, 2)
            nn.init.normal_(layer.running_mean)
            nn.init.uniform_(layer.weight, 0.5, 2)
            nn.init.normal_(layer.bias)
    return module


def damaged(module: nn.Module, off_by: float = 0.01) -> nn.Module:
    """A copy with one weight that is wrong."""
    wrong = copy.deepcopy(module)
    with torch.no_grad():
        next(wrong.parameters()).view(-1)[0] += off_by
    return wrong


def exported(module: nn.Module, *inputs: torch.Tensor, dynamic: bool = True) -> torch.export.ExportedProgram:
    """The module's program, its batch open."""
    shapes = tuple({0: torch.export.Dim.DYNAMIC} for _ in inputs) if dynamic else None
    with quiet(), torch.no_grad():
        return torch.export.export(module, inputs, dynamic_shapes=shapes)


class TwoHeads(nn.Module):
    """Takes a list of two tensors and a flag; returns a dict with a nested tuple."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.a, self.b, self.n = nn.Linear(4, 4), nn.Linear(4, 4), nn.BatchNorm1d(4)
        drawn(self.n)
        self.eval()

    def forward(self, xs: list[torch.Tensor], flip: bool = False) -> dict[str, object]:
        y = self.n(self.a(xs[0]))
        return {"logits": -y if flip else y, "rest": (self.b(xs[1]), None)}


class Counting(nn.Module):
    """Counts its calls in a buffer, draws noise, and writes into its input."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls.add_(1)
        x.mul_(2)
        return x + self.calls + torch.rand(x.shape)
