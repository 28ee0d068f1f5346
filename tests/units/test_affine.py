"""The arithmetic of units against its meaning in float64: batch norms, one rounding, kernels of every layout."""

from __future__ import annotations

import tracemalloc
from functools import reduce

import ml_dtypes
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from handmade import CONV, CONV_TRANSPOSE, frozen, torch_of
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bnfold.units import affine
from bnfold.units.affine import Array, Kernel, Unit, batch_norm_affine, rewrite, round_once, scaled, widen

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def identity(channels: int) -> Unit:
    return unit(np.ones(channels), np.zeros(channels))


def unit(scale: Array, shift: Array) -> Unit:
    arrays = scale, shift, 1.0 / scale, -shift / scale
    return Unit(*(frozen(a) for a in arrays))


def random_unit(rng: np.random.Generator, channels: int) -> Unit:
    return unit(rng.uniform(0.5, 2.0, channels) * rng.choice([-1, 1], channels), rng.standard_normal(channels))


# What must not change


def test_an_identity_unit_returns_the_very_weight_and_bias() -> None:
    """Nothing to do, so not a bit may change, and a memory-mapped weight stays mapped."""
    weight, bias = frozen(np.random.default_rng(0).standard_normal((4, 3, 2, 2)), np.float32), frozen([1, 2, 3, 4])
    kernel = Kernel(lambda: weight, weight.shape, 0, 1)
    new, shift = rewrite(kernel, bias, identity(3), identity(4))
    assert new is weight
    np.testing.assert_array_equal(shift, bias)


def test_a_pure_shift_returns_the_very_weight() -> None:
    """A shift goes into the bias alone."""
    weight = frozen(np.random.default_rng(0).standard_normal((4, 3)), np.float32)
    kernel = Kernel(lambda: weight, weight.shape, 0, 1)
    new, _ = rewrite(kernel, None, unit(np.ones(3), np.arange(3.0)), unit(np.ones(4), np.arange(4.0)))
    assert new is weight


@pytest.mark.parametrize(("field", "value"), [(0, [1.0, 2.0]), (1, [0.0, 1e-300]), (2, [1.0, 0.5]), (3, [0.0, -1.0])])
def test_a_unit_is_the_identity_only_if_both_maps_are(field: int, value: list[float]) -> None:
    arrays = [np.ones(2), np.zeros(2), np.ones(2), np.zeros(2)]
    assert Unit(*arrays).is_identity
    arrays[field] = np.array(value)
    assert not Unit(*arrays).is_identity


def test_float64_is_not_rounded() -> None:
    array = frozen([1 / 3])
    assert round_once(array, np.dtype(np.float64)) is array


# Batch norm


@given(st.integers(1, 5), st.sampled_from([0.0, 1e-5, 1e-3, 2.0]), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_batch_norm_is_what_torch_computes(channels: int, eps: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    gamma, beta, mean = (frozen(rng.standard_normal(channels)) for _ in range(3))
    var = frozen(rng.uniform(1e-4, 3.0, channels))
    x = torch.tensor(rng.standard_normal((3, channels, 2)))
    want = F.batch_norm(x, *(torch_of(a) for a in (mean, var, gamma, beta)), training=False, eps=eps)
    affine = batch_norm_affine(gamma, beta, mean, var, eps)
    got = torch_of(affine.scale)[:, None] * x + torch_of(affine.shift)[:, None]
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


def test_epsilon_is_added_to_the_variance_inside_the_root() -> None:
    affine = batch_norm_affine(*(frozen([v]) for v in (3.0, 1.0, 2.0, 5.0)), eps=4.0)
    assert (affine.scale, affine.shift) == (1.0, -1.0)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, BFLOAT16])
def test_stored_statistics_are_widened_before_anything_is_computed(dtype: np.dtype[np.generic]) -> None:
    stored = [np.array([v]).astype(dtype) for v in (0.3, 0.1, 0.7, 0.9)]
    gamma, beta, mean, var = (float(a[0]) for a in stored)
    affine = batch_norm_affine(*stored, eps=1e-5)
    scale = gamma / np.sqrt(var + 1e-5)
    assert affine.scale[0] == scale
    assert affine.shift[0] == beta - scale * mean


