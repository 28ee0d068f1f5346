"""Reading ahead: what torch.save writes passes; what asks for too much stands in tests/attacks."""

from __future__ import annotations

import io
import zipfile
from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import nn

from bnfold.errors import LimitError
from bnfold.loading.claims import Claims, Refused
from bnfold.loading.tape import Tape

LIMIT = 10**9


def claims(content: Any, limit: int = LIMIT) -> Claims:
    """What the tensors of a saved object claim."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with zipfile.ZipFile(buffer) as archive:
        sizes = {
            info.filename.partition("/data/")[2]: info.file_size
            for info in archive.infolist()
            if "/data/" in info.filename
        }
        found = Claims(sizes, "model.pt", limit)
        Tape(found).follow(archive.read("archive/data.pkl"))
    return found


def follow(data: bytes) -> None:
    Tape(Claims({}, "model.pt", LIMIT)).follow(data)


@pytest.mark.parametrize(
    "content",
    [
        {"w": torch.zeros(3, 4)},
        {"w": nn.Parameter(torch.zeros(3)), "b": nn.Buffer(torch.zeros(2))},
        OrderedDict(a=torch.zeros(2, dtype=torch.float16), b=torch.zeros(2, dtype=torch.bfloat16)),
        {"scalar": torch.tensor(1.5), "empty": torch.zeros(0, 3), "complex": torch.zeros(2, dtype=torch.complex64)},
        {"view": torch.zeros(4, 4).t(), "part": torch.zeros(10)[2:5]},
        {"u16": torch.zeros(3, dtype=torch.uint16), "f8": torch.zeros(3).to(torch.float8_e4m3fn)},
        {"sparse": torch.eye(3).to_sparse(), "size": torch.Size([1, 2]), "device": torch.device("cpu")},
        {"meta": torch.zeros(10**9, device="meta")},
        {"epoch": 3, "lr": 0.1, "name": "größe", "bytes": b"\x00\xff", "array": bytearray(b"abc"), "none": None},
        {"nested": [(1, (2, "three")), {4, 5}, {"six": [7.0, 2**62, -1]}], "z": 1j, 3: True, (1, "a"): 2},
        nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.LSTM(2, 2), nn.MultiheadAttention(4, 2)),
        nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)).state_dict(),
    ],
)
def test_what_torch_save_writes_passes(content: Any) -> None:
    claims(content)


def test_an_optimizer_and_a_quantized_tensor_pass() -> None:
    net = nn.Linear(2, 2)
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    claims({"model": net.state_dict(), "optimizer": optimizer.state_dict()})


def test_claims_are_bytes_that_tensors_show() -> None:
    shared = torch.zeros(10)
    assert claims({"a": shared, "b": shared, "c": shared[:5]}).claimed == 60
    with pytest.raises(LimitError) as caught:
        claims({"a": shared, "b": shared[:]}, limit=79)
    assert str(caught.value) == (
        "error[LIMIT]: the tensors of model.pt have more than 79 bytes in all\nRaise --max-bytes."
    )


def test_a_tensor_that_was_expanded_is_refused() -> None:
    with pytest.raises(LimitError) as caught:
        claims({"w": torch.zeros(1).expand(3, 5)})
    assert str(caught.value) == (
        "error[LIMIT]: model.pt holds a tensor of 3x5, which is 60 bytes, on 4 bytes\n"
        "Save a copy that stands for itself: tensor.contiguous()."
    )


@pytest.mark.parametrize(
    ("data", "damaged"),
    [
        (b"", True),
        (b"\x80\x02", True),
        (b"\x80\x02R.", True),
        (b"\x80\x02h\x01.", True),
        (b"\x80\x02N\x85R.", True),
        (b"\x80\x02N]b.", False),
        (b"\x80\x02cbuiltins\nbytearray\nK\x05\x85R.", False),
        (b"\x80\x02ctorch\nFloatTensor\n)R.", False),
        (b"\x80\x02\x8c\x01a.", False),
    ],
)
def test_what_torch_save_does_not_write_is_refused(data: bytes, damaged: bool) -> None:
    with pytest.raises(Refused) as caught:
        follow(data)
    assert caught.value.damaged is damaged


def test_what_the_caller_may_have_allowed_is_left_to_torch() -> None:
    follow(b"\x80\x02cmine\nThing\nK\x05\x85R.")
    follow(b"\x80\x02cmine\nThing\nK\x05\x85\x81.")
