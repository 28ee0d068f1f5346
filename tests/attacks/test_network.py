"""Nothing connects anywhere while a model is converted, verified and timed."""

from __future__ import annotations

import socket

import pytest
import tiny
from stage import Attack


def test_network(attack: Attack, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("a socket was made")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    attack.write("model.onnx", tiny.conv_bn())
    code, out, err = attack.run("convert", "model.onnx", "--bench", "--threads", "1", "--min-time", "0.05")
    assert (code, err) == (0, "")
    attack.silent(out, err)
