"""What the code of an `--arch` offers, without running it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bnfold.errors import UsageError
from bnfold.loading.factories import check_call, defined_in


def test_a_file_is_read_and_not_run(tmp_path: Path) -> None:
    path = tmp_path / "nets.py"
    path.write_text("raise SystemExit\ndef net(): ...\nclass Net: ...\ndef _own(): ...\nx = 1\n")
    assert defined_in(str(path)) == ["net", "Net"]


@pytest.mark.parametrize("content", [b"def (", b"\xff\xfe", b"a\0b"])
def test_what_is_no_python_defines_nothing(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_bytes(content)
    assert defined_in(str(tmp_path / "nets.py")) == []


def plain() -> None: ...


def needs(a: int, b: int, *, c: int = 3) -> None: ...


def takes_all(a: int, **more: int) -> None: ...


def by_position(a: int, /) -> None: ...


@pytest.mark.parametrize(
    ("factory", "keywords"),
    [(plain, {}), (needs, {"a": 1, "b": 2, "c": 4}), (takes_all, {"a": 1, "x": 2}), (by_position, {"x": 1}), (int, {})],
)
def test_a_call_that_may_work_is_let_through(factory: Callable[..., Any], keywords: dict[str, object]) -> None:
    check_call(factory, "nets:net", keywords)


@pytest.mark.parametrize(
    ("factory", "keywords", "what", "hint"),
    [
        (plain, {"a": 1}, "--arch nets:net takes no argument 'a'", "It takes none."),
        (
            needs,
            {},
            "--arch nets:net needs the arguments 'a', 'b'",
            "Pass --arch-arg a=VALUE --arch-arg b=VALUE. It takes a, b, c=3.",
        ),
        (takes_all, {"x": 1}, "--arch nets:net needs the argument 'a'", "Pass --arch-arg a=VALUE. It takes a."),
    ],
)
def test_a_call_that_cannot_work_is_said(
    factory: Callable[..., Any], keywords: dict[str, object], what: str, hint: str
) -> None:
    with pytest.raises(UsageError) as caught:
        check_call(factory, "nets:net", keywords)
    assert (caught.value.what, caught.value.hint) == (what, hint)
