"""Progress on a terminal: the step, how far it is, how long it has taken, and how long it will still take.

A step that cannot tell how far it is shows the time it has taken; each step has a clock of its own, because one says
nothing about the speed of the next.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, Task, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

PROGRESS_DELAY_S = 0.7  # what is over sooner needs no progress bar


class TimeLeft(TimeRemainingColumn):
    """`0:12 left`; nothing where that is not known."""

    def render(self, task: Task) -> Text:
        """The text of the column."""
        if task.total is None or task.finished or task.time_remaining is None:
            return Text("")
        return super().render(task).append(" left")


@contextmanager
def drawn(console: Console) -> Iterator[Callable[[str, float | None], None]]:
    """Draws progress once the work has taken a moment, and takes it away in the end.

    Args:
        console: Where to.

    Yields:
        What takes the name of the step and the part of it that is done (None: unknown).
    """
    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TimeElapsedColumn(),
        TimeLeft(compact=True),
        console=console,
        transient=True,
        redirect_stdout=False,  # others redirect the streams meanwhile, and the order of restoring them is not ours
        redirect_stderr=False,
    )
    step = "starting", False
    task = bar.add_task("starting", total=None)

    def tell(stage: str, done: float | None) -> None:
        nonlocal step, task
        if (stage, done is None) != step:  # a task that was once measured cannot become one that is not
            step = stage, done is None
            bar.remove_task(task)
            task = bar.add_task(stage, total=None if done is None else 1.0)
        bar.update(task, completed=done or 0.0)

    starter = threading.Timer(PROGRESS_DELAY_S, bar.start)
    starter.daemon = True
    starter.start()
    try:
        yield tell
    finally:
        starter.cancel()
        starter.join()
        bar.stop()
