"""Requests that are repeated on another version of their model, to compare the answers.

A repetition comes after the answer, and is left out where the other version is too busy: no caller
ever sees it. A shadow's go behind everything that callers wait for. A guard's are a small share,
and take turns with the callers: a server under full load would not be guarded otherwise.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Coroutine
from typing import Any, Final, Literal, Protocol

from retinue.core.errors import InputError, RetinueError, Unavailable
from retinue.core.protocols import Model, Pipeline
from retinue.core.record import Record
from retinue.core.types import Image, Outcome, Prepared, Tensors
from retinue.measure.agreement import agreement, telling

Role = Literal["shadow", "guard"]

_log = logging.getLogger(__name__)

PRIORITY: Final[dict[Role, int]] = {"shadow": -1_000_000, "guard": 0}

MOST_UNDER_WAY = 16
"""Repetitions at a time; their pictures are kept until they are done."""


class Judge(Protocol):
    """Hears of the comparisons."""

    def compared(self, role: Role, version: str, reference: str, agreement: float) -> None:
        """Take in how far ``version`` agreed with ``reference`` on one request, in [0, 1]."""
        ...

    def repeated(self, role: Role, record: Record) -> None:
        """Take in the record of a repetition; its app is the role."""
        ...

    def skipped(self, role: Role, version: str) -> None:
        """Count a request that was chosen, and could not be compared or told nothing."""
        ...


class Mirror:
    """Repeats a share of the requests that one version answers on another one.

    With the role "shadow" the other one is judged by the answers that were given; with "guard" the
    answers are judged by the other one.
    """

    def __init__(
        self, role: Role, other: Pipeline, share: float, judge: Judge, chance: random.Random
    ) -> None:
        self._role: Role = role
        self._other = other
        self._share = share
        self._judge = judge
        self._chance = chance
        self._tasks: set[asyncio.Task[None]] = set()

    def item(self, item: bytes | Image, record: Record) -> None:
        """Take in a request that was answered, on the event loop."""
        if _comparable(record.outcome.error) and self._chosen(record.version):
            self._begin(record.version, self._repeat_item(item, record))

    def tensors(self, tensors: Tensors, outputs: Tensors, model: Model) -> None:
        """Take in raw tensors that were answered; the first of their rows is compared."""
        if self._chosen(model.version):
            row = {name: array[:1] for name, array in tensors.items()}
            answer = {name: array[0] for name, array in outputs.items()}
            self._begin(model.version, self._repeat_row(row, answer, model))

    def _chosen(self, version: str) -> bool:
        if self._chance.random() >= self._share:
            return False
        if len(self._tasks) < MOST_UNDER_WAY:
            return True
        self._judge.skipped(self._role, self._judged(version))
        return False

    def _judged(self, answered: str) -> str:
        return self._other.model.version if self._role == "shadow" else answered

    def _begin(self, version: str, repetition: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(self._contain(version, repetition))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _contain(self, version: str, repetition: Coroutine[Any, Any, None]) -> None:
        """Keep what goes wrong here from everybody else, and count it."""
        try:
            await repetition
        except Exception:  # noqa: BLE001 - isolation boundary: models' own code, and nobody waits
            _log.exception("%s: an answer of %s cannot be compared", self._role, version)
            self._judge.skipped(self._role, self._judged(version))

    async def _repeat_item(self, item: bytes | Image, record: Record) -> None:
        role = self._role
        twin = await self._other.submit(
            item, priority=PRIORITY[role], app=role, source=record.source, client=role
        )
        self._judge.repeated(self._role, twin)
        await self._compare(record.version, record.outcome, twin.outcome)

    async def _repeat_row(self, row: Tensors, answer: Tensors, model: Model) -> None:
        other = self._other.model
        # Without its picture a row is taken for one of exactly the network's size.
        height, width = model.card.input.height, model.card.input.width
        whole = Prepared({name: array[0] for name, array in row.items()}, width, height)
        try:
            outputs = await self._other.infer(row, priority=PRIORITY[self._role], client=self._role)
        except RetinueError as error:
            found = Outcome(error=error)
        else:
            first = {name: array[0] for name, array in outputs.items()}
            found = await asyncio.to_thread(_outcome, other, whole, first)
        given = await asyncio.to_thread(_outcome, model, whole, answer)
        await self._compare(model.version, given, found)

    async def _compare(self, answered: str, outcome: Outcome, other: Outcome) -> None:
        judged = self._judged(answered)
        reference = answered if self._role == "shadow" else self._other.model.version
        # What the reference cannot answer says nothing about the one that is judged.
        blameless = self._role == "guard" and other.error is not None
        if blameless or not _comparable(other.error) or not telling(outcome, other):
            self._judge.skipped(self._role, judged)
        else:
            value = await asyncio.to_thread(agreement, outcome, other)
            self._judge.compared(self._role, judged, reference, value)


def _outcome(model: Model, prepared: Prepared, outputs: Tensors) -> Outcome:
    try:
        return model.postprocess(prepared, outputs)
    except RetinueError as error:
        return Outcome(error=error)


def _comparable(error: RetinueError | None) -> bool:
    """Whether an outcome tells of the model: bad input and lack of room or time do not."""
    return not isinstance(error, InputError | Unavailable)
