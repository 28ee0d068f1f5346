"""The house rules: imports point down, the low floors stay light, `import bnfold` is fast, files stay short."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import bnfold

PACKAGE = Path(bnfold.__file__).resolve().parent

FLOORS = [  # a package has the floor of its name; a module whose own name stands here, its own
    {"errors", "reasons", "wording", "fragment", "heap", "interrupts", "quiet", "specs", "spoken"},
    {"units.affine", "units.layout", "units.window"},
    {"units.graph", "units.system", "units.blocks"},
    {"units.laws"},
    {"units", "branches"},
    {"planning"},
    {"frontends"},
    {"certificate", "recipes"},
    {"loading"},
    {"writing"},
    {"data"},
    {"tracing"},
    {"running"},
    {"float64"},
    {"verification", "evaluation", "benchmark", "statistics"},
    {"reporting"},
    {"pipeline"},
    {"cli"},
    {"__init__", "__main__"},
]
LIGHT_FLOORS = 6
HEAVY = {"torch", "onnx", "onnx_ir", "onnxscript", "onnxruntime"}

MAX_LINES = 250
LONGER_BECAUSE = {
    "branches/search.py": "one search; how far a branch goes, and which are merged, are read together",
    "certificate/taps.py": "one data structure: what it reads, sums of it, and when two are the same",
    "certificate/walk.py": "one walk; each way in which an operator is found or not is next to the others",
    "cli/app.py": "one function per command, which lists its flags",
    "cli/options.py": "every flag of the command line, one definition each",
    "float64/evaluator.py": "one walk over a graph; what it does with values and with bodies is read together",
    "float64/structure.py": "one short function per operator that moves elements",
    "frontends/aten/edits.py": "one short method per kind of operator",
    "frontends/aten/readers.py": "one short reader per operator, and the table of all of them",
    "frontends/aten/structure.py": "one short reader per operator that moves elements",
    "frontends/linear.py": "one reader per operator with constant weights; how a window slides is read with them",
    "frontends/modules/map.py": "one walk over the edits; each way a module cannot hold one is next to the others",
    "frontends/modules/merge.py": "one choice of what becomes of which module, and the conditions on it",
    "frontends/readers.py": "one short reader per operator, and the table of all of them",
    "frontends/rewrite.py": "one short rewrite per kind of operator",
    "loading/load.py": "the one file that opens files; each kind is next to the others",
    "loading/onnxfile.py": "one format, from bytes to a model; every check of it is next to the others",
    "pipeline/line.py": "one function per command, most lines say what its arguments mean",
    "recipes/recipe.py": "the vocabulary, and the one reader that holds files to it",
    "reporting/page/sections.py": "one short function per section of the page",
    "reporting/render.py": "one short function per section of the report",
    "running/runners.py": "one class per runtime, and the forms of a model it opens",
    "running/subjects.py": "the two kinds of subject, and every form they are opened from",
    "units/affine.py": "the arithmetic of units; what is rounded, and how, is read in one place",
    "units/blocks.py": "one algorithm",
    "units/graph.py": "one class per kind of operator, most lines say what its fields mean",
    "units/laws.py": "one law per kind of operator; the theory is read in one place",
    "units/layout.py": "one data structure and the rearrangements of it",
    "units/solver.py": "one search; its state and its steps back belong together",
    "verification/verify.py": "one judgement; each way to fail is next to the others",
}


def module_names(package: Path) -> dict[str, Path]:
    """Every module of the package by its dotted name inside it: `solver`, `frontends.onnx`, `__init__`."""
    names = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        names[".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)] = path
    return names


def floor_of(module: str) -> int | None:
    """The floor of the module's own name, or else that of the package it lies in."""
    floors = {name: number for number, floor in enumerate(FLOORS) for name in floor}
    return floors.get(module, floors.get(module.split(".")[0]))


