"""Takes a trained model to inference without its BatchNorms, exactly, with proof.

Importing this package loads neither torch nor onnxruntime; what needs them is imported when it is first used.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

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
from bnfold.reasons import Reason

if TYPE_CHECKING:
    from bnfold.accuracy import Accuracy, accuracy
    from bnfold.bench import bench
    from bnfold.folding import Folded, fold
    from bnfold.isolation import Limits
    from bnfold.latency import Timing
    from bnfold.pipeline import convert, drift
    from bnfold.plan import Plan, Site
    from bnfold.report import Report
    from bnfold.restore import restore
    from bnfold.verify import Verdict, verify

__version__ = "0.1.0"

_LAZY = {
    "Accuracy": "accuracy",
    "Folded": "folding",
    "Limits": "isolation",
    "Plan": "plan",
    "Report": "report",
    "Site": "plan",
    "Timing": "latency",
    "Verdict": "verify",
    "accuracy": "accuracy",
    "bench": "bench",
    "convert": "pipeline",
    "drift": "pipeline",
    "fold": "folding",
    "restore": "restore",
    "verify": "verify",
}

__all__ = [
    "Accuracy",
    "BnfoldError",
    "CheckFailed",
    "Folded",
    "InputError",
    "InternalError",
    "LimitError",
    "Limits",
    "OutputError",
    "Plan",
    "Reason",
    "Report",
    "Site",
    "Timing",
    "UnreadableError",
    "UnsafeError",
    "UnsupportedError",
    "UsageError",
    "Verdict",
    "__version__",
    "accuracy",
    "bench",
    "convert",
    "drift",
    "fold",
    "restore",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'bnfold' has no attribute {name!r}")
    value = getattr(import_module(f"bnfold.{_LAZY[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})


class _Package(ModuleType):
    """A package whose functions `verify` and `bench` are not hidden when the submodules of those names are imported."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _LAZY and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
