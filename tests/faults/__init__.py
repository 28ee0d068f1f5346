"""Faults put into every writer, one at each step, and what is left afterwards."""