def imports(path: Path, module: str, modules: dict[str, Path]) -> Iterator[tuple[int, str]]:
    """Line and full name of everything a file imports, at the top or inside a function."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = ["bnfold", *module.split(".")[: -1 if path.name != "__init__.py" else None]]
                package = package[: len(package) - node.level + 1]
                base = ".".join([*package, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield node.lineno, inner if inner.removeprefix("bnfold.") in modules else base


def problems(package: Path) -> list[str]:
    """What breaks the rules, as `file:line: words`."""
    modules = module_names(package)
    found: list[str] = []
    edges: dict[str, set[str]] = {}
    for module, path in modules.items():
        here = floor_of(module)
        if here is None:
            found.append(f"{path.name}:1: has no floor; give it one in test_architecture.py and in docs/structure.md")
            continue
        edges[module] = set()
        for line, name in imports(path, module, modules):
            root, _, inside = name.partition(".")
            if root == "bnfold":
                target = inside if inside in modules else "__init__"
                edges[module].add(target)
                there = floor_of(target)
                if there is not None and there > here:
                    found.append(f"{path.name}:{line}: floor {here} imports {target} from floor {there}")
            elif here < LIGHT_FLOORS and root != "numpy" and root not in sys.stdlib_module_names:
                found.append(f"{path.name}:{line}: floor {here} imports {root}; below {LIGHT_FLOORS} only numpy")
    return found + [f"import cycle: {' → '.join(cycle)}" for cycle in cycles(edges)]


def cycles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Import cycles, each reported once, from the module that comes first in the alphabet."""
    found = []

    def walk(start: str, path: list[str]) -> None:
        for target in sorted(edges.get(path[-1], ())):
            if target == start:
                found.append([*path, start])
            elif target > start and target not in path:
                walk(start, [*path, target])

    for start in sorted(edges):
        walk(start, [start])
    return found


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)


def test_imports_point_down() -> None:
    assert problems(PACKAGE) == []


def rooms(page: str) -> dict[str, tuple[int, str]]:
    """What a page of the documentation says of every package: its floor, and what it is for."""
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \| (.+) \|$", page, re.MULTILINE)
    return {room: (int(floor), purpose) for floor, room, purpose in rows}


def test_the_documented_floors_are_those_that_are_checked() -> None:
    documented = rooms((PACKAGE.parent / "docs/structure.md").read_text(encoding="utf-8"))
    packages = {path.parent.name: path for path in PACKAGE.glob("*/__init__.py")}
    assert set(documented) == set(packages)
    for name, (floor, purpose) in documented.items():
        assert floor == floor_of(name), name
        assert (ast.get_docstring(ast.parse(packages[name].read_text(encoding="utf-8"))) or "").startswith(purpose), (
            name
        )


def test_every_file_of_the_floor_plan_that_exists_is_known() -> None:
    assert {"errors", "units.affine", "units.graph", "units.laws", "units.solver", "planning.plan"} <= set(
        module_names(PACKAGE)
    )


