"""The ledger: the fold against a simple twin, torn tails, broken chains, full disks."""

from __future__ import annotations

import errno
import json
import os
from contextlib import nullcontext
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retinue.core.errors import (
    Conflict,
    DiskFull,
    InvalidRequest,
    ModelCorrupt,
    NotWritable,
    StorageError,
)
from retinue.models import ledger as module
from retinue.models.ledger import Ledger, Target, fold

A, B, C = ("a" * 12, "b" * 12, "c" * 12)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.jsonl", nullcontext)


def to(version: str, share: float = 1.0) -> Target:
    return Target(version, share)


def filled(ledger: Ledger) -> Ledger:
    for version in (A, B, C):
        (ledger.path.parent / version).mkdir(exist_ok=True)
    ledger.append("install", {"prod": to(A)}, version=A)
    ledger.append("promote", {"prod": to(B)}, actor="ann@host", reason="better")
    ledger.append("alias", {"canary": to(C, 0.125), "mine": to(A)})
    return ledger


def test_what_is_written_is_read(ledger: Ledger) -> None:
    assert (ledger.events(), ledger.aliases(), ledger.state()) == ([], {}, (0, 0))
    assert ledger.before_prod() is None
    filled(ledger)
    events = ledger.events()
    assert [event.number for event in events] == [1, 2, 3]
    assert [event.previous for event in events[1:]] == [event.digest for event in events[:-1]]
    assert (events[1].actor, events[1].reason, events[1].action) == (
        "ann@host",
        "better",
        "promote",
    )
    assert "@" in events[0].actor
    assert events[0].at <= events[1].at <= events[2].at
    assert ledger.aliases() == {"prod": to(B), "canary": to(C, 0.125), "mine": to(A)}
    assert ledger.before_prod() == A


def test_an_event_is_returned_as_it_is_read(ledger: Ledger) -> None:
    event = ledger.append("alias", {"canary": to(A, 0.1), "shadow": None}, reason="so")
    assert ledger.events() == [event]


def test_the_state_changes_with_every_event(ledger: Ledger) -> None:
    states = {ledger.state()}
    for number in range(5):
        ledger.append("alias", {"mine": to(A)}, reason=str(number))
        states.add(ledger.state())
    assert len(states) == 6


def test_an_alias_that_was_moved_meanwhile_is_a_conflict(ledger: Ledger) -> None:
    filled(ledger)
    before = ledger.path.read_bytes()
    expected: list[dict[str, Target | None]] = [
        {"prod": to(A)},
        {"prod": None},
        {"canary": to(C, 0.5)},
        {"shadow": to(A)},
    ]
    for expect in expected:
        with pytest.raises(Conflict, match="nothing was changed"):
            ledger.append("promote", {"prod": to(C)}, expect=expect)
    assert ledger.path.read_bytes() == before
    ledger.append("promote", {"prod": to(C)}, expect={"prod": to(B), "shadow": None})


@pytest.mark.parametrize("alias", ["", "Prod", "beef", "abc", "1st", "a b", "a" * 33, "../x", "é"])
def test_aliases_that_are_refused(ledger: Ledger, alias: str) -> None:
    with pytest.raises(InvalidRequest, match="alias"):
        ledger.append("alias", {alias: to(A)})


@pytest.mark.parametrize("share", [0.0, -0.1, 1.01, float("nan"), float("inf")])
def test_shares_that_are_refused(ledger: Ledger, share: float) -> None:
    with pytest.raises(InvalidRequest, match="share"):
        ledger.append("alias", {"canary": to(A, share)})
    with pytest.raises(InvalidRequest, match="share"):
        ledger.append("alias", {"shadow": to(A, 0.5)})
    assert ledger.state() == (0, 0)


def test_words_are_bounded_and_fit_a_terminal(ledger: Ledger) -> None:
    with pytest.raises(InvalidRequest, match="1000"):
        ledger.append("alias", {}, reason="x" * 1001)
    event = ledger.append("alias", {}, reason="two\nlines \x1b[31m \udcff", actor="a\tb")
    assert (event.reason, event.actor) == ("two lines  [31m", "a b")
    assert ledger.events() == [event]


