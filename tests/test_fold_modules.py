"""Modules in, modules out: what must become of each of a table of hostile modules, and what no fold may touch."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hostile import CASES, Case
from torch import nn

import bnfold
from bnfold.quiet import quiet

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
    assert (plan.folded, kept) == (case.folded, case.kept), plan
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
        assert sum(isinstance(layer, BATCH_NORM) for layer in folded.model.modules()) <= len(kept)


def test_the_table_is_long_enough() -> None:
    assert len(CASES) >= 60
