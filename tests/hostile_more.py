"""More modules that break tools: branches that a forward sums, layers of torch beside BatchNorms, unusual Python."""

from __future__ import annotations

import warnings
from typing import Any

import torch
import torch.nn.functional as F
from hostile import CASES, Made, Net, case, conv, image
from torch import nn
from torch.utils.checkpoint import checkpoint

from bnfold.reasons import Reason

__all__ = ["CASES"]


# Branches: one computes the sum, the others contribute nothing


def branch(i: int = 4, o: int = 4, k: int = 3, **more: Any) -> nn.Sequential:
    return nn.Sequential(conv(i, o, k, padding=k // 2, **more), nn.BatchNorm2d(o))


class MobileOne(nn.Module):
    """Branches in a ModuleList, added in place to a sum that starts with numbers."""

    def __init__(self, *, scale: bool = True) -> None:
        super().__init__()
        self.identity = nn.BatchNorm2d(4)
        self.scale = branch(k=1) if scale else None
        self.convs = nn.ModuleList([branch(), branch()])

    def forward(self, x: Any) -> Any:
        y = 0 if self.scale is None else self.scale(x)
        y = y + self.identity(x)
        for each in self.convs:
            y += each(x)
        return torch.sigmoid(y)


@case(3)
def repvgg_block() -> Made:
    def run(s: Any, x: Any) -> Any:
        return torch.relu(s.big(x) + s.small(x) + s.identity(x))

    return Net(run, big=branch(), small=branch(k=1), identity=nn.BatchNorm2d(4)), image(2, 4, 6, 6)


@case(4)
def mobileone_block() -> Made:
    return MobileOne(), image(2, 4, 6, 6)


@case(3)
def mobileone_block_that_starts_with_its_norm() -> Made:
    """What the sum is added to in place is the BatchNorm, so that becomes the convolution."""
    return MobileOne(scale=False), image(2, 4, 6, 6)


@case(1, note="1 sum of branches stays")
def branch_beside_a_plain_skip() -> Made:
    return Net(lambda s, x: torch.sigmoid(x + s.a(x)), a=branch()), image(2, 4, 6, 6)


@case(3, form="graph", note="merging branches removes more BatchNorms")
def branches_beside_a_plain_skip() -> Made:
    def run(s: Any, x: Any) -> Any:
        return torch.sigmoid(s.n(s.a(x) + s.b(x) + x))

    return Net(run, a=branch(), b=branch(k=1), n=nn.BatchNorm2d(4)), image(2, 4, 6, 6)


@case(4)
def block_of_branches_called_twice() -> Made:
    def run(s: Any, x: Any) -> Any:
        y = torch.relu(s.a(x) + s.b(x))
        return torch.relu(s.a(y) + s.b(y))

    return Net(run, a=branch(), b=branch(k=1)), image(2, 4, 6, 6)


@case(3, form="graph", note="would need several biases")
def branch_that_another_sum_uses_as_well() -> Made:
    """`b` is called in two sums with other partners: it cannot be silent in one and speak in the other."""

    def run(s: Any, x: Any) -> Any:
        return torch.sigmoid(s.a(x) + s.b(x)), torch.sigmoid(s.b(torch.tanh(x)))

    return Net(run, a=branch(), b=branch(k=1)), image(2, 4, 6, 6)


@case(2)
def larger_branch_that_is_subtracted() -> Made:
    """The smaller one computes the sum, since what is subtracted would change its sign."""
    return Net(lambda s, x: torch.sigmoid(s.a(x) - s.b(x)), a=branch(k=1), b=branch()), image(2, 4, 6, 6)


@case(2)
def subtracted_branch() -> Made:
    return Net(lambda s, x: torch.sigmoid(s.a(x) - s.b(x)), a=branch(), b=branch(k=1)), image(2, 4, 6, 6)


@case(2)
def scaled_branches() -> Made:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.g = branch(), branch(k=1), nn.Parameter(torch.rand(4, 1, 1) + 0.5)

        def forward(self, x: Any) -> Any:
            return torch.sigmoid(self.a(x) + self.g * self.b(x))

    return Scaled(), image(2, 4, 6, 6)


@case(2, note="1 sum of branches stays")
def forward_that_looks_at_the_shape_of_a_branch() -> Made:
    def run(s: Any, x: Any) -> Any:
        a, b = s.a(x), s.b(x)
        return torch.sigmoid(a + b) * b.shape[1]

    return Net(run, a=branch(), b=branch(k=1)), image(2, 4, 6, 6)


@case(2)
def branches_that_end_in_a_reshape() -> Made:
    def run(s: Any, x: Any) -> Any:
        return torch.sigmoid(s.a(x).flatten(2) + s.b(x).flatten(2))

    return Net(run, a=branch(), b=branch(k=1)), image(2, 4, 6, 6)


@case(0, Reason.HOOK, Reason.HOOK)
def hook_on_a_branch() -> Made:
    net = Net(lambda s, x: torch.sigmoid(s.a(x) + s.b(x)), a=branch(), b=branch(k=1))
    for part in (net.a, net.b):
        part[0].register_forward_hook(lambda module, args, output: None)
    return net, image(2, 4, 6, 6)


@case(2)
def branches_of_linears() -> Made:
    def run(s: Any, x: Any) -> Any:
        return torch.sigmoid(s.m(s.a(x)) + s.n(s.b(x)))

    layers = {"a": nn.Linear(5, 4), "b": nn.Linear(5, 4, bias=False), "m": nn.BatchNorm1d(4), "n": nn.BatchNorm1d(4)}
    return Net(run, **layers), image(3, 5)


@case(2)
def branches_with_weight_norm() -> Made:
    a, b = branch(k=3), branch(k=1)
    a[0] = nn.utils.parametrizations.weight_norm(a[0])
    return Net(lambda s, x: torch.sigmoid(s.a(x) + s.b(x)), a=a, b=b), image(2, 4, 6, 6)


# Layers of torch


@case(1)
def attention_layer() -> Made:
    net = Net(
        lambda s, x: s.n(s.a(x, x, x, need_weights=False)[0].transpose(1, 2)),
        a=nn.MultiheadAttention(4, 2, batch_first=True),
        n=nn.BatchNorm1d(4),
    )
    return net, image(2, 5, 4)


@case(2)
def lstm_called_twice() -> Made:
    net = Net(
        lambda s, x: s.r(s.n(x).transpose(1, 2))[0] + s.r(s.n(x.flip(2)).transpose(1, 2))[0],
        n=nn.BatchNorm1d(4),
        r=nn.LSTM(4, 3, batch_first=True),
    )
    return net, image(2, 4, 5)


@case(1)
def quantisation_stubs() -> Made:
    from torch.ao.quantization import DeQuantStub, QuantStub

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return nn.Sequential(QuantStub(), conv(), nn.BatchNorm2d(4), DeQuantStub()), image()


@case(0)
def instance_norm_with_statistics() -> Made:
    return nn.Sequential(conv(), nn.InstanceNorm2d(4, affine=True, track_running_stats=True)), image()


@case(1)
def reflected_padding() -> Made:
    return nn.Sequential(nn.BatchNorm2d(3), conv(k=3, padding=1, padding_mode="reflect")), image()


@case(1)
def transposed_with_output_padding() -> Made:
    layer = nn.ConvTranspose2d(3, 4, 3, stride=2, padding=1, output_padding=1, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(4)), image()


@case(1)
def channels_last() -> Made:
    net = nn.Sequential(conv(k=3), nn.BatchNorm2d(4)).to(memory_format=torch.channels_last)
    return net, (image()[0].contiguous(memory_format=torch.channels_last),)


@case(1)
def sparse_buffer_beside() -> Made:
    class Sparse(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.n = conv(), nn.BatchNorm2d(4)
            self.register_buffer("mask", torch.eye(6, dtype=torch.float64).to_sparse(), persistent=False)

        def forward(self, x: Any) -> Any:
            return torch.sigmoid(self.n(self.a(x))).flatten(0, 2) @ self.mask

    return Sparse(), image()


@case(1)
def scripted_activation() -> Made:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return nn.Sequential(conv(), nn.BatchNorm2d(4), torch.jit.script(nn.ReLU())), image()


@case(1, note="the parametrization of 0 became a plain weight")
def spectral_norm_by_hook() -> Made:
    return nn.Sequential(nn.utils.spectral_norm(conv(k=3)).eval(), nn.BatchNorm2d(4)), image()


@case(1)
def even_kernel_padded_to_the_same_size() -> Made:
    made = conv(k=2, padding="same")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Using padding='same'", UserWarning)
        made(torch.ones(1, 3, 4, 4))  # torch warns of it once
    return nn.Sequential(made, nn.BatchNorm2d(4)), image()


# Unusual Python


@case(1)
def attributes_on_demand() -> Made:
    class OnDemand(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Sequential(conv(), nn.BatchNorm2d(4))

        def __getattr__(self, name: str) -> Any:
            try:
                return super().__getattr__(name)
            except AttributeError:
                return getattr(super().__getattr__("inner"), name)

        def forward(self, x: Any) -> Any:
            return self.inner(x)

    return OnDemand(), image()


@case(1)
def slots() -> Made:
    class Slotted(nn.Module):
        __slots__ = ("extra",)

        def __init__(self) -> None:
            super().__init__()
            self.extra = 2.0
            self.a, self.n = conv(), nn.BatchNorm2d(4)

        def forward(self, x: Any) -> Any:
            return self.n(self.a(x))

    return Slotted(), image()


@case(1)
def weights_in_a_parameter_list() -> Made:
    class Listed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.p = nn.ParameterList([nn.Parameter(torch.randn(4, 5)), nn.Parameter(torch.randn(4))])
            self.n = nn.BatchNorm1d(4)

        def forward(self, x: Any) -> Any:
            return self.n(F.linear(x, self.p[0], self.p[1]))

    return Listed(), image(3, 5)


@case(1)
def norm_chosen_by_a_flag() -> Made:
    class Chosen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.flag, self.unused_norms = conv(), "second", 1
            self.norms = nn.ModuleDict({"first": nn.BatchNorm2d(4), "second": nn.BatchNorm2d(4)})

        def forward(self, x: Any) -> Any:
            return self.norms[self.flag](self.a(x))

    return Chosen(), image()


@case(1)
def checkpointed() -> Made:
    net = Net(lambda s, x: checkpoint(s.n, s.a(x), use_reentrant=False), a=conv(), n=nn.BatchNorm2d(4))
    return net, image()


@case(1)
def own_gradient() -> Made:
    class Straight(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return x.round()

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g

    return Net(lambda s, x: Straight.apply(s.n(s.a(x))), a=conv(), n=nn.BatchNorm2d(4)), image()


@case(1)
def norm_that_doubles() -> Made:
    class Doubling(nn.BatchNorm2d):
        def forward(self, x: Any) -> Any:
            return 2 * super().forward(x)

    return nn.Sequential(conv(), Doubling(4)), image()


@case(0, Reason.NONLINEAR)
def einsum_linear() -> Made:
    class Product(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w, self.n = nn.Parameter(torch.randn(4, 5)), nn.BatchNorm1d(4)

        def forward(self, x: Any) -> Any:
            return torch.sigmoid(self.n(torch.einsum("nci,oi->nco", x, self.w).transpose(1, 2)))

    return Product(), image(2, 7, 5)


@case(1)
def equal_weights_that_are_not_tied() -> Made:
    a, b = conv(), conv()
    b.load_state_dict(a.state_dict())
    net = Net(lambda s, x: (torch.sigmoid(s.n(s.a(x))), torch.sigmoid(s.b(x * x))), a=a, n=nn.BatchNorm2d(4), b=b)
    return net, image()


@case(0, Reason.DTYPE)
def two_byte_norm_behind_a_convolution() -> Made:
    net = Net(lambda s, x: s.n(s.a(x).bfloat16()), a=conv(), n=nn.BatchNorm2d(4).bfloat16())
    net.keep_types = True  # type: ignore[assignment]
    return net, (torch.randn(2, 3, 6, 6),)


@case(0, Reason.BOUNDARY)
def autocast_inside() -> Made:
    def run(s: Any, x: Any) -> Any:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=False):
            return s.n(s.a(x))

    return Net(run, a=conv(), n=nn.BatchNorm2d(4)), image()


@case(1)
def data_parallel_inside() -> Made:
    return nn.Sequential(nn.DataParallel(nn.Sequential(conv(), nn.BatchNorm2d(4))), nn.ReLU()), image()
