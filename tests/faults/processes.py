"""Commands in real processes that can be signalled: a server has imported everything, and forks for each of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parent.parent.parent

SERVER = """
import json, os, signal, sys, traceback
import onnx, onnx_ir, onnxruntime, rich.console, rich.table
from bnfold import __main__, certificate, interrupts, verify
from bnfold.cli import app as cli
from bnfold.writing import export
from bnfold.pipeline import line as pipeline
from bnfold.reporting import render
from bnfold.running import runners
from bnfold.frontends import onnx as frontend

signal.signal(signal.SIGINT, signal.default_int_handler)  # a background process ignores it
SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}  # they wait until the command line takes them

def ready():
    interrupts.take()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

print("ready", flush=True)
for line in sys.stdin:
    task = json.loads(line)
    if isinstance(task, int):
        print(os.waitstatus_to_exitcode(os.waitpid(task, 0)[1]), flush=True)
        continue
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    child = os.fork()
    if child == 0:
        code = 99
        try:
            os.chdir(task["folder"])
            for number, name in ((1, task["said"] + ".out"), (2, task["said"] + ".err")):
                os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
            sys.argv = ["bnfold", *task["arguments"]]
            __main__.take = ready
            code = __main__.main()
            sys.stdout.flush()
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        os._exit(code)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    print(child, flush=True)
"""


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code (negative: the signal that killed it), stdout and stderr."""

    code: int
    out: str
    err: str


class Commands:
    """Starts commands.

    Args:
        server: The process that forks.
        said: A folder for what they say.
    """

    def __init__(self, server: subprocess.Popen[str], said: Path) -> None:
        self._server, self._said = server, said

    def start(self, folder: Path, *arguments: str) -> int:
        """Starts a command in a folder; returns its process."""
        name = str(self._said / str(len(os.listdir(self._said))))
        child = int(self._ask({"folder": str(folder), "arguments": arguments, "said": name}))
        (self._said / f"{child}.name").write_text(name)
        return child

    def wait(self, child: int) -> Ended:
        """How it ended, once it has."""
        code = int(self._ask(child))
        name = (self._said / f"{child}.name").read_text()
        out, err = (path.read_text() if (path := Path(f"{name}.{end}")).exists() else "" for end in ("out", "err"))
        return Ended(code, out, err)

    def run(self, folder: Path, *arguments: str) -> Ended:
        """Runs a command to its end."""
        return self.wait(self.start(folder, *arguments))

    def _ask(self, task: object) -> str:
        for stream in (self._server.stdin, self._server.stdout):
            assert stream is not None
        _write(self._server.stdin, json.dumps(task))
        assert self._server.stdout is not None
        return self._server.stdout.readline().strip()


def _write(stream: IO[str] | None, text: str) -> None:
    assert stream is not None
    stream.write(text + "\n")
    stream.flush()


@contextmanager
def commands(said: Path) -> Iterator[Commands]:
    """A server while the context lasts."""
    said.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        yield Commands(server, said)
    finally:
        server.kill()
        server.communicate()
