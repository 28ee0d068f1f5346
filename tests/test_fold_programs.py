"""Exported programs: the same sites as through ONNX, exact, serialisable, and the original untouched."""

from __future__ import annotations

import copy
import io
import warnings
from typing import Any

import pytest
import torch
from hostile_more import CASES
from test_fold_modules import prepared
from test_models import NAMES, folded, network
from torch import nn
from torch.export import Dim, ExportedProgram

import bnfold
from bnfold.frontends.aten.functional import functional, writes
from bnfold.frontends.aten.nodes import BATCH_NORMS, opname
from bnfold.planning.plan import Plan
from bnfold.quiet import quiet
from bnfold.reasons import Reason

EXPORTABLE = [  # torch.export itself takes no wrappers, and no scripted layers in this way
    name for name in CASES if name not in ("data_parallel", "compiled", "scripted_activation")
]
UNWRITABLE = ("weights_that_share_memory", "sparse_buffer_beside")  # torch.export.save warns of one, fails on the other
ONLY_AS_MODULES = {  # a program knows no hooks and no other sizes
    "bn_before_padded_conv_on_one_pixel": (1, ()),
    "hook_on_the_batch_norm": (1, ()),
    "hook_on_the_conv": (1, ()),
    "hook_on_a_branch": (2, ()),
}


def export(module: nn.Module, inputs: tuple[Any, ...], **more: Any) -> ExportedProgram:
    with quiet(), torch.no_grad():
        return torch.export.export(module, inputs, **more)


def leaves(program: ExportedProgram, inputs: tuple[Any, ...]) -> list[torch.Tensor]:
    with quiet(), torch.no_grad():
        y = program.module()(*copy.deepcopy(inputs))
    return [v for v in torch.utils._pytree.tree_leaves(y) if isinstance(v, torch.Tensor)]


def reloaded(program: ExportedProgram) -> ExportedProgram:
    """A program through `torch.export.save` and `load`."""
    file = io.BytesIO()
    with quiet():
        torch.export.save(program, file)
        file.seek(0)
        return torch.export.load(file)


def fates(plan: Plan) -> list[tuple[str, str, str | None]]:
    return [(s.name, s.status, s.reason.code if s.reason else None) for s in plan.sites]


def count(program: ExportedProgram) -> int:
    return sum(opname(node) in BATCH_NORMS for node in program.graph.nodes)


@pytest.mark.parametrize("name", NAMES)
def test_both_front_ends_give_the_same_sites(name: str) -> None:
    first = next(v for v in folded(name)[0].graph.inputs)
    x = torch.randn(2, *[int(size) for size in first.shape[1:]])
    program = export(network(name), (x,), dynamic_shapes=({0: Dim("batch")},))
    after = bnfold.fold(program)
    assert fates(after.plan) == fates(folded(name)[2])
    assert count(after.model) == after.plan.kept


@pytest.mark.parametrize("name", NAMES)
def test_the_trained_models_are_exact_in_float64(name: str) -> None:
    module = copy.deepcopy(network(name)).double()
    first = next(v for v in folded(name)[0].graph.inputs)
    shape = [int(size) for size in first.shape[1:]]
    before = export(module, (torch.randn(2, *shape, dtype=torch.float64),), dynamic_shapes=({0: Dim("batch")},))
    wider = (torch.randn(5, *shape, dtype=torch.float64),)
    for a, b in zip(leaves(before, wider), leaves(bnfold.fold(before).model, wider), strict=True):
        assert (a - b).abs().max() <= 1e-9 * a.abs().max()


@pytest.mark.parametrize("name", EXPORTABLE)
def test_every_hostile_module_as_a_program(name: str) -> None:
    case = CASES[name]
    module, inputs = prepared(case)
    before = export(module, inputs)
    expected = leaves(before, inputs)
    state = {key: value.clone() for key, value in before.state_dict.items()}
    code = str(before.graph)

    after = bnfold.fold(before)

    kept = tuple(site.reason for site in after.plan.sites if site.status == "kept")
    assert (after.plan.batch_norms - after.plan.kept, kept) == ONLY_AS_MODULES.get(name, (case.folded, case.kept))
    written = after.model if name in UNWRITABLE else reloaded(after.model)
    for a, b in zip(expected, leaves(written, inputs), strict=True):
        assert (a - b).abs().max() <= case.tolerance * a.abs().max()
    assert str(before.graph) == code
    for key, value in before.state_dict.items():
        assert name == "counting_buffer" or torch.equal(value, state[key]), f"{key} of the original has changed"


@pytest.mark.parametrize("name", ["conv_bn", "preactivation", "batch_norm_act", "shuffled_channels", "tied_biases"])
def test_programs_in_core_aten(name: str) -> None:
    case = CASES[name]
    module, inputs = prepared(case)
    with quiet():
        before = export(module, inputs).run_decompositions()
    after = bnfold.fold(before)
    assert after.plan.folded == case.folded
    for a, b in zip(leaves(before, inputs), leaves(after.model, inputs), strict=True):
        assert (a - b).abs().max() <= 1e-9 * a.abs().max()


