from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import nn

from bnfold.errors import BnfoldError, InputError, UnsupportedError
from bnfold.loading.weights import WRAPPERS, fill, unwrap


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(OrderedDict(conv=nn.Conv2d(1, 2, 3, bias=False), bn=nn.BatchNorm2d(2)))


def state() -> dict[str, torch.Tensor]:
    return {key: value + 1 for key, value in network().state_dict().items()}


def refusal(raises: type[BnfoldError], call: Any, *args: Any) -> str:
    with pytest.raises(raises) as caught:
        call(*args)
    return str(caught.value)


def test_weights_arrive_and_are_counted() -> None:
    module = network()
    assert fill(module, state(), "m.pt", "arch") == ("state dict: 6 matched, 0 missing, 0 unexpected",)
    assert all(torch.equal(value, state()[key]) for key, value in module.state_dict().items())


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_every_wrapper_is_taken_off(wrapper: str) -> None:
    content, notes = unwrap({wrapper: state(), "epoch": 3}, "m.pt")
    assert set(content) == set(state())
    assert notes == (f"took '{wrapper}' of the checkpoint",)


def test_the_first_of_several_wrappers_is_taken_and_the_others_are_named() -> None:
    _, notes = unwrap({"ema": state(), "model": state()}, "m.pt")
    assert notes == ("took 'model' of the checkpoint (it also holds 'ema')",)


def test_wrappers_nest() -> None:
    content, notes = unwrap({"ema": {"state_dict": state()}}, "m.pt")
    assert set(content) == set(state())
    assert notes == ("took 'ema' of the checkpoint", "took 'state_dict' of the checkpoint")


def test_a_module_under_a_wrapper_is_the_module() -> None:
    module = network()
    assert unwrap({"model": module, "epoch": 3}, "m.pt")[0] is module


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "module.module."]
)
def test_every_prefix_is_taken_off(prefix: str) -> None:
    module = network()
    assert fill(module, {prefix + key: value for key, value in state().items()}, "m.pt", "arch") == (
        "state dict: 6 matched, 0 missing, 0 unexpected",
    )


def test_a_prefix_in_the_middle_is_taken_off() -> None:
    named = {key.replace("bn.", "bn._orig_mod."): value for key, value in state().items()}
    assert fill(network(), named, "m.pt", "arch")[0] == "state dict: 6 matched, 0 missing, 0 unexpected"


def test_a_network_with_a_part_called_module_keeps_its_keys() -> None:
    module = nn.Sequential(OrderedDict(module=nn.Linear(1, 1), weight=nn.Linear(1, 1)))
    assert fill(module, module.state_dict(), "m.pt", "arch")[0] == "state dict: 4 matched, 0 missing, 0 unexpected"


def test_unexpected_keys_are_counted_not_refused() -> None:
    extended = {**state(), "head.weight": torch.zeros(1), "epoch": 3}
    assert fill(network(), extended, "m.pt", "arch") == ("state dict: 6 matched, 0 missing, 2 unexpected",)


def test_a_missing_counter_of_batches_is_fine() -> None:
    without = {key: value for key, value in state().items() if "num_batches" not in key}
    assert fill(network(), without, "m.pt", "arch") == ("state dict: 5 matched, 0 missing, 0 unexpected",)


def test_a_tied_weight_need_not_be_there_twice() -> None:
    module = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    module[1].weight = module[0].weight
    assert fill(module, {"0.weight": torch.ones(2, 2)}, "m.pt", "arch") == (
        "state dict: 1 matched, 0 missing, 0 unexpected",
    )


@pytest.mark.parametrize("key", ["conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var"])
def test_any_missing_weight_is_an_error(key: str) -> None:
    without = {name: value for name, value in state().items() if name != key}
    module = network()
    assert refusal(InputError, fill, module, without, "m.pt", "nets:resnet") == (
        f"error[INPUT]: m.pt lacks 1 of the weights of nets:resnet: '{key}' (5 matched, 1 missing, 0 unexpected)\n"
        "Pass a complete checkpoint, or the --arch and --arch-arg it was trained with."
    )
    assert torch.equal(module.state_dict()["conv.weight"], network().state_dict()["conv.weight"])


