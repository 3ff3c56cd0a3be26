"""The two networks that are measured, with random weights: their speed is that of trained ones.

`VisionTransformer` at its defaults is the image side of CLIP ViT-L/14 (Radford et al. 2021): 24
layers, width 1024, 16 heads, patches of 14, 304 million weights. `ResNet` at its defaults is
ResNet-50 v1.5 (He et al. 2015, stride in the 3x3 convolution). Both take uint8 images, so that a
224 x 224 image is 150,528 bytes on its way to the device, and normalise them inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional


class Block(nn.Module):
    """One layer of a transformer: attention, then a perceptron, each after a layer norm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention = nn.LayerNorm(width)
        self.attend = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.before_perceptron = nn.LayerNorm(width)
        self.widen = nn.Linear(width, 4 * width)
        self.narrow = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, L, C) to (N, L, C)."""
        split = self.attend(self.before_attention(x)).unflatten(2, (3, self.heads, -1))
        query, key, value = split.permute(2, 0, 3, 1, 4).unbind(0)
        attended = functional.scaled_dot_product_attention(query, key, value)
        x = x + self.project(attended.transpose(1, 2).flatten(2))
        return x + self.narrow(functional.gelu(self.widen(self.before_perceptron(x))))


class VisionTransformer(nn.Module):
    """Images to embeddings."""

    def __init__(
        self,
        *,
        size: int = 224,
        patch: int = 14,
        width: int = 1024,
        layers: int = 24,
        heads: int = 16,
        embedding: int = 768,
    ) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, stride=patch, bias=False)
        self.first = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.places = nn.Parameter(0.02 * torch.randn(1, (size // patch) ** 2 + 1, width))
        self.before = nn.LayerNorm(width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.after = nn.LayerNorm(width)
        self.embed = nn.Linear(width, embedding, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised images (N, 3, H, W) to embeddings (N, E)."""
        patches = self.patches(x).flatten(2).transpose(1, 2)
        rows = torch.cat([self.first.expand(x.shape[0], -1, -1), patches], dim=1)
        rows = self.blocks(self.before(rows + self.places))
        return self.embed(self.after(rows[:, 0]))


class Bottleneck(nn.Module):
    """ResNet's block: 1x1, 3x3 (with the stride), 1x1, and a way around."""

    def __init__(self, inner: int, outer: int, stride: int, before: int) -> None:
        super().__init__()

        def normed(convolution: nn.Conv2d) -> nn.Sequential:
            return nn.Sequential(convolution, nn.BatchNorm2d(convolution.out_channels))

        self.reduce = normed(nn.Conv2d(before, inner, 1, bias=False))
        self.middle = normed(nn.Conv2d(inner, inner, 3, stride=stride, padding=1, bias=False))
        self.expand = normed(nn.Conv2d(inner, outer, 1, bias=False))
        straight = before == outer and stride == 1
        self.around = (
            nn.Identity()
            if straight
            else normed(nn.Conv2d(before, outer, 1, stride=stride, bias=False))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, outer, H / stride, W / stride)."""
        inner = functional.relu(self.reduce(x))
        inner = functional.relu(self.middle(inner))
        return functional.relu(self.expand(inner) + self.around(x))


class ResNet(nn.Module):
    """Images to scores of classes."""

    def __init__(
        self, *, depths: tuple[int, ...] = (3, 4, 6, 3), base: int = 64, classes: int = 1000
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, base, 7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(base),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        blocks, before = [], base
        for stage, depth in enumerate(depths):
            inner = base << stage
            for index in range(depth):
                stride = 2 if stage and not index else 1
                blocks.append(Bottleneck(inner, 4 * inner, stride, before))
                before = 4 * inner
        self.blocks = nn.Sequential(*blocks)
        self.score = nn.Linear(before, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised images (N, 3, H, W) to scores (N, classes)."""
        return self.score(self.blocks(self.stem(x)).mean((2, 3)))


class OfBytes(nn.Module):
    """A network of uint8 images: normalises, computes in its own type, answers in float32."""

    def __init__(self, network: nn.Module, dtype: torch.dtype, layout: torch.memory_format) -> None:
        super().__init__()
        self.network = network.to(dtype=dtype, memory_format=layout)
        self.dtype, self.layout = dtype, layout

    def forward(self, images: Tensor) -> Tensor:
        """Map uint8 images (N, 3, H, W) to float32 (N, outputs)."""
        x = images.to(self.dtype).contiguous(memory_format=self.layout)
        return self.network(x / 127.5 - 1).float()


@dataclass(frozen=True)
class Network:
    """One of the networks.

    Attributes:
        name: What it is served as.
        title: What tables call it.
        precision: The type that it computes in, as Retinue's settings name it.
        size: Height and width of its images in pixels.
    """

    name: str
    title: str
    precision: str
    size: int

    def build(self, device: str) -> OfBytes:
        """Return it on a device, with the same random weights every time."""
        torch.manual_seed(0)
        with torch.device(device):
            if self.name == "vit":
                inner = VisionTransformer() if self.size == 224 else _tiny_transformer(self.size)
                made = OfBytes(inner, torch.bfloat16, torch.contiguous_format)
            else:
                inner = ResNet() if self.size == 224 else ResNet(depths=(1, 1, 1, 1), base=8)
                made = OfBytes(inner, torch.float16, torch.channels_last)
        return made.eval().requires_grad_(False)


def _tiny_transformer(size: int) -> VisionTransformer:
    return VisionTransformer(size=size, width=64, layers=2, heads=4, embedding=16)


FULL = (
    Network("vit", "ViT-L/14, bf16", "bf16", 224),
    Network("resnet", "ResNet-50, fp16", "f16", 224),
)
TINY = (
    Network("vit", "tiny ViT, bf16", "bf16", 56),
    Network("resnet", "tiny ResNet, fp16", "f16", 56),
)


def chosen(names: Sequence[str], *, tiny: bool) -> list[Network]:
    """Return the networks with these names."""
    return [one for one in (TINY if tiny else FULL) if one.name in names]


def export(network: Network, device: str, path: Path) -> None:
    """Write a network as a program of ``torch.export``, for batches of 1 to 256."""
    model = network.build(device)
    example = torch.zeros(4, 3, network.size, network.size, dtype=torch.uint8, device=device)
    batch = torch.export.Dim("batch", min=1, max=256)
    with torch.inference_mode():
        program = torch.export.export(model, (example,), dynamic_shapes={"images": {0: batch}})
    torch.export.save(program, path)
