"""Memory that is free but still counted as this process's: pieces between others that the C library keeps for later."""

from __future__ import annotations

import ctypes


def give_back() -> None:
    """Hand free memory back to the system (`malloc_trim(3)`); nothing where the C library cannot."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # another C library, or another system
        return
    trim(0)
