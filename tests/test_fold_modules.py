"""Modules in, modules out: what must become of each of a table of hostile modules, and what no fold may touch."""

from __future__ import annotations

import copy
import pickle
import warnings
from typing import Any

import pytest
import torch
from hostile import Case
from hostile_more import CASES
from torch import nn

import bnfold
from bnfold.quiet import quiet
from bnfold.reasons import Reason

BATCH_NORM = nn.modules.batchnorm._BatchNorm


def draw(module: nn.Module) -> nn.Module:
    """Statistics as a trained network has them, all gammas positive unless the case says otherwise."""
    generator = torch.Generator().manual_seed(0)
    given = getattr(module, "gammas", None)
    for layer in module.modules():
        if not isinstance(layer, BATCH_NORM):
            continue
        n = layer.num_features
        if layer.affine:
            layer.weight.data = torch.rand(n, generator=generator) + 0.5 if given is None else given.clone()
            layer.bias.data = torch.randn(n, generator=generator) * 0.3
        if layer.running_mean is not None:
            layer.running_mean = torch.randn(n, generator=generator) * 0.3
            layer.running_var = torch.rand(n, generator=generator) * 1.5 + 0.5
    return module


def prepared(case: Case) -> tuple[nn.Module, tuple[Any, ...]]:
    """The module of a case with drawn statistics, in evaluation mode but for the layers it puts in training itself."""
    torch.manual_seed(0)
    module, inputs = case.make()
    training = [module.get_submodule(path) for path in getattr(module, "in_training", ())]
    draw(module.eval())
    for layer in training:
        layer.train()
    return module if getattr(module, "keep_types", False) else module.double(), inputs


def outputs(module: nn.Module, inputs: tuple[Any, ...]) -> list[torch.Tensor]:
    """What a module returns for copies of inputs; its buffers are put back."""
    state = {key: value.clone() for key, value in module.state_dict().items()}
    with torch.no_grad(), quiet():
        y = module(*copy.deepcopy(inputs))
    module.load_state_dict(state)
    return [v for v in torch.utils._pytree.tree_leaves(y) if isinstance(v, torch.Tensor)]


@pytest.mark.parametrize("name", CASES)
def test_every_hostile_module_has_its_outcome(name: str) -> None:
    case = CASES[name]
    module, inputs = prepared(case)
    state = {key: value.clone() for key, value in module.state_dict().items()}
    before = outputs(getattr(module, "_orig_mod", module), inputs)

    folded = bnfold.fold(module, inputs)

    plan, kept = folded.plan, tuple(site.reason for site in folded.plan.sites if site.status == "kept")
    assert (plan.batch_norms - plan.kept, kept) == (case.folded, case.kept), plan
    inner = getattr(module, "_orig_mod", getattr(module, "module", module))
    assert (type(folded.model) is type(inner)) == (case.form == "same"), plan.notes
    assert case.note in "; ".join(plan.notes)
    assert bool(plan.notes) == (bool(case.note) or case.form == "graph"), plan.notes
    for a, b in zip(before, outputs(folded.model, inputs), strict=True):
        assert a.dtype == b.dtype
        assert (a - b).abs().max() <= case.tolerance * a.abs().max()
    for key, value in module.state_dict().items():
        assert torch.equal(value, state[key]), f"{key} of the original has changed"
    if case.form == "same":
        unused = getattr(module, "unused_norms", 0)
        assert sum(isinstance(layer, BATCH_NORM) for layer in folded.model.modules()) <= len(kept) + unused


def test_the_table_is_long_enough() -> None:
    assert len(CASES) >= 60


def small() -> nn.Module:
    torch.manual_seed(0)
    return draw(nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(inplace=True))).eval()


X = torch.randn(2, 3, 6, 6)


def test_a_batch_norm_that_goes_becomes_an_identity_and_a_bias_a_parameter() -> None:
    module = small()
    after = bnfold.fold(module, X).model
    assert [type(layer) for layer in after] == [nn.Conv2d, nn.Identity, nn.ReLU]
    assert dict(after.named_parameters()).keys() == {"0.weight", "0.bias"}
    assert all(p.requires_grad for p in after.parameters())
    assert dict(module.named_parameters()).keys() == {"0.weight", "1.weight", "1.bias"}


