"""Keeps what torch says while exporting off the terminal."""

from __future__ import annotations

import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any


class _Muted:
    """A stream that drops what this thread writes; a progress bar, drawn by another one, goes on."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._thread = threading.get_ident()

    def write(self, text: str) -> int:
        return len(text) if threading.get_ident() == self._thread else self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def silent_logs() -> Iterator[None]:
    """Keeps what libraries log to themselves: what matters of it is raised. It may hold names from a model."""
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(disabled)


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps torch's own remarks off the terminal: what matters of them is raised, or returned as a note.

    A failing torch.export prints the half-made graph, and its loggers say which ops they know for torchvision.
    """
    muted = (redirect_stdout(_Muted(sys.stdout)), redirect_stderr(_Muted(sys.stderr)))
    with silent_logs(), muted[0], muted[1], warnings.catch_warnings():
        # torch.export copies a tree spec of its own in a way it has deprecated
        warnings.filterwarnings("ignore", ".*LeafSpec.*", FutureWarning)
        # two inputs share one batch, as they should
        warnings.filterwarnings("ignore", "# The axis name: .* will not be used", UserWarning)
        # TorchScript only: num_batches_tracked has no reader, and checks of the input's rank are settled
        warnings.filterwarnings("ignore", "Manually populate .* into state_dict", UserWarning)
        warnings.filterwarnings("ignore", "Pred is a Python constant", UserWarning)
        # an LSTM lists its weights and weight_norm sets one, which torch.export takes for something new
        warnings.filterwarnings("ignore", "The tensor attributes? .* assigned during export", UserWarning)
        # TorchDynamo imports TorchScript, which is deprecated
        warnings.filterwarnings("ignore", ".*torch.jit.* is deprecated", DeprecationWarning)
        yield
