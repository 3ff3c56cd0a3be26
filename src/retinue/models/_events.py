"""The lines of a model's ledger, and what they add up to: pure, no file is touched here."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import MappingProxyType
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, TypeAdapter

from retinue.core.errors import InvalidRequest

PROD, SHADOW, CANARY = "prod", "shadow", "canary"
START = "0" * 64

ALIAS = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_HEX = re.compile(r"[0-9a-f]+")

Action: TypeAlias = Literal["install", "alias", "promote", "rollback", "remove"]


@dataclass(frozen=True, slots=True)
class Target:
    """What an alias names.

    Attributes:
        version: The version.
        share: Of "canary": the share of requests that it answers, in (0, 1].
    """

    version: Annotated[str, Field(min_length=1, max_length=64)]
    share: Annotated[float, Field(gt=0, le=1)] = 1.0


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the ledger.

    Attributes:
        number: From 1, without gaps.
        at: When, in UTC.
        action: What was done.
        changes: Alias to what it names from now on; None where it was removed.
        actor: By whom: USER@HOST, or "guard" for the live guard.
        reason: Why, in the actor's words.
        version: The version that it was about; "" where the changes say it all.
        previous: Digest of the line before; 64 zeros in the first.
        digest: Sha256, hex, of everything else in this line.
    """

    number: Annotated[int, Field(ge=1)]
    at: datetime
    action: Action
    changes: Mapping[str, Target | None]
    actor: str
    reason: str
    version: str = ""
    previous: str = START
    digest: str = ""


_EVENT = TypeAdapter(Event)


@dataclass(frozen=True, slots=True)
class Standing:
    """What the events of a ledger add up to.

    Attributes:
        aliases: Alias to what it names.
        before: Versions that prod named before and that a rollback leads back to, the latest last.
        held: Whether someone chose what prod names; an install does not move it then.
    """

    aliases: Mapping[str, Target] = field(default_factory=lambda: MappingProxyType({}))
    before: tuple[str, ...] = ()
    held: bool = False


def fold(events: Iterable[Event]) -> Standing:
    """Return what events add up to.

    A rollback goes back on the stack of what prod named before, so that a second one goes further
    back; every other change of prod adds to the stack.
    """
    aliases: dict[str, Target] = {}
    before: list[str] = []
    held = False
    for event in events:
        old = aliases.get(PROD)
        for alias, target in event.changes.items():
            if target is None:
                aliases.pop(alias, None)
            else:
                aliases[alias] = target
        if PROD not in event.changes:
            continue
        held = event.action in ("promote", "rollback")
        new = aliases.get(PROD)
        if event.action == "rollback" and new is not None and new.version in before:
            del before[_last(before, new.version) :]
        elif old is not None and (new is None or new.version != old.version):
            before.append(old.version)
    return Standing(MappingProxyType(aliases), tuple(before), held)


def sealed(event: Event) -> tuple[Event, bytes]:
    """Return the event with its digest, and its line, end included."""
    values = _EVENT.dump_python(event, mode="json")
    digest = _digest(values)
    return replace(event, digest=digest), _canonical(values | {"digest": digest}) + b"\n"


def parse(line: bytes) -> Event:
    """Return the event of a line.

    Raises:
        ValueError: it is not one, or not what its digest says.
    """
    values = json.loads(line)
    event = _EVENT.validate_python(values)
    if event.digest != _digest(values):
        raise ValueError("the digest is of something else")
    return event


def check_alias(alias: str) -> None:
    """Check that an alias may be called so, and is not to be taken for a version.

    Raises:
        InvalidRequest: it may not.
    """
    if not ALIAS.fullmatch(alias) or _HEX.fullmatch(alias):
        raise InvalidRequest(
            f"{alias[:64]!r} cannot be an alias: use lower-case letters, digits, '_' or '-', at "
            "most 32, beginning with a letter and not hex digits alone"
        )


def check_changes(changes: Mapping[str, Target | None]) -> None:
    """Check names and shares; raises an `InvalidRequest`."""
    for alias, target in changes.items():
        check_alias(alias)
        if target is None:
            continue
        if not 0 < target.share <= 1:
            raise InvalidRequest(f"the share of {alias} is {target.share:g}; it is in (0, 1]")
        if alias != CANARY and target.share != 1:
            raise InvalidRequest(f"{alias} has no share; only {CANARY} has one")


def _canonical(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values, sort_keys=True, separators=(",", ":")).encode()


def _digest(values: Mapping[str, Any]) -> str:
    bare = {key: value for key, value in values.items() if key != "digest"}
    return hashlib.sha256(_canonical(bare)).hexdigest()


def _last(values: list[str], value: str) -> int:
    return len(values) - 1 - values[::-1].index(value)
