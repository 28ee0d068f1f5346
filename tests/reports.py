"""Reports made by hand, for the tests of what is said about them."""

from __future__ import annotations

from typing import Any

from bnfold.benchmark.latency import Row, Timing
from bnfold.evaluation.accuracy import Accuracy
from bnfold.planning.plan import Plan, Site
from bnfold.reasons import Reason
from bnfold.reporting.report import FileInfo, Report
from bnfold.statistics.drift import Drift, Layer
from bnfold.statistics.recalibrate import Recalibration
from bnfold.verification.verify import OutputCheck, Verdict

FOLDED = Site("bn1", "BatchNormalization", "folded", ("conv1", "conv2"))
MERGED = Site("bn2", "BatchNormalization", "merged", ("conv3",))
KEPT = Site("bn3", "BatchNormalization", "kept", (), Reason.ZERO_PAD)
SCALE = Site("scale", "Mul", "folded", ("conv1",))

ROW = Row("ort", 2, 1.25, 1.0, 1.25, 1.2, 1.3, 0.98, 1.02, "1.25× faster")
SINGLE = Row("ort", 1, 1.25, None, None, None, None, 0.98, 1.02, "")
PASSED = Verdict(True, "quick", 4, (OutputCheck("y", 1e-6, 2.5e-7),))
FAILED = Verdict(False, "quick", 4, (OutputCheck("y", 0.5, 0.1),), ("output 'y': the largest difference is 0.5",))
ACCURACY = Accuracy("top1", "test.npz", 500, 0.988, 0.986, 0.99, 5, 2, 1, 1, 1.0, -0.011, 0.007, 0.984)
LAYERS = (Layer("bn1", 8, 0.7, 0.6, 0.3, 2, 1.4), Layer("bn2", 8, 0.1, 0.1, 0.02, 1, 0.2))
DRIFT = Drift("deployed.npz", 100, LAYERS)
RECALIBRATION = Recalibration("deployed.npz", 100, 2, LAYERS)
ENVIRONMENT = {"python": "3.11.0", "platform": "Linux", "cpu": "a cpu", "cores": 2, "packages": {"numpy": "2.0"}}


def report(**changes: Any) -> Report:
    """What a conversion of three BatchNorms found."""
    made: dict[str, Any] = {
        "command": "convert",
        "source": FileInfo("model.pt", "aa", "state-dict"),
        "output": FileInfo("model.onnx", "bb"),
        "plan": Plan((FOLDED, MERGED, KEPT), (SCALE,)),
        "operators_before": {"Conv": 3, "BatchNormalization": 3, "Relu": 2},
        "operators_after": {"Conv": 2, "Relu": 2, "BatchNormalization": 1},
        "bytes_before": 2048,
        "bytes_after": 1024,
        "verification": PASSED,
        "benchmark": Timing((ROW,), 1),
        "notes": ("state dict: 9 matched, 0 missing, 0 unexpected",),
        "environment": ENVIRONMENT,
    }
    return Report(**(made | changes))
