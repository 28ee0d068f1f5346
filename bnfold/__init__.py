"""Takes a trained model to inference without its BatchNorms, exactly, with proof.

Importing this package loads neither torch nor onnxruntime; what needs them is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
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
from bnfold.spoken import spoken

if TYPE_CHECKING:
    from bnfold.benchmark.bench import bench
    from bnfold.benchmark.latency import Timing
    from bnfold.evaluation.accuracy import Accuracy, accuracy
    from bnfold.pipeline.folding import fold
    from bnfold.pipeline.isolation import Limits
    from bnfold.pipeline.line import convert, drift
    from bnfold.pipeline.restore import restore
    from bnfold.planning.folded import Folded
    from bnfold.planning.plan import Plan, Site
    from bnfold.reporting.report import Report
    from bnfold.verification.verify import Verdict, verify

__version__ = "0.1.0"

_LAZY = {
    "Accuracy": "evaluation.accuracy",
    "Folded": "planning.folded",
    "Limits": "pipeline.isolation",
    "Plan": "planning.plan",
    "Report": "reporting.report",
    "Site": "planning.plan",
    "Timing": "benchmark.latency",
    "Verdict": "verification.verify",
    "accuracy": "evaluation.accuracy",
    "bench": "benchmark.bench",
    "convert": "pipeline.line",
    "drift": "pipeline.line",
    "fold": "pipeline.folding",
    "restore": "pipeline.restore",
    "verify": "verification.verify",
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
    if name.islower():  # a function
        value = spoken(value)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
