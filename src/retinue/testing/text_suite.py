"""The contract of every text encoder, as checks that any test runner can call.

A check takes a loaded encoder, which it leaves open, and texts that its vocabulary knows, no two
of them alike::

    @pytest.mark.parametrize("check", text_suite.CHECKS, ids=lambda c: c.__name__)
    def test_contract(check):
        check(encoder, ("a cat", "two dogs", "cat dog cat"))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from retinue.core.errors import InvalidRequest
from retinue.core.protocols import TextEncoder

Check = Callable[[TextEncoder, Sequence[str]], None]

TOLERANCE = 1e-5
LONGEST = 10_000


def gives_unit_vectors(encoder: TextEncoder, texts: Sequence[str]) -> None:
    """It is a `TextEncoder` and gives (N, D) float32 of length 1, N also being 0."""
    assert isinstance(encoder, TextEncoder)
    assert encoder.name
    vectors = encoder.encode(texts)
    assert vectors.shape == (len(texts), encoder.dim)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=TOLERANCE)
    assert encoder.encode([]).shape == (0, encoder.dim)


def company_changes_nothing(encoder: TextEncoder, texts: Sequence[str]) -> None:
    """A vector depends neither on the texts beside it nor on its place; texts differ."""
    alone = np.concatenate([encoder.encode([text]) for text in texts])
    many = [*texts, *reversed(texts)] * 9
    expected = np.concatenate([alone, alone[::-1]] * 9)
    np.testing.assert_allclose(encoder.encode(many), expected, atol=TOLERANCE)
    assert len(np.unique(alone.round(4), axis=0)) == len(texts)


def spaces_around_mean_nothing(encoder: TextEncoder, texts: Sequence[str]) -> None:
    """White space around a text is ignored."""
    spaced = encoder.encode([f" \n{text}\t" for text in texts])
    np.testing.assert_allclose(spaced, encoder.encode(texts), atol=TOLERANCE)


def threads_may_share_it(encoder: TextEncoder, texts: Sequence[str]) -> None:
    """Several threads at once get what one gets."""
    expected = encoder.encode(texts)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: encoder.encode(texts), range(16)):
            np.testing.assert_allclose(found, expected, atol=TOLERANCE)


def refuses_what_is_no_text(encoder: TextEncoder, texts: Sequence[str]) -> None:
    """An empty text and one that is too long are an `InvalidRequest`; a long one is none."""
    encoder.encode([(f"{texts[0]} " * LONGEST)[:LONGEST]])
    for bad in ("", " \n ", (f"{texts[0]} " * LONGEST)[:LONGEST] + "end"):
        try:
            encoder.encode([texts[0], bad])
        except InvalidRequest:
            continue
        raise AssertionError("expected InvalidRequest")


CHECKS: tuple[Check, ...] = (
    gives_unit_vectors,
    company_changes_nothing,
    spaces_around_mean_nothing,
    threads_may_share_it,
    refuses_what_is_no_text,
)
