"""The trained models are what their table says, and fold as far as the theory says, without changing an answer."""

from __future__ import annotations

import copy
import importlib.util
import re
import sys
from collections import Counter
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bnfold.frontends.onnx import fold_model
from bnfold.loading.load import load
from bnfold.planning.choices import Choices
from bnfold.planning.plan import Plan
from bnfold.reasons import Reason
from bnfold.running.runners import OrtRunner
from bnfold.tracing.capture import capture
from bnfold.verification.verify import verify

ROOT = Path(__file__).resolve().parent.parent
MODELS = ROOT / "models"
CLASSIFIERS = ["mlp", "resnet", "preact_resnet", "preact_collapsed", "iresnet", "repvgg", "densenet", "tcn"]
NAMES = [*CLASSIFIERS, "unet"]

BATCH_NORMS = {
    "mlp": 2,
    "resnet": 10,
    "preact_resnet": 17,
    "preact_collapsed": 17,
    "iresnet": 19,
    "repvgg": 16,
    "densenet": 27,
    "unet": 14,
    "tcn": 6,
}
# densenet: the first feature map of a dense block is read through the BatchNorms of its 4 layers and through the one
# after the block, each followed by a ReLU, which wants a shift of its own; the map can have one. So 4 of these 5 stay
# in each of 3 blocks. All others (one inside each layer) stand behind a convolution that nothing else reads.
# iresnet: the first block reads the output of a PReLU, which has no shift, through a BatchNorm before zero padding.
# preact_collapsed: 5 BatchNorms read the first half of the stream and 4 the second, no two of them with negative gammas
# in the same channels. The first one's and the sixth's shift would drown the stream; of the others, one goes per half.
KEPT = dict.fromkeys(NAMES, 0) | {"densenet": 12, "iresnet": 1, "preact_collapsed": 7}
WHY_KEPT = {
    "densenet": {Reason.SHARED_UNIT},
    "iresnet": {Reason.ZERO_PAD},
    "preact_collapsed": {Reason.NEGATIVE_GAMMA, Reason.ILL_CONDITIONED},
}
COLLAPSED = {"preact_collapsed"}


def load_module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@cache
def train_script() -> ModuleType:
    return load_module(ROOT / "scripts" / "train_models.py")


@cache
def network(name: str) -> nn.Module:
    model: nn.Module = getattr(load_module(MODELS / "architectures.py"), name)()
    model.load_state_dict(torch.load(MODELS / f"{name}.pt", weights_only=True), strict=True)
    return model.eval()


@cache
def digits() -> tuple[np.ndarray, np.ndarray]:
    with np.load(MODELS / "digits_test.npz", allow_pickle=False) as file:
        x, y = file["x"], file["y"]
    x.setflags(write=False)
    y.setflags(write=False)
    return x, y


@cache
def table() -> dict[str, list[str]]:
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", (MODELS / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    return {name: cells.split(" | ") for name, cells in rows if (MODELS / f"{name}.pt").exists()}


@cache
def folded(name: str) -> tuple[Any, Any, Plan]:
    """The model as `bnfold convert` captures it, the same folded, and what was done."""
    before = capture(load(MODELS / f"{name}.pt", arch=f"{MODELS / 'architectures.py'}:{name}")).model
    after, plan = fold_model(before)
    return before, after, plan


