from __future__ import annotations

import json

import pytest

from bnfold.wording import first_line, inert, listed, printable, printable_lines, to_json


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


def test_a_text_of_several_lines_keeps_them() -> None:
    assert printable_lines("a\x1b[2J\n\tb\u202e\n") == "a\ufffd[2J\n        b\ufffd\n"


def test_data_is_inert_down_to_its_keys() -> None:
    assert inert({"a\x07": ["b\x1b", ("c", 1, None, 2.5, True)]}) == {"a\ufffd": ["b\ufffd", ["c", 1, None, 2.5, True]]}
    assert inert("x" * 20_000) == "x" * 9_999 + "…"


def test_json_is_ascii_without_tags() -> None:
    text = to_json({"größe": "<script>&amp;"})
    assert text == '{\n  "gr\\u00f6\\u00dfe": "\\u003cscript\\u003e\\u0026amp;"\n}\n'
    assert json.loads(text) == {"größe": "<script>&amp;"}
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json(float("nan"))
