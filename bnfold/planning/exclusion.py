"""BatchNorms that the caller wants to keep: named as they are, by the module they lie in, or by a pattern."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from bnfold.errors import UsageError
from bnfold.wording import guess, listed, printable


def patterns_of(exclude: str | Sequence[str]) -> tuple[str, ...]:
    """What a caller gave, one or several."""
    return (exclude,) if isinstance(exclude, str) else tuple(exclude)


def excluded(patterns: Sequence[str], norms: Mapping[str, str]) -> frozenset[str]:
    """The BatchNorms that some patterns mean.

    Args:
        patterns: Names of BatchNorms or of modules with BatchNorms in them, `*`, `?` and `[...]` as in a shell.
        norms: The module path of every BatchNorm, by its name; empty where none is known.

    Raises:
        UsageError: A pattern means none of them.
    """
    found: set[str] = set()
    for pattern in patterns:
        means = {name for name, path in norms.items() if _is_meant(pattern, name, path)}
        if not means:
            raise _unknown(pattern, norms)
        found |= means
    return frozenset(found)


def _is_meant(pattern: str, name: str, path: str) -> bool:
    return any(fnmatchcase(each, pattern) for each in (name, *_around(path)))


def _around(path: str) -> list[str]:
    """`layer1.0.bn2` and the modules around it: `layer1.0`, `layer1`."""
    parts = path.split(".") if path else []
    return [".".join(parts[:end]) for end in range(len(parts), 0, -1)]


def _unknown(pattern: str, norms: Mapping[str, str]) -> UsageError:
    places = {place: None for name, path in norms.items() for place in (name, *_around(path))}
    meant = guess(pattern, list(places), count=2) or f"There are: {listed(places)}. " * bool(places)
    return UsageError(
        f"no BatchNorm is called {printable(pattern)!r}, and no module with one",
        f"{meant}See them all: bnfold inspect -v.",
    )
