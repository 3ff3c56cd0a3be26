"""The stages after the index: each on a case made by hand, and which are run in the time."""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from retinue.apps.search.query import Query, Term
from retinue.apps.search.rerank import Candidates, Expansion, Geometry, PatchTokens, Reranker
from retinue.apps.search.tokens import DEVIATIONS
from retinue.core.errors import PluginError
from retinue.store.collections import Space


def unit(*values: float) -> np.ndarray:
    vector = np.array(values, np.float32)
    return vector / np.linalg.norm(vector)


class Pictures:
    """Gives pictures by number, and remembers which were asked for."""

    def __init__(self, known: Mapping[int, np.ndarray] | None = None) -> None:
        self.known = known or {}
        self.asked: list[int] = []

    def __call__(self, numbers: Sequence[int]) -> Mapping[int, np.ndarray]:
        self.asked += numbers
        return {n: self.known[n] for n in numbers if n in self.known}


def candidates(
    vectors: np.ndarray,
    *,
    terms: Sequence[Term] | None = None,
    fields: Sequence[str] = ("image",),
    tokens: np.ndarray | None = None,
    pictures: Pictures | None = None,
    scores: Sequence[float] | None = None,
    deadline: float = math.inf,
) -> Candidates:
    """Candidates with slots 10, 11, ... and numbers 100, 101, ..."""
    vectors = vectors.astype(np.float32)
    query = unit(1, *[0] * (vectors.shape[1] - 1))
    width = 0 if tokens is None else tokens.shape[-1]
    space = SimpleNamespace(
        fields={name: SimpleNamespace(exact=lambda slots: vectors[slots - 10]) for name in fields},
        tokens=None
        if tokens is None
        else SimpleNamespace(read=lambda s: tokens[s - 10].reshape(len(s), -1)),
        space=Space("m", "1", vectors.shape[1], token_bytes=width),
    )
    first = np.array(scores, np.float32) if scores is not None else vectors @ query
    return Candidates(
        Query(terms or [Term({"image": query})], deadline=deadline),
        space,  # type: ignore[arg-type]
        dict.fromkeys(fields, query),
        np.arange(len(vectors)) + 10,
        np.arange(len(vectors)) + 100,
        first,
        pictures or Pictures(),
        {"ann": first},
    )


def test_the_best_vote_with_the_query_each_as_much_as_it_is_like_it() -> None:
    draw = np.random.default_rng(0)
    vectors = np.stack([unit(*row) for row in draw.normal([1, 0, 0, 0], 0.7, (12, 4))])
    found = candidates(vectors)
    before = found.scores.copy()
    stage = Expansion(voters=3, alpha=2.0, weight=0.25)
    assert stage.applies(found)
    stage.run(found)
    query = [1.0, 0, 0, 0]
    cosines = [float(v[0]) for v in vectors]
    voters = sorted(range(12), key=lambda n: -cosines[n])[:3]
    expanded = [
        query[d] + sum(max(cosines[n], 0) ** 2 * float(vectors[n][d]) for n in voters)
        for d in range(4)
    ]
    length = math.sqrt(sum(x * x for x in expanded))
    want = [sum(float(a) * b for a, b in zip(v, expanded, strict=True)) / length for v in vectors]
    np.testing.assert_allclose(found.stages["diffusion"], want, rtol=1e-5)
    np.testing.assert_allclose(found.scores, 0.75 * before + 0.25 * np.array(want), rtol=1e-5)
    assert found.scores.dtype == found.stages["diffusion"].dtype == np.float32
    np.testing.assert_array_equal(found.stages["ann"], before)


def test_neighbours_of_the_best_rise_above_strangers() -> None:
    friends = [unit(1, 0.8, 0, y) for y in (0, 0.1, -0.1)]
    friend, stranger = unit(1, 1.2, 0, 0), unit(1, 0, -1.15, 0)
    found = candidates(np.stack([*friends, friend, stranger]))
    assert found.scores[4] > found.scores[3]
    Expansion(voters=3).run(found)
    assert found.scores[3] > found.scores[4]