def test_what_a_batch_norm_held_goes_with_it_and_a_bias_comes() -> None:
    module, inputs = prepared(CASES["conv_bn"])
    after = bnfold.fold(export(module, inputs)).model
    assert sorted(after.state_dict) == ["0.bias", "0.weight"]
    assert [spec.target for spec in after.graph_signature.input_specs if spec.target] == ["0.bias", "0.weight"]


def test_a_folded_program_can_be_folded_and_exported_again() -> None:
    module, inputs = prepared(CASES["preactivation"])
    after = bnfold.fold(export(module, inputs)).model
    again = bnfold.fold(after)
    assert again.plan.sites == ()
    assert count(export(after.module(), inputs)) == 0


def test_tied_parameters_stay_tied() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.n = nn.Linear(4, 4), nn.Linear(4, 4), nn.BatchNorm1d(4)
            self.b.weight = self.a.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.n(self.a(x)) + self.n(self.b(x.flip(1)))

    torch.manual_seed(0)
    module, x = Tied().eval().double(), torch.randn(3, 4, dtype=torch.float64)
    module.n.running_var.uniform_(0.5, 2)
    before = export(module, (x,))
    after = bnfold.fold(before)
    assert after.plan.folded == 2
    assert torch.allclose(leaves(before, (x,))[0], leaves(after.model, (x,))[0], rtol=1e-12)
    weights = [value for key, value in after.model.state_dict.items() if key.endswith("weight")]
    assert len({value.data_ptr() for value in weights}) == 1


def test_what_is_written_in_place_to_its_own_is_made_functional_without_decomposing() -> None:
    module, inputs = prepared(CASES["added_in_place_to_its_own"])
    before = export(module, inputs)
    assert any(writes(node) for node in before.graph.nodes)
    with quiet():
        after = functional(before)
    assert not any(writes(node) for node in after.graph.nodes)
    assert [node.name for node in after.graph.nodes] == [node.name for node in before.graph.nodes]


def test_what_is_written_in_place_for_others_to_see_is_left_to_torch() -> None:
    class Seen(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = x * 2
            y[:, 0].add_(1)
            return y

    before = export(Seen(), (torch.ones(2, 3),))
    with quiet():
        after = functional(before)
    assert not any(writes(node) for node in after.graph.nodes)
    assert leaves(after, (torch.ones(2, 3),))[0].tolist() == [[3, 2, 2], [3, 2, 2]]


def test_calls_of_modules_that_are_declared_are_followed_to_their_new_names() -> None:
    module, inputs = prepared(CASES["conv_bn"])
    before = export(module, inputs, preserve_module_call_signature=("0", "1"))
    after = bnfold.fold(before).model
    with quiet(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Attempted to insert a get_attr Node", UserWarning)  # of torch's own making
        expected, whole = torch.export.unflatten(before), torch.export.unflatten(after)
    assert torch.allclose(whole(*inputs), expected(*inputs), rtol=1e-12)
    assert bnfold.fold(before).plan.folded == 1  # a program that has been unflattened


def test_what_would_leave_float16_is_kept() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4)).eval()
    net[0].weight.data.fill_(1e3)
    net[1].running_var.fill_(1e-5)
    program = export(net.half(), (torch.randn(2, 3, 4, 4).half(),))
    [site] = bnfold.fold(program).plan.sites
    assert (site.status, site.reason) == ("kept", Reason.OVERFLOW)


def check(program: ExportedProgram, inputs: tuple[Any, ...], **choices: Any) -> bnfold.Folded:
    """A program folded by some choices, saved and loaded, and compared with the one before."""
    after = bnfold.fold(program, **choices)
    for a, b in zip(leaves(program, inputs), leaves(reloaded(after.model), inputs), strict=True):
        assert (a - b).abs().max() <= 1e-9 * a.abs().max()
    return after


def operators(program: ExportedProgram) -> list[str]:
    return [opname(node) for node in program.graph.nodes if node.op == "call_function"]


def test_branches_become_one_operator_named_after_the_largest() -> None:
    module, inputs = prepared(CASES["repvgg_block"])
    after = check(export(module, inputs, dynamic_shapes=(({0: Dim("n")},),)), inputs)
    assert operators(after.model) == ["conv2d", "relu"]
    assert sorted(after.model.state_dict) == ["big.0.bias", "big.0.weight"]
    assert leaves(after.model, (torch.randn(5, 4, 6, 6, dtype=torch.float64),))[0].shape == (5, 4, 6, 6)


