"""Converts a tiny TFJS graph, runs it, and compares: what tests of operators are made of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnxruntime as ort  # type: ignore[import-untyped]

from retinue.core.types import Array
from retinue.models.importers.tfjs import convert
from retinue.testing.tfjs import TinyGraph, to_model_order


def run(graph: TinyGraph, feeds: Mapping[str, Array]) -> list[Array]:
    """Convert a graph and run it.

    Args:
        graph: Its only picture, if it has one, is called "x".
        feeds: Input name to array, in TensorFlow's order.

    Returns:
        The outputs, sorted by name.
    """
    with TemporaryDirectory() as folder:
        model = convert(graph.write(Path(folder)))
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = {
        tensor.name: to_model_order(
            feeds["x" if tensor.name == "images" else tensor.name], tensor.shape
        )
        for tensor in session.get_inputs()
    }
    return list(session.run(None, found))


def call(op: str, *values: Any, outputs: int = 1, **attributes: Any) -> list[Array]:
    """Run one operator.

    Args:
        op: Its TensorFlow name.
        values: A float array of at least one dimension is an input whose first dimension is the
            batch; anything else is a constant.
        outputs: How many it has.
        attributes: As `retinue.testing.tfjs.attribute` reads them.
    """
    graph, feeds, names = TinyGraph(), {}, []
    for at, value in enumerate(values):
        name = f"x{at or ''}"
        if isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.ndim:
            graph.input(name, (None, *value.shape[1:]))
            feeds[name] = value
        else:
            graph.const(name, value)
        names.append(name)
    graph.node("n", op, *names, **attributes)
    for at in range(outputs):
        graph.node(f"y{at}", "Identity", f"n:{at}")
        graph.outputs[f"y{at}"] = f"y{at}"
    return run(graph, feeds)


def same(actual: Array, expected: Any, tolerance: float = 1e-5) -> None:
    """Assert that shapes are equal, integers and truth values exact, and floats close."""
    expected = np.asarray(expected)
    assert actual.shape == expected.shape
    if expected.dtype.kind in "ib":
        assert actual.dtype == (np.bool_ if expected.dtype.kind == "b" else np.int32)
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)
