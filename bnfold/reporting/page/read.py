"""Reads a run that was written with `--json`, and holds it to what the pages take for granted.

A run is data that may come from anybody. It is only shown, so all that counts is that every part has the type that the
pages read it as; what is not there was not measured.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from typing import Any

from bnfold.errors import UnreadableError, UnsupportedError
from bnfold.loading.places import advice
from bnfold.wording import first_line, printable

SCHEMA = 1

LARGEST_BYTES = 256 << 20

ADVICE = "Give a file that was written with --json by bnfold convert, inspect, verify, bench or drift."

LONGEST_INTEGER = 20

REAL = (int, float)

NUMBER = (int, float, type(None))
TEXT = (str, type(None))


def read_run(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The run in a file.

    Raises:
        UnreadableError: The file does not open, is too large, or holds no run.
        UnsupportedError: It holds one of another schema.
    """
    name = os.fspath(path)
    try:
        with open(name, "rb") as file:
            content = file.read(LARGEST_BYTES + 1)
        if len(content) > LARGEST_BYTES:
            raise UnreadableError(f"{name} has more than {LARGEST_BYTES >> 20} MB, too much for a run", ADVICE)
        run = json.loads(content, parse_constant=_refused, parse_float=_finite, parse_int=_short)
    except OSError as error:
        raise UnreadableError(f"cannot read {name}: {error.strerror or error}", advice(error, name)) from error
    except (ValueError, RecursionError) as error:
        raise UnreadableError(f"{name} is no JSON: {first_line(error)}", ADVICE) from error
    if isinstance(run, dict) and isinstance(run.get("schema"), int) and run["schema"] != SCHEMA:
        raise UnsupportedError(
            f"{name} has schema {run['schema']}, and this is bnfold for schema {SCHEMA}",
            "Use the version of bnfold that wrote it.",
        )
    problem = problem_of(run)
    if problem:
        raise UnreadableError(f"{name} is no run of bnfold: {printable(problem)}", ADVICE)
    return dict(run)


def problem_of(run: object) -> str:
    """What of a run is not as the pages need it; empty where nothing is."""
    try:
        _expect(run, "", RUN)
    except _OfAnotherTypeError as error:
        return str(error)
    picture = run.get("picture") if isinstance(run, dict) else None
    for side in ("before", "after"):
        nodes = (picture or {}).get(side) or ()
        for node in nodes:
            if not all(0 <= at < len(nodes) for at in node.get("reads") or ()):
                return f"picture.{side}: a node reads what is not there"
    for weight in (picture or {}).get("weights") or ():
        if weight.get("before") is None and weight["after"] in (None, "same"):
            return f"picture.weights: {weight['name']} has no weight"
    return ""


class _OfAnotherTypeError(Exception):
    """A part of a run has another type."""


def _refused(text: str) -> object:
    raise ValueError(f"{text} is no number")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refused(text)  # type: ignore[return-value]


def _short(text: str) -> int:
    return int(text) if len(text) < LONGEST_INTEGER else _refused(f"{text[:10]}…")  # type: ignore[return-value]


def _expect(value: object, where: str, spec: Any) -> None:
    """Compares a value with a spec: types, `[spec]`, `{key: spec}`, where a `key?` may be absent or null."""
    if isinstance(spec, dict):
        if not isinstance(value, dict):
            raise _OfAnotherTypeError(f"{where or 'the file'} is no object")
        for key, inner in spec.items():
            name, optional = key.rstrip("?"), key.endswith("?")
            if optional and value.get(name) is None:
                continue
            if name not in value:
                raise _OfAnotherTypeError(f"{f'{where}.{name}'.lstrip('.')} is missing")
            _expect(value[name], f"{where}.{name}".lstrip("."), inner)
    elif isinstance(spec, list):
        if not isinstance(value, list):
            raise _OfAnotherTypeError(f"{where} is no list")
        for item in value:
            _expect(item, f"{where}[]", spec[0])
    elif isinstance(spec, _Exactly):
        if not isinstance(value, list) or len(value) != spec.length:
            raise _OfAnotherTypeError(f"{where} is no list of {spec.length}")
        for item in value:
            _expect(item, f"{where}[]", NUMBER)
    elif isinstance(spec, _Either):
        if value is not None and value != "same":
            _expect(value, where, spec.inner)
    elif isinstance(spec, _Values):
        if not isinstance(value, dict):
            raise _OfAnotherTypeError(f"{where} is no object")
        for item in value.values():
            _expect(item, f"{where}.*", spec.inner)
    elif isinstance(value, bool) is not (spec is bool) or not isinstance(value, spec):
        raise _OfAnotherTypeError(f"{where} is {json.dumps(value)[:40]}")


