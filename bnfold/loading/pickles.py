"""Files that torch pickled: read without running anything, or refused, or run because the caller trusts them.

Every reader takes the open file and returns its content and notes. Without trust a checkpoint is read ahead (`tape`),
and then goes through torch's restricted unpickler, with torch.nn's own layers allowed; the other formats cannot be
opened without running what they hold. No reader goes from one way to the other by itself.
"""

from __future__ import annotations

import io
import os
import pickle
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any

from bnfold.errors import LimitError, UnreadableError, UnsafeError
from bnfold.loading.arch import importable
from bnfold.loading.claims import Claims, Refused
from bnfold.loading.tape import Tape
from bnfold.wording import first_line, listed

LARGEST_PICKLE_BYTES = 256 * 10**6  # beside the tensors, which are not in it

TRUST = "Only if you trust whoever made it, pass --trust-pickle: that runs what the file holds."


@dataclass(frozen=True)
class Opened:
    """A file that is open.

    Attributes:
        file: Where it begins.
        name: What errors call it.
        trust: Whether what it holds may be run.
        limit: Bytes that its tensors may have together.
        members: Those of an archive that was checked.
    """

    file: IO[bytes]
    name: str
    trust: bool
    limit: int
    members: tuple[zipfile.ZipInfo, ...] = ()


def read_checkpoint(opened: Opened) -> tuple[object, tuple[str, ...]]:
    """What torch.save wrote: any nesting of containers, tensors and torch.nn's own layers."""
    import torch

    file, name = opened.file, opened.name
    if opened.trust:
        return _trusted(lambda: torch.load(file, map_location="cpu", weights_only=False), name)
    _read_ahead(opened)
    ours: list[Any] = [cls for cls in _layers() if cls not in torch.serialization.get_safe_globals()]
    with torch.serialization.safe_globals(ours), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the reader judges what it meets
        try:
            file.seek(0)
            return torch.load(file, map_location="cpu", weights_only=True), ()
        except pickle.UnpicklingError as error:
            raise _unsafe(opened) from error
        except Exception as error:
            raise _damaged(name, error) from error


def _read_ahead(opened: Opened) -> None:
    """Whether the pickle of a checkpoint asks for no more than it holds."""
    root = opened.members[0].filename.partition("/")[0]
    stored = {info.filename.removeprefix(f"{root}/"): info for info in opened.members}
    if stored["data.pkl"].file_size > LARGEST_PICKLE_BYTES:
        raise LimitError(
            f"{opened.name} holds a pickle of {stored['data.pkl'].file_size} bytes beside its tensors, more than "
            f"{LARGEST_PICKLE_BYTES}",
            "Save model.state_dict() alone.",
        )
    sizes = {key.removeprefix("data/"): info.file_size for key, info in stored.items() if key.startswith("data/")}
    opened.file.seek(0)
    try:
        with zipfile.ZipFile(opened.file) as archive:
            data = archive.read(stored["data.pkl"])
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise _damaged(opened.name, error) from error
    try:
        Tape(Claims(sizes, opened.name, opened.limit)).follow(data)
    except Refused as error:
        if error.damaged:
            raise UnreadableError(f"{opened.name} is damaged ({error})", "Download or save it again.") from error
        raise _unsafe(opened) from error


def _unsafe(opened: Opened) -> UnsafeError:
    """The refusal of what torch's restricted unpickler, or reading ahead, did not take."""
    opened.file.seek(0)
    met = _globals_met(opened.file)
    holds = listed(sorted(met)) if met else "instructions that torch.save does not write"
    return UnsafeError(
        f"{opened.name} is pickled and holds {holds}", f"Save model.state_dict() instead and pass --arch. {TRUST}"
    )


