"""The error tree as it is drawn, and messages word for word."""

from __future__ import annotations

import inspect
import re

import pytest

from bnfold import errors
from bnfold.errors import (
    BnfoldError,
    CheckFailed,
    InputError,
    InternalError,
    LimitError,
    OutputError,
    UnreadableError,
    UnsafeError,
    UnsupportedError,
    UsageError,
)

TREE: dict[type[BnfoldError], tuple[type[Exception], str, int]] = {
    BnfoldError: (Exception, "ERROR", 6),
    CheckFailed: (BnfoldError, "CHECK", 1),
    UsageError: (BnfoldError, "USAGE", 2),
    InputError: (BnfoldError, "INPUT", 3),
    UnreadableError: (InputError, "UNREADABLE", 3),
    UnsafeError: (InputError, "UNSAFE", 3),
    LimitError: (InputError, "LIMIT", 3),
    UnsupportedError: (BnfoldError, "UNSUPPORTED", 4),
    OutputError: (BnfoldError, "OUTPUT", 5),
    InternalError: (BnfoldError, "BUG", 6),
}


@pytest.mark.parametrize("error", TREE, ids=lambda error: error.__name__)
def test_parent_code_and_exit_status(error: type[BnfoldError]) -> None:
    assert (error.__base__, error.code, error.exit_code) == TREE[error]


def test_no_exception_is_missing_here() -> None:
    found = {c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, Exception)}
    assert found == set(TREE)


def test_the_tree_drawn_at_the_top_is_the_tree() -> None:
    assert errors.__doc__ is not None
    drawn = re.findall(r"^[ │├└─]*(\w+)  +([A-Z]+)(?:  +(\d))?", errors.__doc__, re.MULTILINE)
    want = {e.__name__: (code, exit_code) for e, (_, code, exit_code) in TREE.items() if e is not BnfoldError}
    assert {name: code for name, code, _ in drawn} == {name: code for name, (code, _) in want.items()}
    for name, _, status in drawn:
        assert status in ("", str(want[name][1]))


def test_a_message_says_what_happened_and_then_what_to_do() -> None:
    error = UsageError("--batch 0: a batch has at least 1 sample", "Pass --batch 1 or more.")
    assert str(error) == "error[USAGE]: --batch 0: a batch has at least 1 sample\nPass --batch 1 or more."
    assert (error.what, error.hint) == ("--batch 0: a batch has at least 1 sample", "Pass --batch 1 or more.")


def test_a_message_without_a_hint_is_one_line() -> None:
    assert str(InternalError("no law for Op")) == "error[BUG]: no law for Op"


def test_one_except_clause_catches_them_all() -> None:
    for error in TREE:
        with pytest.raises(BnfoldError, match=re.escape(f"error[{error.code}]: x")):
            raise error("x")


def test_what_cannot_be_printed_never_gets_into_a_message() -> None:
    error = UnsafeError("a\x1b[2Jb\nc\u202ed", "do\x07\ud800")
    assert str(error) == "error[UNSAFE]: a\ufffd[2Jb c\ufffdd\ndo\ufffd\ufffd"
