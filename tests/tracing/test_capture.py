from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir
import onnxruntime
import pytest
import torch
from torch import nn

from bnfold.errors import BnfoldError, UnsupportedError, UsageError
from bnfold.loading.load import Loaded
from bnfold.specs import parse_dynamic, parse_input
from bnfold.tracing.capture import Captured, capture

# torch marks TorchScript as deprecated wherever it is made; the files still exist
script = pytest.mark.filterwarnings("ignore:`torch.jit.(script|trace)` is deprecated:DeprecationWarning")


def norm(module: nn.Module) -> nn.Module:
    """Gives every BatchNorm statistics and parameters that show, and evaluation mode."""
    generator = torch.Generator().manual_seed(0)
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            for tensor in (part.weight, part.bias, part.running_mean):
                tensor.data.normal_(generator=generator)
            part.running_var.uniform_(0.5, 2, generator=generator)
    return module.eval()


class EveryLayer(nn.Module):
    """Each linear layer without a bias, and its BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.volume = nn.Sequential(nn.Conv3d(1, 2, 3, padding=1, bias=False), nn.BatchNorm3d(2))
        self.image = nn.Sequential(nn.Conv2d(2, 2, 3, padding=1, bias=False), nn.BatchNorm2d(2))
        self.up = nn.Sequential(nn.ConvTranspose2d(2, 2, 2, stride=2, bias=False), nn.BatchNorm2d(2))
        self.line = nn.Sequential(nn.Conv1d(2, 3, 3, bias=False), nn.BatchNorm1d(3))
        self.dense = nn.Sequential(nn.Linear(3, 4, bias=False), nn.BatchNorm1d(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.volume(x).mean(2)
        x = self.up(torch.relu(self.image(x)))
        x = self.line(x.flatten(2))
        return self.dense(x.mean(2))


class Twice(nn.Module):
    """A BatchNorm used twice, two inputs of one batch."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(3, 3, bias=False)
        self.bn = nn.BatchNorm1d(3)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.bn(self.dense(self.bn(x))) + y


def captured(module: object, *inputs: str, **arguments: Any) -> Captured:
    loaded = Loaded(module, "module", "model.pt", "")
    return capture(loaded, inputs=[parse_input(text) for text in inputs], **arguments)


def as_written(made: Captured, feeds: Mapping[str, np.ndarray]) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(onnx_ir.to_proto(made.model).SerializeToString(), options)
    return session.run(None, dict(feeds))[0]


def agrees(module: nn.Module, made: Captured, *shapes: tuple[int, ...]) -> bool:
    """Whether onnxruntime, running what is written, says what torch says."""
    rng = np.random.default_rng(1)
    arrays = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    with torch.no_grad():
        expected = module(*map(torch.from_numpy, arrays)).numpy()
    names = [value.name for value in made.model.graph.inputs]
    return np.allclose(as_written(made, dict(zip(names, arrays, strict=True))), expected, rtol=1e-4, atol=1e-5)


def input_shapes(made: Captured) -> dict[str, str]:
    return {value.name: str(value.shape) for value in made.model.graph.inputs}


def named(made: Captured, op: str) -> list[str]:
    return [node.name for node in made.model.graph if node.op_type == op]


def refusal(raises: type[BnfoldError], module: object, *inputs: str, **arguments: Any) -> str:
    with pytest.raises(raises) as caught:
        captured(module, *inputs, **arguments)
    assert str(caught.value).count("\n") == 1
    return str(caught.value)


def onnx_model() -> onnx_ir.Model:
    x = onnx_ir.Value(name="x", type=onnx_ir.TensorType(onnx_ir.DataType.FLOAT), shape=onnx_ir.Shape(["batch", 2]))
    node = onnx_ir.node("Relu", [x])
    return onnx_ir.Model(onnx_ir.Graph([x], node.outputs, nodes=[node], opset_imports={"": 17}), ir_version=8)


def test_every_batch_norm_is_still_there_and_the_model_runs_as_written_at_every_batch() -> None:
    module = norm(EveryLayer())
    before = {key: value.clone() for key, value in module.state_dict().items()}
    made = captured(module, "1x1x4x4x4")
    assert named(made, "BatchNormalization") == ["volume.1", "image.1", "up.1", "line.1", "dense.1"]
    assert named(made, "Conv") == ["volume.0", "image.0", "line.0"]
    assert named(made, "ConvTranspose") == ["up.0"]
    assert named(made, "Gemm") + named(made, "MatMul") == ["dense.0"]
    assert not {"Expand", "CastLike", "Constant", "Shape"} & {node.op_type for node in made.model.graph}
    assert input_shapes(made) == {"x": "[batch,1,4,4,4]"}
    assert made.notes == ()
    assert all(agrees(module, made, (batch, 1, 4, 4, 4)) for batch in (1, 2, 3))
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert __file__.encode() not in onnx_ir.to_proto(made.model).SerializeToString()


def test_a_module_called_twice_makes_two_operators_and_two_inputs_share_the_batch() -> None:
    module = norm(Twice())
    made = captured(module, "1x3", "y:1x3", opset=18)
    assert named(made, "BatchNormalization") == ["bn", "bn#2"]
    assert input_shapes(made) == {"x": "[batch,3]", "y": "[batch,3]"}
    assert made.model.opset_imports[""] == 18
    assert all(agrees(module, made, (batch, 3), (batch, 3)) for batch in (1, 4))


