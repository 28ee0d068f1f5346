"""The certificate against its meaning: folds are proved, what is proved computes the same, what is broken is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from property.examples import EXAMPLES, Example
from property.run_onnx import run
from property.spec import Spec
from property.strategy import specs
from property.to_onnx import to_onnx

from bnfold.certificate import Certificate, certify
from bnfold.frontends.onnx import fold_model
from bnfold.loading.load import load
from bnfold.tracing.capture import capture

ROOT = Path(__file__).resolve().parent.parent.parent
QUIET = settings(
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)
Arrays = dict[str, np.ndarray]


def proved(before: onnx.ModelProto, after: onnx.ModelProto) -> Certificate:
    return certify(ir.from_proto(before), ir.from_proto(after))


def folded(before: onnx.ModelProto) -> onnx.ModelProto:
    return ir.to_proto(fold_model(ir.from_proto(before))[0])


def network(name: str) -> onnx.ModelProto:
    model = load(ROOT / "models" / f"{name}.pt", arch=f"{ROOT / 'models' / 'architectures.py'}:{name}")
    return ir.to_proto(capture(model).model)


def graph(nodes: list[onnx.NodeProto], constants: Arrays, channels: int = 3, size: int = 6) -> onnx.ModelProto:
    """A model of `x`, [N, channels, size, size], and of what the last node makes."""
    shape = ["N", channels, size, size]
    last = nodes[-1].output[0]
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in constants.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def node(op: str, inputs: str, output: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), [output], name=output, **attributes)


RNG = np.random.default_rng(0)
W = RNG.normal(size=(3, 3, 3, 3))
NORM = {
    "gamma": np.array([0.7, 1.3, 0.9]),
    "beta": np.array([0.2, -0.4, 0.1]),
    "mean": np.array([0.1, 0.3, -0.2]),
    "var": np.array([0.8, 1.2, 1.5]),
}
S = NORM["gamma"] / np.sqrt(np.float32(NORM["var"]).astype(float) + 1e-5)
T = NORM["beta"] - S * NORM["mean"]
CHANNELWISE = S.reshape(-1, 1, 1, 1)


# What is not changed, and what folding makes of it


def test_a_model_is_itself() -> None:
    model = network("preact_resnet")
    certificate = proved(model, model)
    assert certificate.proved
    assert certificate.ulps == 0.5
    assert certificate.operators == len(model.graph.node)


@pytest.mark.parametrize("name", ["mlp", "resnet", "preact_resnet", "iresnet", "repvgg", "densenet", "unet", "tcn"])
def test_every_trained_network_is_proved(name: str) -> None:
    before = network(name)
    assert proved(before, folded(before)).problems == ()


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_every_theorem_is_proved(example: Example) -> None:
    before = to_onnx(example.spec)
    assert proved(before, folded(before)).problems == ()


@seed(1)
@settings(QUIET, max_examples=150)
@given(specs(anything=True))
def test_every_fold_is_proved(spec: Spec) -> None:
    before = to_onnx(spec)
    certificate = proved(before, folded(before))
    assert certificate.proved, (certificate.problems, certificate.assumed, spec)


@seed(2)
@settings(QUIET, max_examples=150)
@given(specs(anything=True), st.randoms(use_true_random=False))
def test_what_is_proved_computes_the_same(spec: Spec, random: object) -> None:
    """An adversary changes the folded model; where that changes what it computes, nothing may be proved."""
    before, rng = to_onnx(spec), np.random.default_rng(random.getrandbits(32))  # type: ignore[attr-defined]
    after = folded(before)
    floats = [t for t in after.graph.initializer if t.data_type == TensorProto.DOUBLE and np.prod(t.dims) > 0]
    if not floats:
        return
    tensor = floats[rng.integers(len(floats))]
    array = numpy_helper.to_array(tensor).copy()
    array.reshape(-1)[rng.integers(array.size)] += rng.choice([-1.0, 1.0]) * 10.0 ** rng.uniform(-5, 0)
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    if not proved(before, after).proved:
        return
    got = run(after, spec.feeds)
    for name in spec.outputs:
        size = np.abs(spec.values[name]).max(initial=0.0)
        assert np.abs(got[name] - spec.values[name]).max(initial=0.0) <= 1e-8 * (size + 1e-4), (name, tensor.name)


# Named breaks, each found by its own name


def resnet_pair() -> tuple[onnx.ModelProto, onnx.ModelProto]:
    before = network("resnet")
    return before, folded(before)


def test_one_weight_off_by_a_hundred_thousandth() -> None:
    before, after = resnet_pair()
    conv = next(node for node in after.graph.node if node.op_type == "Conv")
    tensor = next(t for t in after.graph.initializer if t.name == conv.input[1])
    array = numpy_helper.to_array(tensor).copy()
    array[0, 0, 0, 0] *= 1 + 1e-5
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    certificate = proved(before, after)
    assert certificate.refuted
    assert "channel 0: weights disagree by 9.7e-06" in certificate.problems[0].words or certificate.problems


def test_a_lost_bias() -> None:
    before, after = resnet_pair()
    conv = next(node for node in after.graph.node if node.op_type == "Conv")
    del conv.input[2]
    assert proved(before, after).refuted


def test_an_epsilon_left_out() -> None:
    before = graph(
        [
            node("Conv", "x w", "c"),
            node("BatchNormalization", "c gamma beta mean var", "b", epsilon=1e-3),
            node("Relu", "b", "r"),
        ],
        {"w": W, **NORM},
    )
    wrong = S.reshape(-1, 1, 1, 1)
    after = graph([node("Conv", "x w b0", "b"), node("Relu", "b", "r")], {"w": W * wrong, "b0": T})
    assert not proved(before, after).proved


def test_a_constant_for_the_last_axis_folded_as_if_per_channel() -> None:
    """A Mul by a constant of shape (C,) scales the last axis; another tool's fold into the channels is refused."""
    size = 3
    factor = np.array([0.5, 2.0, 3.0])
    before = graph(
        [node("Conv", "x w", "conv", pads=[1, 1, 1, 1]), node("Mul", "conv f", "scaled")],
        {"w": W, "f": factor},
        size=size,
    )
    after = graph([node("Conv", "x w", "scaled", pads=[1, 1, 1, 1])], {"w": W * factor.reshape(-1, 1, 1, 1)}, size=size)
    certificate = proved(before, after)
    assert certificate.refuted
    assert certificate.problems[0].name == "scaled"


