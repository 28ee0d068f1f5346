"""What came out of a pickle, looked at before it is used: modules that are what torch.nn makes, and plain containers.

Unpickling restores attributes as they stand in the file, whatever they are. A name of a part becomes Python source once
torch.export has seen the module (`torch.fx` writes `getattr(self, "NAME")` and runs it), so names that could end that
text are refused; so are hooks, attributes in the place of methods, and modules in themselves.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from bnfold.errors import LimitError, UnreadableError, UnsafeError
from bnfold.wording import printable

if TYPE_CHECKING:
    import torch

NAME = re.compile(r"[\w /:+-]+")
SAVE = "Save model.state_dict() instead and pass --arch."
RENAME = f"Names of parts are made of letters, digits, _ and -. {SAVE}"

DEEPEST = 100  # modules or containers inside each other
MOST_PLACES = 100_000  # modules, counted as often as they stand in the tree
HOOKS = re.compile(r"_\w*_hooks\w*")


def check_module(module: torch.nn.Module, name: str, limit: int) -> None:
    """Whether a module that was unpickled can be used.

    Args:
        module: The module.
        name: What errors call its file.
        limit: Bytes that a tensor may have once it is written out.

    Raises:
        UnreadableError: It is no whole module, or stands inside itself.
        UnsafeError: It holds names, hooks or attributes that torch would run.
        LimitError: It is nested too deep, or too large once written out.
    """
    open_ends: list[tuple[torch.nn.Module, tuple[int, ...]]] = [(module, ())]
    places = 0
    while open_ends:
        part, above = open_ends.pop()
        places += 1
        if id(part) in above:
            raise UnreadableError(f"{name} holds a module that is a part of itself", SAVE)
        if len(above) >= DEEPEST or places > MOST_PLACES:
            raise LimitError(
                f"{name} holds modules nested deeper than {DEEPEST}, or more than {MOST_PLACES} of them", SAVE
            )
        _check_attributes(part, name)
        for tensor in (*vars(part)["_parameters"].values(), *vars(part)["_buffers"].values()):
            if tensor is not None and tensor.numel() * tensor.element_size() > limit:
                raise LimitError(
                    f"{name} holds a tensor of {tensor.numel() * tensor.element_size()} bytes, more than {limit}",
                    "Raise --max-bytes.",
                )
        inside = [child for child in vars(part)["_modules"].values() if child is not None]
        open_ends += [(child, (*above, id(part))) for child in inside]


def _check_attributes(module: torch.nn.Module, name: str) -> None:
    import torch

    kind, attributes = type(module), vars(module)
    if not isinstance(attributes.get("training"), bool):
        raise UnreadableError(f"{name} holds a {kind.__name__} that is not whole: it has no 'training'", SAVE)
    for attribute, held in (("_parameters", torch.Tensor), ("_buffers", torch.Tensor), ("_modules", torch.nn.Module)):
        parts = attributes.get(attribute)
        if not isinstance(parts, dict) or not all(isinstance(part, (held, type(None))) for part in parts.values()):
            raise UnreadableError(f"{name} holds a {kind.__name__} that is not whole: its '{attribute}'", SAVE)
        for key in parts:
            if not isinstance(key, str) or not NAME.fullmatch(key) or hasattr(torch.nn.Module, key):
                raise UnsafeError(f"{name} holds a module with a part called '{printable(key)}'", RENAME)
    for key, value in attributes.items():
        if not isinstance(key, str) or callable(getattr(kind, key, None)) or key.startswith("__"):
            raise UnsafeError(f"{name} holds a module with an attribute called '{printable(key)}'", SAVE)
        if HOOKS.fullmatch(key) and value:
            raise UnsafeError(f"{name} holds a module with hooks ('{printable(key)}')", SAVE)
    if _depth(attributes) > DEEPEST:
        raise LimitError(f"{name} holds containers nested deeper than {DEEPEST}", SAVE)


def _depth(attributes: Mapping[str, Any]) -> int:
    """How deep containers are nested in the attributes of a module, its parts apart; stops above the limit."""
    level: list[Any] = [value for key, value in attributes.items() if key != "_modules"]
    seen: set[int] = set()
    for depth in range(DEEPEST + 1):
        inside = {id(item): item for value in level for item in _items(value)}
        level = [item for key, item in inside.items() if key not in seen]
        seen.update(inside)
        if not level:
            return depth
    return DEEPEST + 1


def _items(value: object) -> Iterator[Any]:
    if isinstance(value, Mapping):
        yield from value.values()
    elif isinstance(value, (list, tuple, set, frozenset)):
        yield from value
