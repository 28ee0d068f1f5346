"""The recipe of a folded state dict: which modules of the class became what. Pure data, in a closed vocabulary.

    identity      the module does nothing any more
    children      it became its own children of these names, one after the other
    activations   it became activations of torch.nn, one after the other
    zero          it became a branch that another one has taken over: a single 0 of a type
    layer         it became a convolution or a linear layer of torch.nn that computes several branches
    itself        it stays what it is, with other hyper-parameters, parameters that came, went or were tied to those of
                  other modules, or plain weights

A recipe is read from files others wrote. It names nothing that is imported or called: a word outside the vocabulary,
a number out of range or a missing part makes the file unreadable, before anything is done with it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from bnfold.errors import UnreadableError, UnsupportedError
from bnfold.wording import printable

SCHEMA = 1
KEY = "bnfold"  # where a recipe stands: in the metadata of safetensors, or beside the state dict of a checkpoint
PREFIX = "folded:"  # of every tensor's name, so that not one of them loads into a network that is not folded

ACTIVATIONS: dict[str, tuple[str, ...]] = {
    "ELU": ("alpha",),
    "GELU": ("approximate",),
    "Hardsigmoid": (),
    "Hardswish": (),
    "Hardtanh": ("min_val", "max_val"),
    "LeakyReLU": ("negative_slope",),
    "Mish": (),
    "ReLU": (),
    "ReLU6": (),
    "SiLU": (),
    "Sigmoid": (),
    "Tanh": (),
}
FLAGS = ("affine", "inplace")
COUNTS = ("groups", "in_channels", "in_features", "out_channels", "out_features")
WINDOWS = ("dilation", "kernel_size", "output_padding", "padding", "stride")
PADDINGS = ("same", "valid")
APPROXIMATIONS = ("none", "tanh")
CONVOLUTION = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")
LAYERS: dict[str, tuple[str, ...]] = {
    "Conv1d": CONVOLUTION,
    "Conv2d": CONVOLUTION,
    "Conv3d": CONVOLUTION,
    "Linear": ("in_features", "out_features"),
}
DTYPES = ("bfloat16", "complex128", "complex64", "float16", "float32", "float64")
ADDED = ("bias", "weight")
BIAS = ("bias",)
LARGEST = 2**31 - 1
PARTS = (
    *("path", "was", "becomes", "children", "activations", "layer", "dtype"),
    *("sets", "adds", "drops", "plain", "unties"),
)
PARTS_OF: dict[str, tuple[set[str], set[str]]] = {  # those that a kind of change must have, and those it may have
    "identity": (set(), set()),
    "children": ({"children"}, set()),
    "activations": ({"activations"}, set()),
    "zero": ({"dtype"}, set()),
    "layer": ({"layer", "dtype"}, {"adds"}),
    "itself": (set(), {"sets", "adds", "drops", "plain", "unties"}),
}
DAMAGED = "Write it again with bnfold convert."

Setting = bool | int | str | tuple[int, ...]


@dataclass(frozen=True)
class Change:
    """What becomes of one module.

    Attributes:
        path: Where it sits.
        was: The name of its class, which is compared and never looked up.
        becomes: A key of `PARTS_OF`.
        children: Names of the children that are left.
        activations: Names and arguments of the activations that are left.
        layer: Name and hyper-parameters of the layer of torch.nn that it becomes; empty where it becomes none.
        dtype: Of the layer, or of the 0.
        sets: New values of hyper-parameters.
        adds: Parameters that were absent.
        drops: Parameters that are gone.
        plain: Weights that were computed from parameters, and are parameters now.
        unties: Parameters that it shared with other modules, and has for itself now.
    """

    path: str
    was: str
    becomes: str
    children: tuple[str, ...] = ()
    activations: tuple[tuple[str, Mapping[str, float | str]], ...] = ()
    layer: tuple[str, Mapping[str, Setting]] = ("", {})
    dtype: str = ""
    sets: Mapping[str, Setting] = field(default_factory=dict)
    adds: tuple[str, ...] = ()
    drops: tuple[str, ...] = ()
    plain: tuple[str, ...] = ()
    unties: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The change in JSON's types, without what is empty."""
        found: dict[str, Any] = {"path": self.path, "was": self.was, "becomes": self.becomes}
        rest = {
            "children": list(self.children),
            "activations": [[name, dict(arguments)] for name, arguments in self.activations],
            "layer": [self.layer[0], _listed(self.layer[1])] if self.layer[0] else [],
            "dtype": self.dtype,
            "sets": _listed(self.sets),
            "adds": list(self.adds),
            "drops": list(self.drops),
            "plain": list(self.plain),
            "unties": list(self.unties),
        }
        return found | {key: value for key, value in rest.items() if value}


