"""Why a BatchNorm stays: one member per reason, whose text is the sentence users read."""

from __future__ import annotations

from enum import Enum


class Reason(Enum):
    """Why an operator is kept.

    Attributes:
        code: The stable identifier printed by the command line and in JSON, e.g. `"SHARED-UNIT"`.
        text: One sentence saying what stood in the way.
        advice: One sentence saying what would let it fold.
    """

    def __init__(self, code: str, text: str, advice: str) -> None:
        self.code = code
        self.text = text
        self.advice = advice

    SHARED_UNIT = (
        "SHARED-UNIT",
        "the tensor is read through other BatchNorms or operators that need another unit",
        "Only one reader can set a tensor's unit: normalise once before the branch, or give each its own producer.",
    )
    NONLINEAR = (
        "NONLINEAR",
        "both sides are operators that pass no shift (ReLU) or no unit at all (Sigmoid), so no weight can absorb it",
        "Put a convolution or linear layer next to the BatchNorm, or pass --leftover affine, which leaves an Add.",
    )
    ZERO_PAD = (
        "ZERO-PAD",
        "the only absorber pads with zeros and the shift has nowhere else to go",
        "Remove the padding (pad the image once, before the normalisation), or train with beta and running_mean at 0.",
    )
    NEGATIVE_GAMMA = (
        "NEGATIVE-GAMMA",
        "a ReLU or MaxPool on the way needs a positive scale, and gamma is negative in some channels",
        "Constrain gamma to be positive while training, e.g. by weight = softplus(g).",
    )
    ZERO_GAMMA = (
        "ZERO-GAMMA",
        "the scale would have to be inverted, and gamma is 0 in some channels",
        "Prune the channels whose gamma is 0, then convert again.",
    )
    ILL_CONDITIONED = (
        "ILL-CONDITIONED",
        "folding would add a shift much larger than the tensor's own spread and lose its low bits",
        "Look for channels with a tiny gamma and a large beta; prune them, or keep this model in float64.",
    )
    OVERFLOW = (
        "OVERFLOW",
        "a rewritten weight would not be finite in its stored dtype",
        "Convert the float32 model, then cast to the smaller dtype.",
    )
    TRAINING = (
        "TRAINING",
        "the BatchNorm computes its statistics from the batch (training mode)",
        "Call model.eval() before exporting.",
    )
    NO_STATS = (
        "NO-STATS",
        "the BatchNorm keeps no running statistics",
        "Train with track_running_stats=True, or estimate the statistics before exporting.",
    )
    NOT_CONSTANT = (
        "NOT-CONSTANT",
        "the parameters are computed at run time, or can be overridden by the caller",
        "Make the parameters initializers that are not graph inputs as well.",
    )
    SHARED_WEIGHT = (
        "SHARED-WEIGHT",
        "the weight that would absorb it is used elsewhere in other units",
        "Pass --duplicate always: each use gets its own copy of the weight, and the file grows.",
    )
    IO = (
        "IO",
        "the value is a graph input or output, whose meaning must not change",
        "Nothing to do: what enters and leaves the model keeps its units.",
    )
    BOUNDARY = (
        "BOUNDARY",
        "control flow or an operator bnfold does not know stands next to it",
        "Report the operator, or express it in standard operators.",
    )
    DTYPE = (
        "DTYPE",
        "the element type has no exact rewrite",
        "Convert the float model before quantising or casting it.",
    )
    HOOK = (
        "HOOK",
        "a hook observes or changes the value",
        "Remove the hook before converting.",
    )
    EXCLUDED = (
        "EXCLUDED",
        "it was excluded by the caller",
        "Drop the exclusion to fold it.",
    )
