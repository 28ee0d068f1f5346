"""What stands behind a reason: where it comes from, a picture of it, and what lets the BatchNorm fold next time.

`reasons` holds the sentence that every report prints; this is what `bnfold explain CODE` adds.
"""

from __future__ import annotations

from dataclasses import dataclass

from bnfold.reasons import Reason


@dataclass(frozen=True)
class Explanation:
    """A reason at length.

    Attributes:
        meaning: Why the BatchNorm cannot go, in a few sentences.
        picture: The smallest network in which it happens, drawn in characters.
        change: What to change, in the model, while training, or in the call; one entry each.
    """

    meaning: str
    picture: str
    change: tuple[str, ...]


EXPLANATIONS: dict[Reason, Explanation] = {
    Reason.SHARED_UNIT: Explanation(
        "A tensor has one unit for everything that reads it. Where it is read through several BatchNorms, each wants "
        "another one: one of them can set it, and the others stay. A DenseNet is built like this.",
        "x ─┬─ BN ── ReLU ── Conv      one of the two can set the unit of x\n"
        "   └─ BN ── ReLU ── Conv      the other has nowhere to put its own",
        (
            "In the model: normalise once, before the branch, and let both readers share it.",
            "In the model: put the BatchNorm behind the convolution of its branch, where it folds into that.",
            "In the call: --leftover affine makes what stays a Mul and an Add, or an Add alone where the scale can go.",
        ),
    ),
    Reason.NONLINEAR: Explanation(
        "A BatchNorm is a scale and a shift. Operators with weights (Conv, Linear) absorb both. ReLU and its kin let a "
        "positive scale pass on to the next one with weights, but no shift: relu(x + t) is not relu(x) + t. Sigmoid, "
        "GELU, Softmax and the like let neither pass. Here such operators, or inputs and outputs, stand on both sides.",
        "ReLU ── BN ── ReLU         the scale can go further, the shift cannot\nGELU ── BN ── Sigmoid      neither can",
        (
            "In the model: put a convolution or linear layer next to the BatchNorm, before or behind it. In a "
            "pre-activation network, let no ReLU stand between the stem and the stream.",
            "While training: between ReLUs, keep beta and running_mean at 0 (affine without a shift); a scale alone "
            "folds.",
            "In the call: --leftover affine makes it a Mul and an Add, or a single Add where the scale can go.",
        ),
    ),
    Reason.ZERO_PAD: Explanation(
        "The convolution that would absorb the BatchNorm pads with zeros. Inside the image the shift becomes part of "
        "its bias; at the border the padding would have to be minus that shift, and is 0. No earlier operator can take "
        "the shift either.",
        "x ── BN ── Conv 3×3, padding 1      0 0 0 0\n"
        "                                    0 x x x    right inside,\n"
        "                                    0 x x x    wrong at the border",
        (
            "In the model: pad before the BatchNorm and not in the convolution, or use no padding.",
            "In the model: put a convolution without padding, or a residual stream, before the BatchNorm; its bias "
            "takes the shift.",
            "While training: keep beta and running_mean at 0 (affine without a shift); a scale alone folds.",
            "In the call: --leftover affine leaves a single Add where the scale can go.",
        ),
    ),
    Reason.NEGATIVE_GAMMA: Explanation(
        "The unit has to pass a ReLU or a MaxPool, which only lets positive scales through: relu(s·x) is s·relu(x) for "
        "s > 0, and something else for s < 0. Here gamma is negative in some channels.",
        "x ── BN ── ReLU ── Conv       relu(−2·x)  ≠  −2·relu(x)",
        (
            "While training: keep gamma positive, e.g. weight = softplus(g), or start at 1 and do not decay it.",
            "In the model: put a convolution directly before the BatchNorm; it takes any scale.",
        ),
    ),
    Reason.ZERO_GAMMA: Explanation(
        "Some gamma is 0: the channel is a constant. To move the BatchNorm across something that others read as well, "
        "its scale would have to be divided out again, and there is no dividing by 0.",
        "x ─┬─ BN, gamma = 0 ── Conv      the channel of x is needed\n"
        "   └─────────────────── Add      behind the other branch",
        (
            "Prune the channels whose gamma is 0, then convert again.",
            "While training: do not let weight decay drive gamma to 0 where the channel is needed.",
        ),
    ),
    Reason.ILL_CONDITIONED: Explanation(
        "Folding would leave a tensor with a shift many times its own spread: a gamma near 0 with a large beta turns "
        "into a stream that is mostly offset. What is added to it later would lose its low bits. The fold would be "
        "right on paper and wrong in float32.",
        "spread of the channel   |-|\nshift it would carry    |----------------------------------------->",
        (
            "Prune channels with a tiny gamma and a large beta, then convert again.",
            "While training: decay beta as well, or do not decay gamma.",
            "In the call: convert the model in float64, where there are bits to spare.",
        ),
    ),
    Reason.OVERFLOW: Explanation(
        "A rewritten weight or bias would not be finite in the type it is stored in. float16 ends at 65,504.",
        "0.02 · 1e7  =  200000      >  65504",
        ("Convert the float32 model first, then cast the result to the smaller type.",),
    ),
    Reason.TRAINING: Explanation(
        "The operator normalises with the statistics of the batch it is given, so its scale and shift are not known "
        "before it runs.",
        "BatchNormalization, training_mode = 1",
        ("Call model.eval() before exporting.",),
    ),
    Reason.NO_STATS: Explanation(
        "The BatchNorm was built without running statistics and takes those of every batch, in evaluation as well.",
        "BatchNorm2d(64, track_running_stats=False)",
        (
            "While training: track_running_stats=True.",
            "Afterwards: run the data through a copy with tracking on and a momentum of None, which averages exactly.",
        ),
    ),
    Reason.NOT_CONSTANT: Explanation(
        "Gamma, beta, mean or variance, or the weight that would take them, is computed while the model runs, or is an "
        "initializer that is a graph input as well, so that the caller may pass another one.",
        "input ── MLP ── gamma ─┐\n              x ───── BN",
        (
            "Make parameters initializers that are not graph inputs (keep_initializers_as_inputs=False).",
            "A BatchNorm whose parameters depend on the input is no constant, and stays.",
        ),
    ),
    Reason.SHARED_WEIGHT: Explanation(
        "One stored weight serves several operators, as in the head of a detector, and they need it in several units.",
        "level 3 ── Conv (W) ── BN₃\nlevel 4 ── Conv (W) ── BN₄      one W, two changes of units",
        ("In the call: --duplicate always gives each use a copy of the weight; the file grows.",),
    ),
    Reason.IO: Explanation(
        "The value enters or leaves the model. Its unit is what the caller means by it, so it is not changed, and "
        "there is no operator between that could absorb the change.",
        "input ── BN ── Sigmoid ── output",
        (
            "In the model: a convolution or linear layer between the BatchNorm and the edge of the model takes it.",
            "For preprocessing: --mean, --std and --scale fold into the first layer.",
        ),
    ),
    Reason.BOUNDARY: Explanation(
        "Control flow (If, Loop, Scan), an operator of another domain, or one that bnfold does not know stands next to "
        "it. What it does with a change of units is not known, so nothing is changed there.",
        "x ── BN ── mydomain::Fancy ── Conv",
        (
            "Express the operator in standard ones, or export it inline.",
            "Report the operator, if it is a standard one.",
        ),
    ),
    Reason.DTYPE: Explanation(
        "The element type has no exact rewrite: integers and quantised numbers cannot take a factor and stay exact.",
        "QuantizeLinear ── Conv (int8) ── DequantizeLinear ── BN",
        ("Fold the float model first, then quantise or cast it.",),
    ),
    Reason.HOOK: Explanation(
        "A hook or a parametrization sees or changes the value or the weight, so that a change of units would be seen "
        "by code that bnfold cannot read.",
        "conv.register_forward_hook(save_activation)",
        ("Remove the hook before folding, and add it to the result if it is still wanted.",),
    ),
    Reason.EXCLUDED: Explanation(
        "The caller asked for it to stay (`--exclude`), so that it is as it was, number by number, and what stands "
        "around it keeps its units.",
        "Conv ── BN (excluded) ── ReLU",
        ("Drop the exclusion, or name fewer BatchNorms or a smaller module in it.",),
    ),
}