def test_inputs_in_containers() -> None:
    class Containers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bn = nn.BatchNorm1d(2)

        def forward(self, parts: dict[str, Any]) -> torch.Tensor:
            return self.bn(parts["a"]) + parts["b"][0]

    module = norm(Containers())
    module.example_input_array = ({"a": torch.ones(1, 2), "b": [torch.ones(1, 2)]},)
    assert input_shapes(captured(module)) == {"parts_a": "[batch,2]", "parts_b_0": "[batch,2]"}


def test_a_batch_the_network_does_not_leave_open_is_fixed_and_the_user_told() -> None:
    class FixedBatch(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.reshape(1, 4) * 2

    made = captured(FixedBatch().eval(), "1x4")
    assert input_shapes(made) == {"x": "[1,4]"}
    assert len(made.notes) == 1
    assert made.notes[0].startswith("the batch dimension is fixed, because the network does not leave it open: ")
    assert agrees(FixedBatch(), made, (1, 4))


def test_another_dimension_is_left_open_when_asked() -> None:
    module = norm(nn.Sequential(nn.Conv1d(1, 2, 3), nn.BatchNorm1d(2)))
    made = captured(module, "1x1x9", dynamic=[parse_dynamic("input:2=length")])
    assert input_shapes(made) == {"input": "[batch,1,length]"}
    assert agrees(module, made, (1, 1, 5))


def test_a_dimension_that_cannot_be_left_open_as_asked_is_an_error() -> None:
    class Square(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.reshape(-1, 3, 3) if x.shape[1] == 9 else x

    message = refusal(UsageError, Square().eval(), "1x9", dynamic=[parse_dynamic("x:1=n")])
    assert message.startswith("error[USAGE]: the network does not leave --dynamic x:1=n open: ")
    assert message.endswith("\nDrop --dynamic, or rewrite the part of forward that depends on the size.")


def test_half_precision_stays_half() -> None:
    made = captured(norm(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))).half(), "1x2")
    assert [value.dtype for value in made.model.graph.inputs] == [onnx_ir.DataType.FLOAT16]
    assert made.model.graph.initializers["0.weight"].dtype == onnx_ir.DataType.FLOAT16


def test_a_wrong_shape_is_a_mistake_in_the_call() -> None:
    assert refusal(UsageError, norm(Twice()), "1x3", "1x4") == (
        "error[USAGE]: the network does not take x 1x3 float32, y 1x4 float32: "
        "RuntimeError: The size of tensor a (3) must match the size of tensor b (4) at non-singleton dimension 1\n"
        "Pass the shape the network was trained with, e.g. --input 1x3x224x224."
    )


def test_control_flow_on_values_cannot_be_expressed_and_torch_stays_silent(capfd: pytest.CaptureFixture[str]) -> None:
    class Branch(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            print("inside")
            return x if x.sum() > 0 else -x

    message = refusal(UnsupportedError, Branch().eval(), "1x4")
    assert message.startswith(f"error[UNSUPPORTED]: torch {torch.__version__} cannot express model.pt in ONNX: ")
    assert "data-dependent" in message
    captured_text = capfd.readouterr()
    assert captured_text.out == ""
    assert captured_text.err == "inside\n"


def test_an_opset_torch_cannot_write() -> None:
    assert refusal(UnsupportedError, norm(nn.BatchNorm1d(2)), "1x2", opset=99) == (
        f"error[UNSUPPORTED]: torch {torch.__version__} cannot write this model in opset 99, only in 18\n"
        "Pass --opset 18, or leave it out."
    )


@script
def test_torchscript_keeps_its_batch_norms_and_its_input_names() -> None:
    module = norm(Twice())
    made = captured(torch.jit.script(module), "1x3", "1x3")
    assert len(named(made, "BatchNormalization")) == 2
    assert input_shapes(made) == {"x": "[batch,3]", "y": "[batch,3]"}
    assert all(agrees(module, made, (batch, 3), (batch, 3)) for batch in (1, 4))


def test_an_exported_program_keeps_the_dimensions_it_was_exported_with() -> None:
    from bnfold.quiet import quiet

    module = norm(Twice())
    batch = torch.export.Dim("batch")
    with quiet():
        program = torch.export.export(
            module, (torch.ones(2, 3), torch.ones(2, 3)), dynamic_shapes=({0: batch}, {0: batch})
        )
    made = captured(program)
    assert named(made, "BatchNormalization") == ["bn", "bn#2"]
    assert all(agrees(module, made, (batch, 3), (batch, 3)) for batch in (1, 4))
    assert refusal(UsageError, program, dynamic=[parse_dynamic("x:0=n")]) == (
        "error[USAGE]: --dynamic was given, and model.pt was exported with its dimensions decided\n"
        "Choose them in torch.export.export(dynamic_shapes=...), or drop --dynamic."
    )


def test_an_onnx_model_is_returned_as_it_is() -> None:
    model = onnx_model()
    assert captured(model).model is model
    assert captured(model, "1x2", opset=17).model is model


def test_an_onnx_model_cannot_be_captured_differently() -> None:
    assert refusal(UsageError, onnx_model(), dynamic=[parse_dynamic("x:0=n")]) == (
        "error[USAGE]: --dynamic was given, and model.pt is an ONNX file whose dimensions are decided\n"
        "Drop --dynamic, or convert the PyTorch model."
    )
    assert refusal(UnsupportedError, onnx_model(), opset=20) == (
        "error[UNSUPPORTED]: --opset 20 was given, and model.pt is an ONNX file of opset 17\n"
        "Drop --opset, or convert the PyTorch model."
    )
