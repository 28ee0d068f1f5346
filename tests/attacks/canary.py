"""What shows that an attack did something: a file, a secret, a variable, a process, a connection.

An audit hook sees every process and socket that Python starts, and every file it opens; it cannot be taken off again,
so it is put on once and asked to look while an attack runs.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROCESSES = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "pty.spawn")
NETWORK = ("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto")
LIBRARIES = ("ctypes.dlopen",)
LARGE_BYTES = 1 << 24  # of larger files only the size is compared

_watched: list[Watch] = []


class Watch:
    """What was seen while an attack ran."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.opened: list[str] = []

    def see(self, event: str, arguments: tuple[object, ...]) -> None:
        """Takes note of an event that matters here."""
        itself = arguments[:1] == (None,)  # dlopen of the process, where `memory` finds malloc_trim
        if event in PROCESSES or event in NETWORK or (event in LIBRARIES and not itself):
            self.started.append(f"{event} {str(arguments[0])[:80] if arguments else ''}")
        elif event == "open" and isinstance(arguments[0], (str, bytes)):
            self.opened.append(os.path.abspath(os.fsdecode(arguments[0])))


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    for watch in _watched:
        watch.see(event, arguments)


sys.addaudithook(_hook)


@contextmanager
def watched() -> Iterator[Watch]:
    """Looks on while the context runs."""
    watch = Watch()
    _watched.append(watch)
    try:
        yield watch
    finally:
        _watched.remove(watch)


def files(folder: Path) -> dict[str, str]:
    """Every file, link and folder below a folder, with what it holds."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if "__pycache__" in path.parts:
            continue
        kind = "link" if path.is_symlink() else "folder" if path.is_dir() else "file"
        found[str(path.relative_to(folder))] = f"{kind} {path.lstat().st_size} {_digest(path)}"
    return found


def _digest(path: Path) -> str:
    if path.is_symlink() or not path.is_file() or path.stat().st_size > LARGE_BYTES:
        return ""
    return hashlib.sha256(path.read_bytes()).hexdigest()
