from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from bnfold import interrupts
from bnfold.interrupts import Stopped, begin, check, doing, exit_code, placed, shielded, take, words


@pytest.fixture(autouse=True)
def handlers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(interrupts, "_arrived", [])
    monkeypatch.setattr(interrupts, "_work", interrupts._Work())
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_a_signal_unwinds_the_stack(number: int, code: int) -> None:
    take()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(number)
    assert exit_code() == code


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


def test_without_a_signal_it_is_a_ctrl_c() -> None:
    assert exit_code() == 130


def test_a_shield_puts_signals_off() -> None:
    take()
    done = []

    def work() -> None:
        with shielded():
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
            done.append(1)

    with pytest.raises(Stopped):
        work()
    assert (done, exit_code()) == ([1], 143)
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


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_that_was_lost_in_a_destructor_is_raised_again() -> None:
    class Fragile:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    take()
    check()
    Fragile()
    with pytest.raises(Stopped):
        check()
    assert exit_code() == 130


def test_work_that_was_interrupted_says_where_and_what_was_written() -> None:
    assert words(130) == "interrupted"
    begin()
    assert words(130) == "interrupted; nothing was written"
    doing("verifying")
    assert words(143) == "terminated while verifying; nothing was written"
    placed("out.onnx")
    placed("run\x1b.json")
    assert words(130) == "interrupted while verifying; out.onnx and run\N{REPLACEMENT CHARACTER}.json were written"
    begin()
    assert words(130) == "interrupted; nothing was written"


def test_what_another_process_may_have_written_is_not_claimed() -> None:
    begin(certain=False)
    doing("folding")
    assert words(130) == "interrupted while folding"
