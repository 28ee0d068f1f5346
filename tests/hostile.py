"""Modules that break tools which fold by definition order or by pattern, each with what must become of it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from bnfold.reasons import Reason

Made = tuple[nn.Module, tuple[Any, ...]]


@dataclass(frozen=True)
class Case:
    """A module and its fate.

    Attributes:
        make: Returns the module and its example inputs.
        folded: How many BatchNorms vanish.
        kept: Why the others stay.
        form: `"same"` class, or `"graph"`.
        note: Words that the plan's notes must hold.
        tolerance: Largest relative difference.
    """

    make: Callable[[], Made]
    folded: int
    kept: tuple[Reason, ...] = ()
    form: str = "same"
    note: str = ""
    tolerance: float = 1e-9


CASES: dict[str, Case] = {}


def case(
    folded: int, *kept: Reason, form: str = "same", note: str = "", tolerance: float = 1e-9
) -> Callable[[Callable[[], Made]], Callable[[], Made]]:
    """Register what a function makes."""

    def register(make: Callable[[], Made]) -> Callable[[], Made]:
        CASES[make.__name__] = Case(make, folded, kept, form, note, tolerance)
        return make

    return register


def image(*shape: int) -> tuple[torch.Tensor]:
    return (torch.randn(*(shape or (2, 3, 6, 6)), dtype=torch.float64),)


def conv(i: int = 3, o: int = 4, k: int = 1, **more: Any) -> nn.Conv2d:
    return nn.Conv2d(i, o, k, bias=more.pop("bias", False), **more)


class Net(nn.Module):
    """A module whose layers are named and whose forward is a function."""

    def __init__(self, forward: Callable[..., Any], **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.run = forward

    def forward(self, *inputs: Any, **named: Any) -> Any:
        return self.run(self, *inputs, **named)


# BatchNorms in their ordinary places


@case(1)
def conv_bn() -> Made:
    return nn.Sequential(conv(k=3, padding=1), nn.BatchNorm2d(4), nn.ReLU()), image()


@case(1)
def conv_bn_with_bias() -> Made:
    return nn.Sequential(conv(bias=True), nn.BatchNorm2d(4)), image()


@case(1)
def conv1d_bn() -> Made:
    return nn.Sequential(nn.Conv1d(3, 4, 3, stride=2), nn.BatchNorm1d(4)), image(2, 3, 9)


@case(1)
def conv3d_bn() -> Made:
    return nn.Sequential(nn.Conv3d(3, 4, 2, bias=False), nn.BatchNorm3d(4)), image(2, 3, 4, 4, 4)


@case(1)
def conv_transpose_bn() -> Made:
    return nn.Sequential(nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2, bias=False), nn.BatchNorm2d(6)), image(
        2, 4, 4, 4
    )


@case(1)
def depthwise_bn() -> Made:
    return nn.Sequential(conv(4, 4, 3, groups=4, padding="same"), nn.BatchNorm2d(4)), image(2, 4, 6, 6)


@case(1)
def linear_bn_without_affine() -> Made:
    return nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4, affine=False)), image(3, 5)


@case(1)
def linear_bn_over_tokens() -> Made:
    net = Net(lambda s, x: s.bn(s.fc(x).transpose(1, 2)).transpose(1, 2), fc=nn.Linear(5, 4), bn=nn.BatchNorm1d(4))
    return net, image(2, 7, 5)


@case(1)
def bn_before_unpadded_conv() -> Made:
    return nn.Sequential(nn.BatchNorm2d(3), conv(k=3)), image()


@case(1)
def bn_before_linear() -> Made:
    return nn.Sequential(nn.BatchNorm1d(5), nn.Linear(5, 2, bias=False)), image(3, 5)


@case(0, Reason.ZERO_PAD)
def bn_before_padded_conv() -> Made:
    return nn.Sequential(nn.BatchNorm2d(3), conv(k=3, padding=1)), image()


@case(0, Reason.ZERO_PAD)
def bn_before_padded_conv_on_one_pixel() -> Made:
    """At this size every tap but one reads a zero; at others it does not, and a module may be called with others."""
    return nn.Sequential(nn.BatchNorm2d(3), conv(k=3, padding=1)), image(2, 3, 1, 1)


@case(2)
def preactivation() -> Made:
    def run(s: Any, x: Any) -> Any:
        return s.b(torch.relu(s.n(s.a(x)))) + s.m(s.c(x))

    return Net(run, a=conv(), n=nn.BatchNorm2d(4), b=conv(4, 4, 3, padding=1), c=conv(), m=nn.BatchNorm2d(4)), image()


@case(0, Reason.IO)
def bn_alone() -> Made:
    return nn.BatchNorm2d(3), image()


@case(0, Reason.NONLINEAR)
def bn_between_nonlinearities() -> Made:
    return nn.Sequential(conv(), nn.SiLU(), nn.BatchNorm2d(4), nn.SiLU()), image()


@case(0, Reason.IO)
def input_of_bn_is_an_output() -> Made:
    def run(s: Any, x: Any) -> Any:
        y = s.a(x)
        return y, torch.sigmoid(s.n(y))

    return Net(run, a=conv(), n=nn.BatchNorm2d(4)), image()


# In-place activations: a vanished BatchNorm leaves its input and output the same tensor


@case(2)
def inplace_relu_behind_the_stream() -> Made:
    def run(s: Any, x: Any) -> Any:
        y = s.m(s.a(x))
        return y + s.b(s.r(s.n(y)))

    return (
        Net(run, a=conv(), m=nn.BatchNorm2d(4), n=nn.BatchNorm2d(4), r=nn.ReLU(inplace=True), b=conv(4, 4)),
        image(),
    )


@case(1)
def inplace_relu_behind_a_shared_conv() -> Made:
    """conv → (BN → ReLU in place, abs): BN goes into the convs that read, so the stream keeps its value."""

    def run(s: Any, x: Any) -> Any:
        y = s.a(x)
        z = s.r(s.n(y))
        return z, s.b(y)

    return Net(run, a=conv(), n=nn.BatchNorm2d(4), r=nn.ReLU(inplace=True), b=conv(4, 4)), image()


@case(1, form="graph", note="writes in place")
def functional_inplace_behind_a_shared_conv() -> Made:
    def run(s: Any, x: Any) -> Any:
        y = s.a(x)
        z = F.relu(s.n(y), inplace=True)
        return z, s.b(y)

    return Net(run, a=conv(), n=nn.BatchNorm2d(4), b=conv(4, 4)), image()


@case(1, form="graph", note="writes in place")
def added_in_place_behind_a_shared_conv() -> Made:
    def run(s: Any, x: Any) -> Any:
        y = s.a(x)
        z = s.n(y)
        z += x.sum()
        return torch.sigmoid(z), s.b(y)

    return Net(run, a=conv(), n=nn.BatchNorm2d(4), b=conv(4, 4)), image()


@case(2)
def added_in_place_to_its_own() -> Made:
    def run(s: Any, x: Any) -> Any:
        y = s.n(s.a(x))
        y += s.m(s.b(x))
        return F.relu_(y)

    return Net(run, a=conv(), n=nn.BatchNorm2d(4), b=conv(), m=nn.BatchNorm2d(4)), image()


@case(1)
def inplace_on_the_input() -> Made:
    """The BatchNorm of the input vanishes: ReLU in place would write into the caller's tensor."""

    def run(s: Any, x: Any) -> Any:
        return s.b(s.n(x)) + s.r(s.a(x))

    return Net(run, n=nn.BatchNorm2d(3), b=conv(), a=conv(), r=nn.ReLU(inplace=True)), image()


