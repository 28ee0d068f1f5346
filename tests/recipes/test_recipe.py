"""The recipe as data: what is written is what is read, and nothing outside the vocabulary reads."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bnfold.errors import InputError, UnreadableError, UnsupportedError
from bnfold.recipes.recipe import ACTIVATIONS, DTYPES, Change, Recipe, parse, parse_json

PATHS = st.text("abc.1", max_size=8)
SIZES = st.lists(st.integers(0, 9), min_size=1, max_size=3).map(tuple)
SETS = st.fixed_dictionaries(
    {"groups": st.integers(1, 9)},
    optional={"inplace": st.booleans(), "padding": SIZES | st.just("same"), "kernel_size": SIZES},
)
CHANGES = st.one_of(
    st.builds(Change, PATHS, PATHS, st.just("identity")),
    st.builds(Change, PATHS, PATHS, st.just("children"), children=st.lists(PATHS, min_size=1, max_size=3).map(tuple)),
    st.builds(
        Change,
        PATHS,
        PATHS,
        st.just("activations"),
        activations=st.just((("ReLU", {}), ("LeakyReLU", {"negative_slope": 0.1}), ("GELU", {"approximate": "tanh"}))),
    ),
    st.builds(Change, PATHS, PATHS, st.just("zero"), dtype=st.sampled_from(DTYPES)),
    st.builds(
        Change,
        PATHS,
        PATHS,
        st.just("layer"),
        layer=st.just(("Linear", {"in_features": 3, "out_features": 4})),
        dtype=st.sampled_from(DTYPES),
        adds=st.sampled_from([(), ("bias",)]),
    ),
    st.builds(Change, PATHS, PATHS, st.just("itself"), unties=st.just(("weight",))),
    st.builds(Change, PATHS, PATHS, st.just("itself"), sets=SETS, adds=st.sampled_from([(), ("bias",)])),
)
RECIPES = st.builds(
    Recipe,
    changes=st.lists(CHANGES, max_size=4).map(tuple),
    source=st.dictionaries(PATHS, SIZES, max_size=3),
    buffers=st.lists(PATHS, max_size=2).map(tuple),
    sha256=st.just("0" * 64),
    bnfold=st.just("0.1.0"),
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(RECIPES)
def test_what_is_written_is_what_is_read(recipe: Recipe) -> None:
    assert parse_json(recipe.to_json(), "f") == recipe
    assert parse(recipe.to_dict(), "f") == recipe


def good() -> dict[str, Any]:
    change = Change("bn", "BatchNorm2d", "identity")
    return Recipe((change,), {"bn.weight": (4,)}, (), "0" * 64, "0.1.0").to_dict()


def changed(**parts: Any) -> dict[str, Any]:
    return good() | {"changes": [{"path": "a", "was": "A", "becomes": "itself"} | parts]}


def linear(name: str = "Linear", **parts: Any) -> dict[str, Any]:
    arguments = {"in_features": 3, "out_features": 4} | parts
    return changed(becomes="layer", dtype="float32", layer=[name, arguments])


def conv(name: str = "Conv2d", **parts: Any) -> dict[str, Any]:
    sizes = {"kernel_size": [1, 1], "stride": [1, 1], "padding": [0, 0], "dilation": [1, 1]}
    arguments = {"in_channels": 3, "out_channels": 4, "groups": 1} | sizes | parts
    return changed(becomes="layer", dtype="float32", layer=[name, arguments])


BAD: dict[str, Any] = {
    "nothing": None,
    "a list": [],
    "another schema": good() | {"schema": 0},
    "a schema that is true": good() | {"schema": True},
    "an unknown part": good() | {"run": "me"},
    "no source": {key: value for key, value in good().items() if key != "source"},
    "changes that are text": good() | {"changes": "identity"},
    "a change that is a list": good() | {"changes": [[]]},
    "shapes that are text": good() | {"source": {"a": "4"}},
    "a negative size": good() | {"source": {"a": [-1]}},
    "a size that is true": good() | {"source": {"a": [True]}},
    "a huge size": good() | {"source": {"a": [2**40]}},
    "buffers that are numbers": good() | {"buffers": [1]},
    "a path that is a number": changed(path=1, becomes="identity"),
    "a kind that is none": changed(becomes="torch.nn.Linear"),
    "a class to import": changed(becomes="activations", activations=[["os.system", {"command": "true"}]]),
    "an activation of another name": changed(becomes="activations", activations=[["Linear", {}]]),
    "an activation without its argument": changed(becomes="activations", activations=[["ELU", {}]]),
    "an argument too many": changed(becomes="activations", activations=[["ReLU", {"inplace": True}]]),
    "an argument that is no number": changed(becomes="activations", activations=[["ELU", {"alpha": "x"}]]),
    "an argument that is not finite": changed(becomes="activations", activations=[["ELU", {"alpha": float("nan")}]]),
    "an approximation of another name": changed(becomes="activations", activations=[["GELU", {"approximate": "x"}]]),
    "an activation of three parts": changed(becomes="activations", activations=[["ReLU", {}, {}]]),
    "no activation": changed(becomes="activations"),
    "no children": changed(becomes="children"),
    "an identity with children": changed(becomes="identity", children=["a"]),
    "itself with children": changed(sets={"groups": 1}, children=["a"]),
    "itself without a change": changed(),
    "an attribute of any name": changed(sets={"forward": "x"}),
    "a dunder": changed(sets={"__class__": "x"}),
    "a padding of another name": changed(sets={"padding": "../x"}),
    "a window of four": changed(sets={"stride": [1, 1, 1, 1]}),
    "no groups": changed(sets={"groups": 0}),
    "a flag that is a number": changed(sets={"inplace": 1}),
    "a parameter of any name": changed(adds=["forward"]),
    "a 0 of no type": changed(becomes="zero"),
    "a 0 of a type of another name": changed(becomes="zero", dtype="load"),
    "a 0 of a type that is a list": changed(becomes="zero", dtype=["float32"]),
    "a 0 with numbers": changed(becomes="zero", dtype="float32", adds=["weight"]),
    "an identity of a type": changed(becomes="identity", dtype="float32"),
    "no layer": changed(becomes="layer", dtype="float32"),
    "a layer of no type": changed(becomes="layer", layer=["Linear", {"in_features": 3, "out_features": 4}]),
    "a layer of another name": linear("Bilinear"),
    "a layer that is a path": linear("os.system"),
    "a layer of the settings of another": conv("Linear"),
    "a layer with a setting too many": linear(bias=True),
    "a layer of a width of true": linear(in_features=True),
    "a layer without channels": conv(in_channels=0),
    "a layer of another padding": conv(padding="same"),
    "a layer whose window has other axes": conv("Conv3d"),
    "a layer that gets a weight": changed(
        becomes="layer", dtype="float32", adds=["weight"], layer=["Linear", {"in_features": 3, "out_features": 4}]
    ),
    "untied and gone": changed(becomes="identity", unties=["weight"]),
    "untied by number": changed(unties=[1]),
    "an unknown part of a change": changed(sets={"groups": 1}, code="x"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_is_outside_the_vocabulary_does_not_read(name: str) -> None:
    with pytest.raises(UnreadableError) as caught:
        parse(BAD[name], "f.pt")
    assert caught.value.what.startswith("the recipe in f.pt does not read: ")
    assert caught.value.exit_code == 3
    assert "\n" not in caught.value.what


@pytest.mark.parametrize(
    "text", ["", "{", "[" * 100_000, "1" * 5000, '{"schema": 1e999}', "\u202e", "null", json.dumps(good())[:-2]]
)
def test_what_is_not_json_does_not_read(text: str) -> None:
    with pytest.raises(UnreadableError):
        parse_json(text, "f.safetensors")


WORDS = st.sampled_from(["schema", "changes", "source", "path", "becomes"])
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=8,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(ANYTHING)
def test_whatever_is_read_is_refused_or_a_recipe(data: Any) -> None:
    with suppress(InputError, UnsupportedError):
        assert isinstance(parse(data, "f"), Recipe)


def test_a_later_schema_is_said_to_be_one() -> None:
    with pytest.raises(UnsupportedError) as caught:
        parse(good() | {"schema": 2, "bnfold": "9.9"}, "f.pt")
    assert caught.value.what == "f.pt was written by bnfold 9.9, in schema 2; this version reads up to 1"


def test_names_in_messages_are_printable() -> None:
    with pytest.raises(UnreadableError) as caught:
        parse(changed(path="\x1b[31m", becomes="x"), "f.pt")
    assert "\x1b" not in str(caught.value)


def test_the_activations_are_torchs_own() -> None:
    from torch import nn

    from bnfold.frontends.modules.regions import ACTIVATIONS as MADE

    arguments = {"alpha": 1.0, "approximate": "none", "min_val": -1.0, "max_val": 1.0, "negative_slope": 0.1}
    made = {type(make(arguments)).__name__ for make in MADE.values()}
    assert made <= set(ACTIVATIONS)
    for name, wanted in ACTIVATIONS.items():
        module = getattr(nn, name)(**{key: arguments[key] for key in wanted})
        assert all(getattr(module, key) == arguments[key] for key in wanted)
