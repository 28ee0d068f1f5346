"""The stage for attacks: a folder with a hostile file, a secret beside it, and a canary that must stay silent."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import onnx
import pytest
from canary import Watch, files, watched

SECRET = "ZANZIBAR-4711"


class Attack:
    """One attack."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.root = root
        self.folder = root / "inside"
        self.secret = root / "secret"
        self.marker = root / "ran"
        self._capsys = capsys
        self.watch = Watch()

    def write(self, name: str, data: bytes | str | onnx.ModelProto) -> str:
        """Puts a file into the folder."""
        if isinstance(data, onnx.ModelProto):
            data = data.SerializeToString()
        (self.folder / name).write_bytes(data.encode() if isinstance(data, str) else data)
        return name

    def payload(self) -> Any:
        """Unpickling it runs a program that leaves a marker."""
        return Payload(str(self.marker))

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Runs the command line; the exit code, stdout and stderr."""
        from bnfold.cli.app import main

        self._capsys.readouterr()
        with watched() as self.watch:
            code = main([*arguments, "--no-progress"])
        said = self._capsys.readouterr()
        return code, said.out, said.err

    def silent(self, out: str = "", err: str = "") -> None:
        """Asserts that nothing ran, nothing outside was opened, and nothing leaked."""
        assert not self.marker.exists(), "the payload ran"
        assert "BNFOLD_CANARY" not in os.environ, "the payload changed the environment"
        assert self.watch.started == [], "a process or a connection was started"
        outside = [path for path in self.watch.opened if Path(path).parent == self.root and Path(path) != self.folder]
        assert outside == [], "a file outside the folder was opened"
        assert SECRET not in out + err, "the secret was printed"

    def refused(self, *arguments: str, says: str, code: int = 3) -> None:
        """Runs a command that must refuse, in these words: nothing on stdout, nothing written, no canary."""
        before = files(self.root)
        found, out, err = self.run(*arguments)
        assert err == says
        assert found == code
        assert out == ""
        assert files(self.root) == before
        self.silent(out, err)

    def limited(self, *arguments: str, says: str) -> None:
        """Runs a command that has to be ended; its own process is the only one that is started."""
        before = files(self.root)
        found, out, err = self.run(*arguments)
        assert err == says
        assert (found, out) == (3, "")
        assert files(self.root) == before
        started, self.watch.started = self.watch.started, []
        assert [event.split()[0] for event in started] == ["subprocess.Popen"]
        self.silent(out, err)

    def accepted(self, *arguments: str, code: int = 0) -> tuple[str, str]:
        """Runs a command on something that is odd and harmless; what it printed, with no canary and nothing written."""
        before = files(self.root)
        found, out, err = self.run(*arguments)
        assert found == code, err
        assert files(self.root) == before
        self.silent(out, err)
        return out, err


class Payload:
    """Unpickling it runs a program."""

    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.marker}",)