@pytest.mark.parametrize(
    ("file", "source", "expected"),
    [
        (
            "units/graph.py",
            "from bnfold.planning.plan import Plan\n",
            "graph.py:1: floor 2 imports planning.plan from floor 5",
        ),
        (
            "units/graph.py",
            "def late():\n    from bnfold.planning import plan\n",
            "graph.py:2: floor 2 imports planning.plan from floor 5",
        ),
        ("units/graph.py", "from .laws import law\n", "graph.py:1: floor 2 imports units.laws from floor 3"),
        ("units/graph.py", "from . import laws\n", "graph.py:1: floor 2 imports units.laws from floor 3"),
        ("units/graph.py", "from bnfold import fold\n", "graph.py:1: floor 2 imports __init__ from floor 18"),
        (
            "units/scales.py",
            "from ..planning.plan import x\n",
            "scales.py:1: floor 4 imports planning.plan from floor 5",
        ),
        ("planning/plan.py", "import bnfold.cli\n", "plan.py:1: floor 5 imports cli from floor 17"),
        ("units/laws.py", "import torch\n", "laws.py:1: floor 3 imports torch; below 6 only numpy"),
        ("planning/plan.py", "import onnx.helper as h\n", "plan.py:1: floor 5 imports onnx; below 6 only numpy"),
        ("clever.py", "", "clever.py:1: has no floor; give it one in test_architecture.py and in docs/structure.md"),
        ("units/affine.py", "import bnfold.units.layout\n", "import cycle: units.affine → units.layout → units.affine"),
    ],
)
def test_the_check_finds_what_is_wrong(tmp_path: Path, file: str, source: str, expected: str) -> None:
    for package in ("units", "planning", "cli"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("")
    for name in ("__init__", "units/affine", "units/laws"):
        (tmp_path / f"{name}.py").write_text("")
    (tmp_path / "planning/plan.py").write_text("import json\nimport numpy.typing as npt\n")
    (tmp_path / "units/layout.py").write_text("from bnfold.units.affine import x\n")
    assert problems(tmp_path) == []
    (tmp_path / file).write_text(source)
    assert problems(tmp_path) == [expected]


@pytest.mark.parametrize(
    "code",
    [
        "import bnfold",
        "import sys; sys.argv = ['bnfold', '--help']; from bnfold.cli.app import main; main()",
        "import bnfold.errors, bnfold.reasons, bnfold.planning.plan, bnfold.units.solver",
    ],
    ids=["import", "help", "low-floors"],
)
def test_it_loads_neither_torch_nor_onnxruntime(code: str) -> None:
    probe = f"""
import sys
try:
    {code}
except SystemExit as stop:
    assert not stop.code, stop.code
finally:
    print("LOADED", *sorted({HEAVY!r} & set(sys.modules)), file=sys.stderr)
"""
    result = run_python(probe)
    assert result.returncode == 0, result.stderr
    assert result.stderr.splitlines()[-1] == "LOADED"


def test_the_light_import_check_can_fail() -> None:
    result = run_python(f"import sys, onnx_ir; print(sorted({HEAVY!r} & set(sys.modules)))")
    assert "onnx_ir" in result.stdout


def test_all_is_complete_and_resolves() -> None:
    contract = {"fold", "verify", "bench", "convert", "Site", "Plan", "Reason", "BnfoldError"}
    assert contract <= set(bnfold.__all__)
    assert len(set(bnfold.__all__)) == len(bnfold.__all__)
    for name in bnfold.__all__:
        assert getattr(bnfold, name) is not None
    assert set(bnfold.__all__) <= set(dir(bnfold))


def test_public_names_are_not_hidden_by_submodules_of_the_same_name() -> None:
    names = [name for name in module_names(PACKAGE) if name != "__main__"]
    code = f"""
import importlib, json
for name in {names!r}:
    importlib.import_module("bnfold" if name == "__init__" else "bnfold." + name)
import bnfold
print(json.dumps([name for name in ("fold", "verify", "bench", "convert") if not callable(getattr(bnfold, name))]))
"""
    result = run_python(code)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout.splitlines()[-1]) == []


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        name for name, path in module_names(PACKAGE).items() if not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert silent == []


def too_long(package: Path, argued: dict[str, str]) -> dict[str, int]:
    lengths = {
        path.relative_to(package).as_posix(): len(path.read_text().splitlines()) for path in package.rglob("*.py")
    }
    return {name: lines for name, lines in lengths.items() if lines > MAX_LINES and name not in argued}


def test_files_are_one_idea_long() -> None:
    assert too_long(PACKAGE, LONGER_BECAUSE) == {}, "split the file, or argue in LONGER_BECAUSE"


def test_no_argument_outlives_its_file() -> None:
    assert [name for name in LONGER_BECAUSE if name not in too_long(PACKAGE, {})] == []


def test_the_length_check_can_fail(tmp_path: Path) -> None:
    (tmp_path / "long.py").write_text("x = 1\n" * (MAX_LINES + 1))
    (tmp_path / "argued.py").write_text("x = 1\n" * (MAX_LINES + 1))
    (tmp_path / "short.py").write_text("x = 1\n" * MAX_LINES)
    assert too_long(tmp_path, {"argued.py": "a table"}) == {"long.py": MAX_LINES + 1}


def test_the_package_says_it_is_typed() -> None:
    assert (PACKAGE / "py.typed").is_file()


def test_bnfold_is_imported_from_this_tree() -> None:
    spec = importlib.util.find_spec("bnfold")
    assert spec is not None
    assert Path(str(spec.origin)).resolve().parent.parent == Path(__file__).resolve().parent.parent
