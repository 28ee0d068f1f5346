"""PyTorch networks in float64, whatever dtypes stand in their code."""

from __future__ import annotations

import numpy as np
import torch
from networks import drawn
from torch import nn

from bnfold.verification.yardstick import yardstick


class Stubborn(nn.Module):
    """Asks for float32 in every way there is."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.table = torch.linspace(0, 1, 4)  # no buffer, so `.double()` does not reach it

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.conv(x)).float().mean((2, 3)).to(torch.float32)
        y = y + torch.zeros(4) + torch.arange(4, dtype=torch.float32) / 3
        return y * self.table + torch.full_like(y, 0.1, dtype=torch.float32)


def meant(module: Stubborn, x: torch.Tensor) -> torch.Tensor:
    weights = {name: tensor.double() for name, tensor in module.state_dict().items()}
    y = torch.nn.functional.conv2d(x.double(), weights["conv.weight"], weights["conv.bias"])
    norm = [weights[f"norm.{name}"] for name in ("running_mean", "running_var", "weight", "bias")]
    y = torch.nn.functional.batch_norm(y, *norm).mean((2, 3))
    return (y + torch.arange(4, dtype=torch.float64) / 3) * module.table.double() + 0.1


def test_modules_and_programs_run_in_float64_and_stay_as_they_are() -> None:
    module, x = drawn(Stubborn()).eval(), torch.randn(2, 3, 5, 5)
    want = meant(module, x).numpy()
    before = torch.get_default_dtype()
    program = torch.export.export(module, (x,))
    for model in (module, program):
        [got] = yardstick(model, {"x": x.numpy()}).values()
        assert got.dtype == np.float64
        np.testing.assert_allclose(got, want, rtol=1e-13)
        single = yardstick(model, {"x": x.numpy()})
        assert set(single) == {"output"}
    assert torch.get_default_dtype() is before
    assert module.conv.weight.dtype is torch.float32
    assert program.state_dict["conv.weight"].dtype is torch.float32


def test_integers_stay_integers() -> None:
    class Picks(nn.Module):
        def forward(self, x: torch.Tensor, at: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x[:, at], x.argmax(1)

    x, at = torch.randn(2, 5), torch.tensor([3, 1])
    picked, best = yardstick(Picks().eval(), {"x": x.numpy(), "at": at.numpy()}).values()
    np.testing.assert_array_equal(picked, x.double()[:, at])
    assert (picked.dtype, best.dtype) == (np.float64, np.int64)
