"""Every command and every piece of code in README and docs runs to the letter, page by page, in a fresh clone."""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from pathlib import Path

import pytest
from pages_run import NOT_RUN, PAGES, ROOT, Block, blocks, clone, commands, prints, run, written

DIRECTIVES = ("{toctree}", "{include}", "{eval-rst}")  # of the site
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh clone, which one page may fill."""
    folder = tmp_path / "clone"
    clone(folder)
    monkeypatch.setenv("COLUMNS", "140")
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    for name in [name for name in sys.modules if name.split(".")[0] in ("architectures", "models")]:
        monkeypatch.delitem(sys.modules, name)
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
    assert {kind.split()[0] if kind else "" for kind in kinds} <= {"console", "sh", "python", *DIRECTIVES, *NOT_RUN}


@pytest.mark.parametrize("name", NAMES)
def test_no_command_hides_where_it_is_not_run(name: str) -> None:
    not_run = "".join(block.text for block in blocks(ROOT / name) if block.kind.split()[:1] in [[k] for k in NOT_RUN])
    indented = re.findall(r"^ {4}(\w+ .*)$", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE)
    for line in [*not_run.splitlines(), *indented]:
        assert not line.startswith(("$ ", "bnfold ", "python examples")), f"{name}: {line}"


def test_no_page_stands_in_the_way_of_another() -> None:
    """bnfold does not replace a file unasked, so that a page which writes what another one wrote would fail there."""
    made = [(file, name) for name in NAMES for file in {f for b in blocks(ROOT / name) for f in written(b)}]
    twice = [file for file, count in Counter(file for file, _ in made).items() if count > 1]
    assert len(made) > 20
    assert not twice, [(file, name) for file, name in made if file in twice]


def test_what_a_block_writes_is_seen() -> None:
    assert written(Block("console", "$ bnfold convert a/b.pt --arch x:y\n$ bnfold convert a.onnx -o b.onnx\n", 1)) == {
        "a/b.folded.onnx",
        "b.onnx",
    }
    assert not written(Block("console", "$ bnfold convert a.onnx -o b.onnx --force\n$ bnfold inspect a.onnx\n", 1))
    assert written(Block("python", 'bnfold.convert(\n    "a.pt",\n    "b.onnx",\n    arch="c:d",\n)\n', 1)) == {
        "b.onnx"
    }


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of torch.export, about itself
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.onnx, about itself
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", [n for n in NAMES if {b.kind for b in blocks(ROOT / n)} & {"console", "sh", "python"}])
def test_what_a_page_shows_is_so(name: str, scene: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program: dict[str, object] = {"__name__": "page"}
    output = ""
    for block in blocks(ROOT / name):
        if block.kind == "python":
            monkeypatch.chdir(scene)
            before = os.getcwd()
            exec(compile("\n" * block.line + block.text, name, "exec"), program)
            os.chdir(before)
        if block.kind == "text output":
            said = block.text.splitlines()
            assert not prints(said, output), f"{name}:{block.line}: {prints(said, output)!r} is not in\n{output}"
        for command, said in commands(block) if block.kind in ("console", "sh") else ():
            code, output = run(command, scene)
            assert code == 0, f"{name}:{block.line}: {command}\n{output}"
            assert not prints(said, output), f"{name}:{block.line}: {prints(said, output)!r} is not in\n{output}"
