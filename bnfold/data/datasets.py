"""Data to measure a model on, as batches, from where it lies: it is never held as a whole.

    x.npz               the arrays `x` and `y`, or one array per input and `y`: read row by row, compressed or not
    x.npy               inputs without labels, mapped into memory
    folder/             images, one sub-folder per class, in alphabetical order (`imagefolder`)
    pkg.mod:loader      the caller's own: an iterable of batches, or a callable that returns one

A batch is `(x, y)`, or inputs by name with the labels as `"y"`, or inputs alone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Any

from bnfold.data.arrayfiles import Arrays, OneArray
from bnfold.data.batches import Dataset
from bnfold.data.loaders import Loader
from bnfold.errors import UnreadableError
from bnfold.loading.arch import load_object
from bnfold.loading.places import CHECK, advice

KINDS = "Give a .npz file with the arrays x and y, a folder of images by class, or pkg.mod:loader."


def open_dataset(given: str | os.PathLike[str] | Iterable[Any], flag: str = "--data", *, raw: bool = False) -> Dataset:
    """A data set, checked as far as can be without reading it.

    Args:
        given: A path, `pkg.mod:loader`, or (in Python) the loader itself.
        flag: What it was given with, for messages.
        raw: Whether images keep their 0 to 255 (`--scale` is part of the model), instead of 0 to 1.

    Raises:
        UnreadableError: There is nothing there, or it is damaged.
        UnsafeError: It holds pickled objects.
        UsageError: It is in no form that is read.
    """
    if not isinstance(given, (str, os.PathLike)):
        return Loader("the loader", given, flag)
    name = os.fspath(given)
    if os.path.isdir(name):
        from bnfold.data.imagefolder import ImageFolder

        return ImageFolder(name, raw=raw)
    if not os.path.exists(name) and re.search(r"[^:\\/]:[A-Za-z_][\w.]*$", name):
        return Loader(name, load_object(flag, name), flag)
    try:
        with open(name, "rb") as file:
            start = file.read(6)
    except OSError as error:
        found = advice(error, name)
        hint = f"{found} {KINDS}" if found == CHECK else found
        raise UnreadableError(f"cannot read {name}: {error.strerror or error}", hint) from error
    if start.startswith(b"PK\x03\x04"):
        return Arrays(name)
    if start.startswith(b"\x93NUMPY"):
        return OneArray(name)
    raise UnreadableError(f"{name} is no data set", KINDS)
