from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from bnfold.interrupts import Stopped, exit_code, shielded, take


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_a_signal_unwinds_the_stack(number: int, code: int) -> None:
    take()
    with pytest.raises(KeyboardInterrupt) as caught:
        signal.raise_signal(number)
    assert exit_code(caught.value) == code


def test_what_is_ignored_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    take()
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    with shielded():
        signal.raise_signal(signal.SIGHUP)


def test_a_handler_of_somebody_else_stays() -> None:
    def mine(number: int, frame: object) -> None: ...

    signal.signal(signal.SIGTERM, mine)
    take()
    assert signal.getsignal(signal.SIGTERM) is mine


def test_what_libraries_make_of_it_still_has_its_code() -> None:
    wrapped = RuntimeError("Aborted")
    wrapped.__cause__ = ValueError()
    wrapped.__cause__.__context__ = Stopped(signal.SIGTERM)
    assert exit_code(wrapped) == 143
    circle = ValueError()
    circle.__context__ = KeyError()
    circle.__context__.__context__ = circle
    assert exit_code(circle) == 130


def test_a_shield_puts_signals_off() -> None:
    take()
    done = []

    def work() -> None:
        with shielded():
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
            done.append(1)

    with pytest.raises(Stopped) as caught:
        work()
    assert (done, exit_code(caught.value)) == ([1], 143)
    with pytest.raises(Stopped):
        signal.raise_signal(signal.SIGTERM)


def test_an_error_inside_a_shield_does_not_hide_the_signal() -> None:
    def work() -> None:
        with shielded():
            signal.raise_signal(signal.SIGINT)
            raise OSError

    with pytest.raises(KeyboardInterrupt) as caught:
        work()
    assert isinstance(caught.value.__context__, OSError)


def test_shields_within_shields() -> None:
    done = []

    def work() -> None:
        with shielded():
            with shielded():
                signal.raise_signal(signal.SIGINT)
            done.append(1)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == [1]


def test_other_threads_have_nothing_to_put_off() -> None:
    done = []

    def work() -> None:
        take()
        with shielded():
            done.append(1)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [1]
