"""What the torch runtime keeps beside the contract; needs PyTorch."""

from __future__ import annotations

import importlib
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from retinue.core.errors import ConfigError, InvalidTensor, UnsupportedModel
from retinue.core.types import TensorSpec
from retinue.testing import onnx_models, torch_models
from retinue.testing.checks import raises
from retinue.testing.runtime_suite import Check, Subject


def _torch() -> Any:
    return importlib.import_module("torch")


def refuses_onnx_and_says_how_to_export(subject: Subject, folder: Path) -> None:
    """An ONNX file is not what it executes."""
    error = raises(UnsupportedModel, subject.factory, onnx_models.aliases(folder / "m.onnx"))
    assert "torch.export.save" in error.message


def computes_in_the_program_s_precision_only(subject: Subject, folder: Path) -> None:
    """A bfloat16 program must be asked for, and is float32 outside."""
    torch = _torch()

    def forward(self: Any, x: Any) -> dict[str, Any]:
        return {"y": x * 3}

    file = torch_models.save(folder / "m", forward, torch.zeros(2, 3, dtype=torch.bfloat16))
    for wrong in ("f32", "f16"):
        error = raises(ConfigError, subject.factory, file, precision=wrong)
        assert 'execution.precision = "bf16"' in error.message
    x = np.array([[1, 1.0078125, 1 + 2**-12]], np.float32)
    with closing(subject.factory(file, precision="bf16")) as runtime:
        assert runtime.inputs == (TensorSpec("x", "float32", (-1, 3)),)
        values = runtime.run({"x": x})["y"]
    assert values.dtype == np.float32
    rounded = np.array(torch.from_numpy(x).bfloat16().float().numpy())
    expected = torch.from_numpy(rounded * 3).bfloat16().float().numpy()
    np.testing.assert_array_equal(values, expected)


def keeps_to_the_exported_batches(subject: Subject, folder: Path) -> None:
    """A batch over the exported limit is refused; one under it is filled up unseen."""
    torch = _torch()

    class Mean(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, x: Any) -> tuple[Any, Any]:
            return x + 1, x.sum(1)

    batch = torch.export.Dim("batch", min=3, max=6)
    program = torch.export.export(Mean(), (torch.zeros(4, 2),), dynamic_shapes=({0: batch},))
    file = folder / "m.pt2"
    torch.export.save(program, file)
    with closing(subject.factory(file)) as runtime:
        assert [spec.name for spec in runtime.outputs] == ["output_0", "output_1"]
        for count in (1, 2, 3, 5, 6):
            x = np.arange(2 * count, dtype=np.float32).reshape(count, 2)
            values = runtime.run({"x": x})
            np.testing.assert_array_equal(values["output_0"], x + 1)
            np.testing.assert_array_equal(values["output_1"], x.sum(1))
        error = raises(InvalidTensor, runtime.run, {"x": np.zeros((7, 2), np.float32)})
        assert "up to 6" in error.message


def fills_up_only_what_has_a_row_an_item(subject: Subject, folder: Path) -> None:
    """An input that belongs to the whole batch is left as it is when the batch is filled up."""
    torch = _torch()

    class Scaled(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, x: Any, mean: Any, scale: Any) -> dict[str, Any]:
            return {"y": (x - mean.sum(0)) * scale}

    batch = torch.export.Dim("batch", min=3, max=6)
    examples = (torch.zeros(4, 2), torch.zeros(2, 2), torch.tensor(1.0))
    program = torch.export.export(Scaled(), examples, dynamic_shapes=({0: batch}, None, None))
    file = folder / "m.pt2"
    torch.export.save(program, file)
    x, mean, scale = np.arange(4, dtype=np.float32).reshape(2, 2), np.eye(2), np.array(3)
    with closing(subject.factory(file)) as runtime:
        values = runtime.run(
            {"x": x, "mean": mean.astype(np.float32), "scale": scale.astype(np.float32)}
        )
    np.testing.assert_array_equal(values["y"], (x - 1) * 3)


def returns_rows_that_the_data_decide(subject: Subject, folder: Path) -> None:
    """An output whose size depends on the values is returned whole."""
    torch = _torch()

    def forward(self: Any, x: Any) -> dict[str, Any]:
        return {"where": x.nonzero(), "half": x / 2}

    file = torch_models.save(folder / "m", forward, torch.ones(2, 3))
    x = np.array([[0, 1, 0], [2, 0, 3]], np.float32)
    with closing(subject.factory(file)) as runtime:
        values = runtime.run({"x": x})
    np.testing.assert_array_equal(values["where"], np.argwhere(x))
    np.testing.assert_array_equal(values["half"], x / 2)


def refuses_what_is_no_tensor(subject: Subject, folder: Path) -> None:
    """A program that returns a number beside its tensors is refused."""
    torch = _torch()

    def forward(self: Any, x: Any) -> dict[str, Any]:
        return {"y": x, "version": 3}

    file = torch_models.save(folder / "m", forward, torch.ones(2, 3))
    error = raises(UnsupportedModel, subject.factory, file)
    assert "only tensors" in error.message


CHECKS: tuple[Check, ...] = (
    refuses_onnx_and_says_how_to_export,
    computes_in_the_program_s_precision_only,
    keeps_to_the_exported_batches,
    fills_up_only_what_has_a_row_an_item,
    returns_rows_that_the_data_decide,
    refuses_what_is_no_tensor,
)
