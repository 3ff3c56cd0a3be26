"""The ledger of a model: an append-only file of what its aliases named, when, why and by whom.

One JSON object a line. Each line has the sha256 of the line before and its own, so that a change
by hand is found; the chain guards against accidents, not against someone who computes it anew.
Which version an alias names is a fold over the lines: nothing else is stored, and one whole line is
one change. A line without its end, as a crash or a full disk leaves it, is not a line; the next
writer cuts it off. Readers need no lock.
"""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from retinue.core.errors import Conflict, InvalidRequest, ModelCorrupt, StorageError, storage_errors
from retinue.models._disk import sync
from retinue.models._events import (
    CANARY,
    PROD,
    SHADOW,
    START,
    Action,
    Event,
    Standing,
    Target,
    check_alias,
    check_changes,
    fold,
    parse,
    sealed,
)

__all__ = [
    "CANARY",
    "PROD",
    "SHADOW",
    "Action",
    "Event",
    "Ledger",
    "Standing",
    "Target",
    "check_alias",
    "fold",
    "operator",
]

MAX_BYTES = 64 * 2**20
MAX_WORDS = 1000


class Ledger:
    """A model's ledger, in the model's folder. Holds no state; safe for threads and processes."""

    def __init__(self, path: Path, lock: Callable[[], AbstractContextManager[None]]) -> None:
        """Name the file; nothing is read or made yet.

        Args:
            path: The file; the folders beside it are the model's versions.
            lock: Makes the lock that writers hold.
        """
        self.path = path
        self._lock = lock

    def events(self) -> list[Event]:
        """Return the events, the oldest first; a torn last line is none.

        Raises:
            ModelCorrupt: a line was changed.
            StorageError: the file cannot be read, or is too long.
        """
        return self._read()[0]

    def standing(self) -> Standing:
        """Return what the events add up to; raises as `events` does."""
        return fold(self.events())

    def aliases(self) -> Mapping[str, Target]:
        """Return what each alias names; raises as `events` does."""
        return self.standing().aliases

    def before_prod(self) -> str | None:
        """Return the version that a rollback leads to, None where there is none.

        Versions that were removed are passed over. Raises as `events` does.
        """
        return self.back(self.standing())

    def back(self, standing: Standing) -> str | None:
        """Return the latest version before prod's that is still here, None without one."""
        prod = standing.aliases.get(PROD)
        for version in reversed(standing.before):
            if (prod is None or version != prod.version) and (self.path.parent / version).is_dir():
                return version
        return None

    def state(self) -> tuple[int, int]:
        """Return a token that changes when the ledger does: (bytes, nanoseconds); (0, 0): none.

        Raises:
            StorageError: the file cannot be looked at.
        """
        with storage_errors(self.path, "looking at the ledger"):
            try:
                found = self.path.stat()
            except FileNotFoundError:
                return 0, 0
        return found.st_size, found.st_mtime_ns

    def append(
        self,
        action: Action,
        changes: Mapping[str, Target | None],
        *,
        expect: Mapping[str, Target | None] | None = None,
        actor: str = "",
        reason: str = "",
        version: str = "",
    ) -> Event:
        """Add an event; it is on the disk when this returns.

        Args:
            action: What is done.
            changes: Alias to what it is to name; None removes it.
            expect: Alias to what it must name now, None where there must be none.
            actor: By whom; "" for the system's user.
            reason: Why, at most 1000 characters.
            version: The version that it is about.

        Raises:
            Conflict: an alias does not name what was expected.
            InvalidRequest: an alias may not be called so, a share is not in (0, 1] or is not that
                of a canary, or the reason is too long.
            ModelCorrupt: the ledger was changed by hand.
            StorageError: it cannot be written; it is as it was then.
        """
        with self.changing() as writer:
            return writer.write(
                action, changes, expect=expect, actor=actor, reason=reason, version=version
            )

    @contextmanager
    def changing(self) -> Iterator[Writer]:
        """Hold the lock and read the ledger, to decide on what it says and write.

        Raises:
            ModelCorrupt, StorageError: as `events`.
            Unavailable: another process held the lock for too long.
        """
        with self._lock():
            yield Writer(self, *self._read())

    def _read(self) -> tuple[list[Event], int]:
        """Return the events, and how many bytes their lines are."""
        with storage_errors(self.path, "reading the ledger"):
            try:
                with self.path.open("rb") as file:
                    data = file.read(MAX_BYTES + 1)
            except FileNotFoundError:
                return [], 0
        if len(data) > MAX_BYTES:
            raise StorageError(f"the ledger {self.path} is larger than {MAX_BYTES} bytes")
        whole = data.rfind(b"\n") + 1
        events: list[Event] = []
        for number, line in enumerate(data[:whole].split(b"\n")[:-1], 1):
            events.append(self._parse(number, line, events[-1].digest if events else START))
        return events, whole

    def _parse(self, number: int, line: bytes, previous: str) -> Event:
        try:
            event = parse(line)
            sound = (event.number, event.previous) == (number, previous)
        except (ValueError, RecursionError):
            sound = False
        if not sound:
            raise ModelCorrupt(
                f"line {number} of the ledger {self.path} is not what was written: the file was "
                "changed by hand or damaged; bring it back from a copy, or cut off that line and "
                "all after it (the aliases are then as they were before)"
            )
        return event


