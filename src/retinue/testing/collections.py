"""A collection's twin: a plain dictionary to which the same is done.

`Twin` writes at random to a `retinue.store.collections.Collections` and to itself, and compares.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from retinue.core.errors import NotFound
from retinue.store.collections import Changes, Collections, Failure, Item, Put, Space


def digest(content: object) -> str:
    """Return the digest of a made-up content."""
    return hashlib.sha256(str(content).encode()).hexdigest()


def put(item_id: str, content: object = 0, **more: Any) -> Put:
    """Return an item to be written; what is not given is made up."""
    values: dict[str, Any] = {
        "path": f"/photos/{item_id}.jpg",
        "size": 1000,
        "width": 640,
        "height": 480,
    }
    return Put(id=item_id, sha256=digest(content), **(values | more))


def space(model: str = "m", version: str = "1", **more: Any) -> Space:
    """Return a space of vectors of 8 elements."""
    return Space(model=model, version=version, image_dim=8, **more)


def slots_of(changes: Changes) -> dict[int, int]:
    """Return slot to item number."""
    return dict(zip(changes.slots.tolist(), changes.numbers.tolist(), strict=True))


@dataclass
class Reader:
    """Follows a space by its changes, from time to time."""

    generation: int = 0
    slots: dict[int, int] = field(default_factory=dict)

    def follow(self, changes: Changes) -> None:
        """Apply what happened."""
        if changes.whole:
            self.slots = {}
        for slot in changes.dropped.tolist():
            self.slots.pop(slot, None)
        self.slots |= slots_of(changes)
        self.generation = changes.generation


@dataclass
class Entry:
    """An item of the dictionary."""

    number: int
    put: Put
    group: int
    vectors: dict[int, int]


class Twin:
    """A collection and a dictionary that is changed alike."""

    def __init__(self, store: Collections, tenant: str, seed: int) -> None:
        self.store = store
        self.collection = store.create(tenant, f"twin-{seed}")
        self.draw = random.Random(seed)  # noqa: S311 (no secret)
        self.entries: dict[str, Entry] = {}
        self.kinds: dict[str, str] = {}
        self.failed: dict[str, Failure] = {}
        self.numbers = 0
        self.generation = 0
        self.next_slots: dict[int, int] = {}
        self.floors: dict[int, int] = {}
        self.readers: dict[int, list[Reader]] = {}
        self.add_space()

    def add_space(self) -> None:
        """Add a space of another version."""
        version = str(len(self.next_slots) + 1)
        made = self.store.add_space(self.collection, space(version=version, text_dim=4))
        assert made == self.store.add_space(self.collection, space(version=version, text_dim=4))
        self.next_slots[made.key] = 0
        self.floors[made.key] = 0
        self.readers[made.key] = [Reader() for _ in range(3)]

    def _slot(self, key: int) -> int:
        self.next_slots[key] += 1
        return self.next_slots[key] - 1

    def _put(self, item_id: str) -> Put:
        known = self.entries.get(item_id)
        same = known is not None and self.draw.random() < 0.6
        content = known.put.sha256 if known is not None and same else self.draw.random()
        keys = [key for key in self.next_slots if self.draw.random() < 0.7]
        meta = self.draw.choice(
            [{}, {"price": 1.5, "tags": ["a", "b"]}, {"price": "dear"}, {"new": True, "no": None}]
        )
        return replace(
            put(item_id, content, meta=meta, source=self.draw.choice(["", "/photos"])),
            sha256=content if isinstance(content, str) else digest(content),
            pdq=self.draw.choice([None, bytes(range(32))]),
            mtime_us=self.draw.randrange(2**50),
            etag=self.draw.choice(["", "v1"]),
            thumbnail=digest(item_id),
            vectors={key: self._slot(key) for key in keys},
        )

    def write(self) -> None:
        """Put, remove and note failures, all at random."""
        ids = self.draw.sample([f"i{n}" for n in range(30)], self.draw.randrange(8))
        cut = self.draw.randint(0, len(ids))
        puts = [self._put(one) for one in ids[:cut]]
        removes = ids[cut:]
        failed = [
            Failure("/photos", f"/photos/i{self.draw.randrange(30)}.jpg", "corrupt_media", "bad")
            for _ in range(self.draw.randrange(3))
        ]
        generation = self.store.write(self.collection, puts, removes, failed)
        if puts or any(one in self.entries for one in removes):
            self.generation += 1
        assert generation == self.generation
        for item_id in removes:
            self.entries.pop(item_id, None)
        for one in puts:
            self._apply(one)
            self.failed.pop(one.path, None)
            self._note(one.meta)
        self.failed |= {one.path: one for one in failed}

    def act(self) -> None:
        """Do one of all this, mostly write."""
        others: list[Callable[[], None]] = [self.set_meta, self.set_duplicates, self.forget]
        self.draw.choice([*[self.write] * 8, *others])()

    def _apply(self, one: Put) -> None:
        known = self.entries.get(one.id)
        if known is None:
            self.entries[one.id] = Entry(self.numbers, one, self.numbers, dict(one.vectors))
            self.numbers += 1
        elif known.put.sha256 == one.sha256:
            known.put, known.vectors = one, known.vectors | dict(one.vectors)
        else:
            known.put, known.vectors, known.group = one, dict(one.vectors), known.number

    def _note(self, meta: Mapping[str, Any]) -> None:
        for name, value in meta.items():
            kind = {bool: "flag", float: "number", str: "text", list: "text"}.get(type(value))
            if kind:
                self.kinds[name] = kind if self.kinds.get(name, kind) == kind else "mixed"

    def set_meta(self) -> None:
        """Replace the metadata of one."""
        if self.entries:
            one = self.draw.choice(list(self.entries))
            meta = {"note": self.draw.choice(["x", 7.0, False])}
            self.generation += 1
            assert self.store.set_meta(self.collection, one, meta) == self.generation
            self.entries[one].put = replace(self.entries[one].put, meta=meta)
            self._note(meta)
        try:
            self.store.set_meta(self.collection, "nobody", {"never": "kept"})
        except NotFound:
            return
        raise AssertionError("metadata of an item that does not exist was written")

    def set_duplicates(self) -> None:
        """Make a few a group."""
        entries = self.draw.sample(list(self.entries.values()), min(3, len(self.entries)))
        groups = {one.number: min(other.number for other in entries) for one in entries}
        self.store.set_duplicates(self.collection, groups)
        self.generation += bool(groups)
        for one in entries:
            one.group = groups[one.number]

    def forget(self) -> None:
        """Forget what was dropped up to some generation."""
        for made in self.store.spaces(self.collection):
            before = self.draw.randint(0, self.generation)
            self.store.forget_dropped(made, before)
            self.floors[made.key] = max(self.floors[made.key], before)

    def check_slots(self) -> None:
        """Compare each space's slots, read whole and by readers that come late."""
        self.collection = self.store.refresh(self.collection)
        assert (self.collection.count, self.collection.generation) == (
            len(self.entries),
            self.generation,
        )
        for made in self.store.spaces(self.collection):
            self._check_space(made)

    def check_items(self) -> None:
        """Compare all the rest."""
        listed = self.store.page(self.collection, limit=100)
        assert listed.cursor == -1
        entries = sorted(self.entries.values(), key=lambda one: one.number)
        assert [_plain(one) for one in listed.items] == [_entry(one) for one in entries]
        assert self.store.fields(self.collection) == dict(sorted(self.kinds.items()))
        assert self.store.failures(self.collection) == sorted(
            self.failed.values(), key=lambda one: one.path
        )
        known = self.store.known(self.collection, [*self.entries, "nobody"])
        assert {one.id: (one.number, one.spaces) for one in known.values()} == {
            one: (entry.number, frozenset(entry.vectors)) for one, entry in self.entries.items()
        }
        assert sorted(self.store.ids(self.collection, "/photos")) == sorted(
            one.put.id for one in entries if one.put.source
        )
        found, cursor = self.store.duplicates(self.collection, limit=100)
        assert cursor == -1
        assert [[one.number for one in group] for group in found] == _groups(entries)

    def _check_space(self, made: Space) -> None:
        mine = {
            e.vectors[made.key]: e.number for e in self.entries.values() if made.key in e.vectors
        }
        assert (made.count, made.floor) == (len(mine), self.floors[made.key])
        assert made.next_slot == self.next_slots[made.key]
        whole = self.store.changes(made, self.collection, -1)
        assert whole.whole
        assert slots_of(whole) == mine
        assert whole.slots.tolist() == sorted(mine)
        numbers = range(self.numbers + 1)
        assert self.store.slots(made, numbers) == {n: slot for slot, n in mine.items()}
        for chance, reader in zip((1.0, 0.3, 0.05), self.readers[made.key], strict=True):
            if self.draw.random() < chance:
                since = reader.generation
                changes = self.store.changes(made, self.collection, since)
                assert changes.whole == (since == 0 or since < made.floor)
                assert not set(changes.slots.tolist()) & set(changes.dropped.tolist())
                reader.follow(changes)
                assert (reader.generation, reader.slots) == (self.generation, mine)


def _groups(entries: list[Entry]) -> list[list[int]]:
    groups: dict[int, list[int]] = {}
    for one in entries:
        groups.setdefault(one.group, []).append(one.number)
    return [groups[head] for head in sorted(groups) if len(groups[head]) > 1]


_KEPT = ("id", "path", "source", "sha256", "size", "width", "height", "pdq", "thumbnail")


def _plain(item: Item) -> tuple[Any, ...]:
    return (item.number, item.duplicate_of, item.meta, *(getattr(item, name) for name in _KEPT))


def _entry(one: Entry) -> tuple[Any, ...]:
    return (one.number, one.group, one.put.meta, *(getattr(one.put, name) for name in _KEPT))
