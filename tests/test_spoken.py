"""Messages are written with flags, and callers of Python functions read the names of arguments."""

from __future__ import annotations

import ast
import inspect
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest

import bnfold
from bnfold.spoken import in_python

PACKAGE = Path(bnfold.__file__).parent
ERRORS = {name for name in bnfold.__all__ if name.endswith(("Error", "CheckFailed"))}


@pytest.mark.parametrize(
    ("function", "text", "said"),
    [
        ("convert", "Nothing to say.", "Nothing to say."),
        ("convert", "Pass --force to replace it, or name another output: -o FILE.",
         "Pass force=True to replace it, or name another output: output=FILE."),
        ("convert", "Pass --min-time 1, for example.", "Pass min_time=1, for example."),
        ("convert", "Raise --max-bytes.", "Raise max_bytes."),
        ("convert", "Pass it: --arch pkg.mod:factory or --arch path/file.py:factory.",
         'Pass it: arch="pkg.mod:factory" or arch="path/file.py:factory".'),
        ("convert", "the shape, e.g. --input 1x3x224x224.", 'the shape, e.g. inputs=["1x3x224x224"].'),
        ("verify", "the shape, e.g. --input 1x3x224x224.", "the shape, e.g. inputs=torch.randn(1, 3, 224, 224)."),
        ("bench", "Pass inputs it accepts: --input [NAME:]SHAPE[:DTYPE], or --input-data FILE.",
         "Pass inputs it accepts: inputs."),
        ("verify", "or verify with --verify quick.", 'or verify with level="quick".'),
        ("convert", "--per-site compares inside the models, and --verify off compares nothing",
         'per_site=True compares inside the models, and verify="off" compares nothing'),
        ("convert", "Write it like --arch-arg num_classes=10.", 'Write it like arch_args={"num_classes": "10"}.'),
        ("convert", "--input 'x' names twice", "inputs=['x'] names twice"),
        ("convert", "--input names 'x' twice", "inputs names 'x' twice"),
        ("convert", "Leave out --runtime torch-compile; it needs a compiler.",
         'Leave out runtimes=["torch-compile"]; it needs a compiler.'),
        ("convert", "Give it more: --max-time SECONDS.", "Give it more: isolate=bnfold.Limits(seconds=SECONDS)."),
        ("convert", "--fail-on kept>0: no metric", 'fail_on=["kept>0"]: no metric'),
        ("convert", "--dynamic was given", "dynamic was given"),
        ("convert", "a-name--with-dashes and --", "a-name--with-dashes and --"),
    ],
)  # fmt: skip
def test_a_flag_becomes_an_argument(function: str, text: str, said: str) -> None:
    assert in_python(text, function) == said


NOT_OURS = {"AXIS", "default", "dynamic_shapes", "isolate", "key"}  # placeholders, and arguments of torch.export


def messages() -> Iterator[tuple[str, str]]:
    """Every literal part of an error that is raised, with where it stands; `X1` for what is put in."""
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.is_relative_to(PACKAGE / "cli"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ERRORS):
                continue
            for argument in node.args:
                if isinstance(argument, ast.Constant):
                    yield f"{path.name}:{node.lineno}", str(argument.value)
                elif isinstance(argument, ast.JoinedStr):
                    parts = [str(part.value) if isinstance(part, ast.Constant) else "X1" for part in argument.values]
                    yield f"{path.name}:{node.lineno}", "".join(parts)


def test_no_message_that_python_callers_see_names_a_flag() -> None:
    found = list(messages())
    assert sum("--" in text for _, text in found) > 50
    left = [(where, text) for where, text in found if "--" in in_python(text, "convert").replace("--X1", "")]
    assert not left


def test_every_argument_a_message_names_is_one_of_convert() -> None:
    known = {*inspect.signature(bnfold.convert).parameters, "memory", "seconds", "num_classes"}
    said = {
        name.strip().rpartition(" ")[2].rpartition("(")[2].strip("[\"'")
        for where, text in messages()
        if "--" in text and where.partition(":")[0] not in ("reportfiles.py", "graphs.py")
        for name in in_python(text, "convert").split("=")[:-1]
    }
    assert not {name for name in said if name.isidentifier()} - known - NOT_OURS


@pytest.mark.parametrize("name", ["accuracy", "bench", "convert", "drift", "fold", "restore", "verify"])
def test_public_functions_keep_their_name_and_signature(name: str) -> None:
    function = getattr(bnfold, name)
    assert function.__name__ == name
    assert function.__wrapped__.__doc__ == function.__doc__
    assert inspect.signature(function) == inspect.signature(function.__wrapped__)
    assert pickle.loads(pickle.dumps(function)) is function


def test_a_caller_reads_arguments_and_the_command_line_flags(tmp_path: Path) -> None:
    import torch

    from bnfold.pipeline import line

    weights = tmp_path / "w.pt"
    torch.save({"weight": torch.zeros(2)}, weights)
    with pytest.raises(bnfold.UsageError) as caught:
        bnfold.convert(weights, tmp_path / "out.onnx")
    assert caught.value.hint == ('Pass the code that builds it: arch="pkg.mod:factory" or arch="path/file.py:factory".')
    with pytest.raises(bnfold.UsageError) as caught:
        line.convert(weights, tmp_path / "out.onnx")
    assert caught.value.hint == "Pass the code that builds it: --arch pkg.mod:factory or --arch path/file.py:factory."
    bn = torch.nn.BatchNorm2d(2).eval()
    with pytest.raises(bnfold.UsageError) as caught:
        bnfold.verify(bn, bn)
    assert str(caught.value).endswith("e.g. inputs=torch.randn(1, 3, 224, 224).")