def test_an_activation_that_would_write_into_the_stream_is_made_out_of_place() -> None:
    module, inputs = prepared(CASES["inplace_relu_behind_a_shared_conv"])
    after = bnfold.fold(module, inputs).model
    assert after.r.inplace is False
    assert module.r.inplace is True


def test_what_a_norm_with_an_activation_becomes() -> None:
    module, inputs = prepared(CASES["batch_norm_act"])
    left = bnfold.fold(module, inputs).model[1]
    assert [name for name, _ in left.named_children()] == ["drop", "act"]
    module, inputs = prepared(CASES["batch_norm_relu"])
    assert repr(bnfold.fold(module, inputs).model[1]) == "LeakyReLU(negative_slope=0.1)"


def test_a_kept_norm_without_gamma_gets_one() -> None:
    module, inputs = prepared(CASES["batch_norm_without_gamma_kept_neighbour"])
    after = bnfold.fold(module, inputs).model
    norms = [layer for layer in after.modules() if isinstance(layer, BATCH_NORM)]
    assert len(norms) == 1
    assert norms[0].affine


def test_a_graph_can_be_asked_for() -> None:
    folded = bnfold.fold(small(), X, prefer="graph")
    assert isinstance(folded.model, torch.export.UnflattenedModule)
    assert folded.plan.notes == ("the result is a graph, not the class that came in",)
    assert torch.allclose(folded.model(X), small()(X), atol=1e-5)


def test_sizes_may_vary() -> None:
    net = draw(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4))).eval()
    dims = ({0: torch.export.Dim("n"), 2: torch.export.Dim("h", min=4)},)
    folded = bnfold.fold(net, X, dynamic_shapes=dims, prefer="graph")
    assert folded.model(torch.randn(5, 3, 9, 6)).shape == (5, 4, 9, 6)


@pytest.mark.parametrize("given", [X, (X,), [X], {"input": X}], ids=["tensor", "tuple", "list", "mapping"])
def test_example_inputs_may_come_in_any_form(given: Any) -> None:
    assert bnfold.fold(small(), given).plan.folded == 1


def test_the_result_lives_as_the_original_did() -> None:
    before, after = small(), bnfold.fold(small(), X).model
    assert torch.equal(copy.deepcopy(after)(X), after(X))
    assert torch.equal(pickle.loads(pickle.dumps(after))(X), after(X))
    assert torch.allclose(torch.compile(after, backend="eager")(X), before(X), atol=1e-5)
    with quiet():
        assert torch.allclose(torch.export.export(after, (X,)).module()(X), before(X), atol=1e-5)
    assert torch.allclose(copy.deepcopy(after).bfloat16()(X.bfloat16()).float(), before(X), atol=0.05)
    fresh = bnfold.fold(small(), X).model
    fresh.load_state_dict(after.state_dict(), strict=True)
    with pytest.raises(RuntimeError, match="Missing key"):
        small().load_state_dict(after.state_dict())


def test_gradients_flow_through_a_folded_module() -> None:
    after = bnfold.fold(small(), X).model
    after(X).square().mean().backward()
    assert all(p.grad is not None and p.grad.any() for p in after.parameters())


def test_frozen_weights_stay_frozen() -> None:
    module = small()
    module.requires_grad_(False)
    assert not any(p.requires_grad for p in bnfold.fold(module, X).model.parameters())


def test_weights_made_in_inference_mode() -> None:
    with torch.inference_mode():
        module = small()
    folded = bnfold.fold(module, X)
    assert folded.plan.folded == 1
    with torch.no_grad():
        assert torch.allclose(folded.model(X), small()(X), atol=1e-5)


def refusal(error: type[bnfold.BnfoldError], module: Any, *inputs: Any, **more: Any) -> str:
    with pytest.raises(error) as caught:
        bnfold.fold(module, *inputs, **more)
    return str(caught.value)


def test_a_model_in_training_mode_is_refused() -> None:
    assert refusal(bnfold.UsageError, small().train(), X) == (
        "error[USAGE]: the model is in training mode, where a BatchNorm follows its batch and cannot be folded\n"
        "Call model.eval() first."
    )


def test_a_model_without_inputs_is_refused() -> None:
    assert refusal(bnfold.UsageError, small()) == (
        "error[USAGE]: bnfold.fold needs example inputs to follow an nn.Module\n"
        "Pass bnfold.fold(model, (torch.randn(1, 3, 224, 224),)), with inputs of the right shape."
    )


