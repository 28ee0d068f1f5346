"""The canary sings where code does run: with --trust-pickle, and with a socket."""

from __future__ import annotations

import socket

import hostile_pickles as hp
import pytest
from canary import watched
from stage import Attack


def test_canary_can_fail(attack: Attack) -> None:
    attack.write("model.pt", hp.saved({"x": attack.payload()}))
    code, _, _ = attack.run("inspect", "model.pt", *hp.ARCH, "--trust-pickle")
    assert code == 4
    assert attack.marker.exists()
    assert attack.watch.started[0].startswith("os.system")
    with pytest.raises(AssertionError, match="the payload ran"):
        attack.silent()
    attack.marker.unlink()
    with pytest.raises(AssertionError, match="a process or a connection was started"):
        attack.silent()
    with watched() as attack.watch, socket.socket() as made, pytest.raises(OSError, match="refused"):
        made.connect(("127.0.0.1", 9))
    with pytest.raises(AssertionError, match="a process or a connection was started"):
        attack.silent()
    with watched() as attack.watch:
        attack.secret.read_text()
    with pytest.raises(AssertionError, match="a file outside the folder was opened"):
        attack.silent()
    with watched() as attack.watch:
        pass
    with pytest.raises(AssertionError, match="the secret was printed"):
        attack.silent(attack.secret.read_text())
    attack.write("model.onnx", "some text")
    with pytest.raises(AssertionError):
        attack.refused("inspect", "model.onnx", says="other words")