def test_a_torn_last_line_is_no_event_and_is_cut_off(ledger: Ledger) -> None:
    whole = filled(ledger).path.read_bytes()
    start = whole.rstrip(b"\n").rfind(b"\n") + 1
    events = ledger.events()
    for end in range(start, len(whole)):
        ledger.path.write_bytes(whole[:end])
        assert ledger.events() == events[:2]
        if end % 16 == 0 or end == len(whole) - 1:
            ledger.append("alias", {"mine": to(C)})
            assert [event.number for event in ledger.events()] == [1, 2, 3]
            assert ledger.aliases()["mine"] == to(C)


def test_a_changed_line_is_found_and_named(ledger: Ledger) -> None:
    whole = filled(ledger).path.read_bytes()
    lines = whole.splitlines(keepends=True)
    other = json.loads(lines[1]) | {"actor": "eve"}
    nested = b"[" * 100_000 + b"\n"
    for damaged, line in (
        ([lines[0], json.dumps(other).encode() + b"\n", lines[2]], 2),
        ([lines[0], lines[2]], 2),
        (lines[1:], 1),
        ([lines[0], lines[0]], 2),
        ([*lines, b"\n"], 4),
        ([*lines, b"\0" * 9 + b"\n"], 4),
        ([*lines, b"\xff\n"], 4),
        ([*lines, b"[]\n"], 4),
        ([*lines, nested], 4),
    ):
        ledger.path.write_bytes(b"".join(damaged))
        for use in (ledger.events, ledger.aliases, lambda: ledger.append("alias", {})):
            with pytest.raises(ModelCorrupt, match=f"line {line} of the ledger .*copy"):
                use()
        assert ledger.path.read_bytes() == b"".join(damaged)


@given(position=st.integers(0), bit=st.integers(0, 7))
def test_no_flipped_bit_is_believed(
    tmp_path_factory: pytest.TempPathFactory, position: int, bit: int
) -> None:
    ledger = filled(Ledger(tmp_path_factory.mktemp("l") / "ledger.jsonl", nullcontext))
    events = ledger.events()
    data = bytearray(ledger.path.read_bytes())
    data[position % len(data)] ^= 1 << bit
    ledger.path.write_bytes(data)
    try:
        found = ledger.events()
    except ModelCorrupt:
        return
    # The end of the last line is all that may be hit unseen: it is torn then.
    assert found == events[:2]


def test_a_full_disk_leaves_the_ledger_as_it_was(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, write = filled(ledger).path.read_bytes(), os.pwrite

    def full(descriptor: int, data: bytes, offset: int) -> int:
        if len(data) < 20:
            raise OSError(errno.ENOSPC, "full")
        return write(descriptor, data[: len(data) // 2], offset)

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        with pytest.raises(DiskFull, match="ledger"):
            ledger.append("promote", {"prod": to(C)})
    assert ledger.path.read_bytes() == before
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.EIO, "bad")))
        with pytest.raises(StorageError, match="ledger"):
            ledger.append("promote", {"prod": to(C)})
    assert ledger.path.read_bytes() == before
    ledger.append("promote", {"prod": to(C)})
    assert len(ledger.events()) == 4


def test_a_ledger_that_is_no_file(ledger: Ledger) -> None:
    ledger.path.mkdir()
    with pytest.raises(StorageError, match="ledger"):
        ledger.events()
    with pytest.raises(StorageError):
        ledger.append("alias", {})
    below = Ledger(ledger.path / "file" / "ledger.jsonl", nullcontext)
    (ledger.path / "file").write_text("in the way")
    with pytest.raises(NotWritable):
        below.append("alias", {})


