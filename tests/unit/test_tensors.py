"""Messages and cases of the tensor check that runtimes and the server share."""

import numpy as np
import pytest

from retinue.core.errors import InvalidTensor
from retinue.core.types import TensorSpec
from retinue.runtimes.tensors import check, describe

IMAGES = TensorSpec("images", "float32", (-1, 3, 8, 8))
SIZES = TensorSpec("sizes", "int64", (-1, 2))
FREE = TensorSpec("free", "float32", (-1, 3, -1, -1))
FIXED = TensorSpec("fixed", "uint8", (2,))


def test_a_fitting_batch_passes() -> None:
    check(
        {"sizes": np.ones((4, 2), np.int64), "images": np.ones((4, 3, 8, 8), np.float32)},
        (IMAGES, SIZES),
    )
    check({"free": np.ones((1, 3, 5, 7), np.float32)}, (FREE,))
    check({"fixed": np.ones(2, np.uint8)}, (FIXED,))


def test_a_spec_reads_well() -> None:
    assert describe(IMAGES) == "float32 (N, 3, 8, 8)"
    assert describe(FREE) == "float32 (N, 3, ?, ?)"
    assert describe(FIXED) == "uint8 (2,)"


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (np.ones((1, 3, 8, 8)), ["'images'", "float32 (N, 3, 8, 8)", "got dtype float64"]),
        (np.ones((1, 3, 8, 8), ">f4"), ["byte-swapped float32"]),
        (np.ones((3, 8, 8), np.float32), ["got shape (3, 8, 8)"]),
        (np.ones((1, 3, 9, 8), np.float32), ["got shape (1, 3, 9, 8)"]),
        (np.ones((0, 3, 8, 8), np.float32), ["got shape (0, 3, 8, 8)", "at least one item"]),
        ([[1.0]], ["expected an array, got list"]),
    ],
)
def test_a_wrong_tensor_is_named_with_what_was_expected(tensor: object, words: list[str]) -> None:
    with pytest.raises(InvalidTensor) as caught:
        check({"images": tensor}, (IMAGES,))  # type: ignore[dict-item]
    assert all(word in caught.value.message for word in words)


def test_missing_and_unknown_tensors_are_named() -> None:
    with pytest.raises(InvalidTensor, match=r"missing \['images'\], unknown \['image'\].*float32"):
        check({"image": np.ones((1, 3, 8, 8), np.float32)}, (IMAGES,))


def test_tensors_agree_on_the_batch() -> None:
    tensors = {"images": np.ones((2, 3, 8, 8), np.float32), "sizes": np.ones((3, 2), np.int64)}
    with pytest.raises(InvalidTensor, match="disagree"):
        check(tensors, (IMAGES, SIZES))


def test_an_empty_free_dimension_is_refused() -> None:
    with pytest.raises(InvalidTensor, match="free"):
        check({"free": np.ones((1, 3, 0, 7), np.float32)}, (FREE,))