@pytest.mark.parametrize(("precision", "dtype"), [(24, np.float32), (11, np.float16), (8, BFLOAT16)])
def test_a_dead_channel_is_one_that_rounding_cannot_tell_from_its_beta(
    precision: int, dtype: np.dtype[np.generic]
) -> None:
    """At the limit, every x within 1,000 standard deviations gives beta; beyond it, some do not."""
    rng = np.random.default_rng(precision)
    limit = 2.0 ** -(precision + 1) / 1000
    for beta in (-3.0, -1.0, 1.0, 1.5, 1.9375):
        for sign in (-1, 1):
            stats = frozen([beta]), frozen([rng.standard_normal()]), frozen([2.5])
            dead = batch_norm_affine(frozen([sign * abs(beta) * limit]), *stats, 0.0, precision)
            assert (dead.scale, dead.shift) == (0.0, beta)
            deviations = np.array([-1000.0, -999.0, 0.0, 1000.0])
            values = round_once(beta + sign * abs(beta) * limit * deviations, np.dtype(dtype))
            assert (widen(values) == beta).all()
            alive = batch_norm_affine(frozen([sign * abs(beta) * limit * 1.001]), *stats, 0.0, precision)
            assert alive.scale != 0.0


def test_the_smallest_live_channel_is_told_from_its_beta() -> None:
    """The rule is not too generous: just below a power of two, half a unit in the last place is half as large."""
    gamma = 1.01 * 2.0**-25 / 1000
    assert np.float32(1.0 - 1000 * gamma) != np.float32(1.0)
    assert batch_norm_affine(frozen([gamma]), frozen([1.0]), frozen([0.0]), frozen([1.0]), 0.0).scale != 0


def test_a_gamma_of_zero_leaves_beta_exactly() -> None:
    affine = batch_norm_affine(frozen([0.0]), frozen([0.1]), frozen([1e30]), frozen([1.0]), 1e-5)
    assert (affine.scale[0], affine.shift[0]) == (0.0, 0.1)


@pytest.mark.parametrize(("mean", "var"), [(np.nan, 1.0), (np.inf, 1.0), (0.0, -1.0), (0.0, np.nan)])
def test_damaged_statistics_stay_visible(mean: float, var: float) -> None:
    """A dead channel hides nothing: the caller has to see what is not finite, and refuse."""
    affine = batch_norm_affine(frozen([0.0]), frozen([1.0]), frozen([mean]), frozen([var]), 1e-5)
    assert not (np.isfinite(affine.scale).all() and np.isfinite(affine.shift).all())


# One rounding


def grid(dtype: np.dtype[np.generic]) -> Array:
    """All finite numbers of a two-byte dtype, in order."""
    with np.errstate(invalid="ignore"):  # signalling NaNs among them
        values = np.arange(2**16, dtype=np.uint16).view(dtype).astype(np.float64)
    return np.unique(values[np.isfinite(values)])


def nearest(values: Array, dtype: np.dtype[np.generic]) -> Array:
    """The nearest number of a two-byte dtype, ties to even, found among its two neighbours."""
    numbers = grid(dtype)
    step = numbers[-1] - numbers[-2]
    numbers = np.concatenate([[-(numbers[-1] + step)], numbers, [numbers[-1] + step]])  # the steps to infinity
    at = np.clip(np.searchsorted(numbers, values, side="right") - 1, 0, len(numbers) - 2)
    low, high = numbers[at], numbers[at + 1]
    middle = (low + high) / 2  # exact: both have at most 12 bits more in float64 than there
    zero = int(np.searchsorted(numbers, 0.0))
    low_is_even = (at - zero) % 2 == 0
    result = np.where((values < middle) | ((values == middle) & low_is_even), low, high)
    return np.where(np.abs(result) > numbers[-2], np.copysign(np.inf, result), result)


