from __future__ import annotations

import hashlib
import io
import os
import pickle
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import pytest
import safetensors.torch
import torch
from torch import nn

from bnfold.errors import BnfoldError, InputError, UnreadableError, UnsafeError, UsageError
from bnfold.loading.load import Loaded, load

FORMATS = "bnfold reads ONNX, PyTorch checkpoints and modules, safetensors, TorchScript and .pt2 files."
TRUST = "Only if you trust whoever made it, pass --trust-pickle: that runs what the file holds."
INSTEAD = "Save model.state_dict() instead and pass --arch."
TRUSTED = "what the file holds was run, as --trust-pickle allows"

ARCH = """
from collections import OrderedDict
from torch import nn

def net():
    return nn.Sequential(OrderedDict(conv=nn.Conv2d(1, 2, 3, bias=False), bn=nn.BatchNorm2d(2)))
"""

# torch marks TorchScript as deprecated wherever it is made; the files still exist
script = pytest.mark.filterwarnings("ignore:`torch.jit.(script|save|load)` is deprecated:DeprecationWarning")
# torch.export copies a tree spec of its own in a way it has deprecated
exported = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")


class Custom(nn.Sequential):
    """A module that is not one of torch.nn's."""


class Canary:
    """Unpickling it leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> Any:
        return os.mkdir, (self.path,)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    Path("nets.py").write_text(ARCH)
    yield tmp_path
    assert not Path("canary").exists()


def network(kind: type[nn.Sequential] = nn.Sequential) -> nn.Sequential:
    torch.manual_seed(0)
    return kind(OrderedDict(conv=nn.Conv2d(1, 2, 3, bias=False), bn=nn.BatchNorm2d(2))).eval()


def onnx_bytes() -> bytes:
    x = onnx_ir.Value(name="x", type=onnx_ir.TensorType(onnx_ir.DataType.FLOAT), shape=onnx_ir.Shape(["batch", 2]))
    w = onnx_ir.Value(name="w", const_value=onnx_ir.tensor(np.ones((2, 2), np.float32), name="w"))
    node = onnx_ir.node("MatMul", [x, w])
    graph = onnx_ir.Graph([x], node.outputs, nodes=[node], initializers=[w], opset_imports={"": 20})
    return onnx_ir.to_proto(onnx_ir.Model(graph, ir_version=10)).SerializeToString()


def refusal(raises: type[BnfoldError], path: str | Path, **arguments: Any) -> str:
    with pytest.raises(raises) as caught:
        load(path, **arguments)
    assert str(caught.value).count("\n") == 1
    return str(caught.value)


def weights(loaded: Loaded) -> torch.Tensor:
    assert isinstance(loaded.model, nn.Module)
    assert not loaded.model.training
    return loaded.model.state_dict()["conv.weight"]


def test_the_name_says_nothing_the_content_decides(here: Path) -> None:
    Path("model.pt").write_bytes(onnx_bytes())
    torch.save(network().state_dict(), "weights.onnx")
    assert load("model.pt").format == "onnx"
    assert load("weights.onnx", arch="nets.py:net").format == "state-dict"


def test_onnx_loads_as_it_is(here: Path) -> None:
    Path("model.onnx").write_bytes(onnx_bytes())
    loaded = load(Path("model.onnx"))
    assert isinstance(loaded.model, onnx_ir.Model)
    assert (loaded.path, loaded.notes) == ("model.onnx", ())
    assert loaded.sha256 == hashlib.sha256(onnx_bytes()).hexdigest()


@pytest.mark.parametrize("content", ["bare", "wrapped", "prefixed"])
def test_a_checkpoint_loads_into_its_architecture(here: Path, content: str) -> None:
    state = network().state_dict()
    saved = {
        "bare": state,
        "wrapped": {"state_dict": state, "epoch": 3, "optimizer": {"lr": 0.1}},
        "prefixed": {f"module._orig_mod.{key}": value for key, value in state.items()},
    }[content]
    torch.save(saved, "model.pt")
    loaded = load("model.pt", arch="nets.py:net")
    assert torch.equal(weights(loaded), network().conv.weight)
    assert loaded.format == "state-dict"
    assert loaded.notes[-1] == "state dict: 6 matched, 0 missing, 0 unexpected"


def test_safetensors_load_into_their_architecture(here: Path) -> None:
    safetensors.torch.save_file(network().state_dict(), "model.safetensors")
    loaded = load("model.safetensors", arch="nets.py:net")
    assert torch.equal(weights(loaded), network().conv.weight)
    assert (loaded.format, loaded.notes) == ("safetensors", ("state dict: 6 matched, 0 missing, 0 unexpected",))


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_module_of_torchs_own_layers_loads_without_running_code(here: Path, wrapped: bool) -> None:
    torch.save({"model": network()} if wrapped else network(), "model.pt")
    loaded = load("model.pt")
    assert torch.equal(weights(loaded), network().conv.weight)
    assert loaded.format == "module"


def test_every_layer_of_torch_nn_that_pickles_as_layers_only_is_allowed(here: Path) -> None:
    layers = nn.Sequential(
        nn.Sequential(nn.Conv1d(1, 1, 1), nn.ConvTranspose3d(1, 1, 1), nn.Linear(1, 1), nn.PReLU(), nn.SiLU()),
        nn.ModuleList([nn.SyncBatchNorm(1), nn.InstanceNorm2d(1), nn.GroupNorm(1, 1), nn.LayerNorm(1)]),
        nn.ModuleDict(
            {"lstm": nn.LSTM(1, 1), "attention": nn.MultiheadAttention(2, 1), "embedding": nn.Embedding(2, 1)}
        ),
        nn.ParameterList([nn.Parameter(torch.zeros(1))]),
        nn.TransformerEncoderLayer(2, 1, activation=nn.GELU()),
    )
    torch.save(layers, "model.pt")
    assert len(list(load("model.pt").model.modules())) == len(list(layers.modules()))  # type: ignore[attr-defined]


def test_a_module_saved_in_training_mode_is_switched_and_the_user_told(here: Path) -> None:
    torch.save(network().train(), "model.pt")
    loaded = load("model.pt")
    assert not loaded.model.bn.training  # type: ignore[attr-defined]
    assert loaded.notes == ("the module was saved in training mode; it was switched to evaluation mode",)


def test_a_part_in_training_mode_inside_a_module_that_is_not_stays_so(here: Path) -> None:
    module = network()
    module.bn.train()
    torch.save(module, "model.pt")
    assert load("model.pt").model.bn.training  # type: ignore[attr-defined]


def test_a_checkpoint_needs_the_architecture(here: Path) -> None:
    torch.save({"model": network().state_dict()}, "model.pt")
    assert refusal(UsageError, "model.pt") == (
        "error[USAGE]: model.pt holds 6 weights, and not the network they belong to\n"
        "Pass the code that builds it: --arch pkg.mod:factory or --arch path/file.py:factory."
    )


def test_an_architecture_for_a_file_that_holds_its_network(here: Path) -> None:
    Path("model.onnx").write_bytes(onnx_bytes())
    assert refusal(UsageError, "model.onnx", arch="nets.py:net") == (
        "error[USAGE]: --arch was given, and model.onnx holds the network itself\nDrop --arch."
    )


def test_a_missing_key_and_a_wrong_architecture(here: Path) -> None:
    state = network().state_dict()
    del state["bn.bias"]
    torch.save(state, "model.pt")
    assert refusal(InputError, "model.pt", arch="nets.py:net") == (
        "error[INPUT]: model.pt lacks 1 of the weights of nets.py:net: 'bn.bias' (5 matched, 1 missing, 0 unexpected)\n"
        "Pass a complete checkpoint, or the --arch and --arch-arg it was trained with."
    )
    assert refusal(UsageError, "model.pt", arch="nets.py:resnet").startswith(
        "error[USAGE]: --arch nets.py:resnet: nets.py has no 'resnet'\n"
    )


def test_no_such_file(here: Path) -> None:
    assert refusal(UnreadableError, "nets/model.pt") == (
        "error[UNREADABLE]: there is no file nets/model.pt\nCheck the path."
    )


def test_a_directory(here: Path) -> None:
    Path("folder").mkdir()
    assert refusal(UnreadableError, "folder") == (
        "error[UNREADABLE]: folder is a directory, not a model file\nPass the file inside it."
    )


def test_a_pipe_is_not_waited_for(here: Path) -> None:
    os.mkfifo("pipe")
    assert refusal(UnreadableError, "pipe") == "error[UNREADABLE]: pipe is not a regular file\nSave it to a file first."


def test_a_name_the_system_does_not_take(here: Path) -> None:
    assert refusal(UnreadableError, "x" * 300) == (
        f"error[UNREADABLE]: cannot open {'x' * 300}: File name too long\nCheck the path."
    )


def test_an_empty_file(here: Path) -> None:
    Path("model.onnx").touch()
    assert refusal(UnreadableError, "model.onnx") == (
        "error[UNREADABLE]: model.onnx is empty\nDownload or save it again."
    )


@pytest.mark.parametrize("text", ["hello\n", "größe " * 1000, "<html>404</html>", '{"a": 1}'])
def test_a_text_file(here: Path, text: str) -> None:
    Path("model.onnx").write_text(text, encoding="utf-8")
    assert refusal(UnreadableError, "model.onnx") == (
        f"error[UNREADABLE]: model.onnx is a text file, not a model\n{FORMATS}"
    )


def test_a_git_lfs_pointer(here: Path) -> None:
    Path("model.onnx").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")
    assert refusal(UnreadableError, "model.onnx") == (
        "error[UNREADABLE]: model.onnx is a Git LFS pointer, not the model itself\nFetch the model: git lfs pull."
    )


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9])
def test_truncated_files_of_every_format(here: Path, kept: float) -> None:
    torch.save(network().state_dict(), "model.pt")
    safetensors.torch.save_file(network().state_dict(), "model.safetensors")
    Path("model.onnx").write_bytes(onnx_bytes())
    wordings = {
        "model.pt": "model.pt is a damaged or truncated zip archive\nDownload or save it again.",
        "model.onnx": "model.onnx is a damaged or truncated ONNX file\nDownload or export it again.",
    }
    for name in ("model.pt", "model.safetensors", "model.onnx"):
        whole = Path(name).read_bytes()
        Path(name).write_bytes(whole[: int(len(whole) * kept)])
        message = refusal(UnreadableError, name, arch="nets.py:net")
        if name in wordings:
            assert message == f"error[UNREADABLE]: {wordings[name]}"
        else:
            assert message.startswith(f"error[UNREADABLE]: {name} is a damaged or truncated safetensors file (")


def test_a_damaged_member_of_a_checkpoint(here: Path) -> None:
    torch.save(network().state_dict(), "model.pt")
    with zipfile.ZipFile("model.pt") as old, zipfile.ZipFile("damaged.pt", "w") as new:
        for info in old.infolist():
            if not info.filename.endswith("/data/0"):
                new.writestr(info.filename, old.read(info))
    assert refusal(UnreadableError, "damaged.pt", arch="nets.py:net").startswith(
        "error[UNREADABLE]: damaged.pt is damaged ("
    )


def test_random_bytes_are_no_model(here: Path) -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        Path("model.onnx").write_bytes(rng.bytes(int(rng.integers(1, 300))))
        with pytest.raises(InputError):
            load("model.onnx", arch="nets.py:net")
    Path("model.onnx").write_bytes(b"\xff\xd8\xff\xe0 a photograph")
    assert refusal(UnreadableError, "model.onnx") == (
        f"error[UNREADABLE]: model.onnx is in no format bnfold knows\n{FORMATS}"
    )


def test_a_zip_archive_without_a_model(here: Path) -> None:
    np.savez("model.npz", x=np.ones(3))
    assert refusal(UnreadableError, "model.npz") == (
        f"error[UNREADABLE]: model.npz is a zip archive that holds no model\n{FORMATS}"
    )


def test_a_module_of_other_classes_is_refused_by_name(here: Path) -> None:
    torch.save({"model": network(Custom), "ema": None}, "model.pt")
    assert refusal(UnsafeError, "model.pt") == (
        f"error[UNSAFE]: model.pt is pickled and holds '{__name__}.Custom'\n{INSTEAD} {TRUST}"
    )


def test_a_trusted_module_of_other_classes_loads(here: Path) -> None:
    torch.save(network(Custom), "model.pt")
    loaded = load("model.pt", trust_pickle=True)
    assert type(loaded.model) is Custom
    assert loaded.notes == (TRUSTED,)


def test_code_in_a_checkpoint_does_not_run(here: Path) -> None:
    torch.save({"model": network().state_dict(), "epoch": Canary(here / "canary")}, "model.pt")
    assert refusal(UnsafeError, "model.pt", arch="nets.py:net") == (
        f"error[UNSAFE]: model.pt is pickled and holds 'posix.mkdir'\n{INSTEAD} {TRUST}"
    )


def test_instructions_that_hide_a_name_do_not_run(here: Path) -> None:
    with zipfile.ZipFile("model.pt", "w") as archive:
        archive.writestr("model/data.pkl", pickle.dumps(Canary(here / "canary"), protocol=4))
        archive.writestr("model/version", "3")
        archive.writestr("model/byteorder", "little")
    assert refusal(UnsafeError, "model.pt") == (
        f"error[UNSAFE]: model.pt is pickled and holds instructions that torch.save does not write\n{INSTEAD} {TRUST}"
    )


def test_what_the_caller_allowed_before_is_still_allowed_after(here: Path) -> None:
    torch.save(network(), "model.pt")
    with torch.serialization.safe_globals([nn.Conv2d]):
        load("model.pt")
        assert nn.Conv2d in torch.serialization.get_safe_globals()
        assert nn.BatchNorm2d not in torch.serialization.get_safe_globals()


def test_the_legacy_formats_are_refused(here: Path) -> None:
    torch.save(Canary(here / "canary"), "model.pt", _use_new_zipfile_serialization=False)
    with tarfile.open("old.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("storages"), io.BytesIO())
    for name in ("model.pt", "old.tar"):
        assert refusal(UnsafeError, name) == (
            f"error[UNSAFE]: {name} is in the legacy format of torch before 1.6, which is a bare pickle\n"
            f"Save it again with today's torch.save. {TRUST}"
        )


def test_a_trusted_legacy_checkpoint_loads(here: Path) -> None:
    torch.save(network().state_dict(), "model.pt", _use_new_zipfile_serialization=False)
    loaded = load("model.pt", arch="nets.py:net", trust_pickle=True)
    assert torch.equal(weights(loaded), network().conv.weight)


@pytest.mark.parametrize("trust", [False, True])
def test_a_plain_pickle_is_refused_always(here: Path, trust: bool) -> None:
    Path("model.pkl").write_bytes(pickle.dumps(Canary(here / "canary")))
    assert refusal(UnsafeError, "model.pkl", trust_pickle=trust) == (
        "error[UNSAFE]: model.pkl is a plain Python pickle, not a model file\nSave it with torch.save."
    )


@script
def test_torchscript_is_refused_until_trusted(here: Path) -> None:
    torch.jit.script(network()).save("model.pt")
    assert refusal(UnsafeError, "model.pt") == (
        f"error[UNSAFE]: model.pt is a TorchScript archive, which is a program\n{TRUST}"
    )
    loaded = load("model.pt", trust_pickle=True)
    assert isinstance(loaded.model, torch.jit.ScriptModule)
    assert (loaded.format, loaded.notes) == ("torchscript", (TRUSTED,))


@exported
def test_pt2_is_refused_until_trusted(here: Path) -> None:
    torch.export.save(torch.export.export(network(), (torch.ones(1, 1, 4, 4),)), "model.pt2")
    assert refusal(UnsafeError, "model.pt2") == (
        "error[UNSAFE]: model.pt2 is a .pt2 program with pickled parts ('model/data/sample_inputs/model.pt')\n" + TRUST
    )
    loaded = load("model.pt2", trust_pickle=True)
    assert isinstance(loaded.model, torch.export.ExportedProgram)
    assert (loaded.format, loaded.notes) == ("pt2", (TRUSTED,))


@exported
def test_pt2_without_pickled_parts_is_refused_too(here: Path) -> None:
    torch.export.save(torch.export.export(network(), (torch.ones(1, 1, 4, 4),)), "model.pt2")
    with zipfile.ZipFile("model.pt2") as old, zipfile.ZipFile("bare.pt2", "w") as new:
        for info in old.infolist():
            new.writestr(info.filename, b"" if "sample_inputs" in info.filename else old.read(info))
    assert refusal(UnsafeError, "bare.pt2") == (
        f"error[UNSAFE]: bare.pt2 is a .pt2 program with expressions that torch evaluates as Python\n{TRUST}"
    )


def test_trusted_code_that_cannot_be_imported(here: Path) -> None:
    torch.save(network(), "model.pt")
    with zipfile.ZipFile("model.pt") as old, zipfile.ZipFile("other.pt", "w") as new:
        for info in old.infolist():
            new.writestr(info.filename, old.read(info).replace(b"torch.nn.modules.conv", b"xorch.nn.modules.conv"))
    assert refusal(UnreadableError, "other.pt", trust_pickle=True) == (
        "error[UNREADABLE]: other.pt needs code that cannot be imported: "
        "ModuleNotFoundError: No module named 'xorch'\n"
        "Run from the folder that holds its code, or put that folder on PYTHONPATH."
    )


def test_a_safetensors_header_may_begin_as_a_pickle_does(here: Path) -> None:
    """Its first 8 bytes are its length: of 896 bytes, the first two are those of a pickle's third protocol."""
    for size in range(0, 800, 8):
        safetensors.torch.save_file(network().state_dict(), "net.st", {"note": "x" * size})
        if Path("net.st").read_bytes().startswith(b"\x80\x03"):
            break
    else:
        raise AssertionError("no header has that length")
    assert load("net.st", arch="nets.py:net").format == "safetensors"