# Call sites


@case(2)
def bn_used_twice() -> Made:
    return Net(lambda s, x: s.n(s.a(x)) + s.n(s.b(x)), a=conv(), b=conv(), n=nn.BatchNorm2d(4)), image()


@case(2)
def conv_and_bn_used_twice() -> Made:
    def run(s: Any, x: Any) -> Any:
        y = torch.relu(s.n(s.a(x)))
        return torch.relu(s.n(s.a(y)))

    return Net(run, a=conv(3, 3), n=nn.BatchNorm2d(3)), image()


@case(2, form="graph", note="a.weight is read in other places as well")
def one_conv_two_bns() -> Made:
    def run(s: Any, x: Any) -> Any:
        return torch.sigmoid(s.n(s.a(x))), torch.sigmoid(s.m(s.a(x * x)))

    return Net(run, a=conv(), n=nn.BatchNorm2d(4), m=nn.BatchNorm2d(4)), image()


@case(1, form="graph", note="a.weight is read in other places as well")
def conv_used_again_without_bn() -> Made:
    def run(s: Any, x: Any) -> Any:
        return torch.sigmoid(s.n(s.a(x))), torch.sigmoid(s.a(x * x))

    return Net(run, a=conv(), n=nn.BatchNorm2d(4)), image()


@case(1, Reason.NONLINEAR, form="graph", note="n does more than normalise")
def bn_used_twice_once_stuck() -> Made:
    def run(s: Any, x: Any) -> Any:
        y = s.n(s.a(x))
        return torch.sigmoid(s.n(torch.sigmoid(y)))

    return Net(run, a=conv(), n=nn.BatchNorm2d(4)), image()


