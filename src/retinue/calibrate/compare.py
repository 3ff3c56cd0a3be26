"""Two models side by side on the same pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final

import numpy as np

from retinue.calibrate._showing import show
from retinue.calibrate.comparison import Comparison, Side
from retinue.calibrate.evaluate import Exam, Sitting
from retinue.calibrate.report import Picture
from retinue.calibrate.samples import Samples
from retinue.calibrate.speed import Speed, race
from retinue.core.errors import InvalidRequest
from retinue.core.protocols import Model
from retinue.core.settings import Execution, Limits, Settings
from retinue.models.card import Card
from retinue.models.fetch import Progress
from retinue.models.loading import load_model
from retinue.models.registry import Entry

SHOWN: Final = 8
LISTED: Final = 50
"""Pictures that a report shows, and names: at most so many of those that the two differ on."""
SAME: Final = 0.9999
"""From this agreement on, rounding apart, two answers are the same."""
_TIMED: Final = 16


def compare(
    a: Entry,
    b: Entry,
    samples: Samples,
    settings: Settings,
    *,
    metric: str = "",
    progress: Progress | None = None,
    seconds: float = 30.0,
) -> Comparison:
    """Compare two installed models: two versions of one, or two of the same task and classes.

    Each runs as it would be served: by the settings, or by its card's ``run_with``. Accuracy is
    of whole answers, one picture at a time; speed is of the network alone.

    Args:
        a: The first: what metrics without labels measure against.
        b: The second.
        samples: The pictures, opened for the first model's card.
        settings: Execution and limits.
        metric: See `Exam`; "" for what task and labels allow.
        progress: Hears of each picture and round.
        seconds: What timing may take, roughly.

    Raises:
        InvalidRequest: their tasks or classes differ, or the metric does not fit.
        InputError: no picture can be read.
        ModelError: one cannot be loaded, or fails on every picture.
        ConfigError: a runtime or precision is not there.
    """
    _check_alike(a, b)
    exam = Exam(samples.items, metric, card=a.card, limits=settings.limits)
    with _loaded((a, b), settings.execution) as models:
        one, other = (exam.sit(model, progress) for model in models)
        speed = _race(exam, models, (one, other), seconds, progress)
    worst = _worst(exam, one, other)
    return Comparison(
        _as_run(a, one, settings),
        _as_run(b, other, settings),
        samples.source,
        len(exam.readable),
        exam.unreadable,
        exam.metric,
        exam.compare(one, other),
        exam.agreement(one, other),
        int(exam.telling(one, other).sum()),
        tuple((exam.samples[i].name, value) for i, value in worst),
        _shown(exam, worst[:SHOWN], (one, other), a.card, settings.limits),
        speed,
        settings.execution.threads,
    )


@contextmanager
def _loaded(entries: Sequence[Entry], execution: Execution) -> Iterator[list[Model]]:
    with ExitStack() as stack:
        models = []
        for entry in entries:
            models.append(load_model(entry, execution))
            stack.callback(models[-1].close)
        yield models


def _worst(exam: Exam, one: Sitting, other: Sitting) -> list[tuple[int, float]]:
    """Return the samples that were answered differently, by index, the most different first."""
    try:
        agreements = exam.agreements(one, other)
    except ValueError as error:
        message = f"{one.model} and {other.model} cannot be compared: {error}"
        raise InvalidRequest(message) from error
    order = np.argsort(agreements, kind="stable")[:LISTED].tolist()
    return [(exam.readable[i], float(agreements[i])) for i in order if agreements[i] < SAME]


def _check_alike(a: Entry, b: Entry) -> None:
    for what, one, other in (
        ("are for different tasks", a.card.task, b.card.task),
        ("answer with different classes", a.card.classes, b.card.classes),
    ):
        if one != other:
            shown = f": {one} and {other}" if isinstance(one, str) else ""
            message = f"{a.card.name} and {b.card.name} {what}{shown}"
            raise InvalidRequest(f"{message}; compare two models that answer alike")


def _shown(
    exam: Exam,
    worst: Sequence[tuple[int, float]],
    sittings: tuple[Sitting, Sitting],
    card: Card,
    limits: Limits,
) -> tuple[Picture, ...]:
    a, b = (sitting.outcomes for sitting in sittings)
    return tuple(show(exam.samples[i], v, (a[i], b[i]), card, limits) for i, v in worst)


def _race(
    exam: Exam,
    models: Sequence[Model],
    sittings: tuple[Sitting, Sitting],
    seconds: float,
    progress: Progress | None,
) -> Speed:
    """Time both on the first pictures that they have answers to."""
    rows = {}
    for key, model, sitting in zip("AB", models, sittings, strict=True):
        answered = [i for i in exam.readable if sitting.outcomes[i].error is None]
        rows[key] = [exam.prepared(model, i).tensors for i in answered[:_TIMED]]
    racing = dict(zip("AB", models, strict=True))
    return race(racing, rows, seconds=seconds, progress=progress)


def _as_run(entry: Entry, sitting: Sitting, settings: Settings) -> Side:
    told = entry.card.run_with or settings.execution
    return Side(entry, told.runtime, told.precision, sitting.failures)
