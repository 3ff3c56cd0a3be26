"""The best classes against the obvious way to find them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from retinue.core.errors import InvalidTensor
from retinue.core.types import Array
from retinue.host.oip.classification import classify
from retinue.host.oip.tensors import objects


def slow(row: Array, count: int) -> list[bytes]:
    values = row.reshape(-1).tolist()
    keys = [np.inf if value != value else -value for value in values]
    order = sorted(range(len(values)), key=lambda i: (keys[i], i))
    number = "{:f}" if row.dtype.kind == "f" else "{:d}"
    return [f"{number.format(values[i])}:{i}".encode() for i in order[:count]]


@given(
    hnp.arrays(
        st.sampled_from([np.float32, np.float16, np.int64, np.uint8, np.bool_]),
        hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=5),
    ),
    st.integers(1, 9),
)
def test_the_best_are_those_that_sorting_all_gives(scores: Array, count: int) -> None:
    found = classify(scores, count, (), "y")
    rows = scores.reshape(len(scores), math.prod(scores.shape[1:]))
    assert found.shape == (len(scores), min(count, rows.shape[1]))
    assert found.tolist() == [slow(row, count) for row in rows]


def test_equal_scores_keep_their_order_and_labels_follow() -> None:
    scores = np.array([[1, 2, 2, 1]], np.float32)
    labels = ("a", "b", "")
    assert classify(scores, 4, labels, "y").tolist() == [
        [b"2.000000:1:b", b"2.000000:2", b"1.000000:0:a", b"1.000000:3"]
    ]


def test_what_has_no_scores_is_refused() -> None:
    for array in (objects([b"a"], (1,)), np.float32(1).reshape(())):
        with pytest.raises(InvalidTensor, match="no scores"):
            classify(array, 1, (), "y")
