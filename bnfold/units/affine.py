"""The arithmetic of a change of units: float64 inside, rounded once.

A tensor `X` of the original model is stored in the rewritten model as `X'`, per channel, with

    X = S ⊙ X' + T        what a reader of X' must know   (scale S, shift T)
    X' = R ⊙ X + U        what a writer of X' must know   (R = 1 / S, U = −T / S)

Both maps are kept, because with a gamma of 0 only one of them exists: a channel that is the constant `T` has `S = 0`
and can be read but not written; the output of a convolution that is read through a single gamma of 0 has `R = 0` and
can be written but not read. A linear operator `y = W·x + b` between two units becomes

    W' = R_y ⊙ W ⊙ S_x        b' = R_y ⊙ (b + W·T_x) + U_y

where `W·T_x` is the operator's response to the constant image `T_x`, which must be the same at every position
(see `laws.linear`). It does not hold for weights that are not constant, nor where a padding of zeros meets `T_x ≠ 0`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

PIECE = 2**15  # elements of a weight that are float64 at a time
WHOLE = 2**22  # elements of a weight of which a response is computed at once


@dataclass(frozen=True)
class Affine:
    """A per-channel map `y = scale·x + shift`.

    Attributes:
        scale: float64[C].
        shift: float64[C].
    """

    scale: Array
    shift: Array


def batch_norm_affine(
    gamma: NDArray[Any],
    beta: NDArray[Any],
    running_mean: NDArray[Any],
    running_var: NDArray[Any],
    eps: float | Array,
    precision: int | NDArray[np.int64] = 24,
) -> Affine:
    """The map that BatchNorm is at inference (Ioffe & Szegedy 2015, algorithm 2).

    A channel whose gamma is so small that `s·x + t` rounds to beta for every x within 1,000 standard deviations of the
    mean is the constant beta: its scale is 0.

    Args:
        gamma: float[C], the learned scale.
        beta: float[C], the learned shift.
        running_mean: float[C].
        running_var: float[C], the variance, not the standard deviation.
        eps: Added to the variance, inside the square root; one number, or float64[C].
        precision: Bits of the significand of the dtype that the model computes in; one number, or int64[C].

    Returns:
        `s = gamma / sqrt(running_var + eps)`, `t = beta − s·running_mean`, both float64[C].
    """
    gamma, beta = widen(gamma), widen(beta)
    with np.errstate(all="ignore"):  # a damaged statistic gives a non-finite scale, which the caller refuses
        scale = gamma / np.sqrt(widen(running_var) + eps)
        shift = beta - scale * widen(running_mean)
        constant = 1000.0 * np.abs(gamma) <= np.abs(beta) * 0.5 ** (precision + 1)
    dead = constant & np.isfinite(scale) & np.isfinite(shift)
    return Affine(np.where(dead, 0.0, scale), np.where(dead, beta, shift))


class Unit(NamedTuple):
    """The unit of a tensor, seen from its readers and from its writers.

    Attributes:
        scale: float64[C], `S` in `X = S·X' + T`.
        shift: float64[C], `T`.
        inverse_scale: float64[C], `R` in `X' = R·X + U`.
        inverse_shift: float64[C], `U`.
    """

    scale: Array
    shift: Array
    inverse_scale: Array
    inverse_shift: Array

    @property
    def is_identity(self) -> bool:
        """Whether the tensor is stored as it was."""
        return bool(
            np.all(self.scale == 1)
            and np.all(self.shift == 0)
            and np.all(self.inverse_scale == 1)
            and np.all(self.inverse_shift == 0)
        )


@dataclass(frozen=True)
class Kernel:
    """The weights of a linear operator, and how they are laid out.

    Attributes:
        weight: Returns the stored array; called when it is needed, so that large models stay mapped.
        shape: The stored shape.
        out_axis: Axis of `weight` that runs over output channels (within a group if `groups_on_input`).
        in_axis: Axis of `weight` that runs over input channels (within a group unless `groups_on_input`).
        groups: Number of groups.
        groups_on_input: True where the input axis holds all groups (ConvTranspose: `[in, out/groups, *kernel]`),
            False where the output axis does (Conv: `[out, in/groups, *kernel]`).
        reference: One boolean mask per remaining axis: the taps that an inner position reads.
            None where every position reads all of them.
        gain: A factor that multiplies `W·x` but not the bias (Gemm's alpha).
    """

    weight: Callable[[], NDArray[Any]]
    shape: tuple[int, ...]
    out_axis: int
    in_axis: int
    groups: int = 1
    groups_on_input: bool = False
    reference: tuple[NDArray[np.bool_], ...] | None = None
    gain: float = 1.0

    @property
    def in_channels(self) -> int:
        """Number of input channels over all groups."""
        return self.shape[self.in_axis] * (1 if self.groups_on_input else self.groups)

    @property
    def out_channels(self) -> int:
        """Number of output channels over all groups."""
        return self.shape[self.out_axis] * (self.groups if self.groups_on_input else 1)

    def grouped(self, array: NDArray[Any]) -> NDArray[Any]:
        """`array` (of the stored shape) seen as `[groups, out/groups, in/groups, *taps]`, without a copy."""
        in_order = (self.out_axis, self.in_axis) == (0, 1)
        moved = array if in_order else np.moveaxis(array, (self.out_axis, self.in_axis), (0, 1))
        out, inner, taps = moved.shape[0], moved.shape[1], moved.shape[2:]
        if self.groups_on_input:
            moved = moved.reshape(out, self.groups, inner // self.groups, *taps).swapaxes(0, 1)
        else:
            moved = moved.reshape(self.groups, out // self.groups, inner, *taps)
        return moved

    def factors(self, out: Array, inner: Array) -> tuple[Array, Array]:
        """What to multiply the stored array with, so that outputs are scaled by `out` and inputs by `inner`.

        Args:
            out: float64[out_channels].
            inner: float64[in_channels].

        Returns:
            Two arrays, float64, broadcastable against the stored shape. The factors are their product, which is as
            large as the weight.
        """
        if self.groups_on_input:
            whole, within, axes = inner, out, (self.in_axis, self.out_axis)
        else:
            whole, within, axes = out, inner, (self.out_axis, self.in_axis)
        rows = within.reshape(self.groups, -1)
        if self.groups > 1:
            rows = np.repeat(rows, len(whole) // self.groups, axis=0)
        first, second = (self._along(axes, each) for each in (whole[:, np.newaxis], rows))
        return first, second

    def _along(self, axes: tuple[int, int], matrix: Array) -> Array:
        """A matrix broadcastable against the stored shape, its rows and columns along these axes."""
        shape = [1] * len(self.shape)
        shape[axes[0]], shape[axes[1]] = matrix.shape
        return (matrix if axes[0] < axes[1] else matrix.T).reshape(shape)

    def first_outputs(self, weight: NDArray[Any]) -> NDArray[Any]:
        """The weights of one output channel of each group: float[in_channels, taps]."""
        return self.grouped(weight)[:, 0].reshape(self.in_channels, -1)

    def response(self, weight: NDArray[Any], image: Array) -> Array:
        """What an inner output position reads from a constant image, the bias left out.

        Args:
            weight: The stored array.
            image: float64[in_channels], the constant value of each input channel.

        Returns:
            float64[out_channels].
        """
        grouped = self.grouped(weight)
        if self.reference is not None:
            grouped = grouped[(slice(None),) * 3 + np.ix_(*self.reference)]
        live = image.reshape(self.groups, -1)
        rows = grouped.shape[1] if weight.size <= WHOLE else max(1, grouped.shape[1] * PIECE // weight.size)
        parts = []
        for start in range(0, grouped.shape[1], rows):
            taps = grouped[:, start : start + rows].sum(axis=tuple(range(3, grouped.ndim)), dtype=np.float64)
            parts.append(np.einsum("goi,gi->go", taps, live))
        response: Array = self.gain * np.concatenate(parts, axis=1).reshape(-1)
        return response


def widen(array: NDArray[Any]) -> Array:
    """Any float array as float64, flat."""
    return np.asarray(array).astype(np.float64).reshape(-1)


def round_once(array: Array, dtype: np.dtype[np.generic]) -> NDArray[Any]:
    """Round a float64 array to a stored dtype, to nearest, ties to even, once.

    Two-byte floats that NumPy does not know (bfloat16) are reached by their own library through float32, which would
    round twice; the float32 step therefore rounds to odd (Boldo & Melquiond 2008), which makes the second one exact.
    """
    if dtype == np.float64:
        return array
    with np.errstate(over="ignore"):  # an overflow becomes inf, which `fits` reports
        if dtype.kind == "f":
            return array.astype(dtype)
        single = array.astype(np.float32)
        exact = single.astype(np.float64)
        toward = np.where(exact > array, np.float32(-np.inf), np.float32(np.inf))
        even = (single.view(np.uint32) & 1) == 0
        inexact = np.isfinite(single) & (exact != array)
        odd = np.where(inexact & even, np.nextafter(single, toward), single)
        return odd.astype(dtype)


def rewrite(
    kernel: Kernel,
    bias: Array | None,
    reader: Unit,
    writer: Unit,
) -> tuple[NDArray[Any], Array]:
    """The weight and bias of a linear operator between new units.

    Args:
        kernel: The operator's weights.
        bias: float64[..., out_channels], or None for none.
        reader: The unit of the operator's input, float64[in_channels] each.
        writer: The unit of the operator's output, float64[out_channels] each.

    Returns:
        The weight in its stored shape and dtype, rounded once, and the bias as float64[..., out_channels].
    """
    weight = kernel.weight()
    shift = np.zeros(kernel.out_channels) if bias is None else bias
    if np.count_nonzero(reader.shift):
        shift = shift + kernel.response(weight, reader.shift)
    shift = writer.inverse_scale * shift + writer.inverse_shift
    if (reader.scale == 1).all() and (writer.inverse_scale == 1).all():
        return weight, shift
    return scaled(weight, kernel.factors(writer.inverse_scale, reader.scale)), shift


def scaled(weight: NDArray[Any], factors: tuple[Array, ...], terms: Array | None = None) -> NDArray[Any]:
    """`weight · ∏ factors + terms` in float64, rounded once.

    Piece by piece, as a large layer would take its room twice over, and in one buffer, as the holes that pieces of many
    sizes leave in the heap are memory too.

    Args:
        weight: The stored array.
        factors: float64, of as many axes, broadcastable against it; they are multiplied with each other first.
        terms: The same; None for none.
    """
    rows = max(1, PIECE * len(weight) // max(weight.size, 1))
    result = np.empty(weight.shape, weight.dtype)
    buffer = np.empty((min(rows, len(weight)), *weight.shape[1:]))
    for start in range(0, len(weight), rows):
        piece = slice(start, start + rows)
        wide = buffer[: len(result[piece])]
        np.multiply(weight[piece], reduce(np.multiply, [_rows(each, piece) for each in factors]), out=wide)
        if terms is not None:
            wide += _rows(terms, piece)
        result[piece] = round_once(wide, weight.dtype)
    return result


def _rows(array: Array, piece: slice) -> Array:
    return array[piece] if len(array) > 1 else array
