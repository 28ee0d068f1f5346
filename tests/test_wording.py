from __future__ import annotations

from bnfold.wording import first_line, listed, printable


def test_control_and_bidirectional_characters_do_not_get_through() -> None:
    assert printable("a\x1b[2J\u202eb\nc\x00\x9b") == "a\ufffd[2J\ufffdb\ufffdc\ufffd\ufffd"
    assert printable("größe/重み") == "größe/重み"


def test_a_long_name_is_cut() -> None:
    assert printable("x" * 200, 10) == "x" * 9 + "…"
    assert printable("x" * 10, 10) == "x" * 10


def test_a_list_shows_five_and_counts_the_rest() -> None:
    assert listed(["a", "b"]) == "'a', 'b'"
    assert listed("abcdefg") == "'a', 'b', 'c', 'd', 'e' and 2 more"
    assert listed([]) == ""


def test_an_error_is_its_kind_and_its_first_line() -> None:
    assert first_line(ValueError("\n  wrong \nmore")) == "ValueError: wrong"
    assert first_line(KeyboardInterrupt()) == "KeyboardInterrupt"
