"""Folded state dicts: restored into a fresh network they are the folded one; into anything else, nothing is loaded."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hostile import CASES
from networks import conv_bn, drawn
from test_fold_modules import outputs, prepared
from torch import nn

import bnfold
from bnfold.errors import BnfoldError, InputError, UnreadableError, UnsafeError, UnsupportedError, UsageError
from bnfold.frontends.modules.prepare import copied
from bnfold.recipes.folded import folded_state
from bnfold.recipes.recipe import KEY, PREFIX
from bnfold.recipes.remodel import FoldedState
from bnfold.writing.torchexport import staged_state

SAME = [name for name, case in CASES.items() if case.form == "same"]
X = torch.randn(2, 3, 6, 6)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def state_of(module: nn.Module, *inputs: Any) -> FoldedState:
    return folded_state(module, bnfold.fold(module, inputs).model, sha256="0" * 64, version="0.1.0")


def written(module: nn.Module, name: str, *inputs: Any) -> str:
    with staged_state(state_of(module, *inputs), name, force=True) as file:
        file.publish()
    return name


def blank(module: nn.Module) -> nn.Module:
    """A fresh network of the same class: nothing of the weights is left."""
    fresh = copied(module)
    with torch.no_grad():
        for parameter in fresh.parameters():
            if parameter.is_floating_point():
                parameter.fill_(0.5)
    return fresh


def snapshot(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def unchanged(module: nn.Module, before: dict[str, torch.Tensor], structure: str) -> bool:
    after = module.state_dict()
    same = list(after) == list(before) and all(torch.equal(after[name], before[name]) for name in before)
    return same and repr(module) == structure


# What comes back


@pytest.mark.parametrize("name", SAME)
def test_every_module_that_keeps_its_class_is_restored(name: str) -> None:
    case = CASES[name]
    module, inputs = prepared(case)
    inner = getattr(module, "_orig_mod", getattr(module, "module", module))
    folded = bnfold.fold(module, inputs).model
    suffix = ".pt" if name == "complex_weight_beside" else ".safetensors"
    with staged_state(folded_state(inner, folded, sha256="", version=""), "f" + suffix) as file:
        file.publish()
    fresh = blank(inner)
    restored = bnfold.restore(fresh, "f" + suffix)
    assert restored is fresh
    assert list(restored.state_dict()) == list(folded.state_dict())
    for a, b in zip(outputs(folded, inputs), outputs(restored, inputs), strict=True):
        assert torch.equal(a, b)
    assert repr(restored) == repr(folded)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".PT", ".pth", ".SAFETENSORS"])
def test_both_formats_hold_the_same(suffix: str) -> None:
    module = conv_bn()
    restored = bnfold.restore(blank(module).train(), written(module, "f" + suffix, X))
    assert not restored.training
    assert [type(layer) for layer in restored] == [nn.Conv2d, nn.Identity, nn.ReLU]
    assert all(parameter.requires_grad for parameter in restored.parameters())
    assert torch.allclose(restored(X), module(X), atol=1e-5)


def test_a_network_on_the_meta_device_gets_its_numbers_from_the_file() -> None:
    module = conv_bn()
    with torch.device("meta"):
        fresh = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU())
    restored = bnfold.restore(fresh, written(module, "f.safetensors", X))
    assert torch.allclose(restored(X), module(X), atol=1e-5)


def test_wrappers_are_taken_off() -> None:
    module = conv_bn()
    path = written(module, "f.pt", X)
    inner = blank(module)
    assert bnfold.restore(nn.DataParallel(inner), path) is inner


def test_a_restored_network_can_be_folded_and_fine_tuned() -> None:
    module = conv_bn()
    restored = bnfold.restore(blank(module), written(module, "f.pt", X))
    assert bnfold.fold(restored, X).plan.sites == ()
    restored(X).square().mean().backward()
    assert all(parameter.grad is not None for parameter in restored.parameters())


def test_frozen_networks_stay_frozen() -> None:
    module = conv_bn().requires_grad_(False)
    restored = bnfold.restore(blank(module), written(module, "f.pt", X))
    assert not any(parameter.requires_grad for parameter in restored.parameters())


def test_hyper_parameters_that_changed_come_back() -> None:
    """As of branches that became one convolution: another kernel, another padding."""
    before = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.ReLU()).eval()
    after = copy.deepcopy(before)
    after[0] = nn.Conv2d(3, 4, 3, padding=1, dilation=2)
    with staged_state(folded_state(before, after, sha256="", version=""), "f.safetensors") as file:
        file.publish()
    restored = bnfold.restore(blank(before), "f.safetensors")
    assert torch.equal(restored(X), after(X))
    assert repr(restored) == repr(after)
    same = copy.deepcopy(before)
    same[0] = nn.Conv2d(3, 4, 3, padding="same", padding_mode="zeros")
    with staged_state(folded_state(before, same, sha256="", version=""), "g.safetensors") as file:
        file.publish()
    assert torch.equal(bnfold.restore(blank(before), "g.safetensors")(X), same(X))


def test_a_buffer_outside_the_state_dict_that_changed_comes_back() -> None:
    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("shift", torch.ones(4), persistent=False)
            self.a = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.a(x) + self.shift

    before = Shifted().eval()
    after = copy.deepcopy(before)
    after.shift.fill_(3)
    with staged_state(folded_state(before, after, sha256="", version=""), "f.pt") as file:
        file.publish()
    assert torch.equal(bnfold.restore(copy.deepcopy(before), "f.pt").shift, after.shift)


# What must not happen


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("strict", [True, False])
def test_a_folded_state_dict_does_not_load_into_the_unfolded_class(suffix: str, strict: bool) -> None:
    """Torch copies what matches before it raises, so that nothing may match: every name has a prefix."""
    module = conv_bn(bias=True)
    path = written(module, "f" + suffix, X)
    state = safetensors.torch.load_file(path) if suffix == ".safetensors" else torch.load(path)["state_dict"]
    fresh = blank(module)
    before, structure = snapshot(fresh), repr(fresh)
    if strict:
        with pytest.raises(RuntimeError, match="Missing key"):
            fresh.load_state_dict(state, strict=True)
    else:
        assert set(fresh.load_state_dict(state, strict=False).unexpected_keys) == set(state)
    assert unchanged(fresh, before, structure)


def test_the_whole_checkpoint_does_not_load_either() -> None:
    module = conv_bn()
    fresh = blank(module)
    before, structure = snapshot(fresh), repr(fresh)
    with pytest.raises(RuntimeError):
        fresh.load_state_dict(torch.load(written(module, "f.pt", X)))
    assert unchanged(fresh, before, structure)


def other_width() -> nn.Module:
    return conv_bn(5)


def other_class() -> nn.Module:
    module = conv_bn()
    module[1] = drawn(nn.SyncBatchNorm(4))
    return module


def other_layers() -> nn.Module:
    return nn.Sequential(*conv_bn(), nn.Linear(2, 2))


def folded_already() -> nn.Module:
    return bnfold.fold(conv_bn(), X).model


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (
            other_width,
            "f.pt was folded from another network than Sequential: '0.weight', '1.weight', '1.bias', "
            "'1.running_mean', '1.running_var' (the first is 4x3x3x3 in the file and 5x3x3x3 in the network)",
        ),
        (other_class, "f.pt does not fit Sequential: 1 is a SyncBatchNorm, and was a BatchNorm2d"),
        (
            other_layers,
            "f.pt was folded from another network than Sequential: '3.weight', '3.bias' "
            "(the first is absent in the file and 2x2 in the network)",
        ),
        (
            folded_already,
            "f.pt was folded from another network than Sequential: '1.weight', '1.bias', '1.running_mean', "
            "'1.running_var', '1.num_batches_tracked' and 1 more "
            "(the first is 4 in the file and absent in the network)",
        ),
    ],
)
def test_another_network_is_refused_and_left_as_it_is(make: Callable[[], nn.Module], what: str) -> None:
    path = written(conv_bn(), "f.pt", X)
    fresh = make()
    before, structure = snapshot(fresh), repr(fresh)
    with pytest.raises(InputError) as caught:
        bnfold.restore(fresh, path)
    assert caught.value.what == what
    assert caught.value.exit_code == 3
    assert unchanged(fresh, before, structure)


def lying(change: Callable[[dict[str, Any], dict[str, torch.Tensor]], None]) -> str:
    """A file whose recipe or tensors somebody changed."""
    state = state_of(conv_bn(), X)
    recipe, tensors = state.recipe.to_dict(), {PREFIX + name: value for name, value in state.tensors.items()}
    change(recipe, tensors)
    safetensors.torch.save_file(tensors, "f.safetensors", {KEY: json.dumps(recipe)})
    return "f.safetensors"


LIES: dict[str, tuple[type[BnfoldError], Callable[[dict[str, Any], dict[str, torch.Tensor]], Any]]] = {
    "a tensor is missing": (InputError, lambda r, t: t.pop(PREFIX + "0.bias")),
    "a tensor too many": (InputError, lambda r, t: t.update({PREFIX + "2.weight": torch.zeros(2)})),
    "a tensor of another shape": (InputError, lambda r, t: t.update({PREFIX + "0.bias": torch.zeros(5)})),
    "a tensor of integers": (InputError, lambda r, t: t.update({PREFIX + "0.bias": torch.zeros(4, dtype=torch.int64)})),
    "a tensor without the prefix": (UnreadableError, lambda r, t: t.update({"0.bias": torch.zeros(4)})),
    "no such module": (InputError, lambda r, t: r["changes"][1].update(path="7")),
    "a path to an attribute": (InputError, lambda r, t: r["changes"][1].update(path="forward")),
    "the network itself goes": (InputError, lambda r, t: r["changes"][1].update(path="", was="Sequential")),
    "a class that is another": (InputError, lambda r, t: r["changes"][1].update(was="Linear")),
    "children that are not there": (
        InputError,
        lambda r, t: r["changes"].__setitem__(
            1, {"path": "1", "was": "BatchNorm2d", "becomes": "children", "children": ["x"]}
        ),
    ),
    "a bias that is there": (
        InputError,
        lambda r, t: r["changes"].append({"path": "0", "was": "Conv2d", "becomes": "itself", "adds": ["weight"]}),
    ),
    "nothing to go": (
        InputError,
        lambda r, t: r["changes"].append({"path": "0", "was": "Conv2d", "becomes": "itself", "drops": ["forward"]}),
    ),
    "a computed weight that is none": (
        InputError,
        lambda r, t: r["changes"].append({"path": "0", "was": "Conv2d", "becomes": "itself", "plain": ["weight"]}),
    ),
    "a kernel of any size": (
        InputError,
        lambda r, t: r["changes"][0].update(sets={"kernel_size": [2**31 - 1, 2**31 - 1]}),
    ),
    "a kernel of other dimensions": (InputError, lambda r, t: r["changes"][0].update(sets={"kernel_size": [3]})),
    "a stride of other dimensions": (InputError, lambda r, t: r["changes"][0].update(sets={"stride": [1, 1, 1]})),
    "groups that divide nothing": (InputError, lambda r, t: r["changes"][0].update(sets={"groups": 3})),
    "a setting of another layer": (InputError, lambda r, t: r["changes"][0].update(sets={"out_features": 3})),
    "in place where nothing is": (InputError, lambda r, t: r["changes"][0].update(sets={"inplace": True})),
    "a buffer that is not there": (
        InputError,
        lambda r, t: t.update({PREFIX + "b": torch.ones(1)}) or r.update(buffers=["b"]),
    ),
}


@pytest.mark.parametrize("name", LIES)
def test_a_file_that_lies_is_refused_and_the_network_left_as_it_is(name: str) -> None:
    error, change = LIES[name]
    path = lying(change)
    fresh = blank(conv_bn())
    before, structure = snapshot(fresh), repr(fresh)
    with pytest.raises(error) as caught:
        bnfold.restore(fresh, path)
    assert caught.value.exit_code == 3
    assert caught.value.hint
    assert unchanged(fresh, before, structure)
    with torch.no_grad():
        fresh(X)


def test_files_that_are_no_folded_state_dict_are_refused() -> None:
    torch.save(conv_bn().state_dict(), "plain.pt")
    safetensors.torch.save_file(conv_bn().state_dict(), "plain.safetensors")
    for path in ("plain.pt", "plain.safetensors"):
        with pytest.raises(UnreadableError) as caught:
            bnfold.restore(conv_bn(), path)
        assert caught.value.what == f"{path} is not a folded state dict: there is no recipe in it"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save({"state_dict": {}, KEY: Canary()}, "canary.pt")
    with pytest.raises(UnsafeError):
        bnfold.restore(conv_bn(), "canary.pt")
    with pytest.raises(UnreadableError, match="there is no file"):
        bnfold.restore(conv_bn(), "nowhere.pt")
    with pytest.raises(UsageError, match=r"bnfold.restore takes a torch.nn.Module, not a str"):
        bnfold.restore("model", "plain.pt")  # type: ignore[arg-type]


class Canary:
    def __reduce__(self) -> Any:
        return (open, ("ran", "w"))


def test_what_a_recipe_has_no_words_for_is_refused_when_it_is_written() -> None:
    before = conv_bn()
    replaced = copy.deepcopy(before)
    replaced[1] = nn.GroupNorm(1, 4)
    emptied = copy.deepcopy(before)
    del emptied[1]
    named = copy.deepcopy(before)
    named[0].padding_mode = "reflect"
    for after, why in (
        (replaced, "1 became a GroupNorm"),
        (emptied, "2 is gone"),
        (named, "0.padding_mode became 'reflect'"),
    ):
        with pytest.raises(UnsupportedError) as caught:
            folded_state(before, after, sha256="", version="")
        assert caught.value.what.endswith(f"cannot be restored from a state dict: {why}")
        assert caught.value.hint == "Give the output the suffix .pt2: a program holds weights and graph."


def test_safetensors_has_no_complex_numbers_of_double_width() -> None:
    module, inputs = prepared(CASES["complex_weight_beside"])
    with pytest.raises(UnsupportedError) as caught:
        written(module, "f.safetensors", *inputs)
    assert caught.value.what == "safetensors has no type for torch.complex128"


def test_a_sparse_tensor_is_refused_in_words() -> None:
    module = conv_bn()
    module.register_buffer("mask", torch.eye(3).to_sparse())
    with pytest.raises(UnsupportedError, match=r": mask is sparse\n"):
        folded_state(module, module, sha256="", version="")


def test_weights_stay_tied_unless_the_fold_unties_them() -> None:
    torch.manual_seed(0)
    linears = [nn.Linear(4, 4) for _ in range(3)]
    module = nn.Sequential(linears[0], nn.ReLU(), linears[1], nn.BatchNorm1d(4), nn.Sigmoid(), linears[2]).eval()
    for each in linears[1:]:
        each.weight = linears[0].weight
    x = torch.randn(3, 4)
    state = state_of(module, x)
    assert {"0.weight", "2.weight", "5.weight"} <= set(state.tensors)
    assert [(c.path, c.unties) for c in state.recipe.changes if c.unties] == [("2", ("weight",))]
    restored = bnfold.restore(blank(module), written(module, "f.safetensors", x))
    assert restored[5].weight is restored[0].weight
    assert restored[2].weight is not restored[0].weight
    assert torch.allclose(restored(x), module(x), atol=1e-6)


def test_modules_that_share_what_they_did_not_share_before_are_refused() -> None:
    before = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)).eval()
    joined = copy.deepcopy(before)
    joined[2].weight = joined[0].weight
    with pytest.raises(UnsupportedError, match=r"other modules than before share 2\.weight\n"):
        folded_state(before, joined, sha256="", version="")
    four = nn.Sequential(*(nn.Linear(4, 4) for _ in range(4))).eval()
    for each in four[1:]:
        each.weight = four[0].weight
    paired = copy.deepcopy(four)
    paired[2].weight = paired[3].weight = nn.Parameter(torch.zeros(4, 4))
    with pytest.raises(UnsupportedError, match=r"other modules than before share 3\.weight\n"):
        folded_state(four, paired, sha256="", version="")


class Branches(nn.Module):
    """A sum of which the identity's BatchNorm comes to compute all, or a convolution."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.a = nn.Sequential(
            nn.Conv2d(4, 4, 3, padding=1, bias=False, **options), drawn(nn.BatchNorm2d(4, **options))
        )
        self.b = nn.Sequential(nn.Conv2d(4, 4, 1, bias=False, **options), drawn(nn.BatchNorm2d(4, **options)))
        self.n = drawn(nn.BatchNorm2d(4, **options))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(self.n(x) + self.a(x) + self.b(x))