@cache
def answers(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Outputs before and after folding on all test images, run as written."""
    import onnx_ir

    outputs = []
    for model in folded(name)[:2]:
        runner = OrtRunner(onnx_ir.to_proto(model).SerializeToString(), optimize=False, threads=1)
        [output] = runner.run({runner.input_names[0]: digits()[0]}).values()
        outputs.append(output)
    return outputs[0], outputs[1]


def torch_answers(name: str, x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return network(name)(torch.from_numpy(x.copy())).numpy()


def test_the_table_has_every_network() -> None:
    assert list(table()) == list(BATCH_NORMS)
    assert {path.stem for path in MODELS.glob("*.pt")} == set(BATCH_NORMS)


def test_the_test_images_are_real_and_were_not_trained_on() -> None:
    data = train_script().load_data()
    x, y = digits()
    assert (x.shape, x.dtype, y.shape, y.dtype) == ((500, 1, 8, 8), np.float32, (500,), np.int64)
    np.testing.assert_array_equal(x, data.test_x.numpy())
    np.testing.assert_array_equal(y, data.test_y.numpy())
    trained_on = {image.tobytes() for image in data.train_x.numpy()}
    assert sum(image.tobytes() in trained_on for image in x) == 0


@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_is_small_and_as_the_table_says(name: str) -> None:
    model = network(name)
    _, parameters, batch_norms, gamma, shift, kilobytes, _, _ = table()[name]
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    size = (MODELS / f"{name}.pt").stat().st_size
    assert size <= 1_500_000
    assert kilobytes == f"{size / 1000:.0f}"
    assert parameters == f"{sum(p.numel() for p in model.parameters()):,}"
    assert batch_norms == str(len(norms)) == str(BATCH_NORMS[name])
    assert gamma == f"{min(bn.weight.min().item() for bn in norms):.2f}"
    assert (float(gamma) < 0) == (float(shift) > 256) == (name in COLLAPSED)
    assert tuple(model.example_input_array.shape) == (1, 1, 8, 8)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier_is_as_good_as_the_table_says(name: str) -> None:
    x, y = digits()
    right = np.mean(torch_answers(name, x).argmax(1) == y)
    assert right >= 0.95
    # The table comes from one machine; another rounds the convolutions differently, which may turn one image of 500.
    assert abs(right - float(table()[name][0].removesuffix("%")) / 100) <= 0.0021


def test_the_denoiser_is_as_good_as_the_table_says() -> None:
    before, after = train_script().denoising_errors(network("unet"), torch.from_numpy(digits()[0].copy()))
    assert after < before / 2
    stated = [float(number) for number in re.findall(r"[\d.]+", table()["unet"][0])]
    np.testing.assert_allclose([before, after], stated, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_the_capture_is_unfolded_and_computes_what_torch_does(name: str) -> None:
    before, _, _ = folded(name)
    assert sum(node.op_type == "BatchNormalization" for node in before.graph) == BATCH_NORMS[name]
    expected = torch_answers(name, digits()[0])
    np.testing.assert_allclose(answers(name)[0], expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("name", NAMES)
def test_as_many_batch_norms_vanish_as_the_theory_allows(name: str) -> None:
    _, after, plan = folded(name)
    left = sum(node.op_type == "BatchNormalization" for node in after.graph)
    assert plan.batch_norms == BATCH_NORMS[name]
    assert plan.kept == left
    assert plan.folded + plan.merged == BATCH_NORMS[name] - left
    assert left == KEPT[name]


def test_every_block_of_repvgg_is_one_convolution() -> None:
    _, after, plan = folded("repvgg")
    assert [node.op_type for node in after.graph if node.op_type in ("Conv", "Add")] == ["Conv"] * 6
    assert (plan.folded, plan.merged) == (0, BATCH_NORMS["repvgg"])


@pytest.mark.parametrize("name", NAMES)
def test_what_stays_has_a_reason_and_what_goes_has_a_destination(name: str) -> None:
    for site in folded(name)[2].sites:
        if site.status == "kept":
            assert site.reason in WHY_KEPT[name], site
        else:
            assert site.reason is None
            assert site.into, site


@pytest.mark.parametrize("name", NAMES)
def test_folding_does_not_change_an_answer(name: str) -> None:
    before, after = answers(name)
    assert np.abs(after - before).max() <= 1e-5 * np.abs(before).max()
    if name in CLASSIFIERS:
        np.testing.assert_array_equal(after.argmax(1), before.argmax(1))


def test_the_collapsed_network_is_collapsed() -> None:
    """Most gammas near zero, many negative, |beta/gamma| up to 1e5: what folding has to be careful with."""
    norms = [module for module in network("preact_collapsed").modules() if isinstance(module, nn.BatchNorm2d)]
    gamma = torch.cat([bn.weight.detach() for bn in norms])
    beta = torch.cat([bn.bias.detach() for bn in norms])
    assert float((gamma.abs() < 1e-3).double().mean()) > 0.5
    assert float((gamma < 0).double().mean()) > 0.3
    assert 1e5 < float((beta / gamma).abs().max()) < 2e5


@pytest.mark.parametrize("name", ["preact_resnet", "preact_collapsed"])
def test_folding_is_as_exact_as_the_original(name: str) -> None:
    """Against the same weights in float64; and bnfold's own verification agrees."""
    with torch.no_grad():
        truth = copy.deepcopy(network(name)).double()(torch.from_numpy(digits()[0].astype(np.float64))).numpy()
    errors = [np.abs(answer - truth).max() for answer in answers(name)]
    assert errors[1] <= 4 * errors[0]
    before, after, _ = folded(name)
    assert verify(before, after, digits()[0])


@pytest.mark.parametrize("name", ["mlp", "preact_resnet", "preact_collapsed", "densenet"])
def test_folding_twice_finds_nothing(name: str) -> None:
    import onnx_ir

    _, once, first = folded(name)
    twice, second = fold_model(once)
    assert second.folded == second.merged == 0
    assert second.kept == first.kept
    assert onnx_ir.to_proto(twice).SerializeToString() == onnx_ir.to_proto(once).SerializeToString()


@pytest.mark.parametrize("name", ["densenet", "iresnet"])
@pytest.mark.parametrize(("leftover", "instead"), [("affine", "Add"), ("conv", "Conv")])
def test_no_batch_norm_has_to_be_left_in_the_file(name: str, leftover: str, instead: str) -> None:
    """Each that stays is one other operator: in DenseNet its scale goes through the ReLU into the next Conv."""
    import onnx_ir

    before, kept, plan = folded(name)
    after, same_plan = fold_model(before, Choices(leftover=leftover))
    assert same_plan == plan
    counts = [Counter(node.op_type for node in model.graph) for model in (kept, after)]
    assert counts[0].pop("BatchNormalization") == counts[1][instead] - counts[0][instead] == KEPT[name] > 0
    assert counts[0].keys() | {instead} == counts[1].keys()
    runner = OrtRunner(onnx_ir.to_proto(after).SerializeToString(), optimize=False, threads=1)
    [output] = runner.run({runner.input_names[0]: digits()[0]}).values()
    expected = answers(name)[0]
    assert np.abs(output - expected).max() <= 1e-5 * np.abs(expected).max()
    again, _ = fold_model(after, Choices(leftover=leftover))
    assert onnx_ir.to_proto(again).SerializeToString() == onnx_ir.to_proto(after).SerializeToString()