def test_what_has_no_numbers_is_refused() -> None:
    assert "0.weight is on the meta device: there are no numbers to fold" in refusal(
        bnfold.UnsupportedError, small().to("meta"), X
    )
    lazy = nn.Sequential(nn.LazyConv2d(4, 3), nn.BatchNorm2d(4)).eval()
    assert "0.weight has no shape yet: the model is lazy" in refusal(bnfold.UsageError, lazy, X)


def test_torchscript_is_refused() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        scripted = torch.jit.trace(small(), X)
    assert "the model is TorchScript" in refusal(bnfold.UnsupportedError, scripted, X)


def test_a_forward_that_depends_on_data_is_refused_in_words() -> None:
    class Branching(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.sum() > 0 else -x

    words = refusal(bnfold.UnsupportedError, Branching().eval(), X)
    assert words.startswith("error[UNSUPPORTED]: torch.export cannot capture Branching: ")
    assert "Traceback" not in words


def test_inputs_that_do_not_fit_are_refused_in_words() -> None:
    assert "Sequential does not take input 2x5x6x6 float32: RuntimeError: Given groups=1" in refusal(
        bnfold.UsageError, small(), torch.randn(2, 5, 6, 6)
    )


def test_other_arguments_are_refused() -> None:
    assert refusal(bnfold.UsageError, small(), X, prefer="modul").startswith("error[USAGE]: prefer is 'modul'")
    assert "bnfold.fold cannot take a torch.Tensor" in refusal(bnfold.UsageError, X)
    assert "not a path: 'model.pt'" in refusal(bnfold.UsageError, "model.pt")


def test_one_branch_computes_the_sum_and_the_others_contribute_nothing() -> None:
    module, inputs = prepared(CASES["repvgg_block"])
    folded = bnfold.fold(module, inputs)
    after = folded.model
    assert [type(layer).__name__ for layer in (*after.big, *after.small, after.identity)] == [
        *("Conv2d", "Identity"),
        *("Zero", "Identity"),
        "Zero",
    ]
    assert after.state_dict().keys() == {"big.0.weight", "big.0.bias"}
    assert [(site.status, site.into) for site in folded.plan.sites] == [("merged", ("big.0",))] * 3
    assert after(*inputs).dtype == torch.float64
    assert after.half()(inputs[0].half()).dtype == torch.float16


def test_a_norm_that_the_sum_starts_with_becomes_the_convolution() -> None:
    module, inputs = prepared(CASES["mobileone_block_that_starts_with_its_norm"])
    folded = bnfold.fold(module, inputs)
    assert repr(folded.model.identity) == "Conv2d(4, 4, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))"
    assert {site.into for site in folded.plan.sites} == {("identity",)}
    assert [type(part).__name__ for each in folded.model.convs for part in each] == ["Zero", "Identity"] * 2


def test_what_a_merged_branch_is_added_to_keeps_its_sign() -> None:
    module, inputs = prepared(CASES["subtracted_branch"])
    after = bnfold.fold(module, inputs).model
    assert [type(part).__name__ for part in (*after.a, *after.b)] == ["Conv2d", "Identity", "Zero", "Identity"]
    module, inputs = prepared(CASES["larger_branch_that_is_subtracted"])
    after = bnfold.fold(module, inputs).model
    assert [type(part).__name__ for part in (*after.a, *after.b)] == ["Conv2d", "Identity", "Zero", "Identity"]
    assert after.a[0].kernel_size == (3, 3)


def test_a_merged_module_lives_as_the_original_did() -> None:
    module, inputs = prepared(CASES["mobileone_block"])
    before, after = outputs(module, inputs)[0], bnfold.fold(module, inputs).model
    assert torch.equal(pickle.loads(pickle.dumps(after.scale))(*inputs), after.scale(*inputs))
    assert torch.equal(copy.deepcopy(after)(*inputs), after(*inputs))
    assert torch.allclose(torch.compile(after, backend="eager")(*inputs), before, rtol=1e-12)
    with quiet():
        assert torch.allclose(torch.export.export(after, inputs).module()(*inputs), before, rtol=1e-12)
    again = bnfold.fold(after, inputs)
    assert again.plan.sites == ()
    assert type(again.model) is type(module)
    after(*inputs).square().mean().backward()
    assert all(p.grad is not None and p.grad.any() for p in after.parameters())


def test_a_graph_merges_what_forward_does_not_let_a_module_merge() -> None:
    module, inputs = prepared(CASES["branch_beside_a_plain_skip"])
    as_module, as_graph = bnfold.fold(module, inputs), bnfold.fold(module, inputs, prefer="graph")
    assert [site.status for site in as_module.plan.sites] == ["folded"]
    assert as_module.plan.notes == ("1 sum of branches stays as forward writes it; prefer='graph' merges them",)
    assert [site.status for site in as_graph.plan.sites] == ["merged"]
    assert torch.allclose(as_graph.model(*inputs), as_module.model(*inputs), rtol=1e-9)


def test_shared_weights_are_not_copied_if_that_is_not_wanted() -> None:
    module, inputs = prepared(CASES["tied_weights"])
    kept = bnfold.fold(module, inputs, duplicate="never")
    assert [site.reason for site in kept.plan.sites] == [Reason.SHARED_WEIGHT]
    assert kept.model.a.weight is kept.model.b.weight
    copied = bnfold.fold(module, inputs)
    assert [site.copies for site in copied.plan.sites] == [("a",)]
    assert copied.plan.growth == copied.model.a.weight.nbytes
    assert copied.model.a.weight is not copied.model.b.weight
    assert torch.equal(copied.model.b.weight, module.b.weight)


def test_what_a_batch_norm_that_stays_is_to_be_makes_a_graph() -> None:
    module, inputs = prepared(CASES["batch_norm_without_gamma_kept_neighbour"])
    folded = bnfold.fold(module, inputs, leftover="affine")
    assert folded.plan.kept == 1
    assert folded.plan.notes == ("the result is a graph, because what BatchNorms that stay are to be has no module",)
    assert not any(isinstance(layer, BATCH_NORM) for layer in folded.model.modules())
    assert torch.allclose(folded.model(*inputs), outputs(module, inputs)[0], rtol=1e-9)


def test_a_layer_norm_loses_its_scale_and_bias_if_that_is_asked_for() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.LayerNorm(5), nn.Linear(5, 3)).eval().double()
    module[0].weight.data.uniform_(0.5, 1.5)
    module[0].bias.data.normal_()
    x = torch.randn(2, 5, dtype=torch.float64)
    folded = bnfold.fold(module, x, norm_affine=True)
    assert [site.status for site in folded.plan.affines] == ["folded"]
    assert type(folded.model) is nn.Sequential
    assert folded.model[0].weight.tolist() == [1] * 5
    assert folded.model[0].bias.tolist() == [0] * 5
    assert torch.allclose(folded.model(x), module(x), rtol=1e-12)
    assert bnfold.fold(module, x).plan.affines == ()