def test_who_is_unlike_the_query_has_no_vote() -> None:
    found = candidates(np.stack([unit(-1, 1), unit(-1, -2), unit(-1, 0)]))
    stage = Expansion(voters=2)
    stage.run(found)
    np.testing.assert_allclose(found.stages["diffusion"], found.stages["ann"], atol=1e-6)


def test_expansion_needs_enough_candidates_of_one_field() -> None:
    vectors = np.eye(6)
    assert Expansion(voters=5).applies(candidates(vectors))
    assert not Expansion(voters=6).applies(candidates(vectors))
    assert not Expansion(voters=2).applies(candidates(vectors, fields=("image", "text")))


def pictured(tokens: np.ndarray | None, weight: float = 1.0, pixels=None) -> Term:
    return Term({"image": unit(1, 0)}, weight, tokens, pixels)


def test_tokens_raise_the_item_that_has_the_parts_of_the_query() -> None:
    draw = np.random.default_rng(1)
    tokens = draw.integers(0, 256, (9, 4, 16), dtype=np.uint8)
    asked = tokens[2, [3, 1]]
    before = np.linspace(0.9, 0.5, 9)
    found = candidates(np.eye(9, 2), terms=[pictured(asked)], tokens=tokens, scores=before)
    stage = PatchTokens(weight=2.0)
    assert stage.applies(found)
    stage.run(found)
    values = found.stages["tokens"].tolist()
    assert values[2] == 1
    assert max(values[:2] + values[3:]) < 0.4
    median = statistics.median(values)
    spread = 1.4826 * statistics.median(abs(value - median) for value in values)
    more = [2.0 * max(value - median - DEVIATIONS * spread, 0) for value in values]
    np.testing.assert_allclose(found.scores, before + more, rtol=1e-5)
    assert found.scores.dtype == np.float32
    assert found.scores.argmax() == 2
    assert found.differing is not None
    assert found.differing.shape == (9, 4, 2)
    assert found.differing[2].min(axis=0).tolist() == [0, 0]


def test_tokens_are_those_of_the_heaviest_wanted_picture() -> None:
    tokens = np.array([[[0] * 8], [[255] * 8], [[15] * 8]], np.uint8)
    terms = [
        pictured(tokens[0], 0.5),
        pictured(tokens[1], 2),
        pictured(tokens[2], -9),
        Term({"image": unit(1, 0)}, 50),
    ]
    found = candidates(np.eye(3, 2), terms=terms, tokens=tokens)
    PatchTokens().run(found)
    np.testing.assert_array_equal(found.stages["tokens"], [-1, 1, 0])


def test_tokens_need_a_picture_that_has_some_and_one_field() -> None:
    tokens = np.zeros((2, 1, 8), np.uint8)
    had = {"terms": [pictured(tokens[0])], "tokens": tokens}
    assert PatchTokens().applies(candidates(np.eye(2), **had))
    text = [Term({"image": unit(1, 0)})]
    pixels = [pictured(None, pixels=lambda: np.zeros((9, 9, 3), np.uint8))]
    for other in (
        {"terms": text},
        {"tokens": None},
        {"fields": ("image", "text")},
        {"terms": pixels},
        {"terms": [*text, pictured(tokens[0], -1)]},
    ):
        assert not PatchTokens().applies(candidates(np.eye(2), **{**had, **other}))


def photo(seed: int) -> np.ndarray:
    draw = np.random.default_rng(seed)
    small = draw.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    pixels = cv2.resize(small, (320, 240), interpolation=cv2.INTER_CUBIC)
    for _ in range(40):
        at = draw.integers(0, (320, 240), (1, 2))
        corners = (at + draw.integers(-50, 50, (5, 2))).astype(np.int32)
        colour = tuple(int(c) for c in draw.integers(0, 256, 3))
        cv2.fillPoly(pixels, [corners], colour, cv2.LINE_AA)
    return pixels


