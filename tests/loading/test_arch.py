from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from bnfold.errors import UsageError
from bnfold.loading.arch import build, parse_arch_args
from bnfold.loading.libraries import nearest

SOURCE = """
from dataclasses import dataclass

import torch
from helper_beside_it import WIDTH

print("a network is being defined")

@dataclass
class Config:
    width: int

class Net(torch.nn.Linear):
    pass

def net(width=WIDTH, kind="linear"):
    import helper_beside_it
    return Net(Config(width).width, 2) if kind == "linear" else torch.nn.Conv2d(width, 2, 1)

def broken():
    raise RuntimeError("weights not found\\nsecond line")

def leaving():
    raise SystemExit(3)

number = 3
instance = Net(1, 1)

class Family:
    member = net
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "arch_code.py").write_text(SOURCE)
    (tmp_path / "helper_beside_it.py").write_text("WIDTH = 4\n")
    (tmp_path / "failing_code.py").write_text("import module_that_does_not_exist\n")
    (tmp_path / "syntax_code.py").write_text("def net(:\n")
    monkeypatch.chdir(tmp_path)
    modules = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - modules:
        if name.startswith("_bnfold_arch_") or name in ("arch_code", "helper_beside_it"):
            del sys.modules[name]


def refusal(arch: str, **arguments: str) -> str:
    with pytest.raises(UsageError) as caught:
        build(arch, arguments)
    return str(caught.value)


@pytest.mark.parametrize("arch", ["arch_code:net", "arch_code.py:net", "arch_code:Family.member", "./arch_code.py:net"])
def test_a_module_or_a_file_builds_the_network_in_evaluation_mode(here: Path, arch: str) -> None:
    path = list(sys.path)
    built = build(arch)
    assert type(built).__name__ == "Net"
    assert built.in_features == 4
    assert not built.training
    assert sys.path == path


def test_a_file_elsewhere_finds_its_neighbours(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    assert build(f"{here}/arch_code.py:net").in_features == 4


def test_arguments_are_python_literals_or_text(here: Path) -> None:
    built = build("arch_code.py:net", {"width": "6", "kind": "conv"})
    assert isinstance(built, torch.nn.Conv2d)
    assert built.in_channels == 6


def test_an_instance_is_a_network_too(here: Path) -> None:
    assert build("arch_code.py:instance").in_features == 1


def test_what_the_code_prints_does_not_mix_with_results(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build("arch_code.py:net")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "a network is being defined\n"


def test_arch_arguments_read_as_key_and_value() -> None:
    assert parse_arch_args(["num_classes=10", "name=a=b"]) == {"num_classes": "10", "name": "a=b"}
    with pytest.raises(UsageError) as caught:
        parse_arch_args(["num_classes"])
    assert str(caught.value) == (
        "error[USAGE]: --arch-arg 'num_classes' is not key=value\nWrite it like --arch-arg num_classes=10."
    )


def test_a_file_alone_says_what_it_defines(here: Path) -> None:
    assert refusal("arch_code.py") == (
        "error[USAGE]: --arch 'arch_code.py' names no factory\n"
        "Pass --arch arch_code.py:NAME. It defines Config, Net, net, broken, leaving, Family."
    )


@pytest.mark.parametrize("arch", ["arch_code", ":net", "arch_code:", ""])
def test_no_factory_is_named(here: Path, arch: str) -> None:
    assert refusal(arch) == (
        f"error[USAGE]: --arch {arch!r} names no factory\n"
        "Write it as pkg.mod:factory, path/file.py:factory, timm:NAME or torchvision:NAME."
    )


def test_no_such_module(here: Path) -> None:
    assert refusal("no_such.module:net") == (
        "error[USAGE]: --arch no_such.module:net: no module named 'no_such.module'\n"
        "Run from the folder that holds it, install it, or name its file: path/file.py:factory."
    )


def test_no_such_file(here: Path) -> None:
    assert refusal("nets/arch_code.py:net") == (
        "error[USAGE]: --arch nets/arch_code.py:net: there is no file nets/arch_code.py\nCheck the path."
    )


def test_no_such_attribute(here: Path) -> None:
    assert refusal("arch_code.py:nets") == (
        "error[USAGE]: --arch arch_code.py:nets: arch_code.py has no 'nets'\n"
        "It defines net, Config, Family, Net, broken, dataclass, instance, leaving."
    )


@pytest.mark.parametrize(
    ("arch", "doing", "said"),
    [
        ("arch_code.py:broken", "calling it", "RuntimeError: weights not found"),
        ("arch_code.py:leaving", "calling it", "SystemExit: 3"),
        (
            "failing_code.py:net",
            "importing failing_code.py",
            "ModuleNotFoundError: No module named 'module_that_does_not_exist'",
        ),
        (
            "failing_code:net",
            "importing failing_code",
            "ModuleNotFoundError: No module named 'module_that_does_not_exist'",
        ),
        ("syntax_code.py:net", "importing syntax_code.py", "SyntaxError: invalid syntax (syntax_code.py, line 1)"),
    ],
)
def test_code_that_fails_is_quoted(here: Path, arch: str, doing: str, said: str) -> None:
    assert refusal(arch) == (
        f"error[USAGE]: --arch {arch}: {doing} raised {said}\n"
        "Make that code work on its own first; pass what it needs by --arch-arg key=value."
    )


def test_an_argument_the_factory_does_not_take(here: Path) -> None:
    assert refusal("arch_code.py:net", depth="3") == (
        "error[USAGE]: --arch arch_code.py:net takes no argument 'depth'\n"
        "Did you mean --arch-arg width=3? It takes width=4, kind='linear'."
    )


def test_something_that_is_not_a_network(here: Path) -> None:
    assert refusal("arch_code.py:number") == (
        "error[USAGE]: --arch arch_code.py:number is an object of type int, not a factory\nName a function or a class."
    )
    assert refusal("builtins:dict") == (
        "error[USAGE]: --arch builtins:dict built an object of type dict, not a torch.nn.Module\nName another factory."
    )


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_a_library_that_is_not_installed(monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    class Absent:
        def find_spec(self, name: str, *_: object) -> None:
            if name.split(".")[0] == library:
                raise ModuleNotFoundError(f"No module named {library!r}", name=library)

    for name in [name for name in sys.modules if name.split(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Absent(), *sys.meta_path])
    assert refusal(f"{library}:resnet18") == (
        f"error[USAGE]: --arch {library}:resnet18 needs {library}, which is not installed\npip install {library}"
    )


@pytest.fixture
def libraries(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    """Modules in the place of timm and torchvision that know three networks."""
    known = ["resnet18", "resnet34", "alexnet"]

    def maker(name: str, **arguments: object) -> torch.nn.Module:
        if name.partition(".")[0] not in known:
            raise RuntimeError(f"Unknown model ({name})")
        if "depth" in arguments:
            raise TypeError("unexpected keyword argument 'depth'")
        return torch.nn.Linear(1, 1)

    timm, torchvision, models = ModuleType("timm"), ModuleType("torchvision"), ModuleType("torchvision.models")
    timm.create_model, models.get_model, torchvision.models = maker, maker, models
    timm.list_models = models.list_models = lambda: known
    for module in (timm, torchvision, models):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return {"timm": timm, "torchvision": models}


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_a_misspelt_network_is_answered_with_the_nearest_names(libraries: dict[str, ModuleType], library: str) -> None:
    assert refusal(f"{library}:resnet81") == (
        f"error[USAGE]: --arch {library}:resnet81: {library} has no 'resnet81'\nIt has resnet18, resnet34, alexnet."
    )


def test_a_library_that_does_not_list_its_networks_is_quoted(libraries: dict[str, ModuleType]) -> None:
    del libraries["timm"].list_models
    assert refusal("timm:resnet81") == (
        "error[USAGE]: --arch timm:resnet81: calling it raised RuntimeError: Unknown model (resnet81)\n"
        "Make that code work on its own first; pass what it needs by --arch-arg key=value."
    )


def test_a_known_network_with_a_wrong_argument_is_no_misspelling(libraries: dict[str, ModuleType]) -> None:
    assert isinstance(build("timm:resnet18.a1_in1k"), torch.nn.Linear)
    assert "calling it raised TypeError: unexpected keyword argument 'depth'" in refusal("timm:resnet18.a1", depth="3")


def test_the_nearest_names_come_first_then_the_alphabet() -> None:
    names = [f"net{letter}" for letter in "zyxwvutsrqponmlkjihg"]
    found = nearest("netz", names)
    assert found[0] == "netz"
    assert len(found) == 12
    assert found[6:] == sorted(set(names) - set(found[:6]))[:6]
    assert nearest("quite different", ["b", "a"]) == ["a", "b"]


def test_timm_and_torchvision_build_without_downloading_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def maker(name: str, **arguments: object) -> torch.nn.Module:
        asked.append((name, arguments))
        return torch.nn.Linear(1, 1)

    timm, torchvision, models = ModuleType("timm"), ModuleType("torchvision"), ModuleType("torchvision.models")
    timm.create_model, models.get_model, torchvision.models = maker, maker, models
    for module in (timm, torchvision, models):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    build("timm:resnet18", {"num_classes": "10"})
    build("torchvision:resnet18")
    assert asked == [
        ("resnet18", {"pretrained": False, "num_classes": 10}),
        ("resnet18", {"weights": None}),
    ]
