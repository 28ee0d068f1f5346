from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir
import pytest
import tiny

from bnfold.frontends.onnx import fold_model
from bnfold.planning.unitranges import UnitRanges, unit_ranges


def folded_site(model: object) -> UnitRanges:
    [site] = fold_model(ir.from_proto(model))[1].sites  # type: ignore[arg-type]
    assert site.units is not None
    return site.units


def test_a_backward_fold_gives_the_input_the_unit_and_leaves_the_output_alone() -> None:
    units = folded_site(tiny.conv_bn())
    numbers = {name: value.astype(np.float64) for name, value in tiny.parameters(4, 0).items()}
    s = numbers["gamma"] / np.sqrt(numbers["var"] + tiny.EPSILON)
    t = numbers["beta"] - s * numbers["mean"]
    assert units.channels == 4
    assert units.s == pytest.approx((s.min(), s.max()))
    assert units.t == pytest.approx((t.min(), t.max()))
    assert units.scale_in == pytest.approx((1 / s.max(), 1 / s.min()))  # y is the tensor: x = (y − t)/s
    assert units.shift_in == pytest.approx(((-t / s).min(), (-t / s).max()))
    assert (units.scale_out, units.shift_out) == ((1.0, 1.0), (0.0, 0.0))


def test_one_that_stays_has_its_own_numbers_and_no_other_units() -> None:
    units = folded_site(tiny.bn_relu())
    assert units.s[0] < units.s[1]
    assert (units.scale_in, units.shift_in, units.scale_out) == ((1.0, 1.0), (0.0, 0.0), (1.0, 1.0))


def test_the_json_has_six_digits_and_no_number_that_is_none() -> None:
    units = UnitRanges(2, (1 / 3, 2.0), (math.nan, math.inf), (1.0, 1.0), (0.0, 0.0), (1.0, 1.0), (0.0, 0.0))
    assert units.to_dict() == {
        "channels": 2,
        "s": [0.333333, 2.0],
        "t": [None, None],
        "scale_in": [1.0, 1.0],
        "shift_in": [0.0, 0.0],
        "scale_out": [1.0, 1.0],
        "shift_out": [0.0, 0.0],
    }


def test_a_system_without_affines_has_no_ranges() -> None:
    from bnfold.units.solver import solve
    from bnfold.units.system import System

    system = System()
    assert unit_ranges(system, solve(system)) == {}
