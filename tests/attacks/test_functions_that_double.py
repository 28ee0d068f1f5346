"""Fifteen functions, each calling the one before ten times: a million million operators written out."""

from __future__ import annotations

import itertools

import hostile_onnx as ho
import onnx
from onnx import helper
from stage import Attack


def test_functions_that_double(attack: Attack) -> None:
    def calls(inner: str, domain: str) -> list[onnx.NodeProto]:
        names = ["a", *(f"t{i}" for i in range(9)), "b"]
        return [helper.make_node(inner, [old], [new], domain=domain) for old, new in itertools.pairwise(names)]

    functions = [ho.function("F0", *calls("Relu", ""))]
    functions += [ho.function(f"F{n}", *calls(f"F{n - 1}", "own")) for n in range(1, 15)]
    attack.write("model.onnx", ho.model([helper.make_node("F14", ["x"], ["y"], domain="own")], functions=functions))
    attack.refused(
        "inspect",
        "model.onnx",
        says=(
            "error[LIMIT]: model.onnx has more than 1000000 operators, its functions written out\n"
            "Export a smaller model.\n"
        ),
    )
