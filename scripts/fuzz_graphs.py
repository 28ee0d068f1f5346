"""Random graphs of Hypothesis, folded and computed in float64: they are equal, or the fold is refused."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from property.run_onnx import run
from property.spec import Spec
from property.strategy import specs
from property.to_onnx import to_onnx

from bnfold.errors import BnfoldError
from bnfold.pipeline.folding import fold

RELATIVE, INNER = 1e-9, 1e-12
PIECE = 500  # graphs that are drawn from one seed


def fold_graphs(count: int, seed: int, until: float, piece: int = 0) -> dict[str, int]:
    """Counts of graphs by what became of them, and of their BatchNorms.

    Args:
        count: How many graphs.
        seed: Where the drawing begins.
        until: When to stop, on the monotonic clock.
        piece: How many pieces were drawn before.
    """
    found = dict.fromkeys(("count", "equal", "refused", "different", "norms", "gone"), 0)

    def take(spec: Spec) -> None:
        if found["count"] >= count or time.monotonic() > until:
            return
        found["count"] += 1
        before = to_onnx(spec)
        try:
            after = fold(before)
        except BnfoldError:
            found["refused"] += 1
            return
        found["norms"] += after.plan.batch_norms
        found["gone"] += after.plan.batch_norms - after.plan.kept
        same = is_same(spec, run(after.model, spec.feeds))
        found["equal" if same else "different"] += 1
        if not same:
            print(f"different: {spec}", flush=True)

    while found["count"] < count and time.monotonic() < until:
        kind = specs(anything=piece % 2 == 1, sharing=piece % 4 >= 2)
        draw = settings(
            max_examples=PIECE,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )(given(st.shared(kind, key="graph"))(take))
        seeded(f"{seed}:{piece}")(draw)()
        piece += 1
    return {**found, "pieces": piece}


def is_same(spec: Spec, got: dict[str, np.ndarray]) -> bool:
    """Whether a model computes what a graph means, to 1e-9 of each output's size."""
    inner = max(float(np.abs(value).max()) for value in spec.values.values())
    for name in spec.outputs:
        want = spec.values[name]
        size = np.abs(want).max(initial=0.0)
        if (
            got[name].shape != want.shape
            or not np.abs(got[name] - want).max(initial=0.0) <= RELATIVE * size + INNER * inner
        ):
            return False
    return list(got) == list(spec.outputs)