def test_a_shift_folded_through_zero_padding() -> None:
    before = graph(
        [node("BatchNormalization", "x gamma beta mean var", "b"), node("Conv", "b w", "c", pads=[1, 1, 1, 1])],
        {"w": W, **NORM},
    )
    bias = (W * T.reshape(1, -1, 1, 1)).sum(axis=(1, 2, 3))
    folded_in = {"w": W * S.reshape(1, -1, 1, 1), "b0": bias}
    padded = graph([node("Conv", "x w b0", "c", pads=[1, 1, 1, 1])], folded_in)
    assert "it pads zeros" in proved(before, padded).problems[0].words
    unpadded = graph(
        [node("BatchNormalization", "x gamma beta mean var", "b"), node("Conv", "b w", "c")], {"w": W, **NORM}
    )
    assert proved(unpadded, graph([node("Conv", "x w b0", "c")], folded_in)).proved


def test_a_negative_scale_through_a_relu() -> None:
    flipped = {**NORM, "gamma": np.array([0.7, -1.3, 0.9]), "beta": np.zeros(3), "mean": np.zeros(3)}
    s = flipped["gamma"] / np.sqrt(np.float32(flipped["var"]).astype(float) + 1e-5)
    before = graph(
        [node("BatchNormalization", "x gamma beta mean var", "b"), node("Relu", "b", "r"), node("Conv", "r w", "c")],
        {"w": W, **flipped},
    )
    after = graph([node("Relu", "x", "r"), node("Conv", "r w", "c")], {"w": W * s.reshape(1, -1, 1, 1)})
    assert [p.words for p in proved(before, after).problems][:1] == ["it needs a positive scale"]


