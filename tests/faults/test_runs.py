"""Whole runs in real processes: signals, many at once, full and read-only disks, poor terminals."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from faults import surroundings
from faults.processes import Commands, commands
from faults.runs import CODES, concurrent_runs, save_model, signalled_runs
from faults.surroundings import FULL, PLAIN, bnfold, mounted, prepare
from faults.writers import state

mounts = pytest.mark.skipif(not surroundings.can_mount(), reason="no file system can be mounted here")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    with commands(tmp_path_factory.mktemp("said")) as running:
        yield running


@pytest.mark.parametrize("name", [*CODES, "SIGKILL"])
def test_a_signal_at_any_moment_leaves_the_old_pair_or_the_new_one(server: Commands, tmp_path: Path, name: str) -> None:
    outcome = signalled_runs(server, tmp_path, name)
    assert outcome.problems == []
    assert outcome.old > 0
    assert outcome.old + outcome.new == 20


def test_twenty_runs_to_one_output_do_not_mix(server: Commands, tmp_path: Path) -> None:
    outcome = concurrent_runs(server, tmp_path / "many")
    assert outcome.problems == []
    assert outcome.new == 1


def test_of_runs_without_force_one_writes(server: Commands, tmp_path: Path) -> None:
    save_model(tmp_path, "in.onnx", 1.0)
    children = [server.start(tmp_path, "convert", "in.onnx", "-o", "out.onnx", "--verify", "off") for _ in range(6)]
    ended = [server.wait(child) for child in children]
    assert sorted(each.code for each in ended) == [0, 5, 5, 5, 5, 5]
    said = {each.err for each in ended if each.code}
    hint = "Pass --force to replace it, or name another output: -o FILE."
    assert said == {f"error[OUTPUT]: out.onnx already exists\n{hint}\n"}
    assert sorted(state(tmp_path)) == ["in.onnx", "out.onnx"]


@mounts
@pytest.mark.parametrize("external_data", ["never", "always"])
def test_a_full_disk(tmp_path: Path, external_data: str) -> None:
    prepare(tmp_path)
    before = state(tmp_path / "place")
    arguments = ["-o", "place/out.onnx", "--force", "--verify", "off", "--external-data", external_data]
    ended = mounted(tmp_path, FULL, "convert", "in.onnx", *arguments)
    assert (ended.code, ended.err) == (
        5,
        "error[OUTPUT]: cannot write place/out.onnx: No space left on device\n"
        "Free some space; what was there before is untouched.\n",
    )
    left = state(tmp_path / "left")
    assert left.pop("filler")
    assert left == before


@mounts
def test_a_full_disk_for_the_report(tmp_path: Path) -> None:
    prepare(tmp_path)
    (tmp_path / "place" / "report.json").write_text("{}")
    before = state(tmp_path / "place")
    ended = mounted(tmp_path, FULL, "inspect", "in.onnx", "--json", "place/report.json")
    assert ended.code == 5
    assert ended.err.startswith("error[OUTPUT]: cannot write place/report.json: No space left on device\n")
    left = state(tmp_path / "left")
    assert left.pop("filler")
    assert left == before


@mounts
def test_a_read_only_disk(tmp_path: Path) -> None:
    prepare(tmp_path)
    before = state(tmp_path / "place")
    ended = mounted(
        tmp_path, "-osize=1m mount -o remount,ro place", "convert", "in.onnx", "-o", "place/out.onnx", "--force"
    )
    assert (ended.code, ended.err) == (
        5,
        f"error[OUTPUT]: the folder {tmp_path / 'place'} is not writable\n"
        f"See who may write there: ls -ld {tmp_path / 'place'}; or name another output: -o FILE.\n",
    )
    assert state(tmp_path / "left") == before


def test_a_limit_on_the_size_of_files(tmp_path: Path) -> None:
    prepare(tmp_path)
    before = state(tmp_path)
    arguments = ["-o", "place/out.onnx", "--force", "--verify", "off"]
    ended = bnfold(tmp_path, "convert", "in.onnx", *arguments, before="ulimit -f 1;")
    assert (ended.code, ended.err) == (
        5,
        "error[OUTPUT]: cannot write place/out.onnx: File too large\n"
        "Free some space; what was there before is untouched.\n",
    )
    assert state(tmp_path) == before


def test_a_reader_that_leaves_is_no_reason_not_to_write(tmp_path: Path) -> None:
    prepare(tmp_path)
    arguments = ["convert", "in.onnx", "-o", "new.onnx", "--verify", "off", "-v"]
    ended = bnfold(tmp_path, *arguments, before="set -o pipefail;", after="| head -c 0")
    assert (ended.code, ended.out, ended.err) == (0, "", "")
    assert (tmp_path / "new.onnx").exists()


def test_names_that_the_locale_does_not_know(tmp_path: Path) -> None:
    name = "größe-模型.onnx"
    prepare(tmp_path, name)
    save_model(tmp_path, name, 2.0)
    arguments = ["-o", f"place/{name}", "--force", "--verify", "off", "--json", "bericht-é.json"]
    ended = bnfold(tmp_path, "convert", name, *arguments, more=PLAIN)
    assert (ended.code, ended.err) == (0, "")
    assert "Written to place/gr" in ended.out
    assert sorted(state(tmp_path)) == sorted(["bericht-é.json", name, "in.onnx", "place", f"place/{name}"])
    report = json.loads((tmp_path / "bericht-é.json").read_text(encoding="utf-8"))
    assert report["output"]["sha256"] == state(tmp_path)[f"place/{name}"]
    again = bnfold(tmp_path, "convert", name, "-o", f"place/{name}", "--verify", "off", more=PLAIN)
    assert again.code == 5
    assert "already exists" in again.err


def test_a_narrow_terminal(tmp_path: Path) -> None:
    prepare(tmp_path)
    arguments = ["convert", "in.onnx", "-o", "place/out.onnx", "--force", "--verify", "off", "--no-color"]
    ended = bnfold(tmp_path, *arguments, more={"COLUMNS": "40"})
    assert (ended.code, ended.err) == (0, "")
    assert max(map(len, ended.out.splitlines())) <= 40