class _Values:
    """An object whose keys are names and whose values are alike."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner


class _Exactly:
    """A list of so many numbers."""

    def __init__(self, length: int) -> None:
        self.length = length


class _Either:
    """Something, null, or `"same"`."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner


_PAIR = _Exactly(2)
_UNITS = {"channels": int, **dict.fromkeys(("s", "t", "scale_in", "shift_in", "scale_out", "shift_out"), _PAIR)}
_SITE = {
    "name": str,
    "op": str,
    "status": str,
    "into": [str],
    "reason?": {"code": str, "text": str},
    "units?": _UNITS,
}
_CHANNELS = {"shape": [int], "quantiles": _Exactly(5), "profile": [NUMBER]}
_NODE = {"name": str, "op": str, "status": str, "path?": [str], "reads?": [int], "shape?": str, "was?": str}
_WEIGHT = {
    "name": str,
    "op": str,
    "before?": _CHANNELS,
    "after": _Either(_CHANNELS),
    "moved?": REAL,
    "factor?": _PAIR,
    "bias": str,
}
_LAYER = {"name": str, "drift": NUMBER, "mean_shift": NUMBER, "spread": NUMBER, "worst": NUMBER}
_SIDE = {"p90_ms": NUMBER, "p99_ms": NUMBER}
_ROW = {
    "runtime": str,
    "threads": int,
    "before_ms": REAL,
    "verdict": str,
    **{f"{key}?": NUMBER for key in ("after_ms", "speedup", "low", "high", "control_low", "control_high")},
    "before?": _SIDE,
    "after?": _SIDE,
    "device?": str,
}
_OUTPUT = {
    "name": str,
    "max_abs": NUMBER,
    "rel": NUMBER,
    **{f"{k}?": NUMBER for k in ("error_before", "error_after", "ratio")},
}
RUN: Mapping[str, Any] = {
    "schema": int,
    "bnfold?": str,
    "command?": str,
    "passed?": bool,
    "failures?": [str],
    "conditions?": [str],
    "rejected?": str,
    "source": {"path": str, "sha256": str, "format?": str},
    "output?": {"path": str, "sha256": str},
    "counts": _Values((int, type(None))),
    "sites": [_SITE],
    "affines?": [_SITE],
    "operators?": {"before?": _Values(int), "after?": _Values(int)},
    "verification?": {
        "passed": bool,
        "level": str,
        "inputs": int,
        "outputs": [_OUTPUT],
        "failures?": [str],
        "notes?": [str],
        "certificate?": {"proved": bool},
        "exported?": bool,
        "sites?": [
            {
                "state?": str,
                "site?": str,
                "node?": str,
                **{f"{k}?": NUMBER for k in ("gap", "accumulated", "before", "local")},
            }
        ],
    },
    "benchmark?": {"batch": int, "rows": [_ROW], "warnings?": [str]},
    "accuracy?": {
        "metric": str,
        "data": str,
        "n": int,
        "before": REAL,
        "after": REAL,
        "delta": REAL,
        **{
            f"{k}?": NUMBER
            for k in ("agreement", "changed", "ties", "lost", "gained", "p", "low", "high", "folded_only")
        },
    },
    "drift?": {"data": str, "n": int, "limit": NUMBER, "drifted": int, "layers": [_LAYER]},
    "recalibration?": {"data": str, "n": int, "layers": [_LAYER]},
    "notes?": [str],
    "environment?": {"packages?": _Values(TEXT)},
    "picture?": {
        "before": [_NODE],
        "after?": [_NODE],
        "weights": [_WEIGHT],
    },
}
