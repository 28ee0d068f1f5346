"""Eight small networks, one for each place BatchNorm is put in practice.

    mlp             Linear → BN → ReLU
    resnet          Conv → BN → ReLU, BN again before the sum
    preact_resnet   BN → ReLU → Conv, on a residual stream no BN has touched
    iresnet         BN → zero-padded Conv → BN → PReLU → Conv → BN, plus the stream (ArcFace)
    repvgg          3×3 + BN, 1×1 + BN and a bare BN, summed (the form it is trained in)
    densenet        BN → ReLU → Conv on everything made so far (DenseNet-BC)
    unet            Conv → BN → ReLU, MaxPool, ConvTranspose → BN, Concat → BN → Conv
    tcn             causal, dilated Conv1d → BN → ReLU, residual

All of them take handwritten digits, `float32[n, 1, 8, 8]` in [0, 1]. They give `float32[n, 10]` logits, except for
`unet`, which takes noisy digits and gives clean ones. `scripts/train_models.py` writes their weights to the files
beside this one. They stand in one file because `--arch FILE:NAME` names one; each is read without the others.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CLASSES = 10


class DigitNet(nn.Module):
    """A network on 8×8 images, which says what it takes.

    Attributes:
        example_input_array: One input, `float32[1, 1, 8, 8]` (the name is Lightning's convention).
    """

    def __init__(self) -> None:
        super().__init__()
        self.example_input_array = torch.zeros(1, 1, 8, 8)


def conv3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """A bias-less convolution that keeps the size, before its stride."""
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)


def conv1x1(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """A bias-less linear map of the channels at each position."""
    return nn.Conv2d(inputs, outputs, 1, stride, bias=False)


def conv_bn_relu(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """The classic order: the BatchNorm right behind its convolution."""
    return nn.Sequential(conv3x3(inputs, outputs, stride), nn.BatchNorm2d(outputs), nn.ReLU())


def classifier(features: int) -> nn.Sequential:
    """Mean over the image, then logits."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(features, CLASSES))


class MLP(DigitNet):
    """Two hidden layers, Linear → BN → ReLU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(64, width, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Linear(width, CLASSES),
        )

    def forward(self, image: Tensor) -> Tensor:
        return self.layers(image)


class BasicBlock(nn.Module):
    """He et al. 2015: `relu(x + bn(conv(relu(bn(conv(x))))))`."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv_bn_relu(inputs, outputs, stride), conv3x3(outputs, outputs), nn.BatchNorm2d(outputs)
        )
        same = stride == 1 and inputs == outputs
        self.shortcut = (
            nn.Identity() if same else nn.Sequential(conv1x1(inputs, outputs, stride), nn.BatchNorm2d(outputs))
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.shortcut(x))


