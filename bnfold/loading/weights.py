"""Puts a checkpoint's weights into a network: every weight must be there, and fit.

Training scripts wrap state dicts (`{"model": ..., "epoch": 3}`) and their keys: `module.` by DataParallel, `_orig_mod.`
by torch.compile, also in the middle of a key where a submodule was wrapped. A key that the network has as it stands is
never rewritten.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from bnfold.errors import InputError, LimitError, UnreadableError, UnsupportedError
from bnfold.recipes.recipe import DAMAGED, KEY, PREFIX, parse, parse_json
from bnfold.wording import listed, printable

if TYPE_CHECKING:
    import torch

    from bnfold.recipes.remodel import FoldedState

STATE = "state_dict"  # where a folded checkpoint keeps its tensors, beside its recipe
WRAPPERS = ("model", "state_dict", "model_state_dict", "ema", "model_ema", "state_dict_ema", "net")
PREFIXES = ("module", "_orig_mod")
DEEPEST_WRAPPING = 10


def unwrap(content: object, path: str) -> tuple[object, tuple[str, ...]]:
    """The state dict (or the pickled module) inside what a checkpoint holds, and notes on how it was found.

    Raises:
        UnsupportedError: It holds neither.
        LimitError: They are wrapped in each other without an end.
    """
    import torch

    notes: list[str] = []
    while isinstance(content, Mapping) and not _is_folded(content):
        wrappers = [key for key in WRAPPERS if isinstance(content.get(key), (Mapping, torch.nn.Module))]
        if not wrappers:
            break
        others = f" (it also holds {listed(wrappers[1:])})" if wrappers[1:] else ""
        if len(notes) == DEEPEST_WRAPPING:
            raise LimitError(
                f"{path} wraps its state dict more than {DEEPEST_WRAPPING} times", "Save the inner one alone."
            )
        notes.append(f"took '{wrappers[0]}' of the checkpoint{others}")
        content = content[wrappers[0]]
    if isinstance(content, torch.nn.Module):
        return content, tuple(notes)
    if not isinstance(content, Mapping):
        raise UnsupportedError(
            f"{path} holds an object of type {type(content).__name__}, neither a state dict nor a module",
            "Save model.state_dict() and pass --arch.",
        )
    if not _is_folded(content) and not any(isinstance(value, torch.Tensor) for value in content.values()):
        raise UnsupportedError(
            f"{path} holds no weights; its keys are {listed(content) or 'none'}",
            f"Put the state dict at the top, or under one of: {', '.join(WRAPPERS)}.",
        )
    return content, tuple(notes)


def folded_in(content: object, path: str) -> FoldedState | None:
    """The folded state dict inside what a file holds, with the names that its tensors have in the network.

    Raises:
        UnreadableError: There is a recipe, and it or what stands beside it does not read.
        UnsupportedError: A later version of bnfold wrote it.
    """
    if not _is_folded(content):
        return None
    import torch

    from bnfold.recipes.remodel import FoldedState

    assert isinstance(content, Mapping)
    told, state = content[KEY], content.get(STATE)
    recipe = parse_json(told, path) if isinstance(told, str) else parse(told, path)
    if not isinstance(state, Mapping) or set(content) != {KEY, STATE}:
        raise UnreadableError(f"{path} has a recipe, and not a state dict alone beside it", DAMAGED)
    for name, value in state.items():
        if not isinstance(value, torch.Tensor) or not str(name).startswith(PREFIX):
            raise UnreadableError(
                f"{path} has a recipe, and beside it '{printable(str(name))}', which is no folded tensor", DAMAGED
            )
    return FoldedState({str(name).removeprefix(PREFIX): value for name, value in state.items()}, recipe)


def _is_folded(content: object) -> bool:
    return isinstance(content, Mapping) and KEY in content and not hasattr(content[KEY], "shape")


def fill(module: torch.nn.Module, state: Mapping[str, Any], path: str, arch: str) -> tuple[str, ...]:
    """Loads a state dict into a network that was built for it, in place.

    Returns:
        Notes: how many keys matched, were missing and unexpected, and which dtypes were converted.

    Raises:
        InputError: Nothing matches, a weight is missing, or a shape disagrees.
    """
    import torch

    wanted = module.state_dict(keep_vars=True)
    matched, unexpected = _match(state, wanted, path)
    shared = {id(wanted[key]) for key in matched}
    missing = [
        key
        for key, value in wanted.items()
        if key not in matched and id(value) not in shared and not key.endswith("num_batches_tracked")
    ]
    counts = f"{len(matched)} matched, {len(missing)} missing, {len(unexpected)} unexpected"
    if not matched:
        raise InputError(
            f"no key of {path} is one of {arch}: the file has {listed(unexpected)}, the network {listed(wanted)}",
            "Pass the --arch this checkpoint was trained with.",
        )
    if missing:
        raise InputError(
            f"{path} lacks {len(missing)} of the weights of {arch}: {listed(missing)} ({counts})",
            "Pass a complete checkpoint, or the --arch and --arch-arg it was trained with.",
        )
    for key, value in matched.items():
        lazy = isinstance(wanted[key], (torch.nn.UninitializedParameter, torch.nn.UninitializedBuffer))
        if isinstance(value, torch.Tensor) and not lazy and _kind(value) != _kind(wanted[key]):
            raise InputError(
                f"'{printable(key)}' is {_kind(value)} in {path} and {_kind(wanted[key])} in {arch}",
                "Pass the --arch and --arch-arg this checkpoint was trained with.",
            )
    converted = sorted({pair for key, value in matched.items() if (pair := _conversion(value, wanted[key]))})
    try:
        module.load_state_dict(matched, strict=False, assign=any(value.is_meta for value in wanted.values()))
    except Exception as error:  # a module's own _load_from_state_dict may raise anything
        raise InputError(
            f"{path} does not load into {arch}: {printable(str(error).splitlines()[-1].strip(), 300)}",
            "Pass the --arch this checkpoint was trained with.",
        ) from error
    return f"state dict: {counts}", *(f"weights stored as {have} are used as {use}" for have, use in converted)


def is_no_news(note: str) -> bool:
    """Whether a note says that every key matched, which is as it should be."""
    return note.startswith("state dict: ") and note.endswith(" 0 missing, 0 unexpected")


def _match(state: Mapping[str, Any], wanted: Mapping[str, Any], path: str) -> tuple[dict[str, Any], list[str]]:
    """The checkpoint's values by the network's keys, and the keys the network does not have."""
    matched: dict[str, Any] = {}
    source: dict[str, str] = {}
    unexpected = []
    for key, value in state.items():
        name = next((name for name in _spellings(str(key)) if name in wanted), None)
        if name is None:
            unexpected.append(str(key))
            continue
        if name in matched:
            raise InputError(
                f"{path} holds '{printable(name)}' twice: as '{printable(source[name])}' and as '{printable(key)}'",
                "Save only one of the two.",
            )
        matched[name], source[name] = value, str(key)
    return matched, unexpected


def _spellings(key: str) -> Iterator[str]:
    """The key as it stands, without each of its leading prefixes, without any of them anywhere."""
    yield key
    parts = key.split(".")
    while parts[0] in PREFIXES:
        parts = parts[1:]
        if not parts:
            return
        yield ".".join(parts)
    yield ".".join(part for part in parts if part not in PREFIXES)


def _conversion(value: object, wanted: torch.Tensor) -> tuple[str, str] | None:
    import torch

    if not isinstance(value, torch.Tensor) or value.dtype == wanted.dtype:
        return None
    return str(value.dtype).removeprefix("torch."), str(wanted.dtype).removeprefix("torch.")


def _kind(tensor: torch.Tensor) -> str:
    """What must agree: the shape, and whether the numbers are real; the width of a float may differ."""
    shape = "x".join(map(str, tensor.shape)) or "a scalar"
    return shape if tensor.is_floating_point() else f"{shape} {str(tensor.dtype).removeprefix('torch.')}"
