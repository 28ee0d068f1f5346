"""Which module of a network an ONNX node comes from."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import onnx_ir as ir


def module_path(node: ir.Node, label: str) -> tuple[str, ...]:
    """The module that made a node: as torch noted it, as its name spells it, or as that of its weight does."""
    noted = noted_path(node)
    if noted is not None:
        return noted
    if "/" in label:
        return tuple(part for part in label.split("/")[:-1] if part)
    for name in (label, *_weight_names(node)):
        parts = name.partition("#")[0].split(".")
        if len(parts) > 1 and all(parts):
            return tuple(parts[:-1] if name is not label else parts)
    return ()


def noted_path(node: ir.Node) -> tuple[str, ...] | None:
    """The module that made a node, as torch noted it; None where it did not."""
    try:
        scopes = ast.literal_eval(node.metadata_props.get("pkg.torch.onnx.name_scopes", ""))
        path = str(scopes[-2])
    except (ValueError, SyntaxError, TypeError, LookupError, MemoryError, RecursionError):
        return None
    return None if path.startswith("_empty_nn_module_stack") else tuple(part for part in path.split(".") if part)


def _weight_names(node: ir.Node) -> Iterator[str]:
    for value in node.inputs:
        if value is not None and value.is_initializer() and value.name:
            yield value.name
