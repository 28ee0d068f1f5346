"""Archives that pass the pre-flight; those that do not stand in tests/attacks."""

from __future__ import annotations

import io
import zipfile

import pytest
import torch

from bnfold.errors import UnreadableError
from bnfold.loading.archive import check_archive, members


def check(data: bytes) -> list[str]:
    file = io.BytesIO(data)
    listed = members(file, "model.pt")
    check_archive(file, listed, "model.pt")
    return [info.filename for info in listed]


def test_what_torch_writes_passes() -> None:
    buffer = io.BytesIO()
    torch.save({"w": torch.zeros(100), "e": torch.zeros(0)}, buffer)
    assert "archive/data.pkl" in check(buffer.getvalue())


def test_what_zipfile_writes_passes_with_sizes_before_and_behind() -> None:
    class Unseekable(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def tell(self) -> int:
            raise OSError("it cannot say")

    for buffer in (io.BytesIO(), Unseekable()):
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("model/data.pkl", b"abc")
            archive.writestr("model/größe", b"")
        assert check(buffer.getvalue()) == ["model/data.pkl", "model/größe"]


def test_a_member_with_64_bit_sizes_passes() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, archive.open("model/data.pkl", "w", force_zip64=True) as member:
        member.write(b"abc")
    assert check(buffer.getvalue()) == ["model/data.pkl"]


@pytest.mark.parametrize("data", [b"", b"PK", b"PK\x03\x04" + bytes(100), b"PK\x05\x06" + b"\xff" * 18])
def test_what_is_no_archive(data: bytes) -> None:
    with pytest.raises(UnreadableError) as caught:
        check(data)
    assert str(caught.value) == (
        "error[UNREADABLE]: model.pt is a damaged or truncated zip archive\nDownload or save it again."
    )