FEATURES = torch.randn(2, 4, 6, 6)


def test_merged_branches_come_back_with_their_zeros_where_the_network_is() -> None:
    module = Branches().eval()
    state = state_of(module, FEATURES)
    assert sorted(c.becomes for c in state.recipe.changes).count("zero") == 2
    assert not any(name.endswith("zero") for name in state.tensors)
    with torch.device("meta"):
        fresh = Branches()
    path = written(module, "f.safetensors", FEATURES)
    for each in (fresh, blank(module).requires_grad_(False)):
        restored = bnfold.restore(each, path)
        assert not any(tensor.is_meta for tensor in (*restored.parameters(), *restored.buffers()))
        assert torch.allclose(restored(FEATURES), module(FEATURES), atol=1e-5)
    assert not any(parameter.requires_grad for parameter in restored.parameters())


def test_a_layer_in_the_place_of_a_norm_comes_back() -> None:
    before = conv_bn()
    for layer, x in ((nn.Conv2d(4, 4, 3, padding=1, groups=2), X), (nn.Conv2d(4, 4, 1, bias=False), X)):
        after = copy.deepcopy(before)
        after[1] = layer
        with staged_state(folded_state(before, after.eval(), sha256="", version=""), "f.pt", force=True) as file:
            file.publish()
        restored = bnfold.restore(blank(before), "f.pt")
        assert torch.equal(restored(x), after(x))
        assert repr(restored) == repr(after)
        assert all(parameter.requires_grad for parameter in restored.parameters())
    after = copy.deepcopy(before)
    after[1] = nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect")
    with pytest.raises(UnsupportedError, match=r": 1 became a Conv2d\n"):
        folded_state(before, after, sha256="", version="")