class ResNet(DigitNet):
    """Two stages of two basic blocks."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = conv_bn_relu(1, width)
        self.blocks = nn.Sequential(
            BasicBlock(width, width, 1),
            BasicBlock(width, width, 1),
            BasicBlock(width, 2 * width, 2),
            BasicBlock(2 * width, 2 * width, 1),
        )
        self.head = classifier(2 * width)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(image)))


class PreActBlock(nn.Module):
    """He et al. 2016: `x + conv(relu(bn(conv(relu(bn(x))))))`; the stream itself is never normalised."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.ReLU(),
            conv3x3(inputs, outputs, stride),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            conv3x3(outputs, outputs),
        )
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else conv1x1(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.body(x)


class PreActResNet(DigitNet):
    """Eight pre-activation blocks in two stages, and a last BN → ReLU: 17 BatchNorms."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = conv3x3(1, width)
        self.blocks = nn.Sequential(
            *(PreActBlock(width, width, 1) for _ in range(4)),
            PreActBlock(width, 2 * width, 2),
            *(PreActBlock(2 * width, 2 * width, 1) for _ in range(3)),
        )
        self.last = nn.Sequential(nn.BatchNorm2d(2 * width), nn.ReLU())
        self.head = classifier(2 * width)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.last(self.blocks(self.stem(image))))


class ArcFaceBlock(nn.Module):
    """Deng et al. 2019: the BatchNorm stands before a convolution that pads with zeros."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(inputs),
            conv3x3(inputs, outputs),
            nn.BatchNorm2d(outputs),
            nn.PReLU(outputs),
            conv3x3(outputs, outputs, stride),
            nn.BatchNorm2d(outputs),
        )
        same = stride == 1 and inputs == outputs
        self.shortcut = (
            nn.Identity() if same else nn.Sequential(conv1x1(inputs, outputs, stride), nn.BatchNorm2d(outputs))
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.shortcut(x)


class IResNet(DigitNet):
    """ArcFace's backbone: the embedding is Linear → BN, and a plain Linear classifies it."""

    def __init__(self, width: int, embedding: int = 64) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv3x3(1, width), nn.BatchNorm2d(width), nn.PReLU(width))
        self.blocks = nn.Sequential(
            ArcFaceBlock(width, width, 1),
            ArcFaceBlock(width, width, 1),
            ArcFaceBlock(width, 2 * width, 2),
            ArcFaceBlock(2 * width, 2 * width, 1),
            ArcFaceBlock(2 * width, 2 * width, 1),
        )
        self.embed = nn.Sequential(
            nn.BatchNorm2d(2 * width),
            nn.Dropout(0.2),
            nn.Flatten(),
            nn.Linear(2 * width * 16, embedding),
            nn.BatchNorm1d(embedding),
        )
        self.head = nn.Linear(embedding, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.embed(self.blocks(self.stem(image))))


class RepVGGBlock(nn.Module):
    """Ding et al. 2021, as trained: three linear branches with a BatchNorm each, then ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.dense = nn.Sequential(conv3x3(inputs, outputs, stride), nn.BatchNorm2d(outputs))
        self.point = nn.Sequential(conv1x1(inputs, outputs, stride), nn.BatchNorm2d(outputs))
        same = stride == 1 and inputs == outputs
        self.identity = nn.BatchNorm2d(inputs) if same else None

    def forward(self, x: Tensor) -> Tensor:
        total = self.dense(x) + self.point(x)
        return F.relu(total if self.identity is None else total + self.identity(x))


class RepVGG(DigitNet):
    """Two stages of three blocks; the first block of a stage changes the shape and has no identity branch."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            RepVGGBlock(1, width),
            RepVGGBlock(width, width),
            RepVGGBlock(width, width),
            RepVGGBlock(width, 2 * width, 2),
            RepVGGBlock(2 * width, 2 * width),
            RepVGGBlock(2 * width, 2 * width),
        )
        self.head = classifier(2 * width)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.blocks(image))


class DenseLayer(nn.Module):
    """Huang et al. 2017 with a bottleneck: appends `growth` channels to all that came before."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.ReLU(),
            conv1x1(inputs, 4 * growth),
            nn.BatchNorm2d(4 * growth),
            nn.ReLU(),
            conv3x3(4 * growth, growth),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.body(x)], dim=1)


class DenseNet(DigitNet):
    """Three dense blocks of `depth` layers; a transition halves channels and size."""

    def __init__(self, growth: int, depth: int = 4, blocks: int = 3) -> None:
        super().__init__()
        channels = 2 * growth
        layers: list[nn.Module] = [conv3x3(1, channels)]
        for block in range(blocks):
            for _ in range(depth):
                layers.append(DenseLayer(channels, growth))
                channels += growth
            if block < blocks - 1:
                layers += [nn.BatchNorm2d(channels), nn.ReLU(), conv1x1(channels, channels // 2), nn.AvgPool2d(2)]
                channels //= 2
        self.features = nn.Sequential(*layers, nn.BatchNorm2d(channels), nn.ReLU())
        self.head = classifier(channels)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.features(image))


class Up(nn.Module):
    """Doubles the size, then joins what the encoder had at that size."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.grow = nn.Sequential(
            nn.ConvTranspose2d(inputs, outputs, 2, stride=2, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
        )
        self.join = nn.Sequential(nn.BatchNorm2d(2 * outputs), conv1x1(2 * outputs, outputs))
        self.refine = nn.Sequential(nn.BatchNorm2d(outputs), nn.ReLU(), conv_bn_relu(outputs, outputs))

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.refine(self.join(torch.cat([skip, self.grow(x)], dim=1)))


