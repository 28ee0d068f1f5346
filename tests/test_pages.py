"""Every command and every piece of code in README and docs runs, in a folder that holds what they speak of."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
from pages_run import NOT_RUN, PAGES, ROOT, Block, blocks, commands, furnish, prints, run

DIRECTIVES = ("{toctree}", "{include}", "{eval-rst}")  # of the site
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("furnished")
    furnish(folder)
    return folder


@pytest.fixture
def scene(furnished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the furnished folder, which one page may fill."""
    folder = tmp_path / "scene"
    shutil.copytree(furnished, folder)
    monkeypatch.setenv("COLUMNS", "140")
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    for name in ("architectures", "mypackage", "mypackage.nets"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return folder


def test_a_line_that_is_not_printed_is_noticed() -> None:
    output = "first   line\nsecond\nthird 0.41 ms\n"
    assert not prints(["first line", "third ... ms"], output)
    assert prints(["second", "first line"], output) == "first line"
    assert prints(["third 0.4 ms"], output) == "third 0.4 ms"


def test_a_block_holds_commands_and_what_they_print() -> None:
    block = Block("console", "$ one \\\n    --flag\nsaid\n$ two # why\n", 1)
    assert list(commands(block)) == [("one      --flag", ["said"]), ("two # why", [])]


@pytest.mark.parametrize("name", NAMES)
def test_every_block_says_what_it_is(name: str) -> None:
    kinds = {block.kind for block in blocks(ROOT / name)}
    assert {kind.split()[0] if kind else "" for kind in kinds} <= {"console", "python", *DIRECTIVES, *NOT_RUN}


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of torch.export, about itself
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.onnx, about itself
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", [n for n in NAMES if {b.kind for b in blocks(ROOT / n)} & {"console", "python"}])
def test_what_a_page_shows_is_so(name: str, scene: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program: dict[str, object] = {"__name__": "page"}
    for block in blocks(ROOT / name):
        if block.kind == "python":
            monkeypatch.chdir(scene)
            before = os.getcwd()
            exec(compile("\n" * block.line + block.text, name, "exec"), program)
            os.chdir(before)
        if block.kind != "console":
            continue
        for command, said in commands(block):
            code, output = run(command, scene)
            assert code == 0, f"{name}:{block.line}: {command}\n{output}"
            assert not prints(said, output), f"{name}:{block.line}: {prints(said, output)!r} is not in\n{output}"