def awkward(numbers: Array, rng: np.random.Generator) -> Array:
    """Numbers, the middles between neighbours, and what lies a hair beside both."""
    chosen = rng.integers(0, len(numbers) - 1, 400)
    chosen = np.concatenate([chosen, [0, len(numbers) - 2, len(numbers) // 2, len(numbers) // 2 - 1]])
    exact = np.concatenate([numbers[chosen], (numbers[chosen] + numbers[chosen + 1]) / 2])
    beside = [exact, np.nextafter(exact, np.inf), np.nextafter(exact, -np.inf), exact * (1 + 2.0**-30)]
    return np.concatenate([*beside, exact * (1 - 2.0**-30), [0.0, 1e-300, -1e-300, 5e-46, 1e300, -1e300]])


@pytest.mark.parametrize("dtype", [np.dtype(np.float16), BFLOAT16])
def test_two_byte_floats_are_rounded_to_the_nearest(dtype: np.dtype[np.generic]) -> None:
    values = frozen(awkward(grid(dtype), np.random.default_rng(0)))
    got = round_once(values, dtype)
    assert got.dtype == dtype
    np.testing.assert_array_equal(got.astype(np.float64), nearest(values, dtype))


def test_bfloat16_is_not_rounded_twice() -> None:
    """A hair above the middle of two neighbours: through float32 it would become the middle, and then round to even."""
    value = 1 + 2.0**-8 + 2.0**-40
    assert float(np.float32(value).astype(BFLOAT16)) == 1.0
    assert float(round_once(frozen([value]), BFLOAT16)[0]) == 1 + 2.0**-7


def test_float32_is_rounded_to_the_nearest() -> None:
    rng = np.random.default_rng(0)
    numbers = rng.standard_normal(500).astype(np.float32)
    above = np.nextafter(numbers, np.float32(np.inf)).astype(np.float64)
    low, middle = numbers.astype(np.float64), (numbers + above) / 2
    even = (numbers.view(np.uint32) & 1) == 0
    for value, want in (
        (middle, np.where(even, low, above)),
        (np.nextafter(middle, np.inf), above),
        (np.nextafter(middle, -np.inf), low),
        (low, low),
    ):
        np.testing.assert_array_equal(round_once(frozen(value), np.dtype(np.float32)).astype(np.float64), want)


def test_an_overflow_becomes_infinite_and_a_nan_stays() -> None:
    for dtype in (np.dtype(np.float16), np.dtype(np.float32), BFLOAT16):
        got = round_once(frozen([1e300, -1e300, np.nan, np.inf]), dtype).astype(np.float64)
        np.testing.assert_array_equal(got, [np.inf, -np.inf, np.nan, np.inf])


# Kernels


def conv_kernel(weight: NDArray[np.generic], groups: int, transposed: bool) -> Kernel:
    out, inner = (1, 0) if transposed else (0, 1)
    return Kernel(lambda: weight, weight.shape, out, inner, groups, groups_on_input=transposed)


KERNELS = {
    "conv": ((6, 2, 3, 5), {"out_axis": 0, "in_axis": 1}),
    "grouped conv": ((6, 2, 3), {"out_axis": 0, "in_axis": 1, "groups": 3}),
    "conv transpose": ((6, 2, 3, 1, 2), {"out_axis": 1, "in_axis": 0, "groups_on_input": True}),
    "grouped conv transpose": ((6, 2, 3), {"out_axis": 1, "in_axis": 0, "groups": 2, "groups_on_input": True}),
    "gemm": ((6, 2), {"out_axis": 1, "in_axis": 0}),
    "gemm transposed": ((6, 2), {"out_axis": 0, "in_axis": 1}),
    "weight of one group per channel": ((4, 1, 3), {"out_axis": 0, "in_axis": 1, "groups": 4}),
}


@pytest.mark.parametrize("name", KERNELS)
def test_grouped_and_factors_agree_on_where_channels_lie(name: str) -> None:
    shape, layout = KERNELS[name]
    weight = frozen(np.arange(np.prod(shape)).reshape(shape))
    kernel = Kernel(lambda: weight, shape, **layout)  # type: ignore[arg-type]
    grouped = kernel.grouped(weight)
    groups = kernel.groups
    assert grouped.shape[:3] == (groups, kernel.out_channels // groups, kernel.in_channels // groups)
    assert np.shares_memory(grouped, weight)
    out, inner = np.arange(2.0, 2 + kernel.out_channels), np.arange(3.0, 3 + kernel.in_channels)
    scaled = kernel.grouped(weight * reduce(np.multiply, kernel.factors(out, inner)))
    taps = (1,) * (grouped.ndim - 3)
    expected = grouped * out.reshape(groups, -1, 1, *taps) * inner.reshape(groups, 1, -1, *taps)
    np.testing.assert_array_equal(scaled, expected)
    np.testing.assert_array_equal(kernel.first_outputs(weight), grouped[:, 0].reshape(kernel.in_channels, -1))


def test_groups_of_a_conv_are_on_its_output_those_of_a_conv_transpose_on_its_input() -> None:
    weight = frozen(np.arange(24).reshape(6, 2, 2))
    conv = conv_kernel(weight, 3, transposed=False)
    assert (conv.in_channels, conv.out_channels) == (6, 6)
    np.testing.assert_array_equal(conv.grouped(weight)[1, 0, 1], weight[2, 1])
    transposed = conv_kernel(weight, 3, transposed=True)
    assert (transposed.in_channels, transposed.out_channels) == (6, 6)
    np.testing.assert_array_equal(transposed.grouped(weight)[1, 0, 1], weight[3, 0])


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[bool, int, int, int, int, int, int]:
    transposed, rank, groups = draw(st.booleans()), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    inner, outer = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    return transposed, rank, groups, inner, outer, draw(st.integers(1, 2)), draw(st.integers(0, 2**32 - 1))


@given(convolutions(), st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_rewritten_convolution_computes_the_same_between_its_new_units(
    case: tuple[bool, int, int, int, int, int, int], biased: bool
) -> None:
    """`y' = R·y + U` where `x = S·x' + T`; no padding and a stride of 1, so that the shift passes."""
    transposed, rank, groups, inner, outer, taps, seed = case
    rng = np.random.default_rng(seed)
    channels, out = groups * inner, groups * outer
    size = 1 if transposed else taps + 1  # a ConvTranspose of one element has one tap per position
    taps = 1 if transposed else taps
    first, second = (channels, outer) if transposed else (out, inner)
    weight = frozen(rng.standard_normal((first, second) + (taps,) * rank))
    bias = frozen(rng.standard_normal(out)) if biased else None
    reader, writer = random_unit(rng, channels), random_unit(rng, out)
    kernel = conv_kernel(weight, groups, transposed)
    x_new = torch.tensor(rng.standard_normal((2, channels) + (size,) * rank))
    column = (-1,) + (1,) * rank
    x = torch_of(reader.scale).reshape(column) * x_new + torch_of(reader.shift).reshape(column)

    def run(value: torch.Tensor, w: NDArray[np.generic], b: NDArray[np.generic] | None) -> torch.Tensor:
        operator = CONV_TRANSPOSE[rank] if transposed else CONV[rank]
        return operator(value, torch_of(w), None if b is None else torch_of(b), groups=groups)

    want = torch_of(writer.inverse_scale).reshape(column) * run(x, weight, bias)
    want = want + torch_of(writer.inverse_shift).reshape(column)
    new_weight, new_bias = rewrite(kernel, bias, reader, writer)
    assert new_weight.shape == weight.shape
    torch.testing.assert_close(run(x_new, new_weight, new_bias), want, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("gain", [1.0, 0.25, -3.0])
def test_a_rewritten_gemm_computes_the_same_and_its_gain_leaves_the_bias_alone(
    flipped: bool, biased: bool, gain: float
) -> None:
    rng = np.random.default_rng(7)
    weight = frozen(rng.standard_normal((5, 4) if flipped else (4, 5)))
    kernel = Kernel(lambda: weight, weight.shape, 0 if flipped else 1, 1 if flipped else 0, gain=gain)
    bias = frozen(rng.standard_normal(5)) if biased else None
    reader, writer = random_unit(rng, 4), random_unit(rng, 5)
    x_new = rng.standard_normal((3, 4))
    x = reader.scale * x_new + reader.shift

    def run(value: Array, w: Array, b: Array | None) -> Array:
        return gain * (value @ (w.T if flipped else w)) + (0 if b is None else b)

    new_weight, new_bias = rewrite(kernel, bias, reader, writer)
    want = writer.inverse_scale * run(x, weight, bias) + writer.inverse_shift
    np.testing.assert_allclose(run(x_new, new_weight, new_bias), want, rtol=1e-12)


def test_a_bias_may_vary_by_position() -> None:
    """The last axis of the bias is the channels; the axes before it are carried along."""
    rng = np.random.default_rng(3)
    weight, bias = frozen(rng.standard_normal((4, 5))), frozen(rng.standard_normal((7, 5)))
    reader, writer = random_unit(rng, 4), random_unit(rng, 5)
    x_new = rng.standard_normal((2, 7, 4))
    new_weight, new_bias = rewrite(Kernel(lambda: weight, weight.shape, 1, 0), bias, reader, writer)
    want = writer.inverse_scale * ((reader.scale * x_new + reader.shift) @ weight + bias) + writer.inverse_shift
    np.testing.assert_allclose(x_new @ new_weight + new_bias, want, rtol=1e-12)


def test_a_weight_is_rounded_once_from_float64() -> None:
    """Each new weight is the float32 nearest to its exact value; float32 arithmetic misses some by an ulp or more."""
    rng = np.random.default_rng(0)
    weight = frozen(rng.standard_normal((8, 8, 3, 3)), np.float32)
    reader, writer = random_unit(rng, 8), random_unit(rng, 8)
    new, _ = rewrite(conv_kernel(weight, 1, transposed=False), None, reader, writer)
    exact = weight.astype(np.float64) * writer.inverse_scale[:, None, None, None] * reader.scale[:, None, None]
    assert new.dtype == np.float32
    np.testing.assert_array_equal(new, exact.astype(np.float32))
    narrow = weight * writer.inverse_scale.astype(np.float32)[:, None, None, None]
    narrow = narrow * reader.scale.astype(np.float32)[:, None, None]
    assert (narrow != new).any()


def test_the_response_reads_only_the_taps_of_an_inner_position() -> None:
    """A ConvTranspose of stride 2 with 4 taps reads two of them anywhere, and both pairs sum to the same here."""
    weight = frozen([[[1.0, 2.0, 3.0, 2.0]]])
    masks = (np.array([True, False, True, False]),)
    kernel = Kernel(lambda: weight, weight.shape, 1, 0, groups_on_input=True, reference=masks)
    assert kernel.response(weight, frozen([5.0])) == 20.0
    image = torch.full((1, 1, 6), 5.0, dtype=torch.float64)
    inner = F.conv_transpose1d(image, torch_of(weight), stride=2)[0, 0, 4:8]
    torch.testing.assert_close(inner, torch.full((4,), 20.0, dtype=torch.float64))


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("transposed", [False, True])
def test_the_response_is_what_an_inner_position_of_a_constant_image_reads(groups: int, transposed: bool) -> None:
    rng = np.random.default_rng(groups)
    weight = frozen(rng.standard_normal((4, 4 // groups, 3, 3)))
    image = frozen(rng.standard_normal(4))
    kernel = conv_kernel(weight, groups, transposed)
    field = torch_of(image).reshape(1, 4, 1, 1).expand(1, 4, 7, 7)
    run = F.conv_transpose2d if transposed else F.conv2d
    want = run(field, torch_of(weight), groups=groups)
    centre = want.shape[-1] // 2
    np.testing.assert_allclose(kernel.response(weight, image), want[0, :, centre, centre].numpy(), rtol=1e-12)


def test_a_channel_that_can_only_be_read_zeroes_its_columns() -> None:
    """`S = 0`: the input is the constant `T`, whatever is stored."""
    weight = frozen([[2.0, 3.0]])
    reader = Unit(frozen([0.0, 1.0]), frozen([5.0, 0.0]), frozen([0.0, 1.0]), frozen([0.0, 0.0]))
    new, bias = rewrite(Kernel(lambda: weight, weight.shape, 0, 1), None, reader, identity(1))
    np.testing.assert_array_equal(new, [[0.0, 3.0]])
    assert bias == 10.0


def test_a_channel_that_can_only_be_written_becomes_its_constant() -> None:
    """`R = 0`: the output is the constant `U`, whatever comes in."""
    weight = frozen([[2.0], [3.0]])
    writer = Unit(frozen([0.0, 1.0]), frozen([0.0, 0.0]), frozen([0.0, 1.0]), frozen([7.0, 0.0]))
    new, bias = rewrite(Kernel(lambda: weight, weight.shape, 0, 1), frozen([1.0, 1.0]), identity(1), writer)
    np.testing.assert_array_equal(new, [[0.0], [3.0]])
    np.testing.assert_array_equal(bias, [7.0, 1.0])


@pytest.mark.parametrize("piece", [1, 7, 30, 10**6])
@pytest.mark.parametrize(("groups", "on_input"), [(1, False), (2, False), (2, True)])
def test_a_weight_rounded_piece_by_piece_is_the_same(
    monkeypatch: pytest.MonkeyPatch, piece: int, groups: int, on_input: bool
) -> None:
    monkeypatch.setattr(affine, "PIECE", piece)
    rng = np.random.default_rng(0)
    stored = rng.normal(size=(6, 4, 3)).astype(np.float32)
    kernel = Kernel(lambda: stored, stored.shape, 1 if on_input else 0, 0 if on_input else 1, groups, on_input)
    s_in, r_out = rng.uniform(0.5, 2, kernel.in_channels), rng.uniform(0.5, 2, kernel.out_channels)
    zeros, ones = np.zeros(kernel.in_channels), np.ones(kernel.in_channels)
    reader = Unit(s_in, zeros, ones / s_in, zeros)
    writer = Unit(1 / r_out, np.zeros(len(r_out)), r_out, np.zeros(len(r_out)))
    weight, _ = rewrite(kernel, None, reader, writer)
    factors = reduce(np.multiply, kernel.factors(r_out, s_in))
    expected = (stored.astype(np.float64) * factors).astype(np.float32)
    np.testing.assert_array_equal(weight, expected)


def test_factors_of_a_dense_layer_take_no_more_room_than_its_channels() -> None:
    kernel = Kernel(lambda: np.zeros((1000, 2000), np.float32), (1000, 2000), out_axis=0, in_axis=1)
    factors = kernel.factors(np.ones(1000), np.ones(2000))
    assert [each.shape for each in factors] == [(1000, 1), (1, 2000)]


def test_a_weight_is_float64_in_pieces_only() -> None:
    stored = np.ones((512, 512, 3, 3), np.float32)
    factors = (np.full((512, 1, 1, 1), 2.0), np.full((1, 512, 1, 1), 3.0))
    tracemalloc.start()
    try:
        made = scaled(stored, factors)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (made == 6).all()
    assert peak - made.nbytes < 2**20  # as float64 the weight takes 18 MB


@pytest.mark.parametrize("factors", [np.full((1, 3), 2.0), np.arange(1.0, 5).reshape(4, 1)])
@pytest.mark.parametrize("terms", [np.full((1, 3), 0.1), np.arange(4.0).reshape(4, 1), None])
@pytest.mark.parametrize("piece", [1, 7, 10**6])
def test_terms_are_added_before_the_one_rounding(
    monkeypatch: pytest.MonkeyPatch, factors: np.ndarray, terms: np.ndarray | None, piece: int
) -> None:
    monkeypatch.setattr(affine, "PIECE", piece)
    stored = np.linspace(0, 1, 12, dtype=np.float32).reshape(4, 3)
    expected = (stored.astype(np.float64) * factors + (0.0 if terms is None else terms)).astype(np.float32)
    np.testing.assert_array_equal(scaled(stored, (factors,), terms), expected)


@pytest.mark.parametrize("name", KERNELS)
def test_a_response_in_pieces_is_the_same(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    shape, layout = KERNELS[name]
    weight = frozen(np.random.default_rng(0).integers(-9, 9, shape).astype(np.float32))
    kernel = Kernel(lambda: weight, shape, **layout)  # type: ignore[arg-type]
    image = np.arange(1.0, 1 + kernel.in_channels)
    whole = kernel.response(weight, image)
    monkeypatch.setattr(affine, "WHOLE", 0)
    monkeypatch.setattr(affine, "PIECE", 7)
    np.testing.assert_array_equal(kernel.response(weight, image), whole)
