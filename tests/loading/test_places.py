"""Paths that lead nowhere: what is said about them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bnfold.errors import UnreadableError
from bnfold.loading.places import advice, cannot_open, check_file, nearest_file


def refused(path: Path | str, command: str = "") -> UnreadableError:
    with pytest.raises(UnreadableError) as caught:
        check_file(path, command)
    return caught.value


def test_a_file_is_none_of_this(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"")
    check_file(tmp_path / "model.onnx")


def test_a_folder_offers_three_of_its_models_and_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("d.pt", "a.onnx", "b.safetensors", "c.PT2", "notes.txt"):
        Path(name).write_bytes(b"")
    Path("0.onnx").mkdir()
    assert refused(".", "bnfold inspect").hint == (
        "Pass the file inside it: bnfold inspect a.onnx (or b.safetensors, c.PT2)"
    )


def test_a_pipe_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert refused(tmp_path / "pipe").what.endswith("pipe is not a regular file")


def test_a_name_with_nul_is_refused() -> None:
    assert refused("a\0b").what.startswith("cannot open a")


def test_what_may_not_be_read_leads_to_its_permissions(tmp_path: Path) -> None:
    denied = PermissionError(13, "Permission denied")
    there = tmp_path / "a model.onnx"
    there.write_bytes(b"")
    assert advice(denied, str(there)) == f"See who may read it: ls -l '{there}'"
    assert advice(denied, "/nowhere/model.onnx") == "See who may read it: ls -ld /nowhere"
    assert cannot_open(str(there), denied).what == f"cannot open {there}: Permission denied"


def test_near_names_are_only_those_that_fit(tmp_path: Path) -> None:
    for name in ("net.py", "nets.pt"):
        (tmp_path / name).write_bytes(b"")
    assert nearest_file(str(tmp_path / "nets.py"), lambda name: name.endswith(".py")) == (
        f"Did you mean {tmp_path / 'net.py'}?"
    )
    assert nearest_file(str(tmp_path / "absent" / "nets.py")) == ""
