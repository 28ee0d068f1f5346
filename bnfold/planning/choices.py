"""What a caller may choose about a fold."""

from __future__ import annotations

from dataclasses import dataclass

from bnfold.planning.leftover import check_leftover
from bnfold.planning.sharing import budget_bytes


@dataclass(frozen=True)
class Choices:
    """How to fold.

    Attributes:
        leftover: What a BatchNorm that must stay becomes: `"keep"` as it is, `"affine"` Mul and Add (a single Add where
            its scale can go elsewhere), `"conv"` a depthwise 1×1 Conv.
        norm_affine: Whether the scale and bias of LayerNormalization, RMSNormalization, GroupNormalization and
            InstanceNormalization are folded into what reads them, too.
        duplicate: Whether operators that share a weight may get copies of it where that removes BatchNorms: `"never"`,
            `"auto"` (while the weights grow by at most 5 % or 1 MB) or `"always"`.
        exclude: BatchNorms that stay as they are: their names, modules they lie in, or patterns of either.

    Raises:
        UsageError: There is no such choice.
    """

    leftover: str = "keep"
    norm_affine: bool = False
    duplicate: str = "auto"
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_leftover(self.leftover)
        budget_bytes(self.duplicate, 0)


AS_USUAL = Choices()
