"""What happened inside two models that a verdict is about: the errors at every site, if they can be looked into."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from bnfold.errors import BnfoldError
from bnfold.running.subjects import OnnxSubject, Subject
from bnfold.verification.localise import SiteError, localise


def look_inside(
    before: Subject, after: Subject, feeds: Mapping[str, NDArray[Any]]
) -> tuple[tuple[SiteError, ...], str | None]:
    """The errors at every site, worst first, or a sentence that says why there are none.

    Args:
        before: The unfolded model.
        after: The folded one.
        feeds: Inputs of both by name.
    """
    if not isinstance(before, OnnxSubject) or not isinstance(after, OnnxSubject):
        return (), "sites are compared inside ONNX models only; these are compared by what they give"
    try:
        return localise(before.model, after.model, feeds), None
    except BnfoldError as error:
        return (), f"sites were not compared: {error.what}"
    except Exception as error:  # an operator that float64 cannot run is no verdict on the models
        return (), f"sites were not compared: {type(error).__name__}: {error}"
