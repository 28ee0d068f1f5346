"""Memory on large models, with a smaller one and a lower threshold; scripts/huge.py has one of 3 GB."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import pytest

from bnfold.loading.load import load
from large.models import Large, make, measured

LARGER_BY = 3_531_000_000 / 300_000_000  # how much larger the model is that the promise is about
ROOM_BYTES = 200_000_000  # the interpreter and the libraries, which do not shrink with the model

PROGRAM = """
import sys
from bnfold import __main__
from bnfold.running import runners
from bnfold.writing import spill
from bnfold.float64 import evaluator
threshold = int(sys.argv.pop(1))
for module in (spill, evaluator):
    module.LARGE_BYTES = threshold
sys.exit(__main__.main())
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Large:
    return make(tmp_path_factory.mktemp("large") / "in.onnx", width=1500, layers=22, wide=9000)


def convert(model: Large, threshold: int, *arguments: str) -> tuple[int, str, Path]:
    out = model.path.with_name(f"out{threshold}.onnx")
    command = [sys.executable, "-c", PROGRAM, str(threshold), "convert", str(model.path), "-o", str(out), "--force"]
    taken = measured([*command, "--external-data", "always", *arguments])
    assert taken.code == 0, taken.said
    return taken.peak, taken.said, out


def test_new_weights_are_not_all_in_memory_and_are_the_same(model: Large) -> None:
    assert model.bytes > 280_000_000
    kept, said, out = convert(model, 1_000_000, "--verify", "off")
    held, _, other = convert(model, 10**12, "--verify", "off")
    assert f"{model.batch_norms} BatchNorms → 0" in said
    assert kept <= 1.5 * model.largest + 1_000_000_000 / LARGER_BY + ROOM_BYTES
    assert held - kept > model.bytes / 2
    [data], [other_data] = (path.parent.glob(f"{path.name}.*.data") for path in (out, other))
    assert data.read_bytes() == other_data.read_bytes()


def test_a_model_of_many_tensors_takes_few_file_descriptors(tmp_path: Path) -> None:
    many = make(tmp_path / "many.onnx", width=16, layers=60, wide=16)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
    try:
        opened = load(many.path).model
        values = list(opened.graph.initializers.values())  # type: ignore[attr-defined]
        arrays = [value.const_value.numpy() for value in values]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(arrays) > 400