def test_size_is_bounded(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    size = filled(ledger).path.stat().st_size
    monkeypatch.setattr(module, "MAX_BYTES", size + 1)
    with pytest.raises(StorageError, match="full"):
        ledger.append("alias", {})
    assert len(ledger.events()) == 3
    monkeypatch.setattr(module, "MAX_BYTES", size - 1)
    with pytest.raises(StorageError, match="larger"):
        ledger.events()


def test_lines_of_a_later_release_are_read(ledger: Ledger) -> None:
    """A field that is not known here is passed over, but is part of the digest."""
    from retinue.models import _events

    ledger.append("alias", {"mine": to(A)})
    values = json.loads(ledger.path.read_bytes()) | {"later": 1}
    values["digest"] = _events._digest(values)
    ledger.path.write_bytes(_events._canonical(values) + b"\n")
    ledger.append("alias", {"mine": to(B)})
    assert ledger.aliases() == {"mine": to(B)}


VERSIONS = st.sampled_from([A, B, C])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["install", "promote", "remove", "mine", "shadow"]), VERSIONS),
        st.sampled_from([("rollback", ""), ("mine", "")]),
    ),
    max_size=40,
)


class Twin:
    """A ledger without a file: a plain list of what prod named, which a rollback shortens."""

    def __init__(self) -> None:
        self.named: list[str] = []
        self.aliases: dict[str, str] = {}
        self.here = {A, B, C}

    def back(self) -> int | None:
        prod = self.aliases.get("prod")
        for index in range(len(self.named) - 1 - (prod is not None), -1, -1):
            if self.named[index] in self.here and self.named[index] != prod:
                return index
        return None

    def move(self, version: str) -> None:
        if self.aliases.get("prod") != version:
            self.named.append(version)
        self.aliases["prod"] = version

    def roll_back(self, index: int) -> None:
        del self.named[index + 1 :]
        self.aliases["prod"] = self.named[-1]

    def remove(self, version: str) -> None:
        self.here.discard(version)
        self.aliases = {a: v for a, v in self.aliases.items() if v != version}


@given(steps=STEPS)
def test_the_fold_is_that_of_a_simple_twin(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str]]
) -> None:
    ledger, twin = Ledger(tmp_path_factory.mktemp("l") / "ledger.jsonl", nullcontext), Twin()
    for version in (A, B, C):
        (ledger.path.parent / version).mkdir()
    for step, version in steps:
        if step == "rollback":
            index = twin.back()
            assert ledger.before_prod() == (None if index is None else twin.named[index])
            if index is None:
                continue
            ledger.append("rollback", {"prod": to(twin.named[index])})
            twin.roll_back(index)
        elif step == "install":
            (ledger.path.parent / version).mkdir(exist_ok=True)
            ledger.append("install", {"prod": to(version)})
            twin.here.add(version)
            twin.move(version)
        elif step == "promote" and version in twin.here:
            ledger.append("promote", {"prod": to(version)})
            twin.move(version)
        elif step == "remove" and version in twin.here:
            dropped = {a: None for a, t in ledger.aliases().items() if t.version == version}
            ledger.append("remove", dropped, version=version)
            (ledger.path.parent / version).rmdir()
            twin.remove(version)
        elif step in ("mine", "shadow"):
            ledger.append("alias", {step: to(version) if version else None})
            twin.aliases.pop(step, None)
            twin.aliases |= {step: version} if version else {}
        assert {a: t.version for a, t in ledger.aliases().items()} == twin.aliases
    assert fold(ledger.events()) == ledger.standing()


def test_a_rollback_passes_over_what_was_removed(ledger: Ledger) -> None:
    filled(ledger)
    ledger.append("promote", {"prod": to(C)})
    assert ledger.before_prod() == B
    (ledger.path.parent / B).rmdir()
    assert ledger.before_prod() == A
    ledger.append("rollback", {"prod": to(A)})
    assert ledger.before_prod() is None


def test_a_version_is_not_gone_back_to_from_itself(ledger: Ledger) -> None:
    filled(ledger)
    ledger.append("promote", {"prod": to(A)})
    (ledger.path.parent / B).rmdir()
    assert ledger.before_prod() is None


def test_a_long_name_of_a_user_is_cut(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "u" * 2000)
    assert ledger.append("alias", {"mine": to(A)}).actor == "u" * 1000
