"""External data above the folder, in the values of a sparse initializer."""

from __future__ import annotations

import hostile_onnx as ho
from stage import Attack


def test_external_in_a_sparse_tensor(attack: Attack) -> None:
    made = ho.model()
    sparse = made.graph.sparse_initializer.add(dims=[2, 3])
    sparse.values.CopyFrom(ho.external("../secret", "s"))
    sparse.indices.CopyFrom(ho.external("../secret", "i"))
    attack.write("model.onnx", made)
    attack.refused(
        "inspect",
        "model.onnx",
        says=(
            "error[UNSAFE]: the external data of model.onnx lies outside its folder: '../secret'\n"
            "Put the model and its data files into one folder, as plain files.\n"
        ),
    )