def _layers() -> list[type]:
    """The classes of torch.nn a pickled module may be made of.

    Lazy layers are left out: they change their class while running. So are containers outside torch.nn.modules
    (DataParallel) and everything that is not a layer.
    """
    import torch

    inner = torch.nn.modules.linear.NonDynamicallyQuantizableLinear  # inside MultiheadAttention
    layers = (*(getattr(torch.nn, name) for name in dir(torch.nn)), inner)
    return [
        layer
        for layer in layers
        if isinstance(layer, type)
        and issubclass(layer, torch.nn.Module)
        and layer.__module__.startswith("torch.nn.modules.")
        and not issubclass(layer, torch.nn.modules.lazy.LazyModuleMixin)
    ]


def _globals_met(file: IO[bytes]) -> list[str]:
    import torch

    ours: list[Any] = [cls for cls in _layers() if cls not in torch.serialization.get_safe_globals()]
    try:
        with torch.serialization.safe_globals(ours), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return list(torch.serialization.get_unsafe_globals_in_checkpoint(file))
    except Exception:  # only the wording of a refusal depends on it
        return []


def read_legacy(opened: Opened) -> tuple[object, tuple[str, ...]]:
    """What torch.save wrote before 1.6."""
    import torch

    if opened.trust:
        return _trusted(lambda: torch.load(opened.file, map_location="cpu", weights_only=False), opened.name)
    raise UnsafeError(
        f"{opened.name} is in the legacy format of torch before 1.6, which is a bare pickle",
        f"Save it again with today's torch.save. {TRUST}",
    )


def read_pickle(opened: Opened) -> tuple[object, tuple[str, ...]]:
    """What pickle.dump wrote: always refused, no model format is a bare pickle."""
    raise UnsafeError(f"{opened.name} is a plain Python pickle, not a model file", "Save it with torch.save.")


def read_torchscript(opened: Opened) -> tuple[object, tuple[str, ...]]:
    """What torch.jit.save wrote."""
    import torch

    if opened.trust:
        return _trusted(
            lambda: torch.jit.load(  # type: ignore[no-untyped-call]
                io.BytesIO(opened.file.read()), map_location="cpu"
            ),
            opened.name,
        )
    raise UnsafeError(f"{opened.name} is a TorchScript archive, which is a program", TRUST)


def read_pt2(opened: Opened) -> tuple[object, tuple[str, ...]]:
    """What torch.export.save wrote."""
    import torch

    if opened.trust:
        return _trusted(lambda: torch.export.load(io.BytesIO(opened.file.read())), opened.name)
    with zipfile.ZipFile(opened.file) as archive:
        pickled = [info.filename for info in opened.members if _is_pickled(archive, info)]
    what = f"pickled parts ({listed(pickled)})" if pickled else "expressions that torch evaluates as Python"
    raise UnsafeError(f"{opened.name} is a .pt2 program with {what}", TRUST)


def _is_pickled(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bool:
    """Whether a member starts as torch.save, torch's C++ pickler or pickle.dumps would write it."""
    if info.filename.endswith(".json") or not info.file_size:
        return False
    try:
        with archive.open(info) as member:
            head = member.read(4)
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, OSError):
        return False
    return head.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"))


def _trusted(run: Callable[[], object], name: str) -> tuple[object, tuple[str, ...]]:
    """What a trusted file makes of itself; the current folder is importable, as under `python`."""
    try:
        with importable(os.getcwd()), warnings.catch_warnings():
            # torch.jit.load says that TorchScript is no longer developed, which the user cannot change here
            warnings.filterwarnings("ignore", "`torch.jit.load` is deprecated", DeprecationWarning)
            warnings.filterwarnings("ignore", "'torch.load' received a zip file", UserWarning)
            return run(), ("what the file holds was run, as --trust-pickle allows",)
    except (ImportError, AttributeError) as error:
        raise UnreadableError(
            f"{name} needs code that cannot be imported: {first_line(error)}",
            "Run from the folder that holds its code, or put that folder on PYTHONPATH.",
        ) from error
    except Exception as error:
        raise _damaged(name, error) from error


def _damaged(name: str, error: Exception) -> UnreadableError:
    return UnreadableError(f"{name} is damaged ({first_line(error)})", "Download or save it again.")