def asked_by_photo(pictures: Pictures, **options) -> Candidates:
    term = pictured(None, pixels=lambda: photo(0))
    scores = options.pop("scores", [0.8, 0.7, 0.6, 0.5])
    vectors = np.tile(unit(1, 0), (len(scores), 1))
    terms = options.pop("terms", [term])
    return candidates(vectors, terms=terms, pictures=pictures, scores=scores, **options)


def test_a_copy_in_another_position_rises_and_what_has_no_picture_has_no_value() -> None:
    turned = np.ascontiguousarray(np.rot90(photo(0)))
    pictures = Pictures({100: photo(1), 102: turned, 103: photo(2)})
    found = asked_by_photo(pictures)
    stage = Geometry(weight=0.5, least=8)
    assert stage.applies(found), "a model without tokens has pixels all the same"
    stage.run(found)
    values = found.stages["geometric"]
    assert np.isnan(values[1])
    assert values[2] > 20
    assert max(values[0], values[3]) < 8
    assert found.scores.argmax() == 2
    want = np.array([0.8, 0.7, 0.6 + 0.5 * (1 - 8 / (2 * values[2])), 0.5])
    np.testing.assert_allclose(found.scores, want, rtol=1e-5)
    np.testing.assert_allclose(found.stages["ann"], [0.8, 0.7, 0.6, 0.5])


def test_only_the_first_few_are_looked_at() -> None:
    pictures = Pictures({n: photo(0) for n in range(100, 104)})
    found = asked_by_photo(pictures, scores=[0.1, 0.4, 0.2, 0.3])
    Geometry(first=2).run(found)
    assert pictures.asked == [101, 103]
    assert np.isnan(found.stages["geometric"]).tolist() == [True, False, True, False]


def test_geometry_ends_at_the_deadline() -> None:
    pictures = Pictures({n: photo(0) for n in range(100, 104)})
    found = asked_by_photo(pictures, deadline=time.monotonic() - 1)
    Geometry().run(found)
    assert np.isnan(found.stages["geometric"]).all()
    np.testing.assert_allclose(found.scores, [0.8, 0.7, 0.6, 0.5])


def test_geometry_is_for_pictures_in_doubt() -> None:
    stage, nothing = Geometry(sure=0.9), Pictures()
    assert not stage.applies(asked_by_photo(nothing, scores=[0.5, 0.95]))
    assert not stage.applies(asked_by_photo(nothing, scores=[0.5]))
    assert not stage.applies(asked_by_photo(nothing, fields=("image", "text")))
    tokens = pictured(np.zeros((1, 8), np.uint8))
    assert not stage.applies(asked_by_photo(nothing, terms=[tokens]))
    assert not stage.applies(asked_by_photo(nothing, terms=[Term({"image": unit(1, 0)})]))
    assert stage.applies(asked_by_photo(nothing, scores=[0.5, 0.89]))