def _listed(settings: Mapping[str, Setting]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}


@dataclass(frozen=True)
class Recipe:
    """How a fresh network of the class becomes the folded one.

    Attributes:
        changes: What becomes of modules, outer ones first.
        source: Shapes of the unfolded network's state dict, by name.
        buffers: Names of buffers outside the state dict that changed, and are stored nevertheless.
        sha256: Of the file with the unfolded weights.
        bnfold: The version that wrote it.
    """

    changes: tuple[Change, ...]
    source: Mapping[str, tuple[int, ...]]
    buffers: tuple[str, ...] = ()
    sha256: str = ""
    bnfold: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The recipe in JSON's types."""
        return {
            "schema": SCHEMA,
            "bnfold": self.bnfold,
            "sha256": self.sha256,
            "source": {name: list(shape) for name, shape in self.source.items()},
            "changes": [change.to_dict() for change in self.changes],
            "buffers": list(self.buffers),
        }

    def to_json(self) -> str:
        """The recipe as text."""
        return json.dumps(self.to_dict(), allow_nan=False)


def parse_json(text: str, path: str) -> Recipe:
    """Reads a recipe from text.

    Raises:
        UnreadableError: It is none.
        UnsupportedError: It is of a later schema.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UnreadableError(f"the recipe in {path} is not JSON", DAMAGED) from error
    return parse(data, path)


def parse(data: object, path: str) -> Recipe:
    """Reads a recipe from JSON's types.

    Raises:
        UnreadableError: It is none.
        UnsupportedError: It is of a later schema.
    """
    reader = _Reader(path)
    found = reader.mapping(data, "the recipe")
    schema = found.get("schema")
    if type(schema) is int and schema > SCHEMA:
        raise UnsupportedError(
            f"{path} was written by bnfold {printable(str(found.get('bnfold')), 40)}, in schema {schema}; this "
            f"version reads up to {SCHEMA}",
            "Update bnfold.",
        )
    if schema != SCHEMA or type(schema) is not int:
        reader.refuse(f"its schema is {printable(repr(schema), 40)}")
    reader.known(found, ("schema", "bnfold", "sha256", "source", "changes", "buffers"), "the recipe")
    source = reader.mapping(found.get("source"), "source")
    return Recipe(
        changes=tuple(reader.change(item) for item in reader.sequence(found.get("changes"), "changes")),
        source={reader.text(name, "a name"): reader.sizes(shape, name) for name, shape in source.items()},
        buffers=reader.texts(found.get("buffers", []), "buffers"),
        sha256=reader.text(found.get("sha256", ""), "sha256"),
        bnfold=reader.text(found.get("bnfold", ""), "bnfold"),
    )


class _Reader:
    """Reads the parts of a recipe; each says what is wrong with its own."""

    def __init__(self, path: str) -> None:
        self._path = path

    def refuse(self, why: str) -> NoReturn:
        raise UnreadableError(f"the recipe in {self._path} does not read: {why}", DAMAGED)

    def known(self, found: Mapping[str, Any], names: Sequence[str], what: str) -> None:
        for name in found:
            if name not in names:
                self.refuse(f"{what} has an unknown part {printable(repr(name), 60)}")

    def mapping(self, value: object, what: str) -> Mapping[str, Any]:
        if not isinstance(value, Mapping) or not all(type(key) is str for key in value):
            self.refuse(f"{printable(what, 60)} is not a table")
        return value

    def sequence(self, value: object, what: str) -> Sequence[Any]:
        if not isinstance(value, (list, tuple)):
            self.refuse(f"{printable(what, 60)} is not a list")
        return value

    def text(self, value: object, what: str) -> str:
        if type(value) is not str:
            self.refuse(f"{printable(what, 60)} is not text")
        return value

    def texts(self, value: object, what: str) -> tuple[str, ...]:
        return tuple(self.text(item, what) for item in self.sequence(value, what))

    def sizes(self, value: object, what: str) -> tuple[int, ...]:
        sizes = self.sequence(value, f"the shape of {what}")
        if not all(type(size) is int and 0 <= size <= LARGEST for size in sizes):
            self.refuse(f"{printable(what, 60)} has numbers that are no sizes")
        return tuple(sizes)

    def change(self, value: object) -> Change:
        found = self.mapping(value, "a change")
        self.known(found, PARTS, "a change")
        path, becomes = self.text(found.get("path"), "path"), self.text(found.get("becomes"), "becomes")
        if becomes not in PARTS_OF:
            self.refuse(
                f"{printable(path, 60)} becomes {printable(repr(becomes), 40)}, which is none of {tuple(PARTS_OF)}"
            )
        change = Change(
            path=path,
            was=self.text(found.get("was"), "was"),
            becomes=becomes,
            children=self.texts(found.get("children", []), "children"),
            activations=tuple(self.activation(each) for each in self.sequence(found.get("activations", []), path)),
            layer=self.layer(found.get("layer", [])),
            dtype=self.dtype(found.get("dtype", "")),
            sets=self.settings(found.get("sets", {}), "sets"),
            adds=self.texts(found.get("adds", []), "adds"),
            drops=self.texts(found.get("drops", []), "drops"),
            plain=self.texts(found.get("plain", []), "plain"),
            unties=self.texts(found.get("unties", []), "unties"),
        )
        if not set(change.adds) <= set(ADDED if becomes == "itself" else BIAS):
            self.refuse(f"{printable(path, 60)} gets parameters other than {ADDED if becomes == 'itself' else BIAS}")
        given = {part for part in PARTS[3:] if found.get(part)}
        needed, possible = PARTS_OF[becomes]
        if not needed <= given <= needed | possible or (becomes == "itself" and not given):
            self.refuse(f"{printable(path, 60)} becomes {becomes}, and its parts are those of another change")
        return change

    def activation(self, value: object) -> tuple[str, Mapping[str, float | str]]:
        parts = self.sequence(value, "an activation")
        if len(parts) != 2 or type(parts[0]) is not str or parts[0] not in ACTIVATIONS:
            self.refuse("an activation is none of those it may be")
        name, arguments = parts[0], self.mapping(parts[1], "the arguments of an activation")
        if set(arguments) != set(ACTIVATIONS[name]):
            self.refuse(f"{name} has the arguments {printable(str(sorted(arguments)), 60)}")
        for key, given in arguments.items():
            number = type(given) in (int, float) and math.isfinite(given)
            if not (given in APPROXIMATIONS if key == "approximate" else number):
                self.refuse(f"{name} has {key} {printable(repr(given), 40)}")
        return name, dict(arguments)

    def layer(self, value: object) -> tuple[str, Mapping[str, Setting]]:
        parts = self.sequence(value, "a layer")
        if not parts:
            return "", {}
        if len(parts) != 2 or type(parts[0]) is not str or parts[0] not in LAYERS:
            self.refuse("a layer is none of those it may be")
        name, arguments = parts[0], self.settings(parts[1], "the hyper-parameters of a layer")
        if set(arguments) != set(LAYERS[name]):
            self.refuse(f"{name} has the hyper-parameters {printable(str(sorted(arguments)), 100)}")
        for key, given in arguments.items():
            if key in WINDOWS and not (isinstance(given, tuple) and len(given) == int(name[4])):
                self.refuse(f"{name} has {key} {printable(repr(given), 40)}")
        return name, arguments

    def dtype(self, value: object) -> str:
        if value != "" and value not in DTYPES:
            self.refuse(f"a type is {printable(repr(value), 40)}")
        return self.text(value, "dtype")

    def settings(self, value: object, what: str) -> Mapping[str, Setting]:
        return {name: self.setting(name, new) for name, new in self.mapping(value, what).items()}

    def setting(self, name: str, value: object) -> Setting:
        if name in FLAGS and type(value) is bool:
            return value
        if name in COUNTS and type(value) is int and 1 <= value <= LARGEST:
            return value
        if name == "padding" and type(value) is str and value in PADDINGS:
            return value
        if name in WINDOWS and isinstance(value, (list, tuple)) and 1 <= len(value) <= 3:
            return self.sizes(value, name)
        self.refuse(f"a hyper-parameter is {printable(name, 40)} = {printable(repr(value), 40)}")
