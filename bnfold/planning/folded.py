"""What folding a model in memory gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bnfold.errors import UsageError
from bnfold.planning.plan import Plan


@dataclass(frozen=True)
class Folded:
    """A folded model and what was done to it.

    `verify`, `bench` and `accuracy` take it as it is, and mean its model. Calling it calls the model.

    Attributes:
        model: The same kind of object as went in.
        plan: The fate of every BatchNorm.
    """

    model: Any
    plan: Plan

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the model gives for these arguments.

        Raises:
            UsageError: It is an ONNX model, which only a runtime can run.
        """
        if not callable(self.model):
            raise UsageError(
                f"a {type(self.model).__name__} cannot be called", "Save folded.model, and run it in onnxruntime."
            )
        return self.model(*args, **kwargs)

    def __str__(self) -> str:
        """Of what kind the model is, and the plan."""
        return f"{type(self.model).__name__}: {self.plan}"
