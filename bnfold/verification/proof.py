"""Whether the certificate shows two models to be the same function, as part of a verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bnfold.errors import BnfoldError
from bnfold.running.subjects import Subject
from bnfold.verification.exports import as_onnx

if TYPE_CHECKING:
    from bnfold.certificate import Certificate

SHOWN = 5  # problems that are told one by one


@dataclass(frozen=True)
class Proof:
    """What the certificate contributes.

    Attributes:
        certificate: The certificate; None where there is none for these models.
        failures: Where weights disagree, one sentence each.
        notes: What to know about it besides.
        exported: Whether it is of what torch exports of a network, which it then trusts.
    """

    certificate: Certificate | None = None
    failures: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    exported: bool = False

    @property
    def proved(self) -> bool:
        """Whether it shows that both are the same function."""
        return self.certificate is not None and self.certificate.proved


def prove(before: Subject, after: Subject) -> Proof:
    """The certificate of two models, whoever made the second."""
    from bnfold.certificate import ANYBODYS, certify

    try:
        exports = as_onnx(before, after)
        certificate = certify(exports.before, exports.after, ANYBODYS)
    except BnfoldError as error:
        return Proof(notes=(f"not proved, only compared by running: {error.what}",))
    except Exception as error:  # a model that it cannot follow is one that it does not prove
        return Proof(notes=(f"not proved, only compared by running: {type(error).__name__}: {error}",))
    if certificate.proved:
        return Proof(certificate, notes=_trusted(exports.call) if exports.exported else (), exported=exports.exported)
    if certificate.refuted:
        disagreements = [problem for problem in certificate.problems if problem.differs]
        told = [f"at {problem.name!r}: {problem.words}" for problem in disagreements[:SHOWN]]
        more = len(disagreements) - len(told)
        said = (*told, *([f"and at {more} more places"] if more > 0 else []))
        return Proof(certificate, said, exported=exports.exported)
    where = certificate.problems[0] if certificate.problems else None
    why = "" if where is None else f", first at {where.name!r}: {where.words}"
    parts = len(certificate.problems)
    return Proof(
        certificate,
        notes=(
            f"not proved as a whole: {parts} part{'' if parts == 1 else 's'} of the model could only be compared by "
            f"running{why}",
        ),
        exported=exports.exported,
    )


def _trusted(call: str) -> tuple[str, ...]:
    """What a proof of exported networks is of."""
    return (
        f"the proof is of the graphs that torch exports for the call {call}: it trusts the exporter, "
        "and holds where forward takes the path of that call",
    )