def test_the_result_shares_no_memory_with_the_original() -> None:
    module = nn.Sequential(*small(), nn.Conv2d(4, 4, 1), nn.SiLU(), nn.BatchNorm2d(4)).eval()  # the last one stays
    theirs = {p.data_ptr() for p in (*module.parameters(), *module.buffers())}
    for prefer in ("module", "graph"):
        after = bnfold.fold(module, X, prefer=prefer).model
        assert not theirs & {p.data_ptr() for p in (*after.parameters(), *after.buffers())}


def test_a_merged_operator_stands_among_those_of_its_module() -> None:
    """RepGhost: a program is unflattened call by call, and a call that is cut in two gets the wrong inputs."""

    class Ghost(nn.Module):
        def __init__(self, inputs: int) -> None:
            super().__init__()
            self.first = nn.Sequential(nn.Conv2d(inputs, 4, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU())
            self.cheap = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False), nn.BatchNorm2d(4))
            self.fusion = nn.ModuleList([nn.BatchNorm2d(4)])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.first(x)
            z = self.cheap(y)
            for each in self.fusion:
                z = z + each(y)
            return torch.cat([y, z], 1)

    torch.manual_seed(0)
    module = draw(nn.Sequential(Ghost(3), Ghost(8), nn.Conv2d(8, 2, 1))).eval()
    for prefer in ("module", "graph"):
        folded = bnfold.fold(module, X, prefer=prefer)
        assert (folded.plan.merged, folded.plan.kept) == (4, 0)
        assert torch.allclose(folded.model(X), module(X), atol=1e-5)