OWN = """
import time

class Learnt:
    name = "learnt"
    usual_ms = 0.0
    def applies(self, candidates):
        return True
    def run(self, candidates):
        candidates.scores = -candidates.scores
        candidates.stages[self.name] = candidates.scores

class Never(Learnt):
    name = "never"
    def applies(self, candidates):
        return False

class Feared(Learnt):
    name = "feared"
    usual_ms = 1000.0

class Slow(Learnt):
    name = "slow"
    def run(self, candidates):
        time.sleep(0.04)

class Unfit:
    name = "unfit"

class Broken(Learnt):
    def __init__(self):
        raise RuntimeError("no weights")
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A module of stages of one's own, called my_stages."""
    (tmp_path / "my_stages.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("my_stages", None)


def some(left_s: float = math.inf) -> Candidates:
    return candidates(np.eye(3), deadline=time.monotonic() + left_s)


def test_no_stage_leaves_all_as_it_is() -> None:
    found = some()
    assert Reranker([]).run(found) == ([], {})
    np.testing.assert_array_equal(found.scores, [1, 0, 0])


def test_the_built_in_stages_have_their_names() -> None:
    reranker = Reranker(["geometric", "diffusion", "tokens"])
    assert [stage.name for stage in reranker.stages] == ["geometric", "diffusion", "tokens"]


def test_stages_run_one_after_another() -> None:
    tokens = np.random.default_rng(0).integers(0, 256, (8, 2, 8), dtype=np.uint8)
    found = candidates(np.eye(8, 2), terms=[pictured(tokens[5])], tokens=tokens)
    skipped, timings = Reranker(["diffusion", "tokens", "geometric"]).run(found)
    assert skipped == []
    assert list(timings) == ["diffusion", "tokens"], "geometric has no pixels here"
    assert list(found.stages) == ["ann", "diffusion", "tokens"]
    assert all(taken >= 0 for taken in timings.values())


def test_a_stage_of_ones_own_is_named_by_module_and_attribute(own: None) -> None:
    found = some()
    skipped, timings = Reranker(["my_stages:Learnt", "my_stages:Never"]).run(found)
    assert (skipped, list(timings)) == ([], ["learnt"])
    np.testing.assert_array_equal(found.scores, [-1, 0, 0])
    assert "never" not in found.stages


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("difusion", "no re-ranking stage is called 'difusion'; there are: diffusion, tokens"),
        ("", "no re-ranking stage is called ''"),
        (":Learnt", "no re-ranking stage"),
        ("my_stages:", "no re-ranking stage"),
        ("no_such_module:Learnt", "no_such_module"),
        ("my_stages:Missing", "Missing"),
        ("my_stages:Unfit", "has no usual_ms, applies, run"),
        ("my_stages:Broken", "RuntimeError: no weights"),
        ("os:sep", "TypeError"),
    ],
)
def test_a_stage_that_cannot_be_had_is_a_plugin_error(own: None, name: str, says: str) -> None:
    with pytest.raises(PluginError) as caught:
        Reranker([name])
    assert says in caught.value.message


def test_a_stage_that_would_be_late_is_skipped_and_named(own: None) -> None:
    found = some(1.0)
    skipped, timings = Reranker(["my_stages:Feared", "my_stages:Learnt"]).run(found)
    assert skipped == ["feared"]
    assert list(timings) == ["learnt"]
    assert "feared" not in found.stages


def test_when_the_time_is_over_all_are_skipped(own: None) -> None:
    found = some(-1)
    skipped, timings = Reranker(["my_stages:Learnt", "my_stages:Never"]).run(found)
    assert (skipped, timings) == (["learnt"], {})
    np.testing.assert_array_equal(found.scores, [1, 0, 0])


def test_a_stage_that_is_quicker_than_was_feared_is_run_when_that_was_seen(own: None) -> None:
    reranker = Reranker(["my_stages:Feared"])
    assert reranker.run(some(0.5))[0] == ["feared"]
    for _ in range(12):
        assert reranker.run(some())[0] == []
    assert reranker.run(some(0.5))[0] == []


def test_a_stage_that_is_slower_than_it_says_is_skipped_when_that_was_seen(own: None) -> None:
    reranker = Reranker(["my_stages:Slow"])
    for _ in range(12):
        assert reranker.run(some())[1]["slow"] >= 39
    skipped, timings = reranker.run(some(0.02))
    assert (skipped, timings) == (["slow"], {})


def test_a_stage_that_was_slow_once_is_tried_again_some_day(own: None) -> None:
    reranker = Reranker(["my_stages:Feared"])
    times = next(n for n in range(1000) if not reranker.run(some(1.0))[0])
    assert 1 < times < 20


def test_one_slow_run_is_no_habit(own: None) -> None:
    reranker = Reranker(["tokens"])
    reranker._usual["tokens"] = 5.0
    stage = reranker.stages[0]
    took = stage.run

    def cold(candidates: Candidates) -> None:
        time.sleep(0.5)
        took(candidates)

    stage.run = cold  # type: ignore[method-assign]
    reranker.run(some())
    stage.run = took  # type: ignore[method-assign]
    assert reranker._usual["tokens"] < 10
