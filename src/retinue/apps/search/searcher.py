"""A collection that is open to be searched: its spaces, columns, stages and answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from retinue.apps.search.answer import Answer, Hit
from retinue.apps.search.columns import Columns
from retinue.apps.search.filters import Condition, check_fields, evaluate, tests
from retinue.apps.search.indexes import Indexes
from retinue.apps.search.query import Floats, Query, Term, directions
from retinue.apps.search.rerank import Candidates, Reranker
from retinue.apps.search.space import OpenSpace
from retinue.apps.search.tokens import matched_regions
from retinue.core.errors import InvalidRequest, NotFound, RetinueError
from retinue.core.settings import Limits
from retinue.media.decode import decode
from retinue.store.collections import Collection, Collections, Item, Space
from retinue.store.interface import BlobStore

REACH: Final = 2
"""How many times as many candidates are taken as are shown, so that duplicates leave enough."""


class OpenCollection:
    """One collection, open for reading. May be used by several threads at once.

    Args:
        store: The database.
        collection: Which.
        folder: Of its files.
        thumbnails: Where small pictures of the items are.
        indexes: What indexes are made of.
        reranker: The stages; shared between collections.
        candidates: How many the index finds for the stages.
    """

    def __init__(
        self,
        store: Collections,
        collection: Collection,
        folder: Path,
        *,
        thumbnails: BlobStore,
        indexes: Indexes,
        reranker: Reranker,
        candidates: int = 200,
    ) -> None:
        self._store, self._folder = store, folder
        self.collection = collection
        self._thumbnails, self._indexes = thumbnails, indexes
        self._reranker, self._candidates = reranker, candidates
        self._spaces: dict[int, OpenSpace] = {}
        self._known: tuple[int, list[Space]] = (-1, [])
        self._columns = Columns(store, collection)
        self._lock = threading.Lock()

    def refresh(self) -> Collection:
        """Return the collection as it is now; its spaces follow.

        Raises:
            NotFound: it was deleted.
        """
        self.collection = collection = self._store.refresh(self.collection)
        for space in list(self._spaces.values()):
            space.refresh(collection.generation)
        return collection

    def spaces(self) -> list[Space]:
        """Return the spaces of all models and versions, oldest first."""
        generation, known = self._known
        if generation != self.collection.generation or not known:
            # Read before the spaces: what comes between is read again the next time.
            generation = self.collection.generation
            known = self._store.spaces(self.collection)
            self._known = generation, known
        return known

    def models(self) -> dict[str, Space]:
        """Return the space that answers for each model: that which most items have."""
        best: dict[str, Space] = {}
        for space in sorted(self.spaces(), key=lambda s: (s.count, s.key)):
            best[space.model] = space
        return best

    def space(self, model: str, version: str = "") -> OpenSpace:
        """Return the open space of a model.

        Args:
            model: Its name; "" for the collection's first.
            version: "" for the one that most items have, of those the newest.

        Raises:
            InvalidRequest: the collection has no vectors of this model, or of this version.
        """
        known = self.spaces()
        model = model or (known[0].model if known else "")
        fits = [s for s in known if s.model == model and version in ("", s.version)]
        if not fits:
            names = ", ".join(sorted({f"{s.model}@{s.version}" for s in known})) or "none yet"
            wanted = f"{model}@{version}" if version else model
            raise InvalidRequest(
                f"collection {self.collection.name!r} has no vectors of model {wanted!r}; it has: "
                f"{names}; index it with that model first"
            )
        return self.open_space(max(fits, key=lambda s: (s.count, s.key)))

    def open_space(self, space: Space) -> OpenSpace:
        """Return a space, opened; its index is loaded, or built when there is none."""
        with self._lock:
            if space.key not in self._spaces:
                self._spaces[space.key] = OpenSpace(
                    self._store,
                    self.collection,
                    space,
                    self._folder,
                    make=self._indexes.make,
                    load=self._indexes.load,
                    outgrown=self._indexes.outgrown,
                )
            return self._spaces[space.key]

    def search(self, query: Query, space: OpenSpace) -> Answer:
        """Answer a query in one of the collection's spaces.

        Raises:
            InvalidRequest: a condition names a field that no item has.
            RetinueError: the index, the rows or the database cannot be read.
        """
        clock = _Clock()
        generation = space.generation
        among = self._among(query.where, space)
        clock.stop("filter")
        wanted = REACH * (query.offset + query.k) + len(query.without)
        candidates = self._find(query, space, among, max(self._candidates, wanted))
        clock.stop("ann")
        relevance = self._relevance(candidates)
        skipped: list[str] = []
        if query.rerank and len(candidates.slots):
            skipped, taken = self._rerank(candidates)
            clock.add(taken)
        hits = self._hits(candidates, relevance)
        clock.stop("items")
        return Answer(
            hits,
            space.space.model,
            space.space.version,
            generation,
            len(space) if among is None else len(among),
            tuple(skipped),
            clock.parts,
        )

    def _among(self, where: Condition | None, space: OpenSpace) -> NDArray[np.int64] | None:
        if where is None:
            return None
        check_fields(where, self._store.fields(self.collection))
        names = {test.field for test in tests(where)}
        with self._columns.lock:
            self._columns.prepare(names, self.collection.generation)
            mask = evaluate(where, self._columns)
        return space.slots_among(mask)

    def _find(
        self, query: Query, space: OpenSpace, among: NDArray[np.int64] | None, wanted: int
    ) -> Candidates:
        sums = directions(query.terms)
        _check_fields_of(space, sums)
        unit = {name: _unit(vector) for name, vector in sums.items()}
        weights = {name: float(np.linalg.norm(vector)) for name, vector in sums.items()}
        found: list[NDArray[np.int64]] = []
        for name, vector in unit.items():
            searched = space.fields[name]
            with searched.lock:
                assert searched.index is not None
                if len(searched.index):
                    slots, _ = searched.index.query(vector[None], wanted, among=among)
                    found.append(slots[0][slots[0] >= 0])
        slots = np.unique(np.concatenate(found)) if found else np.empty(0, np.int64)
        numbers = space.numbers(slots)
        slots, numbers = slots[numbers >= 0], numbers[numbers >= 0]
        scores = self._scores(space, unit, weights, slots)
        first = np.argsort(-scores, kind="stable")[:wanted]
        ann = scores[first]
        return Candidates(
            query, space, unit, slots[first], numbers[first], ann, self.pictures, {"ann": ann}
        )

    def _scores(
        self,
        space: OpenSpace,
        unit: Mapping[str, Floats],
        weights: Mapping[str, float],
        slots: NDArray[np.int64],
    ) -> Floats:
        """Return the cosine; where several fields count, the weighted mean of how unusual it is."""
        total = np.zeros(len(slots), np.float32)
        for name, vector in unit.items():
            # Rounded vectors may be a little longer than 1.
            cosines = np.clip(space.fields[name].exact(slots) @ vector, -1, 1)
            if len(unit) > 1:
                usual = space.background(name) @ vector
                cosines = (cosines - usual.mean()) / max(float(usual.std()), 1e-6)
            total += np.float32(weights[name]) * cosines
        return total / np.float32(sum(weights.values()) if len(unit) > 1 else _norm(weights))

    def _relevance(self, candidates: Candidates) -> Floats:
        """Return how far each lies between any two items of the collection and the same one."""
        total = np.zeros(len(candidates.slots), np.float32)
        for name, vector in candidates.direction.items():
            searched = candidates.space.fields[name]
            if not len(total):
                break
            usual = float((candidates.space.background(name) @ vector).mean())
            cosines = searched.exact(candidates.slots) @ vector
            total += (cosines - usual) / max(1 - usual, 1e-6)
        return np.clip(total / max(len(candidates.direction), 1), 0, 1)

    def _rerank(self, candidates: Candidates) -> tuple[list[str], dict[str, float]]:
        """Run the stages on the first candidates; the others stay behind them in their order."""
        count = self._candidates
        if len(candidates.slots) <= count:
            return self._reranker.run(candidates)
        rest = candidates.scores[count:]
        slots, numbers = candidates.slots, candidates.numbers
        ann = candidates.stages["ann"]
        candidates.slots, candidates.numbers = slots[:count], numbers[:count]
        candidates.scores = candidates.scores[:count]
        candidates.stages = {"ann": ann[:count]}
        result = self._reranker.run(candidates)
        lowest = float(candidates.scores.min())
        candidates.scores = np.append(candidates.scores, rest - max(float(rest.max()) - lowest, 0))
        more = np.full(len(rest), np.nan, np.float32)
        candidates.stages = {
            name: np.append(values, ann[count:] if name == "ann" else more)
            for name, values in candidates.stages.items()
        }
        candidates.slots, candidates.numbers = slots, numbers
        return result

    def _hits(self, candidates: Candidates, relevance: Floats) -> tuple[Hit, ...]:
        query = candidates.query
        end = query.offset + query.k
        shown: list[tuple[int, Item]] = []
        seen: set[int] = set()
        for place, item in self._best(candidates, end + len(query.without)):
            if item.id in query.without or (query.dedupe and item.duplicate_of in seen):
                continue
            seen.add(item.duplicate_of)
            shown.append((place, item))
            if len(shown) == end:
                break
        page = shown[query.offset : end]
        heads = [item.duplicate_of for _, item in page]
        sizes = self._store.group_sizes(self.collection, heads) if query.dedupe else {}
        return tuple(
            self._hit(candidates, relevance, rank, place, item, sizes.get(item.duplicate_of, 1) - 1)
            for rank, (place, item) in enumerate(page, query.offset + 1)
        )

    def _best(self, candidates: Candidates, some: int) -> Iterator[tuple[int, Item]]:
        """Yield candidates with their items, best first, reading ``some`` items at a time."""
        order = np.argsort(-candidates.scores, kind="stable")
        for start in range(0, len(order), some):
            places = order[start : start + some]
            items = self._store.items(self.collection, candidates.numbers[places].tolist())
            for place in places.tolist():
                item = items.get(int(candidates.numbers[place]))
                if item is not None:
                    yield place, item

    def _hit(
        self,
        candidates: Candidates,
        relevance: Floats,
        rank: int,
        place: int,
        item: Item,
        duplicates: int,
    ) -> Hit:
        regions: Sequence[Sequence[float]] = ()
        differing = candidates.differing
        if differing is not None and place < len(differing):
            space = candidates.space.space
            grid = (space.grid_rows, space.grid_columns)
            regions = matched_regions(
                differing[place], 8 * space.token_bytes, grid, item.width, item.height
            )
        stages = {
            name: round(float(values[place]), 4)
            for name, values in candidates.stages.items()
            if not np.isnan(values[place])
        }
        return Hit(
            rank,
            item,
            round(float(candidates.scores[place]), 5),
            round(float(relevance[place]), 4),
            stages,
            duplicates,
            regions,
        )

    def item_term(self, item_id: str, space: OpenSpace, weight: float) -> Term:
        """Return the term of an item, made of its stored vectors.

        Raises:
            NotFound: there is no such item.
            InvalidRequest: it has no vectors of this model.
        """
        item = self._store.item(self.collection, item_id)
        slots = self._store.slots(space.space, [item.number])
        if not slots:
            raise InvalidRequest(
                f"item {item_id[:80]!r} has no vectors of model {space.space.model!r}; index it "
                "with that model first"
            )
        slot = np.array([slots[item.number]])
        vectors = {name: searched.exact(slot)[0] for name, searched in space.fields.items()}
        tokens = None
        if space.tokens is not None:
            tokens = space.tokens.read(slot)[0].reshape(-1, space.space.token_bytes)
        pixels = None
        if item.thumbnail:

            def pixels() -> NDArray[np.uint8]:
                return decode(self.thumbnail(item), limits=Limits()).pixels

        return Term(vectors, weight, tokens, pixels)

    def thumbnail(self, item: Item) -> bytes:
        """Return an item's thumbnail, a JPEG.

        Raises:
            NotFound: it has none, or it was lost.
        """
        if not item.thumbnail:
            raise NotFound(f"item {item.id[:80]!r} has no thumbnail")
        return self._thumbnails.get(item.thumbnail)

    def pictures(self, numbers: Sequence[int]) -> dict[int, NDArray[np.uint8]]:
        """Return the thumbnails (H, W, 3) uint8 RGB of items, by number, of those that have one."""
        found = {}
        for number, item in self._store.items(self.collection, numbers).items():
            if item.thumbnail:
                with suppress(RetinueError):  # a lost thumbnail costs a check, not the answer
                    data = self._thumbnails.get(item.thumbnail)
                    found[number] = decode(data, limits=Limits()).pixels
        return found

    def close(self) -> None:
        """Close all spaces."""
        with self._lock:
            for space in self._spaces.values():
                space.close()
            self._spaces = {}


class _Clock:
    def __init__(self) -> None:
        self.parts: dict[str, float] = {}
        self._last = time.perf_counter()

    def stop(self, name: str) -> None:
        now = time.perf_counter()
        self.parts[name] = round((now - self._last) * 1000, 3)
        self._last = now

    def add(self, taken: Mapping[str, float]) -> None:
        self.parts |= {name: round(value, 3) for name, value in taken.items()}
        self._last = time.perf_counter()


def _unit(vector: Floats) -> Floats:
    length = float(np.linalg.norm(vector))
    if length < 1e-6:
        raise InvalidRequest("the terms cancel each other out; nothing is left to look for")
    return np.asarray(vector / length, np.float32)


def _norm(weights: Mapping[str, float]) -> float:
    return next(iter(weights.values()), 1.0)


def _check_fields_of(space: OpenSpace, sums: Mapping[str, Floats]) -> None:
    for name in sums:
        if name not in space.fields:
            raise InvalidRequest(
                f"model {space.space.model!r} cannot compare a {name} with the items; search by a "
                "picture, or index the collection with a model that can"
            )
