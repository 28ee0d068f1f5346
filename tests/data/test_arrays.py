from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bnfold.data.arrays import draw, for_the_only_input, load_input_data
from bnfold.errors import BnfoldError, UnreadableError, UnsafeError, UsageError


def refusal(raises: type[BnfoldError], call: Any, *args: Any) -> str:
    with pytest.raises(raises) as caught:
        call(*args)
    return str(caught.value)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "bfloat16", "int8", "uint64", "bool", "complex64"])
def test_drawn_values_have_the_dtype_asked_for(dtype: str) -> None:
    drawn = draw(np.random.default_rng(0), (50,), dtype)
    assert drawn.dtype.name == dtype
    assert len(np.unique(drawn)) > 1
    if drawn.dtype.kind in "iu":
        assert drawn.min() >= 0
        assert drawn.max() <= 9


def test_an_absurd_shape_is_refused_before_it_is_allocated() -> None:
    assert refusal(UsageError, draw, np.random.default_rng(0), (10**6, 10**6), "float32") == (
        "error[USAGE]: an input of shape 1000000x1000000 would hold 1000000000000 values\n"
        "Pass a shape of at most 536870912 values."
    )


def test_npy_and_npz_files_load(tmp_path: Path) -> None:
    array = np.arange(6.0).reshape(2, 3)
    np.save(tmp_path / "x.npy", array)
    np.savez(tmp_path / "inputs.npz", x=array, y=array + 1)
    loaded = load_input_data(tmp_path / "inputs.npz")
    assert np.array_equal(load_input_data(tmp_path / "x.npy"), array)
    assert isinstance(loaded, dict)
    assert np.array_equal(loaded["y"], array + 1)


def test_a_missing_data_file(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    assert refusal(UnreadableError, load_input_data, path) == (
        f"error[UNREADABLE]: cannot read {path}: No such file or directory\nCheck the path."
    )


def test_a_data_file_of_another_kind(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    path.write_text("1 2 3")
    assert refusal(UnreadableError, load_input_data, path) == (
        f"error[UNREADABLE]: {path} is neither a .npy nor a .npz file\nWrite it with numpy.save or savez."
    )


def test_pickled_objects_in_a_data_file_are_refused(tmp_path: Path) -> None:
    for path, save in ((tmp_path / "x.npy", np.save), (tmp_path / "x.npz", np.savez)):
        save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
        assert refusal(UnsafeError, load_input_data, path) == (
            f"error[UNSAFE]: {path} holds pickled objects\nSave plain arrays of numbers."
        )


@pytest.mark.parametrize("cut", [0.3, 0.9])
def test_a_truncated_data_file(tmp_path: Path, cut: float) -> None:
    for name, save in (("x.npy", np.save), ("x.npz", np.savez)):
        buffer = io.BytesIO()
        save(buffer, np.arange(1000.0))
        (tmp_path / name).write_bytes(buffer.getvalue()[: int(len(buffer.getvalue()) * cut)])
        assert refusal(UnreadableError, load_input_data, tmp_path / name).startswith(
            f"error[UNREADABLE]: {tmp_path / name} is damaged: "
        )


@pytest.mark.parametrize(
    ("held", "names", "fed", "note"),
    [
        (["image"], ["image"], {"image": "image"}, ""),
        (["x"], ["image"], {"image": "x"}, "the input 'image' is fed the array 'x'"),
        (["pixels"], ["image"], {"image": "pixels"}, "the input 'image' is fed the array 'pixels'"),
        (["y", "x"], ["image"], {"image": "x"}, "the input 'image' is fed the array 'x'; 'y' is not used"),
        (["y", "x", "id"], ["image"], {"image": "x"}, "the input 'image' is fed the array 'x'; 'y', 'id' are not used"),
        (["x", "image"], ["image"], {"x": "x", "image": "image"}, ""),
        (["a", "b"], ["image"], {"a": "a", "b": "b"}, ""),
        (["x"], ["image", "mask"], {"x": "x"}, ""),
        (["x"], [], {"x": "x"}, ""),
    ],
)
def test_one_input_takes_the_array_that_must_be_meant(
    held: list[str], names: list[str], fed: dict[str, str], note: str
) -> None:
    arrays = {name: np.full(2, index) for index, name in enumerate(held)}
    found, said = for_the_only_input(arrays, names)
    assert said == note
    assert {name: held[int(array[0])] for name, array in found.items()} == fed
