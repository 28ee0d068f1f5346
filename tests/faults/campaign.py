"""One fault, put at every step of one writer in turn: what is left must be the old output or the new one, whole."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bnfold import interrupts
from faults.injection import Act, Steps, lines
from faults.writers import State, Writer, state

ERRORS = ("ENOSPC", "EDQUOT", "EACCES", "EIO", "EXDEV")
SIGNALS = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129}
IN_PLACE = "is in its place, but the disk does not confirm it"


@dataclass
class Outcome:
    """What became of the output, over all steps.

    Attributes:
        writer: The writer's name.
        fault: The fault's name.
        old: How often the old output was left.
        new: How often the new one was.
        stale: How often, then, the data of the old one was still beside it, for the next run to remove.
        problems: What was wrong, one sentence each.
    """

    writer: str
    fault: str
    old: int = 0
    new: int = 0
    stale: int = 0
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Place:
    """A folder in which an output stands that is to be replaced.

    Attributes:
        writer: The writer.
        template: A folder with the old output.
        old: Its state.
        new: The state it has when the output was replaced.
        folder: The one that is used.
    """

    writer: Writer
    template: Path
    old: State
    new: State
    folder: Path

    def renew(self) -> None:
        """Puts the old output there, and nothing else."""
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self.template, self.folder)

    def judge(self, outcome: Outcome, where: str, code: int, said: str, wanted: int, words: str) -> None:
        """Notes what a run left behind.

        Args:
            outcome: Where it is noted.
            where: The step at which the fault was put.
            code: The exit code.
            said: What stands on stderr.
            wanted: The exit code that the fault asks for.
            words: What is said about it; empty for nothing.
        """
        found = state(self.folder)
        if self.new.items() < found.items() and set(found) - set(self.new) == set(self.old) - set(self.new):
            outcome.stale += 1
            assert self.writer.run(self.folder) == (0, "")
            found = state(self.folder)
        outcome.old += found == self.old
        outcome.new += found == self.new
        complaint = ""
        if found not in (self.old, self.new):
            complaint = f"left {sorted(found)}"
        elif code == 0 and found != self.new:
            complaint = "said that all went well, and the old output is there"
        elif code not in (0, wanted):
            complaint = f"exit code {code}: {said.strip()}"
        elif code == 5 and found == self.new and IN_PLACE not in said:
            complaint = f"the new output is there, and it said: {said.strip()}"
        elif code == 5 and found == self.old and IN_PLACE in said:
            complaint = f"the old output is there, and it said: {said.strip()}"
        elif code == wanted and words and (words not in said or len(said.splitlines()) != 2):
            complaint = f"said: {said.strip()}"
        if complaint:
            outcome.problems.append(f"{self.writer.name}, {outcome.fault} at {where}: {complaint}")


@contextmanager
def place(writer: Writer) -> Iterator[Place]:
    """A folder with the old output of a writer."""
    with tempfile.TemporaryDirectory() as root:
        template, other = Path(root, "template"), Path(root, "other")
        template.mkdir()
        assert writer.run(template, new=False) == (0, "")
        shutil.copytree(template, other)
        assert writer.run(other) == (0, "")
        old, new = state(template), state(other)
        assert old != new
        yield Place(writer, template, old, new, Path(root, "used"))


def count(writer: Writer, here: Place, watched: Callable[[Act], AbstractContextManager[object]]) -> int:
    """How many steps an undisturbed run has."""
    seen: list[str] = []
    here.renew()
    with watched(lambda number, name: seen.append(name)):
        assert writer.run(here.folder) == (0, "")
    assert state(here.folder) == here.new
    return len(seen)


def calls(act: Act) -> AbstractContextManager[object]:
    """Announces calls of the operating system."""
    return Steps(act).watched()


def failing_calls(writer: Writer, name: str, *, lasting: bool) -> Outcome:
    """An error of the operating system at each call, once or from there on."""
    number = getattr(errno, name)
    outcome = Outcome(writer.name, f"{name}, lasting" if lasting else name)
    with place(writer) as here:
        for step in range(1, count(writer, here, calls) + 1):
            reached = [""]

            def act(at: int, call: str, step: int = step, reached: list[str] = reached) -> None:
                if at == step:
                    reached[0] = f"{call} ({step})"
                if at == step or (lasting and at > step):
                    raise OSError(number, os.strerror(number))

            here.renew()
            with calls(act):
                code, said = writer.run(here.folder)
            here.judge(outcome, reached[0], code, said, 5, os.strerror(number))
    return outcome


def failing_memory(writer: Writer) -> Outcome:
    """A MemoryError in each line of our own that writes."""
    outcome = Outcome(writer.name, "MemoryError")
    with place(writer) as here:
        for step in range(1, count(writer, here, lines) + 1):
            reached = [""]

            def act(at: int, line: str, step: int = step, reached: list[str] = reached) -> None:
                if at == step:
                    reached[0] = line
                    raise MemoryError

            here.renew()
            with lines(act):
                code, said = writer.run(here.folder)
            here.judge(outcome, reached[0], code, said, 4, "there is not enough memory")
    return outcome


def signalled(
    writer: Writer, name: str, watched: Callable[[Act], AbstractContextManager[object]] = calls, every: int = 1
) -> Outcome:
    """A signal at each step, or at every so many."""
    outcome = Outcome(writer.name, name)
    with place(writer) as here, handled():
        for step in range(1, count(writer, here, watched) + 1, every):
            reached = [""]

            def act(at: int, call: str, step: int = step, reached: list[str] = reached) -> None:
                if at == step:
                    reached[0] = f"{call} ({step})"
                    os.kill(os.getpid(), getattr(signal, name))

            here.renew()
            interrupts._arrived.clear()
            with watched(act):
                code, said = writer.run(here.folder)
            here.judge(outcome, reached[0], code, said, SIGNALS[name], "")
    return outcome


def killed(writer: Writer) -> Outcome:
    """SIGKILL at each call, in a child; then another run, which must find its way and leave nothing of the first."""
    outcome = Outcome(writer.name, "SIGKILL")
    with place(writer) as here:
        for step in range(1, count(writer, here, calls) + 1):

            def act(at: int, call: str, step: int = step) -> None:
                if at == step:
                    os.kill(os.getpid(), signal.SIGKILL)

            here.renew()
            child = os.fork()
            if child == 0:
                try:
                    with calls(act):
                        writer.run(here.folder)
                finally:
                    os._exit(0)
            _, status = os.waitpid(child, 0)
            found = state(here.folder)
            whole = {name: digest for name, digest in found.items() if not name.startswith(".bnfold-")}
            outcome.stale += len(found) > len(here.new)
            is_old, is_new = here.old.items() <= whole.items(), here.new.items() <= whole.items()
            outcome.old += is_old and not is_new
            outcome.new += is_new
            code, said = writer.run(here.folder)
            if os.WTERMSIG(status) != signal.SIGKILL:
                outcome.problems.append(f"{writer.name}: not killed at {step}")
            if not (is_old or is_new):
                outcome.problems.append(f"{writer.name}, SIGKILL at {step}: left {sorted(whole)}")
            if code or state(here.folder) != here.new:
                left = sorted(state(here.folder))
                outcome.problems.append(f"{writer.name}, a run after SIGKILL at {step}: {code} {said} {left}")
    return outcome


@contextmanager
def handled() -> Iterator[None]:
    """Signals as the command line takes them."""
    before = {number: signal.getsignal(number) for number in interrupts.SIGNALS}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    interrupts.take()
    try:
        yield
    finally:
        interrupts._arrived.clear()
        for number, handler in before.items():
            signal.signal(number, handler)
