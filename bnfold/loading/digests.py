"""The SHA-256 of a file, by which reports, recipes and read-back know it."""

from __future__ import annotations

import hashlib
from typing import IO

BLOCK_BYTES = 1 << 20


def sha256_of(file: IO[bytes]) -> str:
    """The digest of what is still to be read of an open file, in hexadecimal."""
    digest = hashlib.sha256()
    while block := file.read(BLOCK_BYTES):
        digest.update(block)
    return digest.hexdigest()
