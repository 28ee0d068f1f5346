"""The recipe of a folded state dict names a class to import."""

from __future__ import annotations

from hostile_safetensors import file, st
from stage import Attack

from bnfold.recipes.recipe import KEY


def test_recipe_that_names_code(attack: Attack) -> None:
    recipe = '{"version": 1, "modules": {"0": {"class": "os.system"}}}'
    attack.write("model.safetensors", file({"__metadata__": {KEY: recipe}, "folded:a": st("F32", [1], 0, 4)}, 4))
    attack.refused(
        "inspect",
        "model.safetensors",
        "--arch",
        "nets.py:net",
        says=(
            "error[UNREADABLE]: the recipe in model.safetensors does not read: its schema is None\n"
            "Write it again with bnfold convert.\n"
        ),
    )
