"""What a graph does not say of a layer: whether forward takes one tensor and returns one, and adds its bias.

Layers of torch.nn are known; a layer with a forward of its own is tried on a tensor of ones.
"""

from __future__ import annotations

import math

import torch
from torch import fx, nn

from bnfold.frontends.aten.nodes import BATCH_NORMS, fake, opname

LARGEST_TRIAL = 1 << 26  # elements
LAYERS = (nn.modules.conv._ConvNd, nn.Linear, nn.modules.batchnorm._NormBase)


def is_stock(layer: nn.Module) -> bool:
    """Whether a layer's forward is torch's own."""
    return type(layer).__module__.startswith("torch.nn.modules.") and "forward" not in vars(layer)


def returns_tensor(layer: nn.Module, x: fx.Node) -> bool:
    """Whether a layer takes one tensor and returns one of the same shape.

    Args:
        layer: The layer.
        x: What it is called with in the graph.
    """
    if is_stock(layer):
        return True
    trial = _trial(layer, x)
    if trial is None:
        return False
    try:
        with torch.no_grad():
            y = layer(trial)
    except Exception:
        return False
    return isinstance(y, torch.Tensor) and y.shape == trial.shape


def adds_bias(layer: nn.Module, node: fx.Node) -> bool:
    """Whether a layer that has no bias would add one.

    Args:
        layer: The layer; left as it was.
        node: The operator that it makes, whose bias is None.
    """
    if is_stock(layer) and isinstance(layer, LAYERS):
        return True
    x, weight = node.args[0], getattr(layer, "weight", None)
    if not isinstance(layer, nn.modules.conv._ConvNd | nn.Linear) or opname(node) in BATCH_NORMS:
        return False
    trial = _trial(layer, x) if isinstance(x, fx.Node) else None
    if trial is None or not isinstance(weight, torch.Tensor):
        return False
    channels = layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
    counted = torch.arange(1, channels + 1, dtype=weight.dtype, device=weight.device)
    try:
        with torch.no_grad():
            before = layer(trial)
            layer.bias = nn.Parameter(counted)
            difference = (layer(trial) - before).movedim(-1 if isinstance(layer, nn.Linear) else 1, -1)
        return bool(torch.allclose(difference, counted.expand_as(difference), rtol=1e-2, atol=1e-2 * channels))
    except Exception:
        return False
    finally:
        layer.bias = None


def _trial(layer: nn.Module, x: fx.Node) -> torch.Tensor | None:
    """Ones in the shape of a value, sizes that vary at 2; None where that is too much."""
    like = fake(x)
    if like is None:
        return None
    sizes = [size if isinstance(size, int) else 2 for size in like.shape]
    device = next((t.device for t in [*layer.parameters(), *layer.buffers()]), like.device)
    return torch.ones(sizes, dtype=like.dtype, device=device) if math.prod(sizes) <= LARGEST_TRIAL else None