def test_no_match_at_all_shows_both_sides() -> None:
    other = {f"body.{index}.weight": torch.zeros(1) for index in range(7)}
    assert refusal(InputError, fill, network(), other, "m.pt", "nets:resnet") == (
        "error[INPUT]: no key of m.pt is one of nets:resnet: the file has 'body.0.weight', 'body.1.weight', "
        "'body.2.weight', 'body.3.weight', 'body.4.weight' and 2 more, the network 'conv.weight', 'bn.weight', "
        "'bn.bias', 'bn.running_mean', 'bn.running_var' and 1 more\n"
        "Pass the --arch this checkpoint was trained with."
    )


@pytest.mark.parametrize(
    ("value", "stored"),
    [(torch.zeros(2, 3, 3, 3), "2x3x3x3"), (torch.zeros(2, 1, 3, 3, dtype=torch.int8), "2x1x3x3 int8")],
)
def test_a_weight_that_does_not_fit_names_both_kinds(value: torch.Tensor, stored: str) -> None:
    assert refusal(InputError, fill, network(), {**state(), "conv.weight": value}, "m.pt", "nets:resnet") == (
        f"error[INPUT]: 'conv.weight' is {stored} in m.pt and 2x1x3x3 in nets:resnet\n"
        "Pass the --arch and --arch-arg this checkpoint was trained with."
    )


def test_one_weight_under_two_spellings_is_refused() -> None:
    both = {**state(), "module.conv.weight": torch.zeros(2, 1, 3, 3)}
    assert refusal(InputError, fill, network(), both, "m.pt", "arch") == (
        "error[INPUT]: m.pt holds 'conv.weight' twice: as 'conv.weight' and as 'module.conv.weight'\n"
        "Save only one of the two."
    )


def test_a_conversion_of_the_width_is_noted() -> None:
    half = {key: value.half() if value.is_floating_point() else value for key, value in state().items()}
    assert fill(network(), half, "m.pt", "arch") == (
        "state dict: 6 matched, 0 missing, 0 unexpected",
        "weights stored as float16 are used as float32",
    )


def test_a_network_on_the_meta_device_takes_the_weights_themselves() -> None:
    with torch.device("meta"):
        module = network()
    fill(module, state(), "m.pt", "arch")
    assert torch.equal(module.state_dict()["conv.weight"], state()["conv.weight"])


def test_lazy_layers_take_their_shape_from_the_weights() -> None:
    module = nn.Sequential(nn.LazyLinear(2))
    fill(module, {"0.weight": torch.ones(2, 5), "0.bias": torch.ones(2)}, "m.pt", "arch")
    assert module(torch.ones(1, 5)).tolist() == [[6.0, 6.0]]


def test_a_module_that_refuses_its_weights_is_quoted() -> None:
    class Picky(nn.Linear):
        def _load_from_state_dict(self, *args: Any) -> None:
            raise RuntimeError("version 2 is needed")

    assert refusal(InputError, fill, Picky(1, 1), Picky(1, 1).state_dict(), "m.pt", "arch") == (
        "error[INPUT]: m.pt does not load into arch: version 2 is needed\n"
        "Pass the --arch this checkpoint was trained with."
    )


@pytest.mark.parametrize(("content", "kind"), [([1, 2], "list"), (torch.zeros(2), "Tensor"), (3, "int")])
def test_something_else_than_weights(content: object, kind: str) -> None:
    assert refusal(UnsupportedError, unwrap, content, "m.pt") == (
        f"error[UNSUPPORTED]: m.pt holds an object of type {kind}, neither a state dict nor a module\n"
        "Save model.state_dict() and pass --arch."
    )


def test_a_dictionary_without_weights() -> None:
    assert refusal(UnsupportedError, unwrap, {"epoch": 3, "weights": {}}, "m.pt") == (
        "error[UNSUPPORTED]: m.pt holds no weights; its keys are 'epoch', 'weights'\n"
        "Put the state dict at the top, or under one of: "
        "model, state_dict, model_state_dict, ema, model_ema, state_dict_ema, net."
    )


def test_names_from_the_file_are_printable() -> None:
    with pytest.raises(UnsupportedError) as caught:
        unwrap({"\x1b[31mred\u202e": 1}, "m.pt")
    assert "its keys are '\N{REPLACEMENT CHARACTER}[31mred\N{REPLACEMENT CHARACTER}'" in str(caught.value)
