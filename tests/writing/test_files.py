from __future__ import annotations

import errno
import os
import resource
import signal
import stat
from pathlib import Path
from typing import Any

import pytest

from bnfold.errors import OutputError
from bnfold.writing import files, staging
from bnfold.writing.files import check_folder, check_name, check_target, data_name, is_same_file, move, write_text

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
    where = here / "folder"
    where.mkdir(mode=0o500)
    monkeypatch.setattr(os, "access", lambda path, mode: path != "folder")  # root may write everywhere
    assert refusal(check_folder, "folder/out.onnx") == (
        f"error[OUTPUT]: the folder {where} is not writable\n"
        f"See who may write there: ls -ld {where}; or name another output: -o FILE."
    )


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
        monkeypatch.setattr(staging, "open", fail, raising=False)
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


def pair(folder: str, text: str) -> tuple[str, str]:
    """A file that names its data, and the name of the data."""
    Path(folder).mkdir(exist_ok=True)
    name = data_name("m", text[0] * 16)
    Path(folder, "m").write_text(f"{text} {name}")
    Path(folder, name).write_text(f"{text} data")
    return f"{folder}/m", name


def contents(folder: str) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(Path(folder).iterdir())}


def test_two_files_that_belong_together_move_together_and_the_earlier_data_goes(here: Path) -> None:
    pair("place", "bold")
    written, data = pair("staged", "anew")
    move(written, "place/m", force=True, data=data)
    assert contents("place") == {"m": f"anew {data}", data: "anew data"}
    assert contents("staged") == {}


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt(), MemoryError()])
@pytest.mark.parametrize("moves", [0, 1])
@pytest.mark.parametrize("existing", ["nothing", "another", "the same data"])
def test_if_one_of_two_files_cannot_move_neither_does(
    here: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, moves: int, existing: str
) -> None:
    real, done = os.replace, []

    def replace(source: str, target: str) -> None:
        done.append(source)
        if len(done) == moves + 1:
            raise error
        real(source, target)

    written, data = pair("staged", "anew")
    Path("place").mkdir()
    if existing != "nothing":
        pair("place", "bold" if existing == "another" else "anew")
    before = contents("place")
    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(type(error)):
        move(written, "place/m", force=True, data=data)
    assert contents("place") == before


def test_at_every_moment_the_model_finds_its_own_data(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def look() -> None:
        text, name = Path("place/m").read_text().split()
        assert Path("place", name).read_text() == f"{text} data"
        looked.append(text)

    def looking(real: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            look()
            result = real(*args, **kwargs)
            look()
            return result

        return call

    looked: list[str] = []
    pair("place", "bold")
    written, data = pair("staged", "anew")
    for name in ("replace", "unlink", "fsync", "chmod"):
        monkeypatch.setattr(os, name, looking(getattr(os, name)))
    move(written, "place/m", force=True, data=data)
    assert set(looked) == {"bold", "anew"}
    assert len(looked) >= 12


def test_data_that_something_else_needs_is_not_removed(here: Path) -> None:
    _, old = pair("place", "bold")
    Path("place/m.rejected").write_text(f"rejected {data_name('m', 'c' * 16)}")
    for name in (data_name("m", "c" * 16), data_name("m", "d" * 16), "m.data", data_name("other", "e" * 16)):
        Path("place", name).write_text("data")
    written, data = pair("staged", "anew")
    move(written, "place/m", force=True, data=data, keep=["place/" + data_name("m", "d" * 16)])
    left = {"m", "m.rejected", data, data_name("m", "c" * 16), data_name("m", "d" * 16), "m.data"}
    assert set(contents("place")) == left | {data_name("other", "e" * 16)}
    assert not Path("place", old).exists()


def test_a_model_that_is_rejected_leaves_the_data_of_the_output(here: Path) -> None:
    _, old = pair("place", "bold")
    written, data = pair("staged", "anew")
    move(written, "place/m.rejected", force=True, data=data)
    assert set(contents("place")) == {"m", old, "m.rejected", data}


def test_without_force_nothing_that_appeared_meanwhile_is_replaced(here: Path) -> None:
    pair("place", "bold")
    before = contents("place")
    written, data = pair("staged", "anew")
    assert refusal(move, written, "place/m", force=False, data=data) == (
        "error[OUTPUT]: place/m already exists\nPass --force to replace it, or name another output: -o FILE."
    )
    assert contents("place") == before


def test_the_data_has_the_permissions_of_the_model_that_was_there(here: Path) -> None:
    pair("place", "bold")
    os.chmod("place/m", 0o600)
    written, data = pair("staged", "anew")
    move(written, "place/m", force=True, data=data)
    assert {stat.S_IMODE(os.stat(f"place/{name}").st_mode) for name in ("m", data)} == {0o600}


def test_a_link_to_a_device_or_to_an_open_file_is_not_replaced(here: Path) -> None:
    Path("null").symlink_to("/dev/null")
    Path("stdout").symlink_to("/proc/self/fd/1")  # what /dev/stdout is; here it may be a regular file
    for name in ("null", "stdout"):
        assert refusal(write_text, "x", name) == f"error[OUTPUT]: {name} is not a regular file\n{OTHER}"
        assert Path(name).is_symlink()


def test_a_dangling_link_is_replaced_and_nothing_appears_where_it_points(here: Path) -> None:
    Path("elsewhere").mkdir()
    Path("out.json").symlink_to("elsewhere/new.json")
    write_text("new", "out.json")
    assert (Path("out.json").is_symlink(), os.listdir("elsewhere")) == (False, [])


def test_a_link_gives_its_place_and_not_the_permissions_of_what_it_points_at(here: Path) -> None:
    Path("other").touch()
    Path("private").touch(mode=0o600)
    Path("out.json").symlink_to("private")
    write_text("new", "out.json")
    assert stat.S_IMODE(os.stat("out.json").st_mode) == stat.S_IMODE(os.stat("other").st_mode)


def test_the_other_names_of_a_file_keep_what_they_had(here: Path) -> None:
    Path("out.json").write_text("old")
    os.link("out.json", "backup")
    write_text("new", "out.json")
    assert (Path("out.json").read_text(), Path("backup").read_text()) == ("new", "old")


def test_a_name_that_is_too_long_is_refused_before_anything_is_done(here: Path) -> None:
    check_name("x" * 255)
    assert refusal(check_name, "folder/" + "ü" * 128) == (
        f"error[OUTPUT]: the name {'ü' * 128} is too long: it has 256 bytes, and 255 fit\n{OTHER}"
    )
    assert refusal(check_name, "x" * 250, 9) == (
        f"error[OUTPUT]: the name {'x' * 250} is too long: it has 250 bytes, and 246 fit\n{OTHER}"
    )


def test_a_name_with_a_nul(here: Path) -> None:
    assert refusal(check_folder, "a\0b") == (
        f"error[OUTPUT]: 'a\N{REPLACEMENT CHARACTER}b' is no name of a file: it holds a NUL\n{OTHER}"
    )


def test_one_file_under_two_names(here: Path) -> None:
    Path("a").touch()
    Path("b").symlink_to("a")
    assert is_same_file("a", "./b")
    assert is_same_file("new", "./new")
    assert not is_same_file("a", "new")


def test_a_disk_that_does_not_confirm_the_move_is_told_of(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(folder: str) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    Path("out.json").write_text("old")
    monkeypatch.setattr(files, "sync_folder", fail)
    assert refusal(write_text, "new", "out.json") == (
        "error[OUTPUT]: out.json is in its place, but the disk does not confirm it: Input/output error\n"
        "Check the disk before you rely on it."
    )
    assert Path("out.json").read_text() == "new"