class UNet(DigitNet):
    """A denoiser: estimates the noise at three sizes and takes it away."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fine = nn.Sequential(conv_bn_relu(1, width), conv_bn_relu(width, width))
        self.middle = nn.Sequential(conv_bn_relu(width, 2 * width), conv_bn_relu(2 * width, 2 * width))
        self.coarse = nn.Sequential(conv_bn_relu(2 * width, 4 * width), conv_bn_relu(4 * width, 4 * width))
        self.pool = nn.MaxPool2d(2)
        self.up_middle = Up(4 * width, 2 * width)
        self.up_fine = Up(2 * width, width)
        self.noise = nn.Conv2d(width, 1, 1)

    def forward(self, noisy: Tensor) -> Tensor:
        fine = self.fine(noisy)
        middle = self.middle(self.pool(fine))
        coarse = self.coarse(self.pool(middle))
        return noisy - self.noise(self.up_fine(self.up_middle(coarse, middle), fine))


class CausalConv(nn.Module):
    """A Conv1d that sees no later step: the zeros go in front, as an operator of their own."""

    def __init__(self, inputs: int, outputs: int, dilation: int) -> None:
        super().__init__()
        self.past = 2 * dilation
        self.conv = nn.Conv1d(inputs, outputs, 3, dilation=dilation, bias=False)

    def forward(self, steps: Tensor) -> Tensor:
        return self.conv(F.pad(steps, (self.past, 0)))


class TemporalBlock(nn.Module):
    """Bai et al. 2018 with BatchNorm: `relu(x + bn(conv(relu(bn(conv(x))))))` over time."""

    def __init__(self, inputs: int, outputs: int, dilation: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            CausalConv(inputs, outputs, dilation),
            nn.BatchNorm1d(outputs),
            nn.ReLU(),
            CausalConv(outputs, outputs, dilation),
            nn.BatchNorm1d(outputs),
        )
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv1d(inputs, outputs, 1)

    def forward(self, steps: Tensor) -> Tensor:
        return F.relu(self.body(steps) + self.shortcut(steps))


class TCN(DigitNet):
    """Reads the image as 8 steps in time (its rows) of 8 channels (its columns)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            TemporalBlock(8, width, 1), TemporalBlock(width, width, 2), TemporalBlock(width, width, 4)
        )
        self.head = nn.Linear(width, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        steps = image.squeeze(1).transpose(1, 2)
        return self.head(self.blocks(steps).mean(dim=2))


def mlp(width: int = 64) -> MLP:
    """Linear → BN → ReLU, twice."""
    return MLP(width)


def resnet(width: int = 16) -> ResNet:
    """Conv → BN → ReLU basic blocks."""
    return ResNet(width)


def preact_resnet(width: int = 24) -> PreActResNet:
    """BN → ReLU → Conv on a residual stream, 17 BatchNorms."""
    return PreActResNet(width)


def preact_collapsed(width: int = 24) -> PreActResNet:
    """The same network, for the checkpoint whose BatchNorms training has driven to nothing."""
    return preact_resnet(width)


def iresnet(width: int = 16) -> IResNet:
    """ArcFace's blocks: a BatchNorm before zero padding, and PReLU."""
    return IResNet(width)


def repvgg(width: int = 24) -> RepVGG:
    """Three parallel branches with a BatchNorm each."""
    return RepVGG(width)


def densenet(growth: int = 12) -> DenseNet:
    """Feature maps that are read through many BatchNorms."""
    return DenseNet(growth)


def unet(width: int = 16) -> UNet:
    """A denoiser with MaxPool, ConvTranspose and Concat."""
    return UNet(width)


def tcn(width: int = 64) -> TCN:
    """Causal, dilated convolutions over time."""
    return TCN(width)
