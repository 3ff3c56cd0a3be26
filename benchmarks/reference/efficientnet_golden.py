"""Makes tests/unit/fixtures/efficientnet_lite0_golden.npz with PyTorch.

    python efficientnet_golden.py WEIGHTS.pth OUT.npz

Needs torch (tried with 2.13.0) and NumPy only. The network is written from the published
architecture on unfused convolutions and batch normalisations; it shares no code with the importer.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from patterns import efficientnet_input

# (repeats, kernel, stride, expansion) of EfficientNet's seven stages.
STAGES = [
    (1, 3, 1, 1),
    (2, 3, 2, 6),
    (2, 5, 2, 6),
    (3, 3, 2, 6),
    (3, 5, 1, 6),
    (4, 5, 2, 6),
    (1, 3, 1, 6),
]


def same_conv(
    x: torch.Tensor, weight: torch.Tensor, stride: int = 1, groups: int = 1
) -> torch.Tensor:
    pads: list[int] = []
    for size, kernel in ((x.shape[3], weight.shape[3]), (x.shape[2], weight.shape[2])):
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        pads += [total // 2, total - total // 2]
    return F.conv2d(F.pad(x, pads), weight, stride=stride, groups=groups)


def network(state: dict[str, torch.Tensor], x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return F.batch_norm(
            x,
            state[f"{name}.running_mean"],
            state[f"{name}.running_var"],
            state[f"{name}.weight"],
            state[f"{name}.bias"],
            eps=1e-3,
        )

    x = F.relu6(norm(same_conv(x, state["_conv_stem.weight"], 2), "_bn0"))
    index = 0
    for repeats, kernel, first_stride, expansion in STAGES:
        for repeat in range(repeats):
            name, before = f"_blocks.{index}.", x
            stride = first_stride if repeat == 0 else 1
            if expansion > 1:
                x = F.relu6(norm(same_conv(x, state[name + "_expand_conv.weight"]), name + "_bn0"))
            weight = state[name + "_depthwise_conv.weight"]
            assert weight.shape[2] == kernel
            x = F.relu6(norm(same_conv(x, weight, stride, len(weight)), name + "_bn1"))
            x = norm(same_conv(x, state[name + "_project_conv.weight"]), name + "_bn2")
            if stride == 1 and x.shape == before.shape:
                x = x + before
            index += 1
    x = F.relu6(norm(same_conv(x, state["_conv_head.weight"]), "_bn1"))
    embedding = x.mean((2, 3))
    logits = F.linear(embedding, state["_fc.weight"], state["_fc.bias"])
    return logits.softmax(1), embedding


def main(weights: str, out: str) -> None:
    state = torch.load(weights, map_location="cpu", weights_only=True)
    state = {name: tensor.double() for name, tensor in state.items()}
    x = torch.from_numpy(efficientnet_input()).double()
    with torch.inference_mode():
        probabilities, embedding = network(state, x)
    np.savez_compressed(
        out, probabilities=probabilities.float().numpy(), embedding=embedding.float().numpy()
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
