"""Opens what others wrote: the only file that does.

A file's content says what it is; its name says nothing. Nothing in a file is run: checkpoints go through torch's
restricted unpickler with torch.nn's own layers allowed, ONNX and safetensors hold data only. What can only be opened by
running what it holds is refused, unless the caller passes `trust_pickle`. There is no way from one to the other.

    ONNX          protobuf                         data, within bounds
    safetensors   JSON header + tensors            data; of a folded state dict also the recipe, in the header
    checkpoint    zip with data.pkl                pre-flight, restricted unpickler, then a look at what came out
    legacy        a bare pickle (torch before 1.6) trust
    TorchScript   zip with constants.pkl and code/ trust
    .pt2          zip with archive_format          trust: torch.export.load runs its guards and shape expressions as
                                                   Python, and unpickles sample inputs, constants and custom objects

A file is opened once: what was checked, hashed and read are the same bytes, or it is refused as changed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from bnfold.errors import LimitError, UnreadableError, UsageError
from bnfold.loading.archive import check_archive, members
from bnfold.loading.digests import sha256_of
from bnfold.loading.pickles import Opened, read_checkpoint, read_legacy, read_pickle, read_pt2, read_torchscript
from bnfold.loading.places import cannot_open, check_file, no_file
from bnfold.loading.weights import STATE, fill, folded_in, unwrap
from bnfold.specs import MAX_BYTES, parse_bytes
from bnfold.wording import KNOWN_FORMATS, first_line

if TYPE_CHECKING:
    from bnfold.loading.arch import Arch
    from bnfold.recipes.remodel import FoldedState

LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


@dataclass(frozen=True)
class Loaded:
    """A model as it came.

    Attributes:
        model: An `onnx_ir.Model`, `torch.nn.Module` or `torch.export.ExportedProgram`.
        format: `"onnx"`, `"state-dict"`, `"safetensors"`, `"module"`, `"torchscript"` or `"pt2"`.
        path: The path as it was given.
        sha256: Of the file's bytes.
        notes: What the reader should know, e.g. `"state dict: 84 matched, 0 missing, 0 unexpected"`.
        folded: Whether it was a folded state dict.
    """

    model: object
    format: str
    path: str
    sha256: str
    notes: tuple[str, ...] = ()
    folded: bool = False


def load(
    path: str | os.PathLike[str],
    *,
    arch: Arch | None = None,
    arch_args: Mapping[str, str] | None = None,
    trust_pickle: bool = False,
    max_bytes: int | str = MAX_BYTES,
    arch_may_be_superfluous: bool = False,
) -> Loaded:
    """Opens a model file of any format bnfold knows.

    Args:
        path: The file.
        arch: The code that builds the network, for files that hold weights only: its name, or the factory itself.
        arch_args: Keyword arguments of that code, as text.
        trust_pickle: Whether what the file holds may be run.
        max_bytes: What the file, and all tensors in it together, may have at most: a number, or text like `"4GB"`.
        arch_may_be_superfluous: Whether a file that holds the network itself may be given an `arch`, which is not used.

    Raises:
        UsageError: `arch` is missing, superfluous or does not work.
        UnreadableError: There is no such file, or it is damaged, or in no known format.
        UnsafeError: It can only be opened by running what it holds, or two readers might see two things in it.
        LimitError: It is larger than allowed, or claims to hold more than it does.
        InputError: The weights do not fit the network.
        UnsupportedError: It was understood, and bnfold cannot handle it.
    """
    name = os.fspath(path)
    limit = parse_bytes("--max-bytes", max_bytes)
    kind, digest, content, notes = _read(name, trust_pickle, limit)
    if kind in ("checkpoint", "legacy"):
        content, found = unwrap(content, name)
        notes = (*notes, *found)
        kind = "state-dict" if isinstance(content, Mapping) else "module"
        if kind == "module" and not trust_pickle:
            from bnfold.loading.unpickled import check_module

            check_module(content, name, limit)  # type: ignore[arg-type]
    if kind in ("state-dict", "safetensors"):
        module, found, is_folded = _build(content, name, arch, arch_args)
        return Loaded(module, kind, name, digest, (*notes, *found), is_folded)
    if arch is not None and not arch_may_be_superfluous:
        raise UsageError(f"--arch was given, and {name} holds the network itself", "Drop --arch.")
    if kind == "module" and getattr(content, "training", False):
        content.eval()  # type: ignore[attr-defined]
        notes = (*notes, "the module was saved in training mode; it was switched to evaluation mode")
    return Loaded(content, kind, name, digest, notes)


def read_folded(path: str | os.PathLike[str]) -> FoldedState:
    """A folded state dict as `convert` wrote it.

    Raises:
        UnreadableError: It is none, or damaged.
        UnsafeError: It can only be opened by running what it holds.
        UnsupportedError: A later version of bnfold wrote it.
    """
    name = os.fspath(path)
    kind, _, content, _ = _read(name, trust=False, limit=parse_bytes("--max-bytes", MAX_BYTES))
    folded = folded_in(content, name) if kind in ("checkpoint", "safetensors") else None
    if folded is None:
        raise UnreadableError(
            f"{name} is not a folded state dict: there is no recipe in it",
            "Pass a .safetensors or .pt file that bnfold convert wrote.",
        )
    return folded


def _read(name: str, trust: bool, limit: int) -> tuple[str, str, object, tuple[str, ...]]:
    """What kind of file it is, the digest of its bytes, what it holds, and notes."""
    with _opened(name) as file:
        before = os.fstat(file.fileno())
        if before.st_size > limit:
            raise LimitError(f"{name} has {before.st_size} bytes, more than {limit}", "Raise --max-bytes.")
        kind = _sniff(file, name)
        if kind == "onnx":
            from bnfold.loading.onnxfile import check_size

            check_size(before.st_size, name)
        file.seek(0)
        digest = sha256_of(file)
        listed = members(file, name) if kind in ("checkpoint", "pt2") else []
        if listed:
            check_archive(file, listed, name)
        file.seek(0)
        content, notes = _READERS[kind](Opened(file, name, trust, limit, tuple(listed)))
        after = os.fstat(file.fileno())
        if (before.st_size, before.st_mtime_ns, before.st_ctime_ns) != (
            after.st_size,
            after.st_mtime_ns,
            after.st_ctime_ns,
        ):
            raise UnreadableError(f"{name} was changed while it was read", "Try again when it is complete.")
        return kind, digest, content, notes


@contextmanager
def _opened(name: str) -> Iterator[IO[bytes]]:
    check_file(name)
    try:
        file = open(name, "rb")  # noqa: SIM115 - closed below; the errors of the block that uses it are not ours
    except FileNotFoundError as error:
        raise no_file(name) from error
    except (OSError, ValueError) as error:
        raise cannot_open(name, error) from error
    with file:
        try:
            yield file
        except OSError as error:
            raise UnreadableError(f"cannot read {name}: {error.strerror or error}", "Check the disk.") from error


def _sniff(file: IO[bytes], name: str) -> str:
    """What the content is."""
    head = file.read(4096)
    if not head:
        raise UnreadableError(f"{name} is empty", "Download or save it again.")
    if head.startswith(b"PK\x03\x04"):
        return _sniff_zip(file, name)
    if head.startswith(LEGACY_MAGIC) or head[257:262] == b"ustar":
        return "legacy"
    if len(head) > 9 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 32:
        return "safetensors"  # asked first: a header of 640 bytes begins as a pickle does
    if head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05":
        return "pickle"
    if head.startswith(b"version https://git-lfs"):
        raise UnreadableError(f"{name} is a Git LFS pointer, not the model itself", "Fetch the model: git lfs pull.")
    if _is_text(head):
        raise UnreadableError(f"{name} is a text file, not a model", KNOWN_FORMATS)
    return "onnx"


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:
            return False
        text = head[: error.start].decode("utf-8")
    return all(char.isprintable() or char in "\t\n\r\f\ufeff" for char in text)


def _sniff_zip(file: IO[bytes], name: str) -> str:
    names = [info.filename for info in members(file, name)]
    inside = {member.partition("/")[2] for member in names}
    if "archive_format" in inside or "serialized_exported_program.json" in names:
        return "pt2"
    if "constants.pkl" in inside or any(member.startswith("code/") for member in inside):
        return "torchscript"
    if "data.pkl" in inside:
        return "checkpoint"
    raise UnreadableError(f"{name} is a zip archive that holds no model", KNOWN_FORMATS)


def _build(
    content: object, name: str, arch: Arch | None, arch_args: Mapping[str, str] | None
) -> tuple[object, tuple[str, ...], bool]:
    """The network with the weights of a file, notes, and whether they are folded ones."""
    from bnfold.loading.arch import build, name_of

    assert isinstance(content, Mapping)
    folded = folded_in(content, name)
    if arch is None:
        count = len(content if folded is None else folded.tensors)
        raise UsageError(
            f"{name} holds {count} weights, and not the network they belong to",
            "Pass the code that builds it: --arch pkg.mod:factory or --arch path/file.py:factory.",
        )
    module = build(arch, arch_args)
    if folded is None:
        return module, fill(module, content, name, name_of(arch)), False
    from bnfold.recipes.remodel import restore_into

    return module, restore_into(module, folded, name, name_of(arch)), True


def _read_onnx(opened: Opened) -> tuple[object, tuple[str, ...]]:
    from bnfold.loading.onnxfile import read

    return read(opened.file.read(), opened.name, opened.limit)


def _read_safetensors(opened: Opened) -> tuple[object, tuple[str, ...]]:
    import safetensors.torch

    from bnfold.recipes.recipe import KEY

    data = opened.file.read()
    try:
        tensors = safetensors.torch.load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    except Exception as error:  # the library raises several kinds for one thing: the file is damaged
        raise UnreadableError(
            f"{opened.name} is a damaged or truncated safetensors file ({first_line(error)})",
            "Download or save it again.",
        ) from error
    recipe = (header.get("__metadata__") or {}).get(KEY)
    return (tensors if recipe is None else {STATE: tensors, KEY: recipe}), ()


_READERS: dict[str, Callable[[Opened], tuple[object, tuple[str, ...]]]] = {
    "onnx": _read_onnx,
    "safetensors": _read_safetensors,
    "checkpoint": read_checkpoint,
    "legacy": read_legacy,
    "pickle": read_pickle,
    "torchscript": read_torchscript,
    "pt2": read_pt2,
}
