from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from bnfold.errors import OutputError
from bnfold.writing import spill
from bnfold.writing.spill import SMALL_BYTES, Spill


def test_arrays_come_back_as_they_were_and_leave_no_file(tmp_path: Path) -> None:
    store = Spill(tmp_path / "out")
    rng = np.random.default_rng(0)
    arrays = [
        rng.standard_normal((300, 400)).astype(np.float32),
        rng.standard_normal((200, 300, 2)).astype(ml_dtypes.bfloat16),
        rng.integers(0, 9, (SMALL_BYTES,)).astype(np.int8),
        np.asfortranarray(rng.standard_normal((100, 200))),
    ]
    kept = [store(array) for array in arrays]
    for array, mapped in zip(arrays, kept, strict=True):
        assert mapped is not array
        assert mapped.dtype == array.dtype
        np.testing.assert_array_equal(mapped, array)
        assert not mapped.flags.writeable
    assert os.listdir(tmp_path) == []


def test_small_arrays_stay_where_they_are(tmp_path: Path) -> None:
    array = np.zeros(SMALL_BYTES - 1, np.int8)
    assert Spill(tmp_path / "out")(array) is array


def test_what_is_kept_is_not_kept_again(tmp_path: Path) -> None:
    store = Spill(tmp_path / "out")
    kept = store(np.arange(SMALL_BYTES))
    assert store(kept) is kept
    assert store(kept.reshape(2, -1)).base is kept.base


def test_a_file_that_is_full_is_followed_by_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spill, "SEGMENT_BYTES", 4 * SMALL_BYTES)
    store = Spill(tmp_path / "out")
    sizes = (SMALL_BYTES, 2 * SMALL_BYTES, 2 * SMALL_BYTES, 9 * SMALL_BYTES, SMALL_BYTES)
    arrays = [np.full(size, i, np.int8) for i, size in enumerate(sizes)]
    kept = [store(array) for array in arrays]
    for array, mapped in zip(arrays, kept, strict=True):
        np.testing.assert_array_equal(mapped, array)
    assert len(store._segments) == 4


def test_a_full_disk_is_told_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(spill.tempfile, "TemporaryFile", fail)
    with pytest.raises(OutputError) as caught:
        Spill("out.onnx")(np.zeros(SMALL_BYTES))
    assert str(caught.value) == (
        "error[OUTPUT]: cannot write out.onnx: No space left on device\n"
        "Free some space; what was there before is untouched."
    )