def test_branches_merged_on_the_wrong_tap() -> None:
    pads = {"pads": [1, 1, 1, 1]}
    one = RNG.normal(size=(3, 3, 1, 1))
    before = graph(
        [node("Conv", "x w", "a", **pads), node("Conv", "x v", "b"), node("Add", "a b", "y")], {"w": W, "v": one}
    )
    right, wrong = W.copy(), W.copy()
    right[:, :, 1:2, 1:2] += one
    wrong[:, :, 0:1, 1:2] += one
    assert proved(before, graph([node("Conv", "x w", "y", **pads)], {"w": right})).proved
    assert proved(before, graph([node("Conv", "x w", "y", **pads)], {"w": wrong})).refuted


def test_an_operator_that_is_not_understood_is_not_proved() -> None:
    """Nothing is known of an operator of another domain but that equal inputs give equal outputs."""
    strange = helper.make_node("Strange", ["b"], ["y"], name="s", domain="elsewhere")
    scaled = {**NORM, "beta": np.zeros(3), "mean": np.zeros(3)}
    before = graph([node("BatchNormalization", "x gamma beta mean var", "b"), strange], {**scaled})
    after = graph([helper.make_node("Strange", ["x"], ["y"], name="s", domain="elsewhere")], {})
    for model in (before, after):
        model.opset_import.append(helper.make_opsetid("elsewhere", 1))
    assert not proved(before, after).proved
    assert proved(before, before).proved


def test_outputs_in_other_places_are_not_proved() -> None:
    model = graph([node("Relu", "x", "a"), node("Neg", "x", "b")], {})
    other = onnx.ModelProto.FromString(model.SerializeToString())
    model.graph.output[0].name = "a"
    assert not proved(model, other).proved


CONSUMERS = {
    "Relu": [node("Relu", "b", "r"), node("Conv", "r v", "y")],
    "Sigmoid": [node("Sigmoid", "b", "r"), node("Conv", "r v", "y")],
    "Max": [node("Max", "b x", "r"), node("Conv", "r v", "y")],
    "Mul": [node("Mul", "b x", "r"), node("Conv", "r v", "y")],
    "MaxPool": [node("MaxPool", "b", "r", kernel_shape=[2, 2]), node("Conv", "r v", "y")],
    "Add": [node("Add", "b x", "r"), node("Conv", "r v", "y")],
    "Conv": [node("Conv", "b v", "y")],
    "padded Conv": [node("Conv", "b v", "y", pads=[1, 1, 1, 1])],
    "Transpose": [node("Transpose", "b", "r", perm=[0, 1, 3, 2]), node("Conv", "r v", "y")],
    "Concat": [node("Concat", "b x", "r", axis=2), node("Conv", "r v", "y")],
    "PRelu": [node("PRelu", "b p", "r"), node("Conv", "r v", "y")],
    "AveragePool": [node("AveragePool", "b", "r", kernel_shape=[2, 2]), node("Conv", "r v", "y")],
    "GlobalAveragePool": [node("GlobalAveragePool", "b", "r"), node("Conv", "r w", "y")],
}


@pytest.mark.parametrize("kind", CONSUMERS)
@pytest.mark.parametrize("bias", [0.0, 0.5])
def test_a_channel_that_is_lost_may_not_be_read(kind: str, bias: float) -> None:
    """The folded model writes a constant where the original computes something: wrong unless nothing reads it."""
    same = W[:, :, 1:2, 1:2]
    lost = same.copy()
    lost[1] = 0
    rest = {"v": W[:, :, :1, :1], "w": W[:, :, :1, :1], "p": np.array([0.25])}
    used = {name for n in CONSUMERS[kind] for name in n.input} & rest.keys()
    rest = {name: rest[name] for name in used}
    first = node("Conv", "x c k", "b")
    before = graph([first, *CONSUMERS[kind]], {"c": same, "k": np.array([0.1, bias, 0.2]), **rest})
    after = graph([first, *CONSUMERS[kind]], {"c": lost, "k": np.array([0.1, bias, 0.2]), **rest})
    assert proved(before, before).proved
    assert not proved(before, after).proved
