"""`.pt2` archives: as torch.export.save writes them, with something hostile in one place."""

from __future__ import annotations

import functools
import io
import json
import warnings
from collections.abc import Callable
from typing import Any

import hostile_pickles as hp
import torch

MODEL = "models/model.json"


@functools.cache
def program() -> bytes:
    """An exported program."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*LeafSpec.*", FutureWarning)
        torch.export.save(torch.export.export(hp.network(), (torch.ones(1, 1, 4, 4),)), buffer)
    return buffer.getvalue()


def _edited(edit: Callable[[Any], None], inputs: bytes = b"") -> bytes:
    def member(name: str, data: bytes) -> tuple[str, bytes]:
        if name.endswith(MODEL):
            model = json.loads(data)
            edit(model)
            return name, json.dumps(model).encode()
        return name, inputs if "sample_inputs" in name else data

    return hp.rezipped(program(), member)


def with_pickled_inputs(payload: Any) -> bytes:
    """Its sample inputs run code when they are unpickled."""
    return _edited(lambda model: None, hp.saved(payload))


def with_guard(code: str) -> bytes:
    """Nothing is pickled, and a guard is this code."""
    return _edited(lambda model: model.update(guards_code=[code]))


def with_operator(path: str) -> bytes:
    """Nothing is pickled, and the first operator is this attribute of torch."""
    return _edited(lambda model: model["graph_module"]["graph"]["nodes"][0].update(target=path))
