"""Trains the networks of models/architectures.py on scikit-learn's digits and writes what models/ holds.

    python scripts/train_models.py                  everything, a few minutes on one core
    python scripts/train_models.py --only mlp tcn   just these

For each network: `models/NAME.pt` (a state dict) and its row of the table in `models/README.md`, which is printed too.
`models/digits_test.npz` holds the 500 images no network was trained on.

A network is accepted when it classifies at least 95 % of them (the denoiser: when it removes at least half of the
noise), its BatchNorms have positive weights and no shift of more than 256 standard deviations (both as training left
them, nothing is clamped), and its file has at most 1.5 MB. Otherwise the script says so and exits with 1. A recipe
whose BatchNorms are meant to collapse must give the opposite: negative weights, and a larger shift.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

MODELS = Path(__file__).resolve().parent.parent / "models"
TEST_IMAGES = 500
NOISE = 0.25
MIN_ACCURACY = 0.95
MAX_BYTES = 1_500_000
MAX_SHIFT = 256.0
HEADER = "| network | on the test images | parameters | BatchNorms | min gamma | max shift | kB | recipe | seconds |"
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"


@dataclass(frozen=True)
class Recipe:
    """How a network is trained: AdamW, one cycle of the learning rate, batches of at most 64, seed 0.

    Attributes:
        epochs: Passes over the 1,297 training images.
        rate: The highest learning rate.
        decay: Weight decay of Conv and Linear weights; BatchNorms and biases have none.
        collapse: Train with SGD (momentum 0.9) and decay everything, BatchNorms included: most of them go to nothing.
    """

    epochs: int
    rate: float
    decay: float = 0.01
    collapse: bool = False

    def __str__(self) -> str:
        how = ", SGD, all decayed" if self.collapse else ""
        return f"{self.epochs} epochs, lr {self.rate:g}, decay {self.decay:g}{how}"


RECIPES = {
    "mlp": Recipe(epochs=40, rate=0.005),
    "resnet": Recipe(epochs=15, rate=0.005),
    "preact_resnet": Recipe(epochs=15, rate=0.005),
    "preact_collapsed": Recipe(epochs=30, rate=0.3, decay=0.02, collapse=True),
    "iresnet": Recipe(epochs=15, rate=0.003),
    "repvgg": Recipe(epochs=15, rate=0.005),
    "densenet": Recipe(epochs=15, rate=0.005),
    "unet": Recipe(epochs=25, rate=0.005),
    "tcn": Recipe(epochs=30, rate=0.005),
}


@dataclass(frozen=True)
class Digits:
    """The images, `float32[n, 1, 8, 8]` in [0, 1], and their classes, `int64[n]`, split once and for all."""

    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor


def load_data() -> Digits:
    raw = load_digits()
    x = torch.from_numpy((raw.images / 16).astype(np.float32)[:, None])
    y = torch.from_numpy(raw.target.astype(np.int64))
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(x)))
    test, train = order[:TEST_IMAGES], order[TEST_IMAGES:]
    return Digits(x[train], y[train], x[test], y[test])


def load_architectures() -> ModuleType:
    spec = importlib.util.spec_from_file_location("architectures", MODELS / "architectures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def add_noise(images: Tensor, rng: np.random.Generator) -> Tensor:
    return images + NOISE * torch.from_numpy(rng.standard_normal(images.shape, dtype=np.float32))


def batch_norms(model: nn.Module) -> list[nn.BatchNorm1d | nn.BatchNorm2d]:
    return [module for module in model.modules() if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d))]


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    if recipe.collapse:
        return torch.optim.SGD(model.parameters(), lr=recipe.rate, momentum=0.9, weight_decay=recipe.decay)
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": recipe.decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.rate)


def train(model: nn.Module, data: Digits, recipe: Recipe, *, denoise: bool, progress: Progress, name: str) -> None:
    rng = np.random.default_rng(0)
    optimizer = make_optimizer(model, recipe)
    batches = math.ceil(len(data.train_x) / 64)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.rate, total_steps=recipe.epochs * batches)
    bar = progress.add_task(name, total=recipe.epochs * batches)
    model.train()
    for _ in range(recipe.epochs):
        order = torch.from_numpy(rng.permutation(len(data.train_x)))
        for chosen in torch.tensor_split(order, batches):
            x = data.train_x[chosen]
            if denoise:
                loss = F.mse_loss(model(add_noise(x, rng)), x)
            else:
                loss = F.cross_entropy(model(x), data.train_y[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            cycle.step()
            progress.advance(bar)
    model.eval()


@torch.no_grad()
def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    return (model(x).argmax(1) == y).double().mean().item()


@torch.no_grad()
def denoising_errors(model: nn.Module, x: Tensor) -> tuple[float, float]:
    """Mean squared error against the clean images, of the noisy ones and of what the model makes of them."""
    noisy = add_noise(x, np.random.default_rng(1))
    return F.mse_loss(noisy, x).item(), F.mse_loss(model(noisy), x).item()


def largest_shift(norms: list[nn.BatchNorm1d | nn.BatchNorm2d]) -> float:
    """The largest shift a fold could put on a tensor, in standard deviations of that tensor."""
    sigma = [torch.sqrt(bn.running_var + bn.eps) for bn in norms]
    shifts = [bn.bias / bn.weight - bn.running_mean / s for bn, s in zip(norms, sigma, strict=True)]
    return max(shift.abs().max().item() for shift in shifts)


def wrong_norms(name: str, gamma: float, shift: float) -> list[str]:
    """What is wrong with the smallest weight of a network's BatchNorms, and with their largest shift."""
    wanted = "negative" if RECIPES[name].collapse else "positive"
    bound = "above" if RECIPES[name].collapse else "at most"
    wrong = []
    if (gamma < 0) is not (wanted == "negative") or gamma == 0:
        wrong.append(f"{name}: the smallest gamma is {gamma:.3f}, should be {wanted}")
    if (shift > MAX_SHIFT) is not (bound == "above"):
        wrong.append(f"{name}: a shift of {shift:.0f} standard deviations, should be {bound} {MAX_SHIFT:.0f}")
    return wrong


