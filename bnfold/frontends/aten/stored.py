"""The tensors that a program stores: which of them no run changes, and which are the same one."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import fx
from torch.export.graph_signature import InputKind, InputSpec

from bnfold.frontends.aten.nodes import BATCH_NORMS, arguments, opname

CONSTANT_KINDS = (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR)
PLAIN = (torch.Tensor, torch.nn.Parameter, torch.nn.Buffer)


def constant_tensors(
    graph: fx.Graph,
    specs: Iterable[InputSpec],
    changed: Collection[str],
    tables: Sequence[Mapping[str, Any]],
) -> dict[fx.Node, torch.Tensor]:
    """The placeholders of an exported program whose tensors no run changes.

    Args:
        graph: Its graph.
        specs: What its placeholders are.
        changed: Names of the tensors that each run changes.
        tables: Where the tensors are found by name.
    """
    nodes = {node.name: node for node in graph.nodes if node.op == "placeholder"}
    for node in graph.nodes:
        if opname(node) in BATCH_NORMS and "training" in (named := arguments(node)) and named["training"] is True:
            for statistic in (named.get("running_mean"), named.get("running_var")):
                nodes.pop(getattr(statistic, "name", ""), None)  # the operator itself keeps them up to date
    found: dict[fx.Node, torch.Tensor] = {}
    for spec in specs:
        if spec.kind not in CONSTANT_KINDS or spec.target in changed or spec.target is None:
            continue
        tensor: Any = next((table[spec.target] for table in tables if table.get(spec.target) is not None), None)
        if spec.arg.name in nodes and type(tensor) in PLAIN and _is_plain(tensor):
            found[nodes[spec.arg.name]] = tensor
    return found


def identities(tensors: dict[fx.Node, torch.Tensor]) -> dict[fx.Node, object]:
    """One key per tensor; None for those that share memory with a tensor of another form."""
    forms: dict[int, set[object]] = {}
    keys: dict[fx.Node, tuple[int, object]] = {}
    for node, tensor in tensors.items():
        if tensor.numel() == 0:
            continue
        place = tensor.untyped_storage().data_ptr()
        form = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
        forms.setdefault(place, set()).add(form)
        keys[node] = (place, form)
    return {node: None if len(forms[place]) > 1 else (place, form) for node, (place, form) in keys.items()}


def _is_plain(tensor: torch.Tensor) -> bool:
    """Whether a tensor is an ordinary array of numbers."""
    return tensor.layout == torch.strided and not tensor.is_quantized and tensor.device.type != "meta"
