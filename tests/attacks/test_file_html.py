"""A page that says that the model was not found."""

from __future__ import annotations

from stage import Attack


def test_file_html(attack: Attack) -> None:
    attack.write("model.pt", "<html><script>alert(1)</script></html>")
    attack.refused(
        "inspect",
        "model.pt",
        says=(
            "error[UNREADABLE]: model.pt is a text file, not a model\n"
            "bnfold reads ONNX, PyTorch checkpoints and modules, safetensors, TorchScript and .pt2 files.\n"
        ),
    )
