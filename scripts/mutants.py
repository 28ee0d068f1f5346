"""Breaks the source one line at a time; the tests concerned must notice every break.

    python scripts/mutants.py              all of them, on all cores
    python scripts/mutants.py --only 7 12  just these
    python scripts/mutants.py --list       what they are

Each mutant replaces one piece of text, which must occur exactly once, in a temporary copy of the repository (never in
the working tree), and runs the tests named beside it. It is caught when a test fails. The exit status is 1 when one
survives, when its text is no longer there, or when it breaks so badly that no test runs.
"""

from __future__ import annotations

import argparse
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("bnfold", "tests", "models", "pyproject.toml")
TIMEOUT_S = 600


@dataclass(frozen=True)
class Mutant:
    """One break.

    Attributes:
        what: What goes wrong.
        file: The file, relative to the repository.
        old: Text that occurs exactly once in it.
        new: What stands there instead.
        tests: Arguments of pytest: the tests concerned.
    """

    what: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


PROPERTY = ("tests/test_property.py",)
AFFINE = ("tests/units/test_affine.py",)
BRANCHES = ("tests/branches/test_branches.py",)
ONNX_BRANCHES = ("tests/frontends/test_onnx_branches.py",)
OPERATORS = ("tests/frontends/test_law_operators.py",)
CERTIFICATE = ("tests/certificate/test_certify.py",)
ADVERSARY = ("tests/certificate/test_adversary.py",)
SHARING = ("tests/frontends/test_onnx_sharing.py",)
PROTO = ("tests/frontends/test_from_proto.py",)
EXCLUDED = ("tests/frontends/test_excluded.py",)
FORWARD = ("tests/frontends/test_forward.py",)
EXPORTS = ("tests/verification/test_exports.py",)

