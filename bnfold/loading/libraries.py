"""Networks that timm and torchvision build by name."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping, Sequence
from types import ModuleType

from bnfold.errors import UsageError
from bnfold.loading.factories import OFFERED, failed


def from_library(library: str, name: str, arch: str, keywords: Mapping[str, object]) -> object:
    """A network of timm or torchvision, without its weights.

    Raises:
        UsageError: The library is not installed, or does not build it.
    """
    try:
        module = importlib.import_module("torchvision.models" if library == "torchvision" else library)
    except ModuleNotFoundError as error:
        if error.name != library:
            raise failed(arch, f"importing {library}", error) from error
        raise UsageError(f"--arch {arch} needs {library}, which is not installed", f"pip install {library}") from error
    except Exception as error:
        raise failed(arch, f"importing {library}", error) from error
    try:
        if library == "timm":
            return module.create_model(name, pretrained=False, **keywords)
        return module.get_model(name, weights=None, **keywords)
    except Exception as error:
        names = _names_in(module)
        if names and name.lower().partition(".")[0] not in names:  # timm's names may carry a tag: resnet50.a1_in1k
            raise UsageError(
                f"--arch {arch}: {library} has no {name!r}", f"It has {', '.join(nearest(name, names))}."
            ) from error
        raise failed(arch, "calling it", error) from error


def _names_in(library: ModuleType) -> list[str]:
    """The names of the networks a library builds, as far as it says."""
    try:
        return [str(name) for name in library.list_models()]
    except Exception:  # an older version without the list; what it raised for the name is said then
        return []


def nearest(name: str, names: Sequence[str]) -> list[str]:
    """What somebody who wrote a name that does not exist may have meant: the most alike first, then by alphabet."""
    close = difflib.get_close_matches(name, names, n=OFFERED // 2)
    return [*close, *sorted(set(names) - set(close))][:OFFERED]