def test_branches_that_share_their_weights_share_the_sum() -> None:
    module, inputs = prepared(CASES["block_of_branches_called_twice"])
    after = check(export(module, inputs), inputs)
    assert operators(after.model) == ["conv2d", "relu"] * 2
    assert sorted(after.model.state_dict) == ["a.0.bias", "a.0.weight"]


@pytest.mark.parametrize("name", ["scaled_branches", "branch_beside_a_plain_skip", "branches_of_linears"])
def test_every_kind_of_branch(name: str) -> None:
    module, inputs = prepared(CASES[name])
    after = check(export(module, inputs), inputs)
    assert after.plan.merged == after.plan.batch_norms
    assert len(operators(after.model)) == 2


def test_an_average_and_padding_on_one_side_merge() -> None:
    class Sides(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Conv2d(4, 4, (1, 3), padding=(0, 1), groups=4)
            self.n, self.m = nn.BatchNorm2d(4), nn.BatchNorm2d(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.sigmoid(self.n(self.a(x)) + self.m(nn.functional.avg_pool2d(x, 3, 1, 1)))

    torch.manual_seed(0)
    module, x = Sides().eval().double(), torch.randn(2, 4, 6, 6, dtype=torch.float64)
    assert check(export(module, (x,)), (x,)).plan.merged == 0  # 9 taps instead of 3: more to multiply
    module.a = nn.Conv2d(4, 4, 3, padding=1, groups=4).double()
    after = check(export(module, (x,)), (x,))
    assert operators(after.model) == ["conv2d", "sigmoid"]


def test_padding_that_differs_at_both_ends_stands_before_the_convolution() -> None:
    class Uneven(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 2, padding="same"), nn.Conv2d(3, 4, 1, bias=False)
            self.n = nn.BatchNorm2d(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.sigmoid(self.a(x) + self.n(self.b(x)))

    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Using padding='same'", UserWarning)
        module, x = Uneven().eval().double(), torch.randn(2, 3, 6, 6, dtype=torch.float64)
        after = check(export(module, (x,)), (x,))
    assert operators(after.model) == ["constant_pad_nd", "conv2d", "sigmoid"]


@pytest.mark.parametrize(("leftover", "left"), [("keep", "batch_norm"), ("affine", "add"), ("conv", "conv2d")])
def test_what_a_batch_norm_that_stays_becomes(leftover: str, left: str) -> None:
    module, inputs = prepared(CASES["batch_norm_without_gamma_kept_neighbour"])
    after = check(export(module, inputs), inputs, leftover=leftover)
    assert after.plan.kept == 1
    assert count(after.model) == (leftover == "keep")
    assert operators(after.model).count(left) == {"batch_norm": 1, "add": 2, "conv2d": 4}[left]


def test_a_norm_that_nothing_changes_is_written_otherwise_as_well() -> None:
    module, inputs = prepared(CASES["bn_between_nonlinearities"])
    after = check(export(module, inputs), inputs, leftover="affine")
    assert operators(after.model) == ["conv2d", "silu", "mul", "add", "silu"]


def test_shared_weights_are_copied_as_far_as_wanted() -> None:
    module, inputs = prepared(CASES["one_conv_two_bns"])
    program = export(module, inputs)
    never, auto = (check(program, inputs, duplicate=how) for how in ("never", "auto"))
    assert (never.plan.kept, auto.plan.kept, auto.plan.growth) == (1, 0, 96)
    assert len([key for key in auto.model.state_dict if key.startswith("a.weight")]) == 2
    assert len([key for key in never.model.state_dict if key.startswith("a.weight")]) == 1


class Normed(nn.Module):
    def __init__(self, norm: nn.Module, *axes: int) -> None:
        super().__init__()
        self.norm, self.linear, self.axes = norm, nn.Linear(4, 3), axes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(x)
        return self.linear(y.transpose(*self.axes) if self.axes else y)


@pytest.mark.parametrize(
    ("norm", "axes"),
    [
        (nn.LayerNorm(4), ()),
        (nn.RMSNorm(4), ()),
        (nn.GroupNorm(2, 4), (1, -1)),
        (nn.InstanceNorm1d(4, affine=True), (1, -1)),
    ],
    ids=["layer", "rms", "group", "instance"],
)
def test_scales_of_normalisations_fold(norm: nn.Module, axes: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    module, x = Normed(copy.deepcopy(norm), *axes).eval().double(), torch.randn(2, 4, 4, dtype=torch.float64)
    for parameter in module.norm.parameters():
        parameter.data.uniform_(0.5, 1.5)
    with quiet():
        decomposed = export(module, (x,)).run_decompositions({})
    for program in (export(module, (x,)), decomposed):
        after = check(program, (x,), norm_affine=True)
        assert [site.status for site in after.plan.affines] == ["folded"]
        assert (after.model.state_dict["norm.weight"] == 1).all()
        assert check(program, (x,)).plan.affines == ()
