"""The networks of `retinue.testing.onnx_models` as ``torch.export`` programs; needs PyTorch."""

from __future__ import annotations

import importlib
import zipfile
from pathlib import Path
from typing import Any

from retinue.testing.onnx_models import convolution_weights

LARGEST = 64
"""The largest batch that the programs take."""


def save(path: Path, forward: Any, *examples: Any) -> Path:
    """Export a function of named tensors, whose first dimension may vary, beside ``path``.

    Args:
        path: Where to; its suffix becomes ``.pt2``.
        forward: Takes ``(self, tensor, ...)``, returns a dictionary of tensors.
        examples: One tensor for each argument, of two items.
    """
    torch: Any = importlib.import_module("torch")
    module = type("Network", (torch.nn.Module,), {"forward": forward})().eval()
    batch = torch.export.Dim("batch", min=1, max=LARGEST)
    program = torch.export.export(
        module, examples, dynamic_shapes=tuple({0: batch} for _ in examples)
    )
    file = path.with_suffix(".pt2")
    torch.export.save(program, file)
    return file


def convolution(path: Path) -> Path:
    """Write `retinue.testing.onnx_models.convolution`."""
    torch: Any = importlib.import_module("torch")
    weights = {name: torch.from_numpy(array) for name, array in convolution_weights().items()}

    def forward(self: Any, picture: Any) -> dict[str, Any]:
        found = torch.nn.functional.conv2d(picture, weights["kernel"], weights["bias"], padding=1)
        features = torch.relu(found).mean((2, 3))
        return {"features": features, "scores": features @ weights["linear"]}

    return save(path, forward, torch.zeros(2, 3, 8, 8))


def two_inputs(path: Path) -> Path:
    """Write `retinue.testing.onnx_models.two_inputs`."""
    torch: Any = importlib.import_module("torch")

    def forward(self: Any, left: Any, right: Any) -> dict[str, Any]:
        return {"total": left + right.to(torch.float32)}

    return save(path, forward, torch.zeros(2, 2), torch.zeros(2, 2, dtype=torch.int64))


def aliases(path: Path) -> Path:
    """Write `retinue.testing.onnx_models.aliases`."""
    torch: Any = importlib.import_module("torch")

    def forward(self: Any, x: Any) -> dict[str, Any]:
        doubled = x + x
        return {"doubled": doubled, "again:0": doubled, "positive": torch.relu(doubled)}

    return save(path, forward, torch.zeros(2, 3))


def unknown_operator(path: Path) -> Path:
    """Write a program with an operator that nobody has registered."""
    whole = aliases(path.with_stem("whole"))
    file = path.with_suffix(".pt2")
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(file, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            content = content.replace(
                b"torch.ops.aten.relu.default", b"torch.ops.my.NoSuchOperator"
            )
            target.writestr(name, content)
    return file