def layer(**settings: Any) -> dict[str, Any]:
    sizes = {"kernel_size": [1, 1], "stride": [1, 1], "padding": [0, 0], "dilation": [1, 1]}
    arguments = {"in_channels": 4, "out_channels": 4, "groups": 1} | sizes | settings
    return {"path": "1", "was": "BatchNorm2d", "becomes": "layer", "layer": ["Conv2d", arguments], "dtype": "float32"}


MERGE_LIES: dict[str, dict[str, Any]] = {
    "a layer whose numbers are missing": layer(),
    "a layer larger than memory": layer(in_channels=2**31 - 1, out_channels=2**31 - 1),
    "a layer whose groups do not divide": layer(groups=3),
    "a layer that does not slide": layer(stride=[0, 0]),
    "a layer with a bias that is missing": layer() | {"adds": ["bias"]},
    "a 0 where nothing is": {"path": "9", "was": "BatchNorm2d", "becomes": "zero", "dtype": "float32"},
    "a 0 in the place of numbers": {"path": "0", "was": "Conv2d", "becomes": "zero", "dtype": "float32"},
    "untied where nothing is": {"path": "0", "was": "Conv2d", "becomes": "itself", "unties": ["forward"]},
}


@pytest.mark.parametrize("name", MERGE_LIES)
def test_lies_of_merges_are_refused_and_the_network_left_as_it_is(name: str) -> None:
    lie = MERGE_LIES[name]
    path = lying(lambda r, t: r["changes"].__setitem__(1, lie))
    fresh = blank(conv_bn())
    before, structure = snapshot(fresh), repr(fresh)
    with pytest.raises(InputError) as caught:
        bnfold.restore(fresh, path)
    assert caught.value.exit_code == 3
    assert unchanged(fresh, before, structure)
    with torch.no_grad():
        fresh(X)
