"""What will be done and why: one Site per BatchNorm, one Plan per model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bnfold.reasons import Reason


@dataclass(frozen=True)
class Site:
    """One BatchNorm (or other per-channel affine) and what becomes of it.

    Attributes:
        name: The operator's name in the model.
        op: Its operator type, e.g. `"BatchNormalization"`.
        status: `"folded"` (its units were absorbed), `"merged"` (it went with a branch merge) or `"kept"`.
        into: Names of the operators whose weights changed because of it.
        reason: Why it was kept; None when it was not.
    """

    name: str
    op: str
    status: str
    into: tuple[str, ...] = ()
    reason: Reason | None = None

    def to_dict(self) -> dict[str, Any]:
        """The site as it stands in `--json`."""
        reason = None if self.reason is None else {"code": self.reason.code, "text": self.reason.text}
        return {"name": self.name, "op": self.op, "status": self.status, "into": list(self.into), "reason": reason}


@dataclass(frozen=True)
class Plan:
    """Every BatchNorm of a model with its fate, in graph order.

    Attributes:
        sites: The BatchNormalization call sites.
        affines: The other per-channel affines (Mul, Add, Sub, Div by constants).
    """

    sites: tuple[Site, ...]
    affines: tuple[Site, ...] = ()

    @property
    def batch_norms(self) -> int:
        """Number of BatchNormalization call sites in the unfolded graph."""
        return len(self.sites)

    @property
    def folded(self) -> int:
        """How many of them had their units absorbed."""
        return sum(site.status == "folded" for site in self.sites)

    @property
    def merged(self) -> int:
        """How many of them went with a branch merge."""
        return sum(site.status == "merged" for site in self.sites)

    @property
    def kept(self) -> int:
        """How many of them stay."""
        return sum(site.status == "kept" for site in self.sites)

    def to_dict(self) -> dict[str, Any]:
        """Counts and sites as they stand in `--json`."""
        return {
            "counts": {
                "batch_norms": self.batch_norms,
                "folded": self.folded,
                "merged": self.merged,
                "kept": self.kept,
                "affines": len(self.affines),
                "affines_folded": sum(site.status == "folded" for site in self.affines),
            },
            "sites": [site.to_dict() for site in self.sites],
        }