def make(name: str, data: Digits, architectures: ModuleType, progress: Progress) -> tuple[str, list[str]]:
    """Trains one network and writes its checkpoint; gives its row of the table and what is wrong with it."""
    start = time.perf_counter()
    torch.manual_seed(0)
    model = getattr(architectures, name)()
    denoise = name == "unet"
    train(model, data, RECIPES[name], denoise=denoise, progress=progress, name=name)
    path = MODELS / f"{name}.pt"
    torch.save(model.state_dict(), path)
    seconds = time.perf_counter() - start

    norms = batch_norms(model)
    gamma, shift, size = min(bn.weight.min().item() for bn in norms), largest_shift(norms), path.stat().st_size
    wrong = []
    if denoise:
        before, after = denoising_errors(model, data.test_x)
        result = f"MSE {before:.4f} → {after:.4f}"
        if after > before / 2:
            wrong.append(f"{name}: {result}, should be halved at least")
    else:
        right = accuracy(model, data.test_x, data.test_y)
        result = f"{right:.1%}"
        if right < MIN_ACCURACY:
            wrong.append(f"{name}: accuracy {result}, should be at least {MIN_ACCURACY:.0%}")
    wrong += wrong_norms(name, gamma, shift)
    if size > MAX_BYTES:
        wrong.append(f"{name}: {size:,} bytes, should be at most {MAX_BYTES:,}")
    parameters = sum(p.numel() for p in model.parameters())
    cells = [f"`{name}`", result, f"{parameters:,}", str(len(norms)), f"{gamma:.2f}", f"{shift:.1f}"]
    return f"| {' | '.join([*cells, f'{size / 1000:.0f}', str(RECIPES[name]), f'{seconds:.0f}'])} |", wrong


def update_table(rows: dict[str, str], readme: Path) -> str:
    """Puts the new rows into the table of `readme`; the rows of networks not trained this time stay."""
    text = readme.read_text(encoding="utf-8")
    head, table, tail = re.split(f"{BEGIN}|{END}", text)
    old = {match[1]: match[0] for match in re.finditer(r"^\| `(\w+)` .*$", table, re.MULTILINE)}
    merged = old | rows
    lines = [HEADER, "|" + "---|" * HEADER.count(" | ") + "---|", *(merged[name] for name in RECIPES if name in merged)]
    table = "\n".join(lines)
    readme.write_text(f"{head}{BEGIN}\n{table}\n{END}{tail}", encoding="utf-8")
    return table


def main() -> int:
    parser = argparse.ArgumentParser(description="Trains the networks in models/ on scikit-learn's digits.")
    parser.add_argument("--only", nargs="+", choices=RECIPES, default=list(RECIPES), help="train just these networks")
    parser.add_argument(
        "--threads", type=int, default=1, help="threads torch may use (default 1; the weights depend on it)"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.use_deterministic_algorithms(True)

    data, architectures = load_data(), load_architectures()
    np.savez_compressed(MODELS / "digits_test.npz", x=data.test_x.numpy(), y=data.test_y.numpy())
    rows, wrong = {}, []
    columns = TextColumn("{task.description:14}"), BarColumn(), TextColumn("{task.completed}/{task.total} steps")
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as progress:
        for name in arguments.only:
            rows[name], faults = make(name, data, architectures, progress)
            wrong += faults
    print(update_table(rows, MODELS / "README.md"))
    for fault in wrong:
        print(fault, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