MUTANTS: tuple[Mutant, ...] = (
    # affine.py: the arithmetic
    Mutant(
        "eps outside the root",
        "bnfold/units/affine.py",
        "scale = gamma / np.sqrt(widen(running_var) + eps)",
        "scale = gamma / (np.sqrt(widen(running_var)) + eps)",
        AFFINE,
    ),
    Mutant(
        "the mean's sign",
        "bnfold/units/affine.py",
        "shift = beta - scale * widen(running_mean)",
        "shift = beta + scale * widen(running_mean)",
        AFFINE,
    ),
    Mutant(
        "a dead channel keeps its mean",
        "bnfold/units/affine.py",
        "np.where(dead, beta, shift)",
        "shift",
        AFFINE,
    ),
    Mutant(
        "wrong ConvTranspose layout",
        "bnfold/units/affine.py",
        "moved = moved.reshape(out, self.groups, inner // self.groups, *taps).swapaxes(0, 1)",
        "moved = moved.reshape(self.groups, out, inner // self.groups, *taps)",
        AFFINE,
    ),
    Mutant(
        "lost group axis",
        "bnfold/units/affine.py",
        "rows = np.repeat(rows, len(whole) // self.groups, axis=0)",
        "rows = np.repeat(rows[:1], len(whole), axis=0)",
        AFFINE,
    ),
    Mutant(
        "the shift's response forgotten",
        "bnfold/units/affine.py",
        "shift = shift + kernel.response(weight, reader.shift)",
        "shift = shift + 0.0",
        AFFINE,
    ),
    Mutant(
        "alpha forgotten in the response",
        "bnfold/units/affine.py",
        "response: Array = self.gain * np.concatenate(",
        "response: Array = np.concatenate(",
        PROPERTY,
    ),
    Mutant(
        "a weight is float64 as a whole",
        "bnfold/units/affine.py",
        "PIECE = 2**15",
        "PIECE = 2**25",
        AFFINE,
    ),
    Mutant(
        "weights computed in float32",
        "bnfold/units/affine.py",
        "[_rows(each, piece) for each in factors]), out=wide)",
        "[_rows(each, piece) for each in factors]).astype(weight.dtype), out=wide)",
        AFFINE,
    ),
    Mutant(
        "bfloat16 rounded twice",
        "bnfold/units/affine.py",
        "return odd.astype(dtype)",
        "return single.astype(dtype)",
        AFFINE,
    ),
    # window.py: what a convolution reads where
    Mutant(
        "padding at the end ignored",
        "bnfold/units/window.py",
        "pads = max(self.pads_begin[i], 0) + max(self.pads_end[i], 0)",
        "pads = max(self.pads_begin[i], 0)",
        ("tests/units/test_window.py", "tests/units/test_laws.py"),
    ),
    Mutant(
        "a ConvTranspose's stride ignored",
        "bnfold/units/window.py",
        "live: Mask = (offset % self.strides[i] == 0) & (source >= 0) & (source < size)",
        "live: Mask = (source >= 0) & (source < size)",
        ("tests/units/test_window.py",),
    ),
    Mutant(
        "only inner positions looked at",
        "bnfold/units/window.py",
        "*(row[None] for row in distinct.values())",
        "*(row[None] for row in ())",
        PROPERTY,
    ),
    # laws.py: what each operator says
    Mutant(
        "a graph output not counted as a reader",
        "bnfold/units/laws.py",
        "laws.system.hold(laws.tensor(value).cells, Reason.IO)",
        "pass",
        PROPERTY,
    ),
    Mutant(
        "padding's T = 0 dropped",
        "bnfold/units/laws.py",
        "self.system.pinned.append((cells if blocked.all() else cells[blocked], Reason.ZERO_PAD))",
        "pass",
        PROPERTY,
    ),
    Mutant(
        "ReLU's positivity dropped",
        "bnfold/units/laws.py",
        "self.system.positive.append(cells)\n        if op.clips",
        "if op.clips",
        PROPERTY,
    ),
    Mutant(
        "ReLU's T = 0 dropped",
        "bnfold/units/laws.py",
        "self.system.pinned.append((cells, Reason.NONLINEAR))\n        self.tensors[op.y] = self.tensor(op.x)",
        "self.tensors[op.y] = self.tensor(op.x)",
        PROPERTY,
    ),
    Mutant(
        "MaxPool's positivity dropped",
        "bnfold/units/laws.py",
        "self.system.positive.append(cells)\n        if not op.unit_sum:",
        "pass\n        if not op.unit_sum:",
        PROPERTY,
    ),
    Mutant(
        "only one operand of a sum tied",
        "bnfold/units/laws.py",
        "self.system.ties += [Tie(a, y), Tie(b, y)]",
        "self.system.ties += [Tie(a, y)]",
        PROPERTY,
    ),
    Mutant(
        "Sub's sign in the shifts",
        "bnfold/units/laws.py",
        "(-op.sign, b)",
        "(-1.0, b)",
        PROPERTY,
    ),
    Mutant(
        "a shared weight not tied",
        "bnfold/units/laws.py",
        "laws.tie_uses(uses)",
        "pass",
        PROPERTY,
    ),
    Mutant(
        "a gate that may change its unit",
        "bnfold/units/laws.py",
        "self.hold(gate, reason=Reason.NONLINEAR)",
        "pass",
        PROPERTY,
    ),
    Mutant(
        "a feature behind a gate keeps its shift",
        "bnfold/units/laws.py",
        "self.system.pinned.append((ravel(cells), Reason.NONLINEAR))",
        "pass",
        PROPERTY,
    ),
    Mutant(
        "zeros of a Pad let a shift pass",
        "bnfold/units/laws.py",
        "        if pinned:\n",
        "        if False:\n",
        PROPERTY,
    ),
    Mutant(
        "a constant along the last axis taken for channels",
        "bnfold/units/laws.py",
        "elif clash:",
        "elif False:",
        PROPERTY,
    ),
    # taps.py, box.py, branches.py, frontends/merge.py: parallel branches
    Mutant(
        "a branch's offset in the box lost",
        "bnfold/branches/box.py",
        "first = (self.window.pads_begin[i] - window.pads_begin[i]) // self.window.dilations[i]",
        "first = 0",
        BRANCHES,
    ),
    Mutant(
        "a branch's dilation in the box lost",
        "bnfold/branches/box.py",
        "step = max(window.dilations[i] // self.window.dilations[i], 1)",
        "step = 1",
        BRANCHES,
    ),
    Mutant(
        "groups put into each other's place",
        "bnfold/branches/box.py",
        "room[where] += own.swapaxes(0, 1)",
        "room[where] += own.swapaxes(0, 1)[::-1]",
        BRANCHES,
    ),
    Mutant(
        "the coarsest grouping forgotten",
        "bnfold/branches/box.py",
        "groups = math.gcd(*(",
        "groups = min(*(",
        BRANCHES,
    ),
    Mutant(
        "a box that multiplies more",
        "bnfold/branches/box.py",
        "return box if box.multiplies <= sum(b.multiplies for b in branches) else None",
        "return box",
        BRANCHES,
    ),
    Mutant(
        "results of different sizes added",
        "bnfold/branches/box.py",
        "if len(results) > 1 or (size is not None and min(results) < 0):",
        "if size is not None and min(results) < 0:",
        BRANCHES,
    ),
    Mutant(
        "a branch's shift before its kernel dropped",
        "bnfold/branches/taps.py",
        "response = kernel.response(stored, before[1]) if before[1].any() else np.zeros(kernel.out_channels)",
        "response = np.zeros(kernel.out_channels)",
        BRANCHES,
    ),
    Mutant(
        "a shift let into padding",
        "bnfold/branches/taps.py",
        "if not trusting and shifted.any():",
        "if False:",
        BRANCHES,
    ),
    Mutant(
        "a shift over a sum counted for every branch",
        "bnfold/branches/search.py",
        "*(b.scaled(shiftless) for b in branches[1:])",
        "*(b.scaled(affine) for b in branches[1:])",
        BRANCHES,
    ),
    Mutant(
        "values that something else reads merged away",
        "bnfold/branches/search.py",
        "return None if value in self.held or not left else self.makers.get(value)",
        "return None if not left else self.makers.get(value)",
        BRANCHES,
    ),
    Mutant(
        "weights that overflow merged",
        "bnfold/branches/search.py",
        "if not all(np.isfinite(array).all() for array in (weight, bias)):",
        "if False:",
        BRANCHES,
    ),
    Mutant(
        "a merged bias dropped",
        "bnfold/frontends/merge.py",
        "if merge.bias.any() or",
        "if False or",
        ONNX_BRANCHES,
    ),
    Mutant(
        "a Sub of what stays turned into an Add",
        "bnfold/frontends/merge.py",
        'op_type = "Add" if factor > 0 else "Sub"',
        'op_type = "Add"',
        ONNX_BRANCHES,
    ),
    Mutant(
        "no second look for branches",
        "bnfold/frontends/onnx.py",
        "again = may_merge(reading.graph, held_values(graph), folding.solution.removed)",
        "again = False",
        ONNX_BRANCHES,
    ),
    Mutant(
        "padding of an unknown size taken at its word",
        "bnfold/frontends/merge.py",
        '(node.op_type == "Conv" and not is_certain(node, context))',
        "False",
        ONNX_BRANCHES,
    ),
    # frontends/aten, frontends/modules: merges of programs, and of modules whose forward stays
    Mutant(
        "a merged operator behind the sum, outside its module",
        "bnfold/frontends/aten/merge.py",
        "at = like = self.nodes[",
        "at, like = list(source.users)[-1], self.nodes[",
        ("tests/test_fold_modules.py::test_a_merged_operator_stands_among_those_of_its_module",),
    ),
    Mutant(
        "a merged operator named before what it replaces is gone",
        "bnfold/frontends/aten/merge.py",
        "self._unfilled.append((merge, linear, like))",
        "self._fill(merge, linear, like)",
        ("tests/test_fold_programs.py::test_branches_that_share_their_weights_share_the_sum",),
    ),
    Mutant(
        "a single 0 that is added to in place",
        "bnfold/frontends/modules/merge.py",
        "return all(is_solid(op.a) for op in operators.values() if wrote(self.nodes[op.name]))",
        "return True",
        ("tests/test_fold_modules.py::test_a_norm_that_the_sum_starts_with_becomes_the_convolution",),
    ),
    Mutant(
        "a merged sum in a branch that is subtracted",
        "bnfold/frontends/modules/merge.py",
        "if factor == 1 and fits(value) else None",
        "if fits(value) else None",
        ("tests/test_fold_modules.py::test_what_a_merged_branch_is_added_to_keeps_its_sign",),
    ),
    Mutant(
        "what does not change shares its memory with the original",
        "bnfold/frontends/modules/prepare.py",
        "tensor.data = tensor.detach().clone()",
        "pass",
        ("tests/test_fold_modules.py::test_the_result_shares_no_memory_with_the_original",),
    ),
    Mutant(
        "a trial may write to what the copy shares with the original",
        "bnfold/frontends/modules/untouched.py",
        "if any(memory_of(tensor) in self._memory",
        "if False and any(memory_of(tensor) in self._memory",
        ("tests/frontends/test_untouched.py",),
    ),
    Mutant(
        "a trial whose refusal was swallowed counts",
        "bnfold/frontends/modules/trial.py",
        "return same and not memory.refused",
        "return same",
        ("tests/frontends/test_untouched.py",),
    ),
    # solver.py, scales.py, shifts.py, conditioning.py: the search
    Mutant(
        "greedy without the exhaustive search",
        "bnfold/units/solver.py",
        "if _worth(best) > worth:",
        "if False:",
        PROPERTY,
    ),
    Mutant(
        "greedy without exchanges",
        "bnfold/units/solver.py",
        "while len(taken) * len(members) <= EXCHANGE_STEPS:",
        "while False:",
        PROPERTY,
    ),
    Mutant(
        "a BatchNorm worth no more than a multiplication",
        "bnfold/units/solver.py",
        "return (1 if self.candidate.op.batch_norm else 0, self.candidate.gain)",
        "return (0, self.candidate.gain)",
        PROPERTY,
    ),
    Mutant(
        "a zero gamma sinks though others read its input",
        "bnfold/units/scales.py",
        "if state.needed or state.absolute is not None:",
        "if state.absolute is not None:",
        PROPERTY,
    ),
    Mutant(
        "the ratio between two classes upside down",
        "bnfold/units/scales.py",
        "None if to_b is None else 1.0 / to_b)",
        "to_b)",
        ("tests/units/test_scales.py",),
    ),
    Mutant(
        "a step back that leaves a class merged",
        "bnfold/units/scales.py",
        "self._parent[child], self._ratio[child] = child, None",
        "self._ratio[child] = None",
        ("tests/units/test_scales.py",),
    ),
    Mutant(
        "signs not carried by a negative ratio",
        "bnfold/units/scales.py",
        "(lower.sign * np.sign(between)).astype(np.int8)",
        "lower.sign",
        ("tests/units/test_scales.py",),
    ),
    Mutant(
        "the right-hand side not eliminated",
        "bnfold/units/shifts.py",
        "rhs, size = rhs - factor * pivot.rhs, size",
        "rhs, size = rhs, size",
        ("tests/units/test_shifts.py",),
    ),
    Mutant(
        "a pivot that claims all lanes",
        "bnfold/units/shifts.py",
        "lanes = free if isinstance(free, np.ndarray) and not free.all() else None",
        "lanes = None",
        ("tests/units/test_shifts.py",),
    ),
    Mutant(
        "no limit on ill-conditioned shifts",
        "bnfold/planning/conditioning.py",
        "float(2.0 ** (graph.precision / 4))",
        "float(2.0**graph.precision)",
        PROPERTY,
    ),
    Mutant(
        "a constant clipped by a ReLU",
        "bnfold/units/solver.py",
        "fits = np.all(solution.shift[cells] <= constant * (1 + ROUNDING))",
        "fits = True",
        ("tests/units/test_solver.py",),
    ),
    Mutant(
        "a class that does not fit is not balanced",
        "bnfold/units/solver.py",
        "if any(block in self._balanced for block, _ in members):",
        "if False:",
        ("tests/planning/test_reach.py", "tests/test_numerics.py"),
    ),
    Mutant(
        "the BatchNorm with the mildest numbers kept for an overflow",
        "bnfold/planning/reach.py",
        "worst = max(near or far, key=_extremity, default=None)",
        "worst = min(near or far, key=_extremity, default=None)",
        ("tests/planning/test_reach.py",),
    ),
    Mutant(
        "only weights looked at for an overflow",
        "bnfold/frontends/rewrite.py",
        "return self.checked(round_once(np.asarray(array, dtype=np.float64), dtype.numpy()))",
        "return np.asarray(round_once(np.asarray(array, dtype=np.float64), dtype.numpy()), order='C')",
        ("tests/test_numerics.py",),
    ),
    Mutant(
        "lanes of a block in another order",
        "bnfold/units/blocks.py",
        "np.lexsort((np.arange(len(first)), lanes, *numbers[::-1]))",
        "np.lexsort((np.arange(len(first)), *numbers[::-1]))",
        ("tests/units/test_blocks.py", *PROPERTY),
    ),
    # frontends: ONNX in, ONNX out
    Mutant(
        "Gemm's beta dropped",
        "bnfold/frontends/linear.py",
        "array.astype(np.float64) * factor",
        "array.astype(np.float64)",
        PROPERTY,
    ),
    Mutant(
        "Gemm's beta applied twice",
        "bnfold/frontends/rewrite.py",
        'node.attributes.update(beta=ir.AttrFloat32("beta", 1.0))',
        "None",
        PROPERTY,
    ),
    Mutant(
        "Gemm's alpha dropped",
        "bnfold/frontends/linear.py",
        'gain=float(attr(node, "alpha", 1.0)),',
        "gain=1.0,",
        PROPERTY,
    ),
    Mutant(
        "transB ignored",
        "bnfold/frontends/linear.py",
        'flipped = bool(attr(node, "transB", 0))',
        "flipped = False",
        PROPERTY,
    ),
    Mutant(
        "a MatMul's result that is a graph output taken into the bias",
        "bnfold/frontends/linear.py",
        "if len(uses) != 1 or y.is_graph_output():",
        "if len(uses) != 1:",
        ("tests/frontends/test_onnx_linear.py",),
    ),
    Mutant(
        "Div's inverse forgotten",
        "bnfold/frontends/readers.py",
        "(1.0 / np.where(c == 0, 1.0, c), zero)",
        "(c, zero)",
        PROPERTY,
    ),
    Mutant(
        "constant minus x read as x minus constant",
        "bnfold/frontends/readers.py",
        '"Sub": (-one, c) if is_left else (one, -c),',
        '"Sub": (one, -c),',
        PROPERTY,
    ),
    Mutant(
        "constant / x read as x / constant",
        "bnfold/frontends/readers.py",
        'if kind == "Div" and (is_left or not c.all()):',
        'if kind == "Div" and not c.all():',
        PROPERTY,
    ),
    Mutant(
        "count_include_pad ignored",
        "bnfold/frontends/readers.py",
        "counted = counts and (pads or ceils)",
        "counted = False",
        PROPERTY,
    ),
    Mutant(
        "an overridable initializer taken for a constant",
        "bnfold/frontends/context.py",
        "value.const_value is not None and not value.is_graph_input()\n            self",
        "value.const_value is not None\n            self",
        PROPERTY,
    ),
    Mutant(
        "a kept BatchNorm forgets its mean",
        "bnfold/frontends/rewrite.py",
        "beta = shift + scale * mean.astype(np.float64)",
        "beta = shift",
        PROPERTY,
    ),
    Mutant(
        "a kept BatchNorm forgets eps",
        "bnfold/frontends/rewrite.py",
        "gamma = scale * np.sqrt(var.astype(np.float64) + eps)",
        "gamma = scale * np.sqrt(var.astype(np.float64))",
        PROPERTY,
    ),
    Mutant(
        "a graph output loses its name",
        "bnfold/frontends/rewrite.py",
        "        if leaves:\n",
        "        if False:\n",
        PROPERTY,
    ),
    Mutant(
        "a concatenated constant without its shift",
        "bnfold/frontends/rewrite.py",
        "self.give(node, i, array * scale + shift, value.dtype",
        "self.give(node, i, array * scale, value.dtype",
        PROPERTY,
    ),
    Mutant(
        "a table's sign under Sub",
        "bnfold/frontends/rewrite.py",
        'c_sign = -1.0 if node.op_type == "Sub" and at == 1 else 1.0',
        "c_sign = 1.0",
        PROPERTY,
    ),
    Mutant(
        "Split's second part starts at 0",
        "bnfold/frontends/structure.py",
        "np.arange(start, start + size, dtype=np.int64), start + size",
        "np.arange(start, start + size, dtype=np.int64), start",
        PROPERTY,
    ),
    Mutant(
        "a constant Pad read as an average",
        "bnfold/frontends/structure.py",
        "return [ZeroPad(ctx.label(node), x, node.outputs[0], tuple(before), tuple(after))]",
        "return [Spatial(ctx.label(node), x, node.outputs[0], axes=padded)]",
        PROPERTY,
    ),
    # compare.py, verify.py, bench.py, runners.py: the proof
    Mutant(
        "a NaN on both sides is a difference",
        "bnfold/verification/compare.py",
        " & ~(np.isnan(wide_before) & np.isnan(wide_after))",
        "",
        ("tests/verification/test_compare.py",),
    ),
    Mutant(
        "a NaN on one side is none",
        "bnfold/verification/compare.py",
        "    if unequal.any():\n        return Difference(None, scale=scale",
        "    if False:\n        return Difference(None, scale=scale",
        ("tests/verification/test_compare.py",),
    ),
    Mutant(
        "the tolerance not scaled",
        "bnfold/verification/compare.py",
        "self.max_abs <= tolerance.atol + tolerance.rtol * self.scale",
        "self.max_abs <= tolerance.atol + tolerance.rtol",
        ("tests/verification/test_compare.py",),
    ),
    Mutant(
        "shapes not compared",
        "bnfold/verification/compare.py",
        "if before.shape != after.shape:",
        "if before.size != after.size:",
        ("tests/verification/test_compare.py",),
    ),
    Mutant(
        "verify runs optimised sessions",
        "bnfold/verification/verify.py",
        "first.runner(first.as_written)",
        "first.runner(first.runtimes[0])",
        ("tests/verification/test_verify.py",),
    ),
    Mutant(
        "verify tries batch 1 only",
        "bnfold/verification/verify.py",
        "DYNAMIC_TRIALS = ((1, 0), (3, 1), (1, 2), (3, 3))",
        "DYNAMIC_TRIALS = ((1, 0), (1, 1), (1, 2), (1, 3))",
        ("tests/verification/test_verify.py",),
    ),
    Mutant(
        "ort-as-written optimises",
        "bnfold/running/runners.py",
        "levels.ORT_ENABLE_ALL if optimize else levels.ORT_DISABLE_ALL",
        "levels.ORT_ENABLE_ALL",
        ("tests/running/test_runners.py",),
    ),
    Mutant(
        "the control dropped",
        "bnfold/benchmark/latency.py",
        "ratio_interval([each[:, 0] / each[:, 1] for each in times], seed)",
        "ratio_interval([each[:, 0] / each[:, 0] for each in times], seed)",
        (
            "tests/benchmark/test_bench.py",
            "-k",
            "control",
        ),  # the others time real sessions, which a busy machine may fail
    ),
    Mutant(
        "sessions timed in a fixed order",
        "bnfold/running/timing.py",
        "for which in rng.permutation(len(calls)):",
        "for which in range(len(calls)):",
        ("tests/running/test_timing.py",),
    ),
    Mutant(
        "work queued before is counted on CUDA",
        "bnfold/running/cuda.py",
        "        torch.cuda.synchronize()\n",
        "",
        ("tests/running/test_cuda.py",),
    ),
    Mutant(
        "networks on CUDA timed by the clock on the wall",
        "bnfold/benchmark/bench.py",
        "return event_seconds, SPIN_UP_S",
        "return wall_seconds, SPIN_UP_S",
        ("tests/running/test_cuda.py",),
    ),
    Mutant(
        "memory that earlier work left behind is not given back first",
        "bnfold/running/memory.py",
        "        gc.collect()\n        give_back()\n",
        "        gc.collect()\n",
        ("tests/running/test_memory.py",),
    ),
    Mutant(
        "a control that is wide is not called noise",
        "bnfold/benchmark/speedup.py",
        "control_low < 1 - CONTROL_LIMIT or",
        "control_low < 1 - CONTROL_LIMIT and",
        ("tests/benchmark/test_speedup.py",),
    ),
    Mutant(
        "a device in a traced graph left where it was",
        "bnfold/running/torchrunner.py",
        "torch.device, lambda _: torch.device(device), (node.args",
        "torch.device, lambda there: there, (node.args",
        ("tests/running/test_cuda.py",),
    ),
    Mutant(
        "a gain claimed inside the noise",
        "bnfold/benchmark/speedup.py",
        "if low > 1 and low > control_high:",
        "if low > 1:",
        ("tests/benchmark/test_speedup.py",),
    ),
    Mutant(
        "the rounds of all sessions count as one",
        "bnfold/benchmark/latency.py",
        "ratio_interval([each[:, 0] / each[:, 2] for each in times], seed)",
        "ratio_interval([every[:, 0] / every[:, 2]], seed)",
        ("tests/benchmark/test_latency.py",),
    ),
    Mutant(
        "the interval of sessions one rank too narrow",
        "bnfold/benchmark/speedup.py",
        "return max(0, next(inside) - 1)",
        "return max(0, next(inside))",
        ("tests/benchmark/test_speedup.py",),
    ),
    Mutant(
        "sessions started in a fixed order",
        "bnfold/benchmark/sessions.py",
        "yield from (every[index] for index in rng.permutation(len(every)))",
        "yield every[0]",
        ("tests/benchmark/test_sessions.py",),
    ),
    Mutant(
        "a number that is none passes --fail-on",
        "bnfold/reporting/conditions.py",
        " and not math.isnan(value)",
        "",
        ("tests/reporting/test_conditions.py",),
    ),
    Mutant(
        "what was not measured passes --fail-on",
        "bnfold/reporting/conditions.py",
        "        if not values:\n",
        "        if False:\n",
        ("tests/reporting/test_conditions.py",),
    ),
    # staging.py, files.py, interrupts.py: whole or not at all
    Mutant(
        "what was written is not read back",
        "bnfold/writing/staging.py",
        "if _digest_on_disk(path) != digest.hexdigest():",
        "if False:",
        ("tests/writing/test_staging.py",),
    ),
    Mutant(
        "the folder of a living process is taken for stale",
        "bnfold/writing/staging.py",
        "lock = _lock(folder, wait=False)",
        "lock = os.open(folder, os.O_RDONLY)",
        ("tests/writing/test_staging.py",),
    ),
    Mutant(
        "a link of the same name is written through",
        "bnfold/writing/staging.py",
        'open(path, "xb")',
        'open(path, "wb")',
        ("tests/writing/test_staging.py",),
    ),
    Mutant(
        "the model moves before its data",
        "bnfold/writing/files.py",
        "        os.replace(staged, place)\n",
        "        os.replace(written, target)\n        os.replace(staged, place)\n        written = target\n",
        ("tests/writing/test_files.py",),
    ),
    Mutant(
        "data that a rejected model names is removed",
        "bnfold/writing/files.py",
        "for model in (target, target + REJECTED))",
        "for model in (target,))",
        ("tests/writing/test_files.py",),
    ),
    Mutant(
        "data of the input is removed",
        "bnfold/writing/files.py",
        "if not named and not any(is_same_file(other, place) for other in keep):",
        "if not named:",
        ("tests/writing/test_files.py", "tests/writing/test_export.py"),
    ),
    Mutant(
        "a link into /proc is replaced",
        "bnfold/writing/files.py",
        ' and not os.readlink(link).startswith("/proc/")',
        "",
        ("tests/writing/test_files.py",),
    ),
    Mutant(
        "a signal during a clean-up is forgotten",
        "bnfold/interrupts.py",
        "            signal.raise_signal(number)\n",
        "            pass\n",
        ("tests/test_interrupts.py",),
    ),
    Mutant(
        "new weights of a large model stay in memory",
        "bnfold/pipeline/work.py",
        "partial(fold_model, store=store_for(weight_bytes(unfolded), target))",
        "fold_model",
        ("tests/large/test_large.py",),
    ),
    Mutant(
        "arrays on the disk overlap",
        "bnfold/writing/spill.py",
        "begin, end = self._end, self._end + array.nbytes",
        "begin, end = self._end // 2, self._end // 2 + array.nbytes",
        ("tests/writing/test_spill.py",),
    ),
    Mutant(
        "a mapped tensor begins at the file's begin",
        "bnfold/loading/mapped.py",
        "begin = tensor.offset or 0",
        "begin = 0",
        ("tests/loading/test_mapped.py",),
    ),
    Mutant(
        "SIGTERM kills where it stands",
        "bnfold/__main__.py",
        "        take()\n",
        "",
        ("tests/faults/test_runs.py",),
    ),
    Mutant(
        "an interrupted run ends as Ctrl-C, whatever the signal",
        "bnfold/interrupts.py",
        "return 128 + _arrived[0] if _arrived else INTERRUPTED",
        "return INTERRUPTED",
        ("tests/test_interrupts.py",),
    ),
    Mutant(
        "a model is put in place although the run was interrupted",
        "bnfold/interrupts.py",
        "    if _arrived:\n        raise Stopped\n",
        "",
        ("tests/test_interrupts.py",),
    ),
    Mutant(
        "the temporary folder stays",
        "bnfold/writing/staging.py",
        "            for folder, lock in made:\n                shutil.rmtree(folder, ignore_errors=True)\n",
        "            for folder, lock in made:\n",
        ("tests/faults/test_faults.py", "-k", "EIO"),
    ),
    # recipe.py, remodel.py, torchexport.py, networks.py, torchrunner.py: PyTorch out, run and restored
    Mutant(
        "a network is changed before it is known to fit",
        "bnfold/recipes/remodel.py",
        "    check(module, folded, path, what)\n",
        "",
        ("tests/pipeline/test_restore.py", "-k", "lies or another_network"),
    ),
    Mutant(
        "a folded file half loads into the unfolded class",
        "bnfold/writing/torchexport.py",
        "_apart({PREFIX + name: value",
        "_apart({name: value",
        ("tests/pipeline/test_restore.py", "-k", "unfolded_class"),
    ),
    Mutant(
        "any argument of an activation",
        "bnfold/recipes/recipe.py",
        "if set(arguments) != set(ACTIVATIONS[name]):",
        "if False:",
        ("tests/recipes/test_recipe.py",),
    ),
    Mutant(
        "any hyper-parameter of any layer",
        "bnfold/recipes/restructure.py",
        "if not may_set(layer, name) or not _suits(getattr(layer, name), value, name):",
        "if not hasattr(layer, name):",
        ("tests/pipeline/test_restore.py", "-k", "lies"),
    ),
    Mutant(
        "a layer whose window has other axes than its class",
        "bnfold/recipes/recipe.py",
        "len(given) == int(name[4])",
        "given",
        ("tests/recipes/test_recipe.py", "-k", "outside"),
    ),
    Mutant(
        "a weight that the fold unties is restored tied",
        "bnfold/recipes/folded.py",
        "untied.get(path, ())",
        "()",
        ("tests/pipeline/test_restore.py", "-k", "tied"),
    ),
    Mutant(
        "modules that came to share a weight are stored",
        "bnfold/recipes/folded.py",
        "for place, tie in _ties(skeleton).items():",
        "for place, tie in dict[Place, Place]().items():",
        ("tests/pipeline/test_restore.py", "-k", "share"),
    ),
    Mutant(
        "a restored 0 without a number",
        "bnfold/recipes/restructure.py",
        'None if device.type == "meta" else device',
        "device",
        ("tests/pipeline/test_restore.py", "-k", "zeros"),
    ),
    Mutant(
        "a trial on a small image that goes another way counts",
        "bnfold/frontends/modules/trial.py",
        "return same and seen == dict(counts)",
        "return same",
        ("tests/test_fold_trial.py",),
    ),
    Mutant(
        "a trial leaves its caches behind",
        "bnfold/frontends/modules/trial.py",
        "torch.random.fork_rng(devices=[]), _as_it_was(module):",
        "torch.random.fork_rng(devices=[]):",
        ("tests/test_fold_trial.py", "-k", "taken_off"),
    ),
    Mutant(
        "a changed buffer outside the state dict is not stored",
        "bnfold/recipes/folded.py",
        "loose = _loose_buffers(before, after)",
        "loose: dict[str, torch.Tensor] = {}",
        ("tests/pipeline/test_restore.py", "-k", "buffer"),
    ),
    Mutant(
        "every open dimension may be of any size",
        "bnfold/running/networks.py",
        "allowed.lower <= 2 and allowed.upper >= LARGEST_TRIED_BATCH",
        "True",
        ("tests/test_verify_torch.py", "-k", "fewer_batches"),
    ),
    Mutant(
        "inputs of the same names paired by place",
        "bnfold/running/pairing.py",
        "return list(ours) if set(ours) == set(theirs) else list(theirs)",
        "return list(theirs)",
        ("tests/test_verify_torch.py", "-k", "whatever_order"),
    ),
    Mutant(
        "a network's buffers are not put back",
        "bnfold/running/torchrunner.py",
        "buffer.copy_(before)",
        "pass",
        ("tests/running/test_torchrunner.py", "-k", "leaves_no_trace"),
    ),
    Mutant(
        "torch's threads are not put back",
        "bnfold/running/torchrunner.py",
        "        torch.set_num_threads(before)\n",
        "        pass\n",
        ("tests/running/test_torchrunner.py", "-k", "put_back"),
    ),
    Mutant(
        "a tensor that was marked is exported again",
        "bnfold/tracing/examples.py",
        "value = value.clone() if name in dims else value",
        "value = value",
        ("tests/pipeline/test_work.py", "-k", "stay_open_is_said"),
    ),
    Mutant(
        "the program in memory is verified, not the file",
        "bnfold/pipeline/work.py",
        "read_back=read_program,",
        "read_back=lambda path: folded.model,",
        ("tests/pipeline/test_work.py", "-k", "as_written"),
    ),
    Mutant(
        "a pickled graph forgets what is frozen",
        "bnfold/frontends/modules/graphs.py",
        "return _read, (written(vars(self)[PROGRAM], self), self.training, _frozen(self))",
        "return _read, (written(vars(self)[PROGRAM], self), self.training, frozenset())",
        ("tests/test_downstream.py", "-k", "of_its_time"),
    ),
    # preprocess.py, leftover.py, normalisations.py: what is asked for besides
    Mutant(
        "the mean is added",
        "bnfold/pipeline/preprocess.py",
        'shift = -shaped.get("mean"',
        'shift = shaped.get("mean"',
        ("tests/pipeline/test_preprocess.py",),
    ),
    Mutant(
        "channels counted from the wrong end",
        "bnfold/pipeline/preprocess.py",
        "return values.reshape(-1, *(1,) * (rank - 2))",
        "return values",
        ("tests/pipeline/test_preprocess.py",),
    ),
    Mutant(
        "readers in bodies of control flow read the raw input",
        "bnfold/pipeline/preprocess.py",
        "readers = list(x.uses())",
        "readers = [use for use in x.uses() if use.node.graph is graph]",
        ("tests/pipeline/test_preprocess.py",),
    ),
    Mutant(
        "the model with its preprocessing compared with the one without",
        "bnfold/pipeline/work.py",
        " and unfolded is opened else unfolded",
        " else unfolded",
        ("tests/pipeline/test_preprocess.py",),
    ),
    Mutant(
        "images drawn around 0",
        "bnfold/verification/verify.py",
        "return feeds if drawn is None else drawn(feeds)",
        "return feeds",
        ("tests/verification/test_verify.py", "tests/pipeline/test_preprocess.py"),
    ),
    Mutant(
        "the scale of what stays forgotten",
        "bnfold/units/solver.py",
        "self._class_scales([*accepted, *moved])",
        "self._class_scales(accepted)",
        ("tests/frontends/test_onnx_leftover.py",),
    ),
    Mutant(
        "what stays is never asked for its shift",
        "bnfold/units/solver.py",
        "steps = steps if self.split[member.name] and not excluded else steps[:1]",
        "steps = steps[:1]",
        ("tests/planning/test_leftover.py",),
    ),
    Mutant(
        "a depthwise Conv without its bias",
        "bnfold/frontends/leftover.py",
        "(per_channel, bias) if bias.any() else (per_channel,)",
        "(per_channel,)",
        ("tests/frontends/test_onnx_leftover.py",),
    ),
    Mutant(
        "float16 asked for any scale",
        "bnfold/planning/leftover.py",
        "limit = WIDE if graph.precision >= SINGLE else moderate",
        "limit = WIDE",
        ("tests/frontends/test_onnx_leftover.py",),
    ),
    Mutant(
        "a normalisation over the last axis read as one of channels in the second",
        "bnfold/frontends/normalisations.py",
        '"LayerNormalization": -1',
        '"LayerNormalization": 1',
        ("tests/frontends/test_onnx_normalisations.py",),
    ),
    Mutant(
        "groups interleaved",
        "bnfold/frontends/normalisations.py",
        "scale, bias = np.repeat(scale, repeats), None",
        "scale, bias = np.tile(scale, repeats), None",
        ("tests/frontends/test_onnx_normalisations.py",),
    ),
    Mutant(
        "a normalisation keeps its bias and hands it on",
        "bnfold/frontends/rewrite.py",
        """            self._edits.append(lambda: node.resize_inputs(2))
""",
        "",
        ("tests/frontends/test_onnx_normalisations.py",),
    ),
    # load and its kin: what comes in
    Mutant(
        "a missing weight is no error",
        "bnfold/loading/weights.py",
        "    if missing:\n",
        "    if False:\n",
        ("tests/loading/test_weights.py",),
    ),
    Mutant(
        "prefixes in the middle of a key left there",
        "bnfold/loading/weights.py",
        'yield ".".join(part for part in parts if part not in PREFIXES)',
        'yield ".".join(parts)',
        ("tests/loading/test_weights.py",),
    ),
    Mutant(
        "a dimension of 0 accepted",
        "bnfold/specs.py",
        "    if 0 in shape:\n",
        "    if False:\n",
        ("tests/test_specs.py",),
    ),
    # sharing.py: copies of shared weights
    Mutant(
        "copies that remove nothing",
        "bnfold/planning/sharing.py",
        "        if trial.norms_gone == best.norms_gone:\n",
        "        if False:\n",
        SHARING,
    ),
    Mutant(
        "a budget that is not kept",
        "bnfold/planning/sharing.py",
        "total_growth(best, allowance) > budget",
        "False",
        SHARING,
    ),
    Mutant(
        "the copy that helps most is given up first",
        "bnfold/planning/sharing.py",
        "chosen.remove(min((",
        "chosen.remove(max((",
        SHARING,
    ),
    Mutant(
        "a reader of another kind is forgotten",
        "bnfold/planning/sharing.py",
        "stays = any(own.stays for own in group)",
        "stays = False",
        SHARING,
    ),
    Mutant(
        "copies of equal weights",
        "bnfold/frontends/rewrite.py",
        "        if key not in self._versions:\n",
        "        if True:\n",
        SHARING,
    ),
    Mutant(
        "a weight in other units behind all readers",
        "bnfold/frontends/rewrite.py",
        "if not isinstance(op.weight, Own):",
        "if True:",
        SHARING,
    ),
    Mutant(
        "one weight serves readers in different units",
        "bnfold/units/laws.py",
        "    for uses in laws.system.shared.values():\n",
        "    for uses in ():\n",
        SHARING,
    ),
    Mutant(
        "operands written under the names they had",
        "bnfold/frontends/to_proto.py",
        "made.input[:] = inputs",
        "pass",
        PROTO,
    ),
    Mutant(
        "changed attributes written as they were",
        "bnfold/frontends/to_proto.py",
        "if proto is None or node.attributes.data != attributes:",
        "if proto is None:",
        PROTO,
    ),
    Mutant(
        "a changed shape declared as it was",
        "bnfold/frontends/to_proto.py",
        "value.type is type_ and value.shape is shape:",
        "value.type is type_:",
        PROTO,
    ),
    Mutant(
        "bodies read without the values around them",
        "bnfold/frontends/from_proto.py",
        "if attribute.type in GRAPHS:",
        "if False:",
        PROTO,
    ),
    Mutant(
        "dilation left out of a convolution's size",
        "bnfold/frontends/forward.py",
        "dilations[i] * (taps - 1)",
        "(taps - 1)",
        FORWARD,
    ),
    Mutant(
        "sizes without a name taken for equal",
        "bnfold/frontends/forward.py",
        "if any(not isinstance(size, int) and size.value is None for size in value.shape):",
        "if False:",
        FORWARD,
        # readers.py, structure.py, linear.py: what passes, operator by operator
    ),
    Mutant(
        "a shift passes whatever GridSample reads outside",
        "bnfold/frontends/readers.py",
        'inside = attr(node, "padding_mode", "zeros") != "zeros"',
        "inside = True",
        (*OPERATORS, "-k", "GridSample"),
    ),
    Mutant(
        "no shift passes GridSample",
        "bnfold/frontends/readers.py",
        'inside = attr(node, "padding_mode", "zeros") != "zeros"',
        "inside = False",
        (*OPERATORS, "-k", "GridSample"),
    ),
    Mutant(
        "a shift passes RoiAlign",
        "bnfold/frontends/readers.py",
        "axes=axes, unit_sum=False, positive=maximum)]",
        "axes=axes, unit_sum=True, positive=maximum)]",
        (*OPERATORS, "-k", "RoiAlign"),
    ),
    Mutant(
        "a sum over space taken for a mean",
        "bnfold/frontends/readers.py",
        'unit_sum=name != "ReduceSum",',
        "unit_sum=True,",
        (*OPERATORS, "-k", "sum"),
    ),
    Mutant(
        "a minimum over space of any sign",
        "bnfold/frontends/readers.py",
        'positive=name in ("ReduceMax", "ReduceMin"),',
        'positive=name == "ReduceMax",',
        (*OPERATORS, "-k", "minimum"),
    ),
    Mutant(
        "a shift passes a running sum",
        "bnfold/frontends/readers.py",
        "axes=(int(axis.reshape(-1)[0]) % rank,), unit_sum=False)",
        "axes=(int(axis.reshape(-1)[0]) % rank,), unit_sum=True)",
        (*OPERATORS, "-k", "CumSum"),
    ),
    Mutant(
        "a shift passes what lies beyond the image",
        "bnfold/frontends/readers.py",
        "axes=axes, unit_sum=not extrapolates)]",
        "axes=axes, unit_sum=True)]",
        (*OPERATORS, "-k", "Resize"),
    ),
    Mutant(
        "Where asks for a positive scale",
        "bnfold/frontends/readers.py",
        "xs, node.outputs[0], constants, positive=False)]",
        "xs, node.outputs[0], constants, positive=True)]",
        (*OPERATORS, "-k", "Where"),
    ),
    Mutant(
        "a computed slope in any unit",
        "bnfold/frontends/readers.py",
        "    if slope is not None and not ctx.is_const(slope):\n",
        "    if False:\n",
        (*OPERATORS, "-k", "slope"),
    ),
    Mutant(
        "the second operand of a Div taken for the feature",
        "bnfold/frontends/readers.py",
        'division=kind == "Div")]',
        "division=False)]",
        (*OPERATORS, "-k", "Div"),
    ),
    Mutant(
        "any Softmax taken for weights that sum to 1",
        "bnfold/frontends/readers.py",
        "return rank is not None and int(axis) % rank == rank - 1",
        "return rank is not None",
        (*OPERATORS, "-k", "softmax"),
    ),
    Mutant(
        "a reflected edge taken for zeros",
        "bnfold/frontends/structure.py",
        'if mode != "constant" or all(',
        "if all(",
        (*OPERATORS, "-k", "average"),
    ),
    Mutant(
        "neighbours of DepthToSpace in units of their own",
        "bnfold/frontends/structure.py",
        "alike, axes=(3, 5)),",
        "alike, axes=()),",
        (*OPERATORS, "-k", "DepthToSpace"),
    ),
    Mutant(
        "the state of a recurrent layer in any unit",
        "bnfold/frontends/linear.py",
        "(), Reason.NONLINEAR)] if states else []",
        "(), Reason.NONLINEAR)][:0]",
        (*OPERATORS, "-k", "state"),
    ),
    Mutant(
        "output_padding forgotten",
        "bnfold/frontends/linear.py",
        'extra = ints(node, "output_padding", (0,) * n) if transposed else ()',
        "extra = (0,) * n if transposed else ()",
        (*OPERATORS, "-k", "output_padding"),
    ),
    Mutant(
        "zeros that do not fit taken for a bias",
        "bnfold/frontends/linear.py",
        'if node.op_type != "Gemm" and array.ndim != 1:',
        "if False:",
        ("tests/frontends/test_onnx_linear.py", "-k", "zeros_of"),
    ),
    Mutant(
        "twins that became one not solved again",
        "bnfold/frontends/onnx.py",
        "anew=settled.weighted",
        "anew=False",
        (*SHARING, "-k", "twins"),
    ),
    Mutant(
        "equal operands given to each reader anew",
        "bnfold/frontends/rewrite.py",
        "            if key not in self._given:\n",
        "            if True:\n",
        (*SHARING, "-k", "becomes_the_same"),
    ),
    Mutant(
        "BatchNorms that do the same stay as many",
        "bnfold/frontends/tidy.py",
        'if node.op_type == "BatchNormalization" and not_at_inference(node) is not None:',
        'if node.op_type == "BatchNormalization":',
        (*SHARING, "-k", "do_the_same"),
    ),
    # certificate/: the proof
    Mutant(
        "roundings of a thousand units in the last place allowed",
        "bnfold/certificate/bounds.py",
        "return cls(ulps * float(info.eps), ulps * float(info.smallest_subnormal))",
        "return cls(1e3 * ulps * float(info.eps), ulps * float(info.smallest_subnormal))",
        (*CERTIFICATE, "-k", "weight_off"),
    ),
    Mutant(
        "a negative scale proved to pass a ReLU",
        "bnfold/certificate/single.py",
        "    positive_scale(unit)\n    constant =",
        "    constant =",
        (*CERTIFICATE, "-k", "negative_scale"),
    ),
    Mutant(
        "a shift proved to pass zero padding",
        "bnfold/certificate/applied.py",
        "if not even.all():",
        "if False:",
        (*CERTIFICATE, "-k", "zero_padding"),
    ),
    Mutant(
        "epsilon left out of the certificate's BatchNorm",
        "bnfold/certificate/elementwise.py",
        "np.sqrt(var.mid + eps)",
        "np.sqrt(var.mid)",
        (*CERTIFICATE, "-k", "conv_bn"),
    ),
    Mutant(
        "padding left out of the offsets of taps",
        "bnfold/certificate/taps.py",
        "taps.slide.dilations[i] - taps.slide.begin[i]",
        "taps.slide.dilations[i]",
        ("tests/certificate/test_taps.py",),
    ),
    Mutant(
        "what is lost taken for known",
        "bnfold/certificate/bounds.py",
        "return np.asarray(self.err < UNKNOWN**0.5)",
        "return np.asarray(self.err < np.inf)",
        (*CERTIFICATE, "-k", "lost"),
    ),
    Mutant(
        "what is lost comes back behind tiny factors",
        "bnfold/certificate/bounds.py",
        "        if self.known.all() and other.known.all():",
        "        if True:",
        ADVERSARY,
    ),
    Mutant(
        "an average of constants that counts zeros proved constant",
        "bnfold/certificate/fixed.py",
        "np.where(known == 0, 0.0, np.nan) if counts_zeros(node) else known",
        "known",
        ADVERSARY,
    ),
    Mutant(
        "a computed operand proved to be a constant one",
        "bnfold/certificate/pair.py",
        "same_constant(pair, mine[i] if i < len(mine) else None, theirs[i] if i < len(theirs) else None)",
        "pass",
        ADVERSARY,
    ),
    Mutant(
        "a constant channel's zero handed back whatever its scale",
        "bnfold/certificate/walk.py",
        "here = here if exact else here & (own - scale).holds(0.0)",
        "here = here",
        ADVERSARY,
    ),
    Mutant(
        "operators of two versions proved the same",
        "bnfold/certificate/near.py",
        "if changed is not None and min(versions) < changed <= max(versions):",
        "if False:",
        ADVERSARY,
    ),
    Mutant(
        "a repeated tensor proved to be the tensor",
        "bnfold/certificate/near.py",
        "if len(mine) != len(theirs) or not all(map(_may_be, mine, theirs)):",
        "if len(mine) != len(theirs):",
        ADVERSARY,
    ),
    Mutant(
        "the default of an input left out of the proof",
        "bnfold/certificate/walk.py",
        "if not _same_default(value, other):",
        "if False:",
        ADVERSARY,
    ),
    Mutant(
        "what a failed check is about not looked into",
        "bnfold/verification/verify.py",
        "if not verdict.inputs or (verdict.passed and not per_site):",
        "if not verdict.inputs or not per_site:",
        ("tests/verification/test_inside.py",),
    ),
    Mutant(
        "a weight that no tolerance sees passes",
        "bnfold/verification/verify.py",
        "failures, told = (*self.failures, *proof.failures), proof.notes",
        "failures, told = self.failures, proof.notes",
        ("tests/verification/test_proof.py",),
        # float64: the evaluator, the yardstick, where an error comes from
    ),
    Mutant(
        "drift alone fails",
        "bnfold/verification/yardstick.py",
        "min(drift.level(self.error_after), RATIO.level(self.ratio))",
        "drift.level(self.error_after)",
        ("tests/verification/test_yardstick.py",),
    ),
    Mutant(
        "the ratio of the wrong way round",
        "bnfold/verification/yardstick.py",
        "max(self.error_after, unit) / max(self.error_before, unit)",
        "max(self.error_before, unit) / max(self.error_after, unit)",
        ("tests/verification/test_yardstick.py",),
    ),
    Mutant(
        "what rounding up adds counts",
        "bnfold/float64/window.py",
        "[0] * rank + added, value)",
        "[0] * rank + added, fill)",
        ("tests/float64/test_evaluator.py",),
    ),
    Mutant(
        "values are never freed",
        "bnfold/float64/evaluator.py",
        "values.pop(value, None)",
        "values.get(value)",
        ("tests/float64/test_evaluator.py",),
    ),
    Mutant(
        "float32 in the code of a network stays",
        "bnfold/float64/networks.py",
        "return torch.float64 if value in NARROW else value",
        "return value",
        ("tests/float64/test_networks.py",),
    ),
    Mutant(
        "a vanished BatchNorm goes with what went into it",
        "bnfold/verification/localise.py",
        "return below.name, value.name",
        "return below.name, below.name",
        ("tests/verification/test_localise.py",),
        # data: moments, tests of significance, metrics, drift, recalibration
    ),
    Mutant(
        "parts of a stream merged without the step between their means",
        "bnfold/statistics/moments.py",
        "self.m2 + other.m2 + np.square(step) * (self.count * other.count / count),",
        "self.m2 + other.m2,",
        ("tests/statistics/test_moments.py",),
    ),
    Mutant(
        "McNemar's test with one side",
        "bnfold/evaluation/significance.py",
        "min(1.0, 2 * tail / (1 << tosses))",
        "min(1.0, tail / (1 << tosses))",
        ("tests/evaluation/test_significance.py",),
    ),
    Mutant(
        "every changed row is a tie",
        "bnfold/evaluation/accuracy.py",
        "(before.margins <= 2 * allowed)",
        "(before.margins < np.inf)",
        ("tests/evaluation/test_accuracy.py",),
    ),
    Mutant(
        "a row with NaN may be right",
        "bnfold/evaluation/metrics.py",
        ".any(axis=1) & ~unknown)",
        ".any(axis=1))",
        ("tests/evaluation/test_metrics.py",),
    ),
    Mutant(
        "rows that fill up a batch count as data",
        "bnfold/statistics/probes.py",
        "kept = x if rows is None else",
        "kept = x if True else",
        ("tests/statistics/test_recalibrate.py::test_every_layer_gets_the_statistics_it_sees_whatever_the_batch",),
    ),
    Mutant(
        "all layers take their statistics at once",
        "bnfold/statistics/normstats.py",
        "                depth += 1",
        "                depth += 0",
        ("tests/statistics/test_recalibrate.py::test_every_layer_gets_the_statistics_it_sees_whatever_the_batch",),
    ),
    Mutant(
        "drift in variances, not in standard deviations",
        "bnfold/statistics/drift.py",
        "/ np.sqrt(stored)",
        "/ stored",
        ("tests/statistics/test_recalibrate.py::test_drift_is_its_definition_and_the_worst_comes_first",),
    ),
    Mutant(
        "the first labels of a batch for all its pieces",
        "bnfold/data/streams.py",
        "batch.labels[start : start + rows]",
        "batch.labels[:rows]",
        ("tests/data/test_datasets.py",),
    ),
    Mutant(
        "a weight is rewritten under a rigid operator",
        "bnfold/frontends/reading.py",
        "others = len(op.weight.uses()) > readers[op.weight]",
        "others = False",
        ("tests/test_found_by_fuzzing.py",),
    ),
    # loading: what a hostile file may ask for
    Mutant(
        "tensors may show more than they stand on",
        "bnfold/loading/claims.py",
        "if nbytes > storage.nbytes:",
        "if nbytes > self.limit:",
        ("tests/attacks/test_pickle_tensor_with_stride_0.py", "tests/loading/test_tape.py"),
    ),
    Mutant(
        "layers may be built",
        "bnfold/loading/claims.py",
        "        if function.name.startswith(JUDGED):",
        "        if function.name.startswith(JUDGED[1:]):",
        ("tests/attacks/test_pickle_layer_that_is_built.py", "tests/attacks/test_pickle_tensor_of_a_terabyte.py"),
    ),
    Mutant(
        "names of parts may be code",
        "bnfold/loading/unpickled.py",
        "not isinstance(key, str) or not NAME.fullmatch(key) or",
        "not isinstance(key, str) or",
        ("tests/attacks/test_module_name_that_is_code.py",),
    ),
    Mutant(
        "members may stand twice",
        "bnfold/loading/archive.py",
        "if info.filename in seen:",
        "if info.filename in ():",
        ("tests/attacks/test_zip_member_twice.py",),
    ),
    Mutant(
        "members may overlap",
        "bnfold/loading/archive.py",
        "if info.header_offset < free:",
        "if info.header_offset < 0:",
        ("tests/attacks/test_zip_members_that_overlap.py",),
    ),
    Mutant(
        "external data may be a hard link",
        "bnfold/loading/onnxfile.py",
        "if status.st_nlink > 1:",
        "if status.st_nlink > 2:",
        ("tests/attacks/test_external_hard_link.py",),
    ),
    Mutant(
        "sparse tensors are not looked at",
        "bnfold/loading/onnxbounds.py",
        "sparse += list(graph.sparse_initializer)",
        "pass",
        ("tests/attacks/test_external_in_a_sparse_tensor.py",),
    ),
    Mutant(
        "functions may call themselves",
        "bnfold/loading/onnxbounds.py",
        "if key in calling:",
        "if key in known:",
        ("tests/attacks/test_function_that_calls_itself.py", "tests/attacks/test_functions_that_call_each_other.py"),
    ),
    Mutant(
        "a Tile is as large as its operand",
        "bnfold/frontends/growth.py",
        "arrays[0].size * math.prod(_numbers(arrays[1]))",
        "arrays[0].size",
        ("tests/frontends/test_growth.py",),
    ),
    Mutant(
        "errors print what is in names",
        "bnfold/errors.py",
        "self.what = one_line(what)",
        "self.what = what",
        ("tests/test_errors.py",),
    ),
    Mutant(
        "a weight that is read as it is may be rewritten for others",
        "bnfold/units/laws.py",
        "self.system.shared.setdefault(op.weight, []).append((NO_CELLS, NO_CELLS))",
        "pass",
        ("tests/test_found_by_fuzzing.py",),
    ),
    Mutant(
        "JSON keeps what is in names",
        "bnfold/reporting/report.py",
        "data: dict[str, Any] = inert(self._data())",
        "data: dict[str, Any] = self._data()",
        ("tests/attacks/test_name_in_json.py",),
    ),
    Mutant(
        "a file may change while it is read",
        "bnfold/loading/load.py",
        'raise UnreadableError(f"{name} was changed while it was read", "Try again when it is complete.")',
        "pass",
        ("tests/attacks/test_file_changed_while_read.py",),
    ),
    # picture/, page/: what a report draws
    Mutant(
        "the unit of the output for that of the input",
        "bnfold/planning/unitranges.py",
        "        solution.scale[x],",
        "        solution.scale[y],",
        ("tests/planning/test_unitranges.py",),
    ),
    Mutant(
        "weights that moved are as they were",
        "bnfold/reporting/picture/weights.py",
        "max(float(difference.max()), -float(difference.min()))",
        "max(float(difference.max()), float(difference.min()))",
        ("tests/reporting/picture/test_weight_changes.py",),
    ),
    Mutant(
        "an operator that is gone is unchanged",
        "bnfold/reporting/picture/picture.py",
        "    if operator.name not in after and operator.op not in",
        "    if operator.name in after and operator.op not in",
        ("tests/reporting/picture/test_picture.py",),
    ),
    Mutant(
        "JSON in a page may end its script",
        "bnfold/reporting/page/html.py",
        'for char in "<>&":',
        'for char in ">&":',
        ("tests/reporting/page/test_html.py",),
    ),
    Mutant(
        "control characters reach the page",
        "bnfold/reporting/page/html.py",
        "finalize=lambda value: printable(value, LONGEST_TEXT) if type(value) is str else value,",
        "finalize=None,",
        ("tests/reporting/page/test_html.py",),
    ),
    Mutant(
        "a policy that lets scripts in",
        "bnfold/reporting/page/html.py",
        "default-src 'none'; script-src",
        "default-src 'none'; script-src 'unsafe-inline'",
        ("tests/reporting/page/test_html.py",),
    ),
    Mutant(
        "a claim where the interval is within the control's",
        "bnfold/reporting/page/facts.py",
        "low > max(1, control_high)",
        "low > 1",
        ("tests/reporting/page/test_facts.py",),
    ),
    Mutant(
        "a node that reads what is not there",
        "bnfold/reporting/page/read.py",
        "0 <= at < len(nodes)",
        "0 <= at <= len(nodes)",
        ("tests/reporting/page/test_read.py",),
    ),
    Mutant(
        "a pipe in a name makes a cell",
        "bnfold/reporting/page/markdown.py",
        "<>#|~$@&!",
        "<>#~$@&!",
        ("tests/reporting/page/test_markdown.py",),
    ),
    Mutant(
        "boxes of a layer on one another",
        "bnfold/reporting/page/layering.py",
        "offsets[-1] + cut.width[one] / 2 + gap",
        "offsets[-1] + gap",
        ("tests/reporting/page/test_layering.py",),
    ),
    Mutant(
        "a condition that begins like another is taken for it",
        "bnfold/reporting/page/junit.py",
        'startswith(f"--fail-on {condition}:")',
        'startswith(f"--fail-on {condition}")',
        ("tests/reporting/page/test_junit.py",),
    ),
    Mutant(
        "an excluded BatchNorm of an ONNX model is folded like any other",
        "bnfold/frontends/readers.py",
        "    if node in ctx.excluded:",
        "    if node in ():",
        EXCLUDED,
    ),
    Mutant(
        "an excluded BatchNorm of a PyTorch network is folded like any other",
        "bnfold/frontends/aten/readers.py",
        "    if label in ctx.excluded:",
        "    if label in ():",
        EXCLUDED,
    ),
    Mutant(
        "an excluded BatchNorm goes where another one does the same",
        "bnfold/frontends/tidy.py",
        "        if node in kept or any(v.is_graph_output() for v in node.outputs):",
        "        if any(v.is_graph_output() for v in node.outputs):",
        EXCLUDED,
    ),
    Mutant(
        "a module's name also means the modules whose names begin with it",
        "bnfold/planning/exclusion.py",
        "any(fnmatchcase(each, pattern) for each in (name, *_around(path)))",
        "any(fnmatchcase(each, pattern + '*') for each in (name, *_around(path)))",
        ("tests/planning/test_exclusion.py",),
    ),
    Mutant(
        "a channel that rounds away is any constant",
        "bnfold/certificate/units.py",
        "form = replace(form, const=form.const.where(dead, form.dead.constant))",
        "form = replace(form, const=form.const.where(dead, target.const))",
        ADVERSARY,
    ),
    # traces.py, exports.py: proofs of PyTorch networks
    Mutant(
        "a proof of exported networks excuses a run that differs",
        "bnfold/verification/verify.py",
        "        if proof.exported and proof.proved and not self.passed:",
        "        if False:",
        EXPORTS,
    ),
    Mutant(
        "weights that disagree in exported networks fail by themselves",
        "bnfold/verification/verify.py",
        "        elif proof.exported and proof.failures and self.passed:",
        "        elif False:",
        EXPORTS,
    ),
    Mutant(
        "networks that change their state are proved",
        "bnfold/verification/exports.py",
        "    if written or functional is None:",
        "    if functional is None:",
        EXPORTS,
    ),
    Mutant(
        "networks that draw random numbers are proved",
        "bnfold/verification/exports.py",
        "    if drawn:",
        "    if False:",
        EXPORTS,
    ),
    Mutant(
        "the network itself is traced",
        "bnfold/running/traces.py",
        "module if isinstance(module, torch.jit.ScriptModule) else copied(module, sharing=True)",
        "module",
        EXPORTS,
    ),
    Mutant(
        "a network is exported again for the picture",
        "bnfold/running/traces.py",
        "    if key not in traces:",
        "    if True:",
        ("tests/reporting/picture/test_picture.py",),
    ),
    Mutant(
        "the distance of two units looks like an error",
        "bnfold/reporting/sitewords.py",
        'return None if state == "unit" else gap',
        "return gap",
        ("tests/reporting/test_render.py", "tests/reporting/page/test_html.py"),
    ),
    Mutant(
        "a note that every weight was found is printed always",
        "bnfold/loading/weights.py",
        'return note.startswith("state dict: ") and note.endswith(" 0 missing, 0 unexpected")',
        "return False",
        ("tests/reporting/test_render.py",),
    ),
    Mutant(
        "inputs that a network does not take are said to be beyond torch",
        "bnfold/frontends/modules/fold.py",
        "            refuse_what_it_does_not_take(module, call)\n",
        "",
        ("tests/test_typical_python_mistakes.py",),
    ),
    Mutant(
        "a failing call leaves its marks on the network",
        "bnfold/frontends/modules/example.py",
        "copy.deepcopy((module, call.args, call.kwargs))",
        "(module, call.args, call.kwargs)",
        ("tests/test_typical_python_mistakes.py",),
    ),
    Mutant(
        "Python callers read flags",
        "bnfold/spoken.py",
        "            error.hint = in_python(error.hint, function.__name__)\n",
        "",
        ("tests/test_spoken.py",),
    ),
    Mutant(
        "weights are loaded into the network that the caller passed as arch",
        "bnfold/loading/arch.py",
        "return copy.deepcopy(_call(factory, name_of(factory), keywords))",
        "return _call(factory, name_of(factory), keywords)",
        ("tests/test_typical_python_mistakes.py",),
    ),
    # What a wrong call is told
    Mutant(
        "a missing input is found out after its output's folder",
        "bnfold/pipeline/line.py",
        '    source.check("convert")\n',
        "",
        ("tests/test_typical_mistakes.py",),
    ),
    Mutant(
        "inspect does not hold --input to the model",
        "bnfold/data/feeds.py",
        '            _check(decl, given[decl.name].shape, "--input")\n            _dtype_of',
        "            _dtype_of",
        ("tests/test_typical_mistakes.py",),
    ),
    Mutant(
        "a damaged pyproject.toml loses its defaults in silence",
        "bnfold/cli/defaults.py",
        'b"bnfold" not in text',
        "True",
        ("tests/cli/test_defaults.py",),
    ),
    Mutant(
        "what was typed is blamed on the file",
        "bnfold/cli/defaults.py",
        "if flag not in self.typed and (named",
        "if (named",
        ("tests/cli/test_defaults.py",),
    ),
    Mutant(
        "what a command never measures is found out at the end",
        "bnfold/reporting/conditions.py",
        "        if group not in MEASURES[command]:",
        "        if group not in MEASURES:",
        ("tests/reporting/test_conditions.py",),
    ),
    Mutant(
        "a fixed batch after an open one is said to be another file",
        "bnfold/verification/interface.py",
        "if _declared_problem(ours, theirs, pinned=False):",
        "if _declared_problem(ours, theirs, pinned=True):",
        ("tests/verification/test_interface.py",),
    ),
    Mutant(
        "an output in its place is not told to who interrupts",
        "bnfold/writing/files.py",
        "        placed(target)\n",
        "",
        ("tests/cli/test_cli.py", "-k", "ctrl_c_says"),
    ),
    Mutant(
        "words of the help are broken",
        "bnfold/cli/helping.py",
        "break_long_words=False, break_on_hyphens=False",
        "break_long_words=True",
        ("tests/cli/test_helping.py",),
    ),
    Mutant(
        "a factory that takes everything is refused its arguments",
        "bnfold/loading/factories.py",
        "if not any(p.kind is p.VAR_KEYWORD for p in parameters):",
        "if parameters:",
        ("tests/loading/test_factories.py",),
    ),
)