@case(1)
def one_bn_under_two_names() -> Made:
    n = nn.BatchNorm2d(4)
    return Net(lambda s, x: s.m(s.a(x)), a=conv(), n=n, m=n), image()


@case(1)
def tied_weights() -> Made:
    a, b = conv(), conv()
    b.weight = a.weight
    net = Net(lambda s, x: (torch.sigmoid(s.n(s.a(x))), torch.sigmoid(s.b(x * x))), a=a, n=nn.BatchNorm2d(4), b=b)
    return net, image()


@case(1)
def weights_that_share_memory() -> Made:
    """A copy of the module has weights of its own."""

    class Views(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            both = torch.randn(8, 3, 1, 1, dtype=torch.float64)
            self.a, self.b, self.n = conv(), conv(3, 4), nn.BatchNorm2d(4)
            self.a.weight, self.b.weight = nn.Parameter(both[:4]), nn.Parameter(both[2:6])

        def forward(self, x: Any) -> Any:
            return torch.sigmoid(self.n(self.a(x))), torch.sigmoid(self.b(x))

    return Views(), image()


@case(2)
def tied_biases() -> Made:
    a, b = conv(bias=True), conv(bias=True)
    b.bias = a.bias
    net = Net(lambda s, x: s.n(s.a(x)) * torch.sigmoid(s.m(s.b(x))), a=a, b=b, n=nn.BatchNorm2d(4), m=nn.BatchNorm2d(4))
    return net, image()


@case(1, form="graph", note="a.weight is read in other places as well")
def regularised_weight() -> Made:
    net = Net(lambda s, x: (torch.sigmoid(s.n(s.a(x))), s.a.weight * x.mean()), a=conv(), n=nn.BatchNorm2d(4))
    return net, image()


@case(0, Reason.IO)
def weight_handed_out() -> Made:
    net = Net(lambda s, x: (torch.sigmoid(s.n(s.a(x))), s.a.weight), a=conv(), n=nn.BatchNorm2d(4))
    return net, image()


@case(1, form="graph", note="something else reads the parameters of n")
def gamma_read_elsewhere() -> Made:
    net = Net(lambda s, x: s.n(s.a(x)) + s.n.weight.sum() * x.mean(), a=conv(), n=nn.BatchNorm2d(4))
    return net, image()


@case(1)
def layers_in_a_list() -> Made:
    class Listed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.n = conv(), nn.BatchNorm2d(4)
            self.order = [self.a, self.n]

        def forward(self, x: Any) -> Any:
            for layer in self.order:
                x = layer(x)
            return x

    return Listed(), image()


@case(1, form="graph", note="forward of the model calls the operator itself")
def layers_in_closures() -> Made:
    class Bound(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.n = conv(), nn.BatchNorm2d(4)
            self.step = self.n.forward

        def forward(self, x: Any) -> Any:
            return self.step(self.a(x))

    return Bound(), image()


@case(1)
def definition_order_is_not_call_order() -> Made:
    net = Net(lambda s, x: s.n(s.b(torch.sigmoid(s.a(x)))), b=conv(4, 4), n=nn.BatchNorm2d(4), a=conv())
    return net, image()


# Functional calls


@case(1, form="graph", note="forward of the model calls the operator itself")
def functional_batch_norm() -> Made:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.n = conv(), nn.BatchNorm2d(4)

        def forward(self, x: Any) -> Any:
            n = self.n
            return F.batch_norm(self.a(x), n.running_mean, n.running_var, n.weight, n.bias, False, 0.1, n.eps)

    return Functional(), image()


@case(1, form="graph", note="without a bias")
def functional_conv() -> Made:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w, self.n = nn.Parameter(torch.randn(4, 3, 1, 1)), nn.BatchNorm2d(4)

        def forward(self, x: Any) -> Any:
            return self.n(F.conv2d(x, self.w))

    return Functional(), image()


@case(1)
def functional_conv_with_bias() -> Made:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w, self.n = nn.Parameter(torch.randn(4, 3, 1, 1)), nn.BatchNorm2d(4)
            self.b = nn.Parameter(torch.randn(4))

        def forward(self, x: Any) -> Any:
            return self.n(F.conv2d(x, self.w, self.b))

    return Functional(), image()


@case(1, form="graph", note="nowhere to keep a constant")
def matmul_by_a_parameter() -> Made:
    class Product(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w, self.n = nn.Parameter(torch.randn(5, 4)), nn.BatchNorm1d(4)

        def forward(self, x: Any) -> Any:
            return self.n(x @ self.w)

    return Product(), image(3, 5)


@case(1)
def multiplied_by_a_number() -> Made:
    return Net(lambda s, x: s.n(s.a(x) * 0.5), a=conv(), n=nn.BatchNorm2d(4)), image()


@case(1)
def layer_scale() -> Made:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.n, self.g = conv(), nn.BatchNorm2d(4), nn.Parameter(torch.rand(4, 1, 1) + 0.5)

        def forward(self, x: Any) -> Any:
            return self.n(self.a(x)) * self.g

    return Scaled(), image()


@case(1)
def position_embedding() -> Made:
    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.n, self.p = conv(), nn.BatchNorm2d(4), nn.Parameter(torch.randn(1, 4, 6, 6))
            self.b = conv(4, 2)

        def forward(self, x: Any) -> Any:
            return self.b(self.n(self.a(x) + self.p))

    return Positions(), image()


# Subclasses and relatives of BatchNorm


@case(1)
def batch_norm_act() -> Made:
    class BatchNormAct2d(nn.BatchNorm2d):
        def __init__(self, n: int) -> None:
            super().__init__(n)
            self.drop, self.act = nn.Identity(), nn.ReLU(inplace=True)

        def forward(self, x: Any) -> Any:
            x = F.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, self.training, 0.1, self.eps
            )
            return self.act(self.drop(x))

    return nn.Sequential(conv(), BatchNormAct2d(4), conv(4, 2)), image()


@case(1)
def batch_norm_relu() -> Made:
    class BatchNormReLU(nn.BatchNorm2d):
        def forward(self, x: Any) -> Any:
            return F.leaky_relu(super().forward(x), 0.1)

    return nn.Sequential(conv(), BatchNormReLU(4), conv(4, 2)), image()


@case(1, form="graph", note="does more than normalise")
def batch_norm_that_pools() -> Made:
    class Pooling(nn.BatchNorm2d):
        def forward(self, x: Any) -> Any:
            return F.avg_pool2d(super().forward(x), 2)

    return nn.Sequential(conv(), Pooling(4)), image()


@case(1, form="graph", note="takes or returns more than one tensor")
def batch_norm_that_returns_a_tuple() -> Made:
    class Pair(nn.BatchNorm2d):
        def forward(self, x: Any) -> Any:  # type: ignore[override]
            return (super().forward(x),)

    return Net(lambda s, x: s.n(s.a(x))[0], a=conv(), n=Pair(4)), image(1, 3, 6, 6)


@case(1)
def plain_subclass() -> Made:
    class Mine(nn.BatchNorm2d):
        pass

    return nn.Sequential(conv(), Mine(4)), image()


@case(1)
def sync_batch_norm() -> Made:
    return nn.SyncBatchNorm.convert_sync_batchnorm(nn.Sequential(conv(), nn.BatchNorm2d(4))), image()


@case(0)
def frozen_batch_norm() -> Made:
    class FrozenBatchNorm2d(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name in ("weight", "bias", "running_mean", "running_var"):
                self.register_buffer(name, torch.rand(4) + 0.5)

        def forward(self, x: Any) -> Any:
            scale = self.weight.reshape(1, -1, 1, 1) * (self.running_var.reshape(1, -1, 1, 1) + 1e-5).rsqrt()
            return x * scale + (self.bias.reshape(1, -1, 1, 1) - self.running_mean.reshape(1, -1, 1, 1) * scale)

    return nn.Sequential(conv(), FrozenBatchNorm2d(), nn.ReLU()), image()


@case(1, Reason.SHARED_UNIT)
def batch_norm_without_gamma_kept_neighbour() -> Made:
    """The stream is read by two BatchNorms; the one that stays has no gamma, and gets one."""

    def run(s: Any, x: Any) -> Any:
        y = s.a(x)
        return s.b(torch.relu(s.n(y))) + s.c(torch.relu(s.m(y)))

    return (
        Net(
            run,
            a=conv(),
            n=nn.BatchNorm2d(4),
            m=nn.BatchNorm2d(4, affine=False),
            b=conv(4, 4),
            c=conv(4, 4),
        ),
        image(),
    )


@case(1)
def wrapped_batch_norm() -> Made:
    class Wrapper(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.BatchNorm2d(4)

        def forward(self, x: Any) -> Any:
            return self.inner(x)

    return nn.Sequential(conv(), Wrapper()), image()


@case(0, Reason.NO_STATS)
def no_running_statistics() -> Made:
    return nn.Sequential(conv(), nn.BatchNorm2d(4, track_running_stats=False)), image()


@case(0, Reason.TRAINING, note="is in training mode")
def one_layer_in_training() -> Made:
    net = nn.Sequential(conv(), nn.BatchNorm2d(4))
    net.in_training = ["1"]  # type: ignore[assignment]
    return net, image()


@case(1, Reason.TRAINING, note="is in training mode")
def one_of_two_in_training() -> Made:
    net = nn.Sequential(conv(), nn.BatchNorm2d(4), nn.ReLU(), conv(4, 4), nn.BatchNorm2d(4))
    net.in_training = ["4"]  # type: ignore[assignment]
    return net, image()


# Hooks, parametrizations, wrappers


@case(0, Reason.HOOK)
def hook_on_the_batch_norm() -> Made:
    net = nn.Sequential(conv(), nn.BatchNorm2d(4), conv(4, 2))
    net[1].register_forward_hook(lambda module, args, output: None)
    return net, image()


@case(0, Reason.HOOK)
def hook_on_the_conv() -> Made:
    net = nn.Sequential(conv(), nn.BatchNorm2d(4), nn.Sigmoid())
    net[0].register_forward_hook(lambda module, args, output: None)
    return net, image()


@case(1)
def hook_far_away() -> Made:
    net = nn.Sequential(conv(), nn.BatchNorm2d(4), nn.Sigmoid())
    net[2].register_forward_pre_hook(lambda module, args: None)
    return net, image()


@case(1)
def hook_on_a_block() -> Made:
    net = nn.Sequential(nn.Sequential(conv(), nn.BatchNorm2d(4)), nn.Sigmoid())
    net[0].register_forward_hook(lambda module, args, output: output * 2)
    return net, image()


@case(1, note="became a plain weight")
def weight_norm() -> Made:
    return nn.Sequential(nn.utils.parametrizations.weight_norm(conv(k=3)), nn.BatchNorm2d(4)), image()


@case(1, note="became a plain weight")
def old_weight_norm() -> Made:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # it is deprecated, and in use
        return nn.Sequential(nn.utils.weight_norm(conv(k=3)), nn.BatchNorm2d(4)), image()


@case(1, note="became a plain weight")
def spectral_norm() -> Made:
    return nn.Sequential(nn.utils.parametrizations.spectral_norm(conv(k=3)).eval(), nn.BatchNorm2d(4)), image()


@case(1, note="became a plain weight")
def own_parametrization() -> Made:
    class Symmetric(nn.Module):
        def forward(self, w: Any) -> Any:
            return w.triu() + w.triu(1).transpose(-1, -2)

    layer = nn.Linear(4, 4)
    nn.utils.parametrize.register_parametrization(layer, "weight", Symmetric())
    return nn.Sequential(layer, nn.BatchNorm1d(4)), image(3, 4)


@case(2, form="graph", note="computed from other parameters")
def weight_standardisation() -> Made:
    class StdConv(nn.Conv2d):
        def forward(self, x: Any) -> Any:
            w = F.batch_norm(self.weight.reshape(1, self.out_channels, -1), None, None, training=True, momentum=0.0)
            return F.conv2d(x, w.reshape_as(self.weight), self.bias)

    return nn.Sequential(StdConv(3, 4, 3), nn.BatchNorm2d(4)), image()


@case(1)
def conv_that_pads_itself() -> Made:
    class SamePad(nn.Conv2d):
        def forward(self, x: Any) -> Any:
            return F.conv2d(F.pad(x, (0, 1, 0, 1)), self.weight, self.bias, self.stride)

    return nn.Sequential(SamePad(3, 4, 2, bias=False), nn.BatchNorm2d(4)), image()


@case(1, form="graph", note="does not pass bias on")
def conv_that_ignores_its_bias() -> Made:
    class NoBias(nn.Conv2d):
        def forward(self, x: Any) -> Any:
            return F.conv2d(x, self.weight)

    return nn.Sequential(NoBias(3, 4, 1, bias=False), nn.BatchNorm2d(4)), image()


@case(1, note="DataParallel was unwrapped")
def data_parallel() -> Made:
    return nn.DataParallel(nn.Sequential(conv(), nn.BatchNorm2d(4))), image()


@case(1, note="OptimizedModule was unwrapped")
def compiled() -> Made:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch's own TorchScript
        return torch.compile(nn.Sequential(conv(), nn.BatchNorm2d(4))), image()  # type: ignore[return-value]


@case(1, form="graph", note="forward looks at its BatchNorms")
def forward_reads_the_momentum() -> Made:
    net = Net(lambda s, x: s.n(s.a(x)) * (1 + s.n.momentum), a=conv(), n=nn.BatchNorm2d(4))
    return net, image()


@case(1, form="graph", note="forward looks at its BatchNorms")
def forward_asks_for_the_class() -> Made:
    def run(s: Any, x: Any) -> Any:
        y = s.n(s.a(x))
        return y if isinstance(s.n, nn.BatchNorm2d) else 2 * y

    return Net(run, a=conv(), n=nn.BatchNorm2d(4)), image()


# Inputs, outputs, control flow, types


@case(1)
def keyword_and_nested_inputs() -> Made:
    net = Net(lambda s, pair: {"y": s.n(s.a(pair["x"] + pair["z"][0]))}, a=conv(), n=nn.BatchNorm2d(4))
    x = image()[0]
    return net, ({"x": x, "z": [x]},)


@case(0, Reason.BOUNDARY)
def control_flow() -> Made:
    def run(s: Any, x: Any) -> Any:
        return torch.cond(x.sum() > 0, lambda x: torch.sigmoid(s.n(x)), torch.cos, (s.a(x),))

    return Net(run, a=conv(), n=nn.BatchNorm2d(4)), image()


@case(1)
def no_grad_inside() -> Made:
    def run(s: Any, x: Any) -> Any:
        with torch.no_grad():
            return s.n(s.a(x))

    return Net(run, a=conv(), n=nn.BatchNorm2d(4)), image()


@case(1)
def buffer_as_a_constant() -> Made:
    class Preprocess(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.rand(1, 3, 1, 1))
            self.a, self.n = conv(), nn.BatchNorm2d(4)

        def forward(self, x: Any) -> Any:
            return self.n(self.a(x - self.mean))

    return Preprocess(), image()


@case(1)
def plain_tensor_attribute() -> Made:
    class Preprocess(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mean = torch.rand(1, 3, 1, 1, dtype=torch.float64)
            self.a, self.n = conv(k=3, padding=1), nn.BatchNorm2d(4)

        def forward(self, x: Any) -> Any:
            return self.n(self.a(x - self.mean))

    return Preprocess(), image()


@case(1)
def counting_buffer() -> Made:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))
            self.a, self.n = conv(), nn.BatchNorm2d(4)

        def forward(self, x: Any) -> Any:
            self.calls += 1
            return self.n(self.a(x))

    return Counting(), image()


@case(0, Reason.DTYPE)
def mixed_types() -> Made:
    net = Net(lambda s, x: s.n(s.a(x).float()), a=conv().double(), n=nn.BatchNorm2d(4))
    net.keep_types = True  # type: ignore[assignment]
    return net, image()


@case(1, tolerance=0.05)
def bfloat16() -> Made:
    net = nn.Sequential(conv(k=3), nn.BatchNorm2d(4)).bfloat16()
    net.keep_types = True  # type: ignore[assignment]
    return net, (torch.randn(2, 3, 6, 6).bfloat16(),)


@case(1)
def complex_weight_beside() -> Made:
    class Spectral(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.n = conv(), nn.BatchNorm2d(4)
            self.w = nn.Parameter(torch.randn(6, 4, dtype=torch.complex128))

        def forward(self, x: Any) -> Any:
            y = self.n(self.a(x))
            return torch.fft.irfft2(torch.fft.rfft2(y) * self.w, s=(6, 6))

    return Spectral(), image()


@case(1)
def embedding_bn() -> Made:
    net = Net(lambda s, i: s.n(s.e(i).transpose(1, 2)), e=nn.Embedding(10, 4), n=nn.BatchNorm1d(4))
    return net, (torch.randint(0, 10, (2, 7)),)


@case(1)
def bn_before_lstm() -> Made:
    net = Net(
        lambda s, x: s.r(s.n(x).transpose(1, 2))[0],
        n=nn.BatchNorm1d(4),
        r=nn.LSTM(4, 3, num_layers=2, bidirectional=True, batch_first=True),
    )
    return net, image(2, 4, 5)


@case(1)
def bn_before_gru() -> Made:
    net = Net(lambda s, x: s.r(s.n(x).permute(2, 0, 1))[0], n=nn.BatchNorm1d(4), r=nn.GRU(4, 3))
    return net, image(2, 4, 5)


@case(1)
def attention_over_values() -> Made:
    """softmax(q·kᵀ)·v → BN: the rows of the softmax sum to 1, so the BatchNorm goes into v's projection."""

    def run(s: Any, x: Any) -> Any:
        y = F.scaled_dot_product_attention(s.q(x), s.k(x), s.v(x))
        return s.n(y.transpose(1, 2))

    layers = {name: nn.Linear(4, 4) for name in "qkv"}
    return Net(run, **layers, n=nn.BatchNorm1d(4)), image(2, 5, 4)


@case(2)
def shuffled_channels() -> Made:
    def run(s: Any, x: Any) -> Any:
        a, b = s.n(s.a(x)).chunk(2, dim=1)
        y = torch.cat([b, s.m(s.b(a))], 1)
        return s.c(F.channel_shuffle(y, 2).flip(1)[:, 1:])

    return (
        Net(run, a=conv(3, 8), n=nn.BatchNorm2d(8), b=conv(4, 4), m=nn.BatchNorm2d(4), c=conv(7, 2)),
        image(),
    )


@case(1)
def pixel_shuffled() -> Made:
    net = Net(lambda s, x: s.b(s.n(F.pixel_shuffle(s.a(x), 2))), a=conv(3, 8), n=nn.BatchNorm2d(2), b=conv(2, 3))
    return net, image()


@case(1)
def zero_gamma() -> Made:
    net = nn.Sequential(conv(), nn.BatchNorm2d(4))
    net.gammas = torch.tensor([0.0, 1.0, -1.0, 1e-30])  # type: ignore[assignment]
    return net, image()


@case(0, Reason.NEGATIVE_GAMMA)
def negative_gamma_before_relu() -> Made:
    def run(s: Any, x: Any) -> Any:
        return s.b(torch.relu(s.n(torch.relu(s.a(x)))))

    net = Net(run, a=conv(), n=nn.BatchNorm2d(4), b=conv(4, 2))
    net.gammas = -torch.ones(4)  # type: ignore[assignment]
    return net, image()


@case(0)
def no_batch_norm_at_all() -> Made:
    return nn.Sequential(conv(), nn.ReLU()), image()
