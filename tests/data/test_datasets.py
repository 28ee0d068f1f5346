"""Data sets: every form gives the rows it holds, in order, and what is wrong with one is said in words."""

from __future__ import annotations

import re
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bnfold.data.batches import Batch
from bnfold.data.datasets import open_dataset
from bnfold.data.feeds import InputDecl
from bnfold.data.streams import stream
from bnfold.errors import BnfoldError, UnreadableError, UnsafeError, UsageError

DECLARED = (InputDecl("image", (None, 3, 2, 2), "float32", ("N", None, None, None)),)
FIXED = (InputDecl("image", (4, 3, 2, 2), "float32", (None,) * 4),)

X = np.arange(10 * 12, dtype=np.float32).reshape(10, 3, 2, 2)
Y = np.arange(10) % 3
X.setflags(write=False)
Y.setflags(write=False)


def read(given: Any, declared: tuple[InputDecl, ...] = DECLARED) -> tuple[np.ndarray, np.ndarray | None]:
    fed = list(stream(open_dataset(given), declared))
    x = np.concatenate([each.feeds["image"][: each.rows] for each in fed])
    return x, None if fed[0].labels is None else np.concatenate(
        [each.labels for each in fed if each.labels is not None]
    )


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("declared", [DECLARED, FIXED], ids=["open", "fixed"])
def test_an_npz_file_gives_its_rows(tmp_path: Path, save: Any, declared: tuple[InputDecl, ...]) -> None:
    save(tmp_path / "d.npz", x=X, y=Y, more=np.zeros(3))
    x, y = read(tmp_path / "d.npz", declared)
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(y, Y)


def test_an_array_stored_column_by_column_gives_its_rows(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.asfortranarray(X))
    np.testing.assert_array_equal(read(tmp_path / "d.npz")[0], X)


def test_arrays_by_the_names_of_the_inputs(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", image=X, y=Y)
    np.testing.assert_array_equal(read(tmp_path / "d.npz")[0], X)


def test_an_npy_file_has_no_labels(tmp_path: Path) -> None:
    np.save(tmp_path / "d.npy", X)
    x, y = read(tmp_path / "d.npy")
    np.testing.assert_array_equal(x, X)
    assert y is None


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    row = np.zeros((1, 3, 64, 64), np.float32)
    np.savez_compressed(tmp_path / "d.npz", x=np.repeat(row, 2000, axis=0))  # 98 MB
    declared = (InputDecl("image", (None, 3, 64, 64), "float32", ("N", None, None, None)),)
    tracemalloc.start()
    assert sum(fed.rows for fed in stream(open_dataset(tmp_path / "d.npz"), declared)) == 2000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6


def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    yield X[:7], Y[:7]
    yield X[7:], Y[7:]


@pytest.mark.parametrize(
    "given",
    [batches, [(X[:7], Y[:7]), (X[7:], Y[7:])], [{"image": X[:7], "y": Y[:7]}, {"x": X[7:], "y": Y[7:]}], batches()],
    ids=["callable", "list", "dicts", "iterator"],
)
@pytest.mark.parametrize("declared", [DECLARED, FIXED], ids=["open", "fixed"])
def test_a_loader_gives_its_rows(given: Any, declared: tuple[InputDecl, ...]) -> None:
    if isinstance(given, Iterator):
        given = batches()
    x, y = read(given, declared)
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(y, Y)


def test_a_loader_by_name_and_tensors(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import torch\n\ndef loader():\n    for i in range(5):\n"
        "        yield torch.arange(24.).reshape(2, 3, 2, 2), torch.tensor([i, i])\n"
    )
    x, y = read(f"{tmp_path / 'mine.py'}:loader")
    assert x.shape == (10, 3, 2, 2)
    np.testing.assert_array_equal(y, np.repeat(np.arange(5), 2))


def test_a_fixed_batch_is_filled_with_its_last_row() -> None:
    fed = list(stream(open_dataset([(X[:5], Y[:5])]), FIXED))
    assert [(each.rows, each.size) for each in fed] == [(4, 4), (1, 4)]
    np.testing.assert_array_equal(fed[1].feeds["image"], np.repeat(X[4:5], 4, axis=0))


def test_images_become_inputs(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 2, 3), dtype=np.uint8)
    for folder in ("cat", "dog", "empty"):
        (tmp_path / folder).mkdir()
    image.fromarray(pixels).save(tmp_path / "dog" / "1.png")
    image.fromarray(pixels).save(tmp_path / "cat" / "2.png")
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    x, y = read(tmp_path)
    np.testing.assert_array_equal(y, [0, 1])
    np.testing.assert_array_equal(x[0], (pixels.transpose(2, 0, 1) / 255.0).astype(np.float32))
    [batch] = open_dataset(tmp_path, raw=True).batches(DECLARED, None)
    assert isinstance(batch, Batch)
    np.testing.assert_array_equal(batch.inputs["image"][0], pixels.transpose(2, 0, 1))
    grey = (InputDecl("image", (None, 1, 4, 5), "float32", ("N", None, None, None)),)
    assert read(tmp_path, grey)[0].shape == (2, 1, 4, 5)


