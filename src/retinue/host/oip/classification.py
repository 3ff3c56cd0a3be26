"""The protocol's classification extension: the best classes in place of all scores.

Source:
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_classification.md
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from retinue.core.errors import InvalidTensor
from retinue.core.types import Array
from retinue.host.oip.tensors import objects


def classify(scores: Array, count: int, labels: Sequence[str], name: str) -> Array:
    """Return the best elements of each row as "score:index:label", best first.

    Args:
        scores: (N, ...) numbers; a row's elements count from 0 in row-major order. Of equal ones
            the first goes first; NaN counts as the lowest.
        count: How many are wanted; where a row has fewer, all of them.
        labels: Names of the elements; one without a name is "score:index".
        name: The output's name, for the message.

    Returns:
        (N, min(count, elements of a row)) ``object`` array of `bytes`.

    Raises:
        InvalidTensor: the output has no numbers, or no rows.
    """
    if scores.dtype.kind not in "fiub" or scores.ndim == 0:
        raise InvalidTensor(f"output {name!r} has no scores to classify by; leave that out")
    rows = scores.reshape(len(scores), math.prod(scores.shape[1:]))
    best = min(count, rows.shape[1])
    found = [text for row in rows for text in _best(row, best, labels)]
    return objects(found, (len(rows), best))


def _best(row: Array, count: int, labels: Sequence[str]) -> list[bytes]:
    number = "{:f}" if row.dtype.kind == "f" else "{:d}"
    order = np.where(np.isnan(row), -np.inf, row) if row.dtype.kind == "f" else row
    if count == 0:
        return []
    bound = np.partition(order, len(order) - count)[len(order) - count]
    near = np.flatnonzero(order >= bound)
    # Descending, and stable: the first of equal ones stays first.
    rising = np.argsort(order[near][::-1], kind="stable")
    best = near[::-1][rising][::-1][:count]
    texts = []
    for index in best.tolist():
        label = f":{labels[index]}" if index < len(labels) and labels[index] else ""
        texts.append(f"{number.format(row[index].item())}:{index}{label}".encode())
    return texts
