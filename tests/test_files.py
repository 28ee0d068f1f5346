from __future__ import annotations

import errno
import os
import resource
import signal
import stat
from pathlib import Path
from typing import Any

import pytest

from bnfold import files
from bnfold.errors import OutputError
from bnfold.files import check_folder, check_target, move, write_text

OTHER = "Name another output: -o FILE."


def refusal(call: Any, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(OutputError) as caught:
        call(*args, **kwargs)
    assert caught.value.exit_code == 5
    return str(caught.value)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_text_is_written_whole_and_nothing_else_is_left(here: Path) -> None:
    write_text("größe\n", "out.json")
    assert Path("out.json").read_text(encoding="utf-8") == "größe\n"
    assert os.listdir() == ["out.json"]


def test_a_file_is_made_with_the_usual_permissions_and_keeps_those_it_had(here: Path) -> None:
    Path("other").touch()
    write_text("a", "out.json")
    assert stat.S_IMODE(os.stat("out.json").st_mode) == stat.S_IMODE(os.stat("other").st_mode)
    os.chmod("out.json", 0o640)
    write_text("b", "out.json")
    assert stat.S_IMODE(os.stat("out.json").st_mode) == 0o640


def test_a_missing_folder(here: Path) -> None:
    assert refusal(check_folder, "deep/er/out.onnx") == (
        "error[OUTPUT]: the folder deep/er does not exist\nCreate it first: mkdir -p deep/er"
    )


def test_a_file_where_the_folder_should_be(here: Path) -> None:
    Path("file").touch()
    assert refusal(check_folder, "file/out.onnx") == f"error[OUTPUT]: file is not a folder\n{OTHER}"


@pytest.mark.parametrize("name", ["folder", "folder/"])
def test_a_directory_as_output(here: Path, name: str) -> None:
    Path("folder").mkdir()
    assert refusal(check_folder, name) == f"error[OUTPUT]: {name} is a directory\n{OTHER}"


def test_a_folder_that_is_not_writable(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("folder").mkdir(mode=0o500)
    monkeypatch.setattr(os, "access", lambda path, mode: path != "folder")  # root may write everywhere
    assert refusal(check_folder, "folder/out.onnx") == f"error[OUTPUT]: the folder folder is not writable\n{OTHER}"


def test_an_existing_output_is_kept_without_force(here: Path) -> None:
    Path("out.onnx").write_text("precious")
    hint = "Pass --force to replace it, or name another output: -o FILE."
    assert refusal(check_target, "out.onnx", force=False) == f"error[OUTPUT]: out.onnx already exists\n{hint}"
    assert refusal(write_text, "new", "out.onnx", force=False) == f"error[OUTPUT]: out.onnx already exists\n{hint}"
    assert Path("out.onnx").read_text() == "precious"
    check_target("out.onnx", force=True)
    Path("dangling").symlink_to("nowhere")
    assert refusal(check_target, "dangling", force=False) == f"error[OUTPUT]: dangling already exists\n{hint}"


@pytest.mark.parametrize("way", ["same", "other spelling", "link", "hard link"])
def test_the_input_is_never_the_output(here: Path, way: str) -> None:
    Path("in.onnx").write_text("model")
    Path("link.onnx").symlink_to("in.onnx")
    os.link("in.onnx", "hard.onnx")
    name = {"same": "in.onnx", "other spelling": "./in.onnx", "link": "link.onnx", "hard link": "hard.onnx"}[way]
    assert refusal(check_target, name, force=True, source="in.onnx") == (
        f"error[OUTPUT]: {name} is the input itself\n{OTHER}"
    )


def test_a_device_is_not_replaced(here: Path) -> None:
    os.mkfifo("pipe")
    assert refusal(check_target, "pipe", force=True) == f"error[OUTPUT]: pipe is not a regular file\n{OTHER}"
    assert refusal(write_text, "x", "/dev/null") == f"error[OUTPUT]: /dev/null is not a regular file\n{OTHER}"


def test_a_link_is_replaced_not_followed(here: Path) -> None:
    Path("elsewhere").write_text("precious")
    Path("out.json").symlink_to("elsewhere")
    write_text("new", "out.json")
    assert Path("elsewhere").read_text() == "precious"
    assert not Path("out.json").is_symlink()


@pytest.mark.parametrize(
    ("number", "words", "advice"),
    [
        (errno.ENOSPC, "No space left on device", "Free some space"),
        (errno.EDQUOT, "Disk quota exceeded", "Free some space"),
        (errno.EACCES, "Permission denied", "Name another output"),
        (errno.EIO, "Input/output error", "Name another output"),
    ],
)
@pytest.mark.parametrize("where", ["open", "fsync", "replace"])
def test_a_failing_disk_leaves_everything_as_it_was(
    here: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str, advice: str, where: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    Path("out.json").write_text("precious")
    if where == "open":
        monkeypatch.setattr(files, "open", fail, raising=False)
    else:
        monkeypatch.setattr(os, where, fail)
    assert refusal(write_text, "new", "out.json") == (
        f"error[OUTPUT]: cannot write out.json: {words}\n{advice}; what was there before is untouched."
    )
    assert os.listdir() == ["out.json"]
    assert Path("out.json").read_text() == "precious"


def test_a_full_disk_in_the_middle_of_a_file(here: Path) -> None:
    Path("out.json").write_text("precious")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        message = refusal(write_text, "x" * 1_000_000, "out.json")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert message == (
        "error[OUTPUT]: cannot write out.json: File too large\nFree some space; what was there before is untouched."
    )
    assert os.listdir() == ["out.json"]
    assert Path("out.json").read_text() == "precious"


@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_ctrl_c_leaves_everything_as_it_was(here: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    Path("out.json").write_text("precious")
    monkeypatch.setattr(os, where, interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_text("new", "out.json")
    assert os.listdir() == ["out.json"]
    assert Path("out.json").read_text() == "precious"


def pair(folder: str, text: str) -> str:
    Path(folder).mkdir()
    Path(folder, "m").write_text(text)
    Path(folder, "m.data").write_text(f"{text} data")
    return f"{folder}/m"


def contents(folder: str) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(Path(folder).iterdir())}


def test_two_files_that_belong_together_move_together(here: Path) -> None:
    pair("place", "old")
    move(pair("staged", "new"), "place/m", ".data")
    assert contents("place") == {"m": "new", "m.data": "new data"}


@pytest.mark.parametrize("hard_links", [True, False])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
@pytest.mark.parametrize("moves", [0, 1])
@pytest.mark.parametrize("existing", [True, False])
def test_if_one_of_two_files_cannot_move_neither_does(
    here: Path, monkeypatch: pytest.MonkeyPatch, hard_links: bool, error: BaseException, moves: int, existing: bool
) -> None:
    real, done = os.replace, []

    def replace(source: str, target: str) -> None:
        if len(done) == moves:
            done.append(source)
            raise error
        done.append(source)
        real(source, target)

    def no_link(*_: object) -> None:
        raise OSError(errno.EPERM, "no hard links here")

    staged = pair("staged", "new")
    if existing:
        pair("place", "old")
    else:
        Path("place").mkdir()
    before = contents("place")
    monkeypatch.setattr(os, "replace", replace)
    if not hard_links:
        monkeypatch.setattr(os, "link", no_link)
    with pytest.raises(type(error)):
        move(staged, "place/m", ".data")
    assert contents("place") == before
