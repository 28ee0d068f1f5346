"""A bare pickle is no model, whatever it is called, and is not trusted either."""

from __future__ import annotations

import pickle

from stage import Attack


def test_pickle_bare(attack: Attack) -> None:
    attack.write("model.onnx", pickle.dumps(attack.payload()))
    attack.refused(
        "inspect",
        "model.onnx",
        says=("error[UNSAFE]: model.onnx is a plain Python pickle, not a model file\nSave it with torch.save.\n"),
    )
    attack.refused(
        "inspect",
        "model.onnx",
        "--trust-pickle",
        says=("error[UNSAFE]: model.onnx is a plain Python pickle, not a model file\nSave it with torch.save.\n"),
    )
