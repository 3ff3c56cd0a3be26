"""What the checks of `retinue.testing.oip_suite` are told of a server's models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from retinue.core.types import Array
from retinue.host.oip.tensors import objects
from retinue.testing.oip_clients import Front


@dataclass(frozen=True, slots=True)
class Served:
    """A model that a server serves, and what it does.

    Attributes:
        model: Its name.
        rows: Makes all inputs with so many rows, the first dimension; no two rows are equal.
        expected: The outputs for inputs.
        labels: The class names of its first output's elements, empty if it has none.
        tolerance: How far numbers may be off, relative and absolute.
    """

    model: str
    rows: Callable[[int], Mapping[str, Array]]
    expected: Callable[[Mapping[str, Array]], Mapping[str, Array]]
    labels: tuple[str, ...] = ()
    tolerance: float = 0.0


@dataclass(frozen=True, slots=True)
class Images:
    """A detector that takes encoded image files.

    Attributes:
        model: Its name.
        files: Files that it can read.
        found: How many detections it answers with for each of them.
        bad: A file that it cannot read.
    """

    model: str
    files: tuple[bytes, ...]
    found: tuple[int, ...]
    bad: bytes


@dataclass(frozen=True, slots=True)
class Subject:
    """What is checked.

    Attributes:
        front: The server's front.
        numbers: A model of numbers.
        texts: A model of BYTES.
        labelled: A model whose output has labels.
        images: A model for image files, for `EXTRAS`.
        spare: Name of a model that may be loaded and unloaded, for `CONTROL`.
    """

    front: Front
    numbers: Served
    texts: Served | None = None
    labelled: Served | None = None
    images: Images | None = None
    spare: str = ""


def identity(
    model: str, tensor: str, dtype: str, columns: int, *, labels: tuple[str, ...] = ()
) -> Served:
    """Describe a model that gives back its only input, ``tensor``, as ``tensor_out``.

    Args:
        model: Its name.
        tensor: The input's name.
        dtype: NumPy name of its element type, "object" for BYTES.
        columns: Its shape is (N, columns).
        labels: The output's labels.
    """

    def rows(count: int) -> Mapping[str, Array]:
        if dtype == "object":
            values = [b"row %d \xc3\xa9" % i for i in range(count * columns)]
            return {tensor: objects(values, (count, columns))}
        return {tensor: np.arange(count * columns).reshape(count, columns).astype(dtype)}

    def expected(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        return {f"{tensor}_out": inputs[tensor]}

    return Served(model, rows, expected, labels)