class Writer:
    """A ledger whose lock is held.

    Attributes:
        standing: What its events add up to.
    """

    def __init__(self, ledger: Ledger, events: list[Event], whole: int) -> None:
        self.standing = fold(events)
        self._ledger = ledger
        self._events = events
        self._whole = whole

    def back(self) -> str | None:
        """Return the version that a rollback leads to, None where there is none."""
        return self._ledger.back(self.standing)

    def check(self, expect: Mapping[str, Target | None]) -> None:
        """Raise a `Conflict` unless each alias names what is expected; None: it must be unset."""
        for alias, wanted in expect.items():
            found = self.standing.aliases.get(alias)
            if found != wanted:
                raise Conflict(
                    f"{self._ledger.path.parent.name}: {alias} was {_says(wanted)} and is "
                    f"{_says(found)} now: someone else changed it meanwhile, nothing was changed; "
                    "look at its history and decide again"
                )

    def write(
        self,
        action: Action,
        changes: Mapping[str, Target | None],
        *,
        expect: Mapping[str, Target | None] | None = None,
        actor: str = "",
        reason: str = "",
        version: str = "",
    ) -> Event:
        """Add one event; see `Ledger.append`."""
        self.check(expect or {})
        check_changes(changes)
        event = Event(
            number=len(self._events) + 1,
            at=datetime.now(UTC),
            action=action,
            changes=dict(changes),
            actor=_words((actor or operator())[:MAX_WORDS]),
            reason=_words(reason),
            version=version,
            previous=self._events[-1].digest if self._events else START,
        )
        event, line = sealed(event)
        if self._whole + len(line) > MAX_BYTES:
            raise StorageError(f"the ledger {self._ledger.path} is full: {MAX_BYTES} bytes")
        with storage_errors(self._ledger.path, "writing the ledger"):
            _append(self._ledger.path, line, self._whole)
        self._events.append(event)
        self._whole += len(line)
        self.standing = fold(self._events)
        return event


def operator() -> str:
    """Return who runs this process, as USER@HOST."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        # In a container the user often has a number only.
        user = f"uid-{os.getuid()}"
    return f"{user}@{socket.gethostname()}"


def _append(path: Path, line: bytes, whole: int) -> None:
    """Write a line after the whole ones; on any failure the file is cut back to those."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.ftruncate(descriptor, whole)
        try:
            done = 0
            while done < len(line):
                done += os.pwrite(descriptor, line[done:], whole + done)
            os.fsync(descriptor)
            if not whole:
                sync(path.parent)
        except BaseException:
            with suppress(OSError):
                os.ftruncate(descriptor, whole)
            raise
    finally:
        os.close(descriptor)


def _words(text: str) -> str:
    """Return a text fit for one line of a terminal."""
    if len(text) > MAX_WORDS:
        raise InvalidRequest(f"a reason has at most {MAX_WORDS} characters, not {len(text)}")
    return "".join(c if c.isprintable() else " " for c in text).strip()


def _says(target: Target | None) -> str:
    if target is None:
        return "unset"
    return target.version + ("" if target.share == 1 else f" for {100 * target.share:.6g}%")