def test_an_image_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    pytest.importorskip("PIL.Image")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(UnreadableError, match=r"^error\[UNREADABLE\]: cannot read the image .*broken\.png: "):
        read(tmp_path)


def test_images_for_a_model_that_takes_none(tmp_path: Path) -> None:
    pytest.importorskip("PIL.Image")
    (tmp_path / "a.png").write_bytes(b"")
    flat = (InputDecl("image", (None, 12), "float32", ("N", None)),)
    with pytest.raises(UsageError) as caught:
        read(tmp_path, flat)
    assert caught.value.what == (
        f"{tmp_path} is a folder of images, and input 'image' (?x12) is not N×C×H×W "
        "with 1 or 3 channels and a fixed size"
    )


def raising() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    yield X[:4], Y[:4]
    raise RuntimeError("the disk is gone")


NAN = np.where(np.arange(10)[:, None, None, None] == 6, np.nan, X)


@pytest.mark.parametrize(
    ("given", "kind", "what"),
    [
        (raising, UsageError, "--data the loader: batch 1 raised RuntimeError: the disk is gone"),
        ([], UnreadableError, "the loader is empty: it has no rows"),
        ([(X[:0], Y[:0])], UnreadableError, "the loader is empty: it has no rows"),
        ([(X, Y[:3])], UsageError, "--data the loader: batch 0 does not have as many labels as rows: 10×3×2×2 and 3"),
        ([(X, Y, Y)], UsageError, "--data the loader: batch 0 has 3 parts, and (x, y) has two"),
        (["abc"], UsageError, "--data the loader: batch 0 is no array of numbers: str"),
        (lambda: 3, UsageError, "--data the loader returned an object of type int, not batches"),
        (lambda: 1 / 0, UsageError, "--data the loader: calling it raised ZeroDivisionError: division by zero"),
        (
            [(X[:6], Y[:6]), (NAN[6:], Y[6:])],
            UnreadableError,
            "the loader holds NaN or infinity in row 6 (input 'image')",
        ),
        (
            [{"a": X, "b": X}],
            UsageError,
            "the loader has the arrays a, b, and none for the input 'image'",
        ),
    ],
)
def test_what_is_wrong_with_a_loader(given: Any, kind: type[BnfoldError], what: str) -> None:
    with pytest.raises(kind) as caught:
        read(given)
    assert caught.value.what == what
    assert caught.value.hint


@pytest.mark.parametrize(
    ("arrays", "kind", "what"),
    [
        ({"y": Y}, UnreadableError, "d.npz has no array with inputs"),
        ({"x": X, "y": Y[:4]}, UnreadableError, "the arrays of d.npz are not of one length: 'x' has 10, 'y' has 4"),
        ({"x": X[:0]}, UnreadableError, "d.npz is empty: it has no rows"),
        ({"x": np.float32(3)}, UnreadableError, "d.npz is empty: it has no rows"),
        ({"x": np.array(["a", "b"])}, UnreadableError, "'x' of d.npz is <U1, not numbers"),
        ({"x": np.array([None, {}])}, UnsafeError, "d.npz holds pickled objects in 'x'"),
        ({"x": X[:, :2]}, UsageError, None),
    ],
)
def test_what_is_wrong_with_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arrays: dict[str, Any], kind: type[BnfoldError], what: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("d.npz", **arrays)
    with pytest.raises(kind) as caught:
        read("d.npz")
    assert what is None or caught.value.what == what


def test_a_truncated_or_foreign_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=X, y=Y)
    whole = (tmp_path / "d.npz").read_bytes()
    (tmp_path / "d.npz").write_bytes(whole[:-40])
    with pytest.raises(UnreadableError, match=r"d\.npz is damaged: BadZipFile"):
        read(tmp_path / "d.npz")
    (tmp_path / "d.npz").write_bytes(whole.replace(X.tobytes()[:64], b"\x7f" * 64))
    with pytest.raises(UnreadableError, match=r"d\.npz is damaged: BadZipFile: Bad CRC-32"):
        read(tmp_path / "d.npz")
    (tmp_path / "d.csv").write_text("1,2")
    with pytest.raises(UnreadableError, match=re.escape(f"{tmp_path / 'd.csv'} is no data set")):
        read(tmp_path / "d.csv")
    with pytest.raises(UnreadableError, match=r"cannot read .*none\.npz: No such file or directory"):
        read(tmp_path / "none.npz")


def test_an_iterator_is_not_read_twice() -> None:
    data = open_dataset(batches())
    assert len(list(stream(data, DECLARED))) == 2
    with pytest.raises(UsageError) as caught:
        list(stream(data, DECLARED))
    assert caught.value.what == "--data the loader is an iterator, which can be read once, and is needed again"


def test_code_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        open_dataset("nowhere.at_all:loader")
    assert caught.value.what == "--data nowhere.at_all:loader: no module named 'nowhere.at_all'"
    (tmp_path / "mine.py").write_text("x = 3\n")
    with pytest.raises(UsageError) as caught:
        open_dataset(f"{tmp_path / 'mine.py'}:x", "--recalibrate")
    assert caught.value.what == f"--recalibrate {tmp_path / 'mine.py'}:x is an object of type int, not a loader"
