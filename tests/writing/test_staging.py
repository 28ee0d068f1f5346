from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from bnfold.errors import OutputError
from bnfold.writing import staging
from bnfold.writing.staging import mode_of, save, sync_folder, temporary_folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_what_is_saved_is_on_the_disk_and_known_by_its_hash(here: Path) -> None:
    pieces = [b"abc", memoryview(b"d" * 10_000_000), b""]
    content = b"".join(pieces)
    assert save("file", pieces) == hashlib.sha256(content).hexdigest()
    assert Path("file").read_bytes() == content


def test_nothing_is_written_over_or_through_what_is_there(here: Path) -> None:
    Path("file").write_text("precious")
    Path("link").symlink_to("elsewhere")
    for name in ("file", "link"):
        with pytest.raises(FileExistsError):
            save(name, [b"new"])
    assert Path("file").read_text() == "precious"
    assert not Path("elsewhere").exists()


def test_a_disk_that_returns_other_bytes_is_noticed(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fsync

    def decay(handle: int) -> None:
        real(handle)
        with open("file", "r+b") as file:
            file.write(b"X")

    monkeypatch.setattr(os, "fsync", decay)
    with pytest.raises(OSError, match="what was read back is not what was written") as caught:
        save("file", [b"abc"])
    assert caught.value.errno == errno.EIO


def test_a_folder_that_cannot_be_synced_is_none_that_failed(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    number = errno.EINVAL
    sync_folder(".")
    number = errno.EIO
    with pytest.raises(OSError, match="Input/output error"):
        sync_folder(".")


def test_a_folder_goes_with_what_is_in_it(here: Path) -> None:
    def work() -> None:
        with temporary_folder("out") as folder:
            Path(folder, "file").touch()
            assert os.stat(folder).st_mode & 0o777 == 0o700
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    assert os.listdir() == []


def test_a_folder_that_cannot_be_made(here: Path) -> None:
    with pytest.raises(OutputError) as caught, temporary_folder("missing/out"):
        pass
    assert str(caught.value) == (
        "error[OUTPUT]: cannot write missing/out: No such file or directory\n"
        "Name another output; what was there before is untouched."
    )


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_uses_is_not(here: Path) -> None:
    program = textwrap.dedent("""
        import sys, time
        from bnfold.writing.staging import temporary_folder
        with temporary_folder("out") as folder:
            print(folder, flush=True)
            time.sleep(600)
    """)
    made = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        dead, alive = (process.stdout.readline().strip() for process in made if process.stdout)
        Path(dead, "file").touch()
        made[0].send_signal(signal.SIGKILL)
        made[0].wait()
        assert Path(dead).exists()
        with temporary_folder("out"):
            assert (Path(dead).exists(), Path(alive).exists()) == (False, True)
    finally:
        for process in made:
            process.kill()
            process.communicate()


def test_folders_of_other_machines_and_other_names_are_not_touched(here: Path) -> None:
    for name in (".bnfold-0123abcd-x", ".bnfold-mine", "bnfold"):
        Path(name).mkdir()
    Path(f"{staging._prefix()}file").touch()
    Path("real").mkdir()
    Path(f"{staging._prefix()}link").symlink_to("real")
    before = sorted(os.listdir())
    with temporary_folder("out"):
        pass
    assert sorted(os.listdir()) == before


def test_a_folder_taken_for_stale_before_it_was_locked_is_made_again(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, made = staging.tempfile.mkdtemp, []

    def mkdtemp(**kwargs: str) -> str:
        made.append(real(**kwargs))
        if len(made) == 1:
            os.rmdir(made[0])
        return made[-1]

    monkeypatch.setattr(staging.tempfile, "mkdtemp", mkdtemp)
    with temporary_folder("out") as folder:
        assert os.path.isdir(folder)
    assert len(made) == 2


def test_it_works_without_locks(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    Path(f"{staging._prefix()}unknown").mkdir()
    with temporary_folder("out") as folder, staging.locked("."):
        assert os.path.isdir(folder)
    assert os.listdir() == [f"{staging._prefix()}unknown"]


def test_permissions_are_those_of_a_regular_file(here: Path) -> None:
    Path("file").touch()
    os.chmod("file", 0o4640)
    Path("link").symlink_to("file")
    assert (mode_of("file"), mode_of("link"), mode_of("."), mode_of("none")) == (0o640, None, None, None)
