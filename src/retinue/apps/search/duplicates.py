"""Which items are the same picture: equal files, or PDQ hashes that differ in few bits."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from retinue.store.collections import Collection, Collections, Item

NEAR: Final = 31
"""Bits of 256 up to which two PDQ hashes are of the same picture.

Source: https://github.com/facebook/ThreatExchange/tree/main/pdq
"""
_PIECES: Final = 16
_FLIPS: Final = 1
_AT_ONCE: Final = 4096

Codes = NDArray[np.uint8]


def hamming(one: bytes, codes: Codes) -> NDArray[np.int64]:
    """Return in how many bits each of codes (N, 32) uint8 differs from one of 32 bytes."""
    differing = np.bitwise_count(codes ^ np.frombuffer(one, np.uint8))
    return np.asarray(differing.sum(axis=1), np.int64)


def near_pairs(codes: Codes, asked: NDArray[np.int64] | None = None) -> Iterable[tuple[int, int]]:
    """Yield pairs of rows of codes (N, 32) uint8 that differ in at most `NEAR` bits.

    Args:
        codes: All that are compared.
        asked: Rows (M,), ascending, of which one is in every pair; None for all.

    Of two such codes, at least one of 16 pieces of 16 bits differs in at most one bit: only codes
    with such a piece are compared (multi-index hashing, M. Norouzi et al., CVPR 2012).
    """
    faiss: Any = importlib.import_module("faiss")
    index = faiss.IndexBinaryMultiHash(256, _PIECES, 256 // _PIECES)
    index.nflip = _FLIPS
    index.add(codes)
    rows = np.arange(len(codes)) if asked is None else asked
    new = np.zeros(len(codes), np.bool_)
    new[rows] = True
    for start in range(0, len(rows), _AT_ONCE):
        some = rows[start : start + _AT_ONCE]
        # FAISS takes what is nearer than a radius.
        limits, _, found = index.range_search(codes[some], NEAR + 1)
        for place, row in enumerate(some.tolist()):
            for other in found[int(limits[place]) : int(limits[place + 1])].tolist():
                # Of two that are asked, the later one tells.
                if other < row or not new[other]:
                    yield min(other, row), max(other, row)


def group_all(store: Collections, collection: Collection, since: int = -1) -> int:
    """Find the groups of duplicates of a collection; return how many items are in one.

    Groups are chains: two pictures may be in one because both are like a third.

    Args:
        store: The database.
        collection: Whose items are grouped.
        since: Items that changed after this generation are compared with all, and the others keep
            the groups that they have; -1 groups all anew.
    """
    known: dict[int, int] = {}
    first: dict[str, int] = {}
    hashed: dict[bytes, int] = {}
    joined = _Groups()
    new: set[int] = set()
    old: dict[int, int] = {}
    for row in store.rows(collection, -1, ["sha256", "pdq", "duplicate_of", "generation"]):
        number, sha256, pdq, group, generation = tuple(row)
        known[number] = group
        if generation > since:
            new.add(number)
        else:
            # The group's first one may have gone, or be another picture now.
            joined.join(old.setdefault(group, number), number)
        joined.join(first.setdefault(sha256, number), number)
        if pdq is not None:
            # Equal hashes are joined here: a thousand of them would be half a million pairs.
            joined.join(hashed.setdefault(bytes(pdq), number), number)
    if hashed:
        codes = np.frombuffer(b"".join(hashed), np.uint8).reshape(-1, 32)
        numbers = list(hashed.values())
        asked = np.flatnonzero([number in new for number in numbers])
        for one, other in near_pairs(codes, asked) if len(asked) else ():
            joined.join(numbers[one], numbers[other])
    wanted = {number: joined.head(number) for number in known}
    changed = {n: wanted[n] for n, group in known.items() if wanted[n] != group}
    store.set_duplicates(collection, changed)
    heads = {head for number, head in wanted.items() if head != number}
    return sum(head in heads for head in wanted.values())


def first_of(item: Item, others: Iterable[Item]) -> int:
    """Return the group of the first of some items that is a duplicate of this one, or its own."""
    for other in sorted(others, key=lambda one: one.number):
        if other.number == item.number:
            continue
        same = other.sha256 == item.sha256
        if not same and item.pdq and other.pdq:
            code = np.frombuffer(other.pdq, np.uint8)[None]
            same = bool(hamming(item.pdq, code)[0] <= NEAR)
        if same:
            return other.duplicate_of
    return item.duplicate_of


class _Groups:
    """Disjoint sets of numbers; the smallest of each is its head."""

    def __init__(self) -> None:
        self._parent: dict[int, int] = {}

    def head(self, number: int) -> int:
        while (parent := self._parent.get(number, number)) != number:
            self._parent[number] = self._parent.get(parent, parent)
            number = parent
        return number

    def join(self, one: int, other: int) -> None:
        low, high = sorted((self.head(one), self.head(other)))
        if low != high:
            self._parent[high] = low
