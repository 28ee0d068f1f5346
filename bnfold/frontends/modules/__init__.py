"""Modules: `fold` carries out on a copy of a module what the plan says of its exported program."""
