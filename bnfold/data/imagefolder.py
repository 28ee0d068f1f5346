"""Images on disk, one sub-folder per class, as inputs of a model.

The classes are numbered in the alphabetical order of their folders, as torchvision's ImageFolder does. An image becomes
RGB (grey where the model takes one channel), is resized to the model's input with bilinear interpolation and no
cropping, divided by 255 (not where `--scale` makes that part of the model), and laid out N×C×H×W. What else the
training code did belongs into `--mean` and `--std`, or into a loader of one's own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bnfold.data.batches import Array, Batch, usual_rows
from bnfold.data.feeds import InputDecl
from bnfold.errors import UnreadableError, UnsupportedError, UsageError
from bnfold.specs import written
from bnfold.wording import first_line

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}

OWN_LOADER = "Read the images by code of your own: --data pkg.mod:loader."


class ImageFolder:
    """A folder of images.

    Args:
        name: The folder.
        raw: Whether the pixels stay 0 to 255.

    Raises:
        UnsupportedError: Pillow is not installed.
        UnreadableError: The folder holds no images.
    """

    def __init__(self, name: str, *, raw: bool) -> None:
        try:
            import PIL.Image  # noqa: F401
        except ImportError as error:
            raise UnsupportedError(
                f"{name} is a folder of images, and reading images needs Pillow, which is not installed",
                "pip install pillow, or save the images as x and y of a .npz file.",
            ) from error
        self.name, self._raw = name, raw
        folders = sorted(entry for entry in Path(name).iterdir() if entry.is_dir())
        found = [(path, folder.name) for folder in folders for path in _images(folder)]
        classes = sorted({folder for _, folder in found})
        self.labelled: bool | None = bool(found)
        self._files: list[tuple[Path, int | None]] = [(path, classes.index(folder)) for path, folder in found]
        if not found:
            self._files = [(path, None) for path in _images(Path(name))]
        if not self._files:
            raise UnreadableError(
                f"{name} holds no images ({', '.join(sorted(SUFFIXES))})", "Give one sub-folder of images per class."
            )
        self.rows: int | None = len(self._files)

    def batches(self, declared: Sequence[InputDecl], rows: int | None) -> Iterator[Batch]:
        """All images, class by class."""
        decl = self._image_input(declared)
        channels, height, width = decl.shape[1:]
        step = rows or usual_rows(4 * int(channels or 1) * int(height or 1) * int(width or 1))
        for start in range(0, len(self._files), step):
            files = self._files[start : start + step]
            x = np.stack([self._image(path, decl) for path, _ in files])
            yield Batch({decl.name: x}, np.array([label for _, label in files]) if self.labelled else None)

    def _image_input(self, declared: Sequence[InputDecl]) -> InputDecl:
        if len(declared) != 1:
            raise UsageError(f"{self.name} is a folder of images, and the model has {len(declared)} inputs", OWN_LOADER)
        decl = declared[0]
        hints = decl.hints or (None,) * len(decl.shape)
        shape = tuple(size if size is not None else hint for size, hint in zip(decl.shape, hints, strict=True))
        if len(shape) != 4 or shape[1] not in (1, 3) or shape[2] is None or shape[3] is None:
            raise UsageError(
                f"{self.name} is a folder of images, and input {decl.name!r} ({written(decl.shape)}) is not N×C×H×W "
                "with 1 or 3 channels and a fixed size",
                OWN_LOADER,
            )
        return InputDecl(decl.name, (decl.shape[0], *shape[1:]), decl.dtype, decl.symbols)

    def _image(self, path: Path, decl: InputDecl) -> Array:
        from PIL import Image

        _, channels, height, width = decl.shape
        assert height is not None
        assert width is not None
        try:
            with Image.open(path) as image:
                seen: Any = image.convert("L" if channels == 1 else "RGB")
                if seen.size != (width, height):
                    seen = seen.resize((width, height), Image.Resampling.BILINEAR)
                pixels = np.asarray(seen)
        except Exception as error:  # Pillow's readers raise what their format made them trip over
            raise UnreadableError(
                f"cannot read the image {path}: {first_line(error)}", "Replace or remove it."
            ) from error
        planes: Array = pixels[None] if channels == 1 else np.moveaxis(pixels, 2, 0)
        if self._raw or not decl.dtype.startswith(("float", "bfloat")):
            return planes
        scaled: Array = (planes / np.float64(255)).astype(np.float32)
        return scaled


def _images(folder: Path) -> list[Path]:
    return sorted(Path(entry.path) for entry in os.scandir(folder) if Path(entry.name).suffix.lower() in SUFFIXES)
