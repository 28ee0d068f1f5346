"""The report as data: the JSON is the contract's, and nothing that was not measured has a number."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import FrozenInstanceError
from pathlib import Path

import onnx
import onnx_ir
import pytest
import reports
import tiny

from bnfold.benchmark.latency import Timing
from bnfold.loading.onnxfile import stored_bytes
from bnfold.reporting.report import FileInfo, Report, environment, version


def test_the_json_is_the_contracts() -> None:
    made = reports.report().to_dict()
    assert list(made) == [
        *("schema", "bnfold", "command", "passed", "failures", "conditions", "source", "output", "rejected"),
        *("counts", "sites", "affines", "operators", "verification", "benchmark"),
        *("accuracy", "drift", "recalibration", "notes", "environment"),
    ]
    assert made["schema"] == 1
    assert made["source"] == {"path": "model.pt", "format": "state-dict", "sha256": "aa"}
    assert made["output"] == {"path": "model.onnx", "sha256": "bb"}
    assert made["counts"] == {
        "batch_norms": 3,
        "folded": 1,
        "merged": 1,
        "kept": 1,
        "affines": 1,
        "affines_folded": 1,
        "nodes_before": 8,
        "nodes_after": 5,
        "bytes_before": 2048,
        "bytes_after": 1024,
    }
    assert made["sites"][0] == {
        "name": "bn1",
        "op": "BatchNormalization",
        "status": "folded",
        "into": ["conv1", "conv2"],
        "reason": None,
    }
    assert made["sites"][2]["reason"] == {
        "code": "ZERO-PAD",
        "text": "the only absorber pads with zeros and the shift has nowhere else to go",
    }
    assert made["verification"]["outputs"][0] == {
        "name": "y",
        "max_abs": 1e-6,
        "rel": 2.5e-7,
        "error_before": None,
        "error_after": None,
        "ratio": None,
    }
    row = made["benchmark"]["rows"][0]
    assert (row["speedup"], row["low"], row["high"]) == (1.25, 1.2, 1.3)
    json.dumps(made, allow_nan=False)


def test_folded_merged_and_kept_add_up() -> None:
    counts = reports.report().counts()
    assert counts["folded"] + counts["merged"] + counts["kept"] == counts["batch_norms"]


def test_what_was_not_done_is_null() -> None:
    bare = Report("bench", FileInfo("m.onnx", "aa"), operators_before={"Relu": 2}, environment={})
    made = bare.to_dict()
    assert (made["output"], made["verification"], made["benchmark"], made["sites"]) == (None, None, None, [])
    unknown = {key for key, value in made["counts"].items() if value is None}
    assert unknown == {
        *("folded", "merged", "kept", "affines", "affines_folded", "nodes_after", "bytes_before", "bytes_after"),
    }
    assert made["counts"]["batch_norms"] == 0


@pytest.mark.parametrize(
    ("changes", "passed"),
    [
        ({}, True),
        ({"verification": None}, True),
        ({"verification": reports.FAILED}, False),
        ({"failures": ("--fail-on kept>0: kept is 1",)}, False),
        ({"verification": reports.FAILED, "failures": ("x",)}, False),
        ({"benchmark": Timing((), 1)}, True),
    ],
)
def test_a_report_passed_if_nothing_failed(changes: dict[str, object], passed: bool) -> None:
    assert reports.report(**changes).passed is passed


def test_a_report_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        reports.report().notes = ()


def test_a_file_is_known_by_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"x" * 3_000_000)
    assert FileInfo.of(path) == FileInfo(str(path), hashlib.sha256(b"x" * 3_000_000).hexdigest(), "onnx")


def test_the_size_of_a_file_counts_its_external_data(tmp_path: Path) -> None:
    onnx.save(tiny.conv_bn(), tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    model = onnx_ir.load(str(tmp_path / "m.onnx"))
    sizes = [(tmp_path / name).stat().st_size for name in ("m.onnx", "m.data")]
    assert stored_bytes(model, tmp_path / "m.onnx") == sum(sizes)
    assert sizes[1] > 400


def test_the_size_of_a_model_in_no_file_is_that_of_the_file_it_would_be() -> None:
    proto = tiny.conv_bn()
    model = onnx_ir.from_proto(proto)
    assert stored_bytes(model, None) == len(onnx_ir.to_proto(model).SerializeToString())


def test_the_environment_is_named_without_importing_it() -> None:
    made = environment()
    assert set(made) == {"python", "platform", "cpu", "cores", "packages"}
    assert made["packages"]["onnxruntime"]
    code = "import sys; from bnfold.reporting.report import environment; environment(); print('torch' in sys.modules)"
    root = str(Path(__file__).resolve().parents[2])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout == "False\n"


def test_a_package_that_is_not_installed_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bnfold.reporting.report.PACKAGES", ("no-such-package-at-all",))
    assert environment()["packages"] == {"no-such-package-at-all": None}


def test_the_version_is_a_string() -> None:
    assert version()