def stale(mutant: Mutant) -> str | None:
    """Why a mutant cannot be applied to this tree, if so."""
    path = ROOT / mutant.file
    if not path.is_file():
        return f"there is no {mutant.file}"
    count = path.read_text().count(mutant.old)
    if count != 1:
        return f"its text occurs {count} times in {mutant.file}, not once: {mutant.old!r}"
    missing = [test for test in mutant.tests if test.startswith("tests/") and not (ROOT / test.split("::")[0]).exists()]
    return f"there is no {missing[0]}" if missing else None


def copy_tree(folder: Path) -> None:
    """A copy of the repository that the tests can run in."""
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__", ".hypothesis"))
        else:
            shutil.copy(source, folder / part)


def run_tests(folder: Path, tests: Sequence[str]) -> tuple[int, str]:
    """Pytest's exit status and output, with the copy before any installed bnfold and no bytecode left behind."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(folder),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    try:
        result = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        return -1, f"no answer within {TIMEOUT_S} s"
    return result.returncode, result.stdout


def try_mutant(mutant: Mutant, folder: Path) -> tuple[bool, str]:
    """Whether the tests catch it, and how to say so."""
    path = folder / mutant.file
    whole = path.read_text()
    path.write_text(whole.replace(mutant.old, mutant.new))
    try:
        status, output = run_tests(folder, mutant.tests)
    finally:
        path.write_text(whole)
    if status == 0:
        return False, "SURVIVED"
    if status != 1:
        return False, "BROKEN (no test ran to its end)\n" + "\n".join(output.splitlines()[-15:])
    failed = next((line.split(" - ")[0][7:] for line in output.splitlines() if line.startswith("FAILED ")), "a test")
    return True, f"caught by {failed}"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", type=int, nargs="+", metavar="N", help="numbers as --list shows them")
    parser.add_argument("--list", action="store_true", help="show the mutants and stop")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="how many at a time (default: one per core)"
    )
    arguments = parser.parse_args()
    chosen = [
        (number, mutant) for number, mutant in enumerate(MUTANTS, 1) if number in (arguments.only or range(1, 1000))
    ]
    if arguments.list:
        for number, mutant in chosen:
            print(f"{number:3}  {mutant.file:32} {mutant.what}  [{' '.join(mutant.tests)}]")
        return 0

    bad = [f"{number:3}  STALE: {mutant.what}: {why}" for number, mutant in chosen if (why := stale(mutant))]
    if bad:
        print("\n".join(bad))
        return 1

    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="bnfold-mutants-") as scratch:
        copies: queue.SimpleQueue[Path] = queue.SimpleQueue()
        for job in range(arguments.jobs):
            folder = Path(scratch) / str(job)
            folder.mkdir()
            copy_tree(folder)
            copies.put(folder)

        suites = sorted({mutant.tests for _, mutant in chosen})
        print(f"{len(suites)} sets of tests on the unbroken source", flush=True)

        def control(tests: tuple[str, ...]) -> tuple[bool, str]:
            folder = copies.get()
            try:
                status, output = run_tests(folder, tests)
            finally:
                copies.put(folder)
            return status == 0, output

        def attempt(numbered: tuple[int, Mutant]) -> bool:
            folder = copies.get()
            try:
                caught, verdict = try_mutant(numbered[1], folder)
            finally:
                copies.put(folder)
            print(
                f"{numbered[0]:3}/{len(MUTANTS)} {time.perf_counter() - start:5.0f} s  {numbered[1].what}: {verdict}",
                flush=True,
            )
            return caught

        with ThreadPoolExecutor(arguments.jobs) as pool:
            for tests, (passed, output) in zip(suites, pool.map(control, suites), strict=True):
                if not passed:
                    print(output)
                    print(f"the unbroken source fails {' '.join(tests)}: a mutant would prove nothing")
                    return 1
            caught = sum(pool.map(attempt, chosen))

    print(f"{caught} of {len(chosen)} mutants caught")
    return 0 if caught == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
