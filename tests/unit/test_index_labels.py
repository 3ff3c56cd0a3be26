"""Which id stands where: dense ids, sparse ones, and both against a dict."""

import numpy as np
import pytest

from retinue.index import _labels
from retinue.index._labels import Labels


def positions(labels: Labels, ids: np.ndarray) -> list[int]:
    return np.flatnonzero(labels.mask(ids)).tolist()


@pytest.mark.parametrize("largest", [300, 10**5, 10**9, 2**40])
@pytest.mark.parametrize("ordered", [True, False])
def test_it_is_a_dict_in_two_arrays(largest: int, ordered: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_labels, "SMALL", 64)
    random = np.random.default_rng(3)
    labels, truth, given = Labels(), {}, 0
    for _ in range(60):
        ids = random.choice(np.arange(0, largest, max(1, largest // 300)), 8, replace=False)
        ids = np.sort(ids) if ordered else ids
        assert labels.remove(ids) == sum(truth.pop(one, None) is not None for one in ids.tolist())
        if random.random() < 0.6:
            assert labels.append(ids).tolist() == list(range(given, given + 8))
            truth |= dict(zip(ids.tolist(), range(given, given + 8), strict=True))
            given += 8
        assert len(labels) == len(truth)
        asked = np.concatenate([ids, np.array([-1, 7, largest + 9, 2**50])])
        expected = sorted({truth[one] for one in asked.tolist() if one in truth})
        assert positions(labels, asked) == expected
        again = Labels.restored(*labels.state())
        assert positions(again, asked) == expected
        assert (len(again), sorted(again.hidden)) == (len(labels), sorted(labels.hidden))
        visible = np.unpackbits(labels.packed(), bitorder="little", count=given)
        assert np.flatnonzero(visible).tolist() == sorted(truth.values())
        here = np.array(sorted(truth.values()), np.int64)
        back = labels.ids(here)
        assert back.dtype == np.int64
        assert {truth[one] for one in back.tolist()} == set(here.tolist())


def test_dense_ids_take_few_bytes():
    labels = Labels()
    for start in range(0, 100_000, 10_000):
        labels.append(np.arange(start, start + 10_000))
    assert labels.nbytes / 100_000 <= 9 * 5 / 4
    labels.append(np.array([2**40]))
    assert labels.nbytes / 100_000 <= 9 * 5 / 4
    assert positions(labels, np.array([2**40, 5])) == [5, 100_000]


def test_states_of_older_files_are_understood():
    states = np.array([0, 2, 1], np.int64)
    labels = Labels.restored(np.array([4, 9, 2], np.int64), states)
    assert positions(labels, np.array([4, 9, 2])) == [0]
    assert labels.hidden.tolist() == [2]
