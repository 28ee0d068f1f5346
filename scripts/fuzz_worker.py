"""One process of `fuzz.py`: runs the command line on a broken file, and says what came of it.

refused (2, 3, 4, 5)   in two lines, with nothing on stdout and nothing written
accepted (0)           inspected, or converted, and then proved or compared to be the same function
checked (1)            converted and found to differ, so that it was put aside
BUG                    anything else
"""

from __future__ import annotations

import contextlib
import io
import os
import resource
import shutil
import sys
import traceback
from multiprocessing.connection import Connection
from pathlib import Path

SECRET = "ZANZIBAR-4711"
MEMORY_BYTES = 6 * 10**9
ALLOWED = ("m.folded.onnx.rejected", "m.folded.onnx")
EVENTS = (
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "socket.connect",
    "socket.bind",
    "os.mkdir",
    "os.symlink",
)

OWN_FOLDERS = (".bnfold-", "torchinductor")
_seen: list[str] = []
_watching = False


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if not _watching:
        return
    if event in EVENTS and not (event == "os.mkdir" and any(own in str(arguments[0]) for own in OWN_FOLDERS)):
        _seen.append(f"{event} {str(arguments[0])[:80]}")
    elif event == "open" and isinstance(arguments[0], str) and os.path.basename(arguments[0]) == "secret":
        _seen.append(f"open {arguments[0]}")


Files = tuple[dict[str, bytes], list[str]]


def serve(pipe: Connection, folder: str, arch: str, warm: list[Files]) -> None:
    """Takes cases from a pipe until there are none: the files by name, and the command line.

    Args:
        pipe: Where they come from, and where the verdicts go.
        folder: Where files may be written.
        arch: The code of the network that checkpoints belong to.
        warm: Sound cases to run before the first.
    """
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    import torch

    from bnfold.cli.app import main  # noqa: F401 (imported before anybody looks)
    from bnfold.reporting.report import environment

    environment()  # starts a process, once
    for case in warm:  # what is imported at first use takes seconds
        judged(Path(folder), arch, *case)
    torch.set_num_threads(1)
    sys.addaudithook(_hook)
    pipe.send("ready")
    while True:
        case = pipe.recv()
        if case is None:
            return
        pipe.send(judged(Path(folder), arch, *case))


def judged(folder: Path, arch: str, files: dict[str, bytes], arguments: list[str]) -> tuple[str, str]:
    """The verdict on one case, and what was said."""
    global _watching
    inside = folder / "inside"
    shutil.rmtree(folder, ignore_errors=True)
    inside.mkdir(parents=True)
    (folder / "secret").write_text(SECRET)
    (inside / "nets.py").write_text(arch)
    for name, data in files.items():
        (inside / name).write_bytes(data)
    outside = os.getcwd()
    os.chdir(inside)
    before = {path.name for path in inside.iterdir()}
    out, err = io.StringIO(), io.StringIO()
    _seen.clear()
    from bnfold.cli.app import main

    _watching = True
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main([*arguments, "--no-progress"])
    except BaseException:
        return "BUG", f"an exception escaped\n{traceback.format_exc()}"
    finally:
        _watching = False
        os.chdir(outside)
    left = {path.name for path in inside.iterdir() if path.name != "__pycache__"} - before
    return _verdict(code, out.getvalue(), err.getvalue(), left, list(_seen))


def _verdict(code: int, out: str, err: str, left: set[str], seen: list[str]) -> tuple[str, str]:
    said = f"code {code}\n{out}{err}left {sorted(left)}\nseen {seen}"
    lines = err.splitlines()
    if seen or SECRET in out + err:
        return "BUG", f"the canary sang\n{said}"
    if code not in (0, 1, 2, 3, 4, 5) or "Traceback" in err:
        return "BUG", f"exit code\n{said}"
    if any(not (char.isprintable() or char == "\n") for char in out + err):
        return "BUG", f"something that does not print\n{said}"
    if code in (2, 3, 4, 5) and (out or left or len(lines) != 2 or not err.startswith("error[")):
        return "BUG", f"a refusal that is none\n{said}"
    if code == 1 and left - {"m.folded.onnx.rejected"}:
        return "BUG", f"an output that did not pass\n{said}"
    if code == 0 and (lines or left - {"m.folded.onnx"}):
        return "BUG", f"more than asked for\n{said}"
    return {0: "accepted", 1: "checked"}.get(code, f"refused {code}"), said
