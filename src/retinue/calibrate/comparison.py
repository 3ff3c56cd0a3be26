"""What a comparison of two models came to: as values, as JSON, as sentences, as a page."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from retinue.calibrate.evaluate import UNLABELLED, Metric
from retinue.calibrate.machine import Machine, this_machine
from retinue.calibrate.report import Bar, Mood, Picture, number, render
from retinue.calibrate.samples import counted
from retinue.calibrate.speed import Speed, Timing
from retinue.measure.paired import Interval, Paired
from retinue.models.registry import Entry

SCHEMA: Final = "retinue.compare/1"
LEAST: Final = 20
"""Pictures below which no model is called better: of five, all speak alike by chance often."""
FEW: Final = 100
"""Pictures below which percentile intervals are too narrow."""
ROWS: Final = 12
"""Pictures that a table of the page lists."""

NAMES: Final[dict[Metric, str]] = {
    "map": "mAP@[.50:.95]",
    "top1": "top-1",
    "cosine": "cosine with A",
    "agreement": "agreement with A",
}
"""The metrics as they are called in reports."""


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two models, as it was run.

    Attributes:
        entry: What the registry knows of it.
        runtime: What executed it.
        precision: In which arithmetic.
        failures: (name, reason) of the pictures that it gave no answer to.
    """

    entry: Entry
    runtime: str
    precision: str
    failures: tuple[tuple[str, str], ...]

    @property
    def name(self) -> str:
        """NAME@VERSION."""
        return f"{self.entry.card.name}@{self.entry.version}"


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a comparison came to.

    Attributes:
        a: The first model: the one that the other is measured against.
        b: The second.
        data: What the pictures are.
        pictures: Number of pictures that were measured with.
        unreadable: (name, reason) of those that could not be.
        metric: What accuracy means here.
        accuracy: Of both, in [0, 1].
        agreement: Mean agreement of the answers, in [0, 1].
        telling: Number of pictures that it is of: those in which either found anything.
        worst: (name, agreement) of the pictures that they agree least on, worst first.
        shown: Some of them as pictures.
        speed: Of one run on one picture, without pre- and postprocessing; they are "A" and "B".
        threads: Inside one run.
        machine: Where.
        at: When, in UTC.
    """

    a: Side
    b: Side
    data: str
    pictures: int
    unreadable: tuple[tuple[str, str], ...]
    metric: Metric
    accuracy: Paired
    agreement: Interval
    telling: int
    worst: tuple[tuple[str, float], ...]
    shown: tuple[Picture, ...]
    speed: Speed
    threads: int
    machine: Machine = field(default_factory=this_machine)
    at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def says(self) -> tuple[str, ...]:
        """What can be told from it and what cannot, in plain sentences."""
        return (*_on_accuracy(self), *_on_agreement(self), *_on_speed(self))

    @property
    def speedup(self) -> Timing:
        """How many times as fast B is as A."""
        return self.speed.ratio("A", "B")

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON's types, of the schema that the user's guide describes.

        Shares are in [0, 1], times in milliseconds, intervals of 95 %.
        """
        accuracy = {
            "metric": self.metric,
            "a": _interval(self.accuracy.a),
            "b": _interval(self.accuracy.b),
            "difference": _interval(self.accuracy.difference),
            "resamples": self.accuracy.resamples,
        }
        return {
            "schema": SCHEMA,
            "at": self.at.isoformat(),
            "a": _side(self.a),
            "b": _side(self.b),
            "data": {
                "source": self.data,
                "pictures": self.pictures,
                "unreadable": [list(pair) for pair in self.unreadable],
            },
            "accuracy": accuracy,
            "agreement": _interval(self.agreement)
            | {"telling": self.telling}
            | {"worst": [{"picture": name, "agreement": v} for name, v in self.worst]},
            "speed": {
                "a_ms": asdict(self.speed.ms["A"]),
                "b_ms": asdict(self.speed.ms["B"]),
                "speedup": asdict(self.speedup),
                "order": self.speed.order,
                "threads": self.threads,
            },
            "says": list(self.says),
            "machine": self.machine.to_dict(),
        }

    def to_html(self) -> str:
        """Return it as a page that needs nothing else."""
        accuracy = self.accuracy
        labels = [f"{key} {side.name}" for key, side in (("A", self.a), ("B", self.b))]
        figures = zip(labels, (accuracy.a, accuracy.b), strict=True)
        times = zip(labels, self.speed.ms.values(), strict=True)
        return render(
            "compare.html",
            a=self.a,
            b=self.b,
            metric=NAMES[self.metric],
            accuracy=[Bar.of(label, figure, scale=100) for label, figure in figures],
            difference=[
                Bar.of("B \N{MINUS SIGN} A", accuracy.difference, scale=100, mood=self.mood)
            ],
            agreement=[Bar.of("agreement", self.agreement, scale=100)],
            speeds=[Bar.of(label, ms) for label, ms in times],
            speedup=f"{number(self.speedup.median)}\N{MULTIPLICATION SIGN}",
            says=self.says,
            result=self,
            worst=[(picture, number(value)) for picture, value in self.worst[:ROWS]],
            problems=_problems(self),
            facts=_facts(self),
        )

    @property
    def mood(self) -> Mood:
        """Whether B is told to be better ("good") or worse ("bad"), or "open".

        Without labels, or with fewer pictures than `LEAST`, it cannot be told.
        """
        difference = self.accuracy.difference
        if self.metric in UNLABELLED or self.pictures < LEAST:
            return "open"
        if difference.low > 0:
            return "good"
        return "bad" if difference.high < 0 else "open"


def _interval(value: Interval) -> dict[str, float]:
    return {"value": value.value, "low": value.low, "high": value.high}


def _side(side: Side) -> dict[str, Any]:
    entry = side.entry
    return {
        "name": entry.card.name,
        "version": entry.version,
        "task": entry.card.task,
        "license": entry.card.license,
        "sha256": entry.sha256,
        "bytes": entry.size,
        "runtime": side.runtime,
        "precision": side.precision,
        "failures": [list(pair) for pair in side.failures],
    }


def _on_accuracy(result: Comparison) -> list[str]:
    n, name, difference = result.pictures, NAMES[result.metric], result.accuracy.difference
    few = [f"With {counted(n, 'picture')} the intervals come out too narrow."] if n < FEW else []
    if result.metric in UNLABELLED:
        b = result.accuracy.b
        said = f"B's {name} is {b.value:.4f} ({b.low:.4f} to {b.high:.4f}, 95 %)."
        return [said, "Without labels nothing can be told of right and wrong.", *few]
    points, low, high = (100 * v for v in (difference.value, difference.low, difference.high))
    span = f"95 % interval {number(low, sign=True)} to {number(high, sign=True)}"
    by = f"by {number(abs(points))} points of {name}"
    side = "above" if points > 0 else "below"
    if n < LEAST:
        found = f"B is {side} A {by}" if points else f"no {name} was won or lost"
        return [
            f"{counted(n, 'picture')} cannot tell whether A or B is better: {found}, which may be "
            f"chance; give {LEAST} pictures at least, better hundreds."
        ]
    if result.mood != "open":
        word = "better" if result.mood == "good" else "worse"
        return [f"B is {word} than A {by} ({span}).", *few]
    if difference.half_width == 0:
        said = f"A and B are equally right on these pictures: no {name} was won or lost."
        return [said, f"What strikes fewer than 3 in {n:,} pictures may have been missed.", *few]
    return [
        f"These pictures do not tell whether A or B is better: B is {side} A {by} ({span}).",
        f"Differences of less than some {number((high - low) / 2)} points are lost in "
        f"chance with {n:,} pictures; more of them tell more.",
        *few,
    ]


def _on_agreement(made: Comparison) -> list[str]:
    if made.telling == made.pictures:
        return []
    if not made.telling:
        return ["Neither finds anything in these pictures: the agreement tells nothing."]
    return [f"The agreement is of the {made.telling:,} pictures in which either finds anything."]


def _on_speed(result: Comparison) -> list[str]:
    ratio = result.speedup
    return [
        f"One run of B's network is {ratio.median:.2f} times as fast as A's ({ratio.low:.2f} to "
        f"{ratio.high:.2f}), with {result.threads} thread{'s' if result.threads > 1 else ''} "
        "on this machine."
    ]


def _facts(result: Comparison) -> list[tuple[str, str]]:
    a, b = result.a, result.b
    return [
        ("data", result.data),
        ("measured on", f"{result.pictures:,} pictures; {len(result.unreadable)} left out"),
        ("A ran on", f"{a.runtime}, {a.precision}, sha256 {a.entry.sha256}"),
        ("B ran on", f"{b.runtime}, {b.precision}, sha256 {b.entry.sha256}"),
        ("timed in", f"{result.speed.order}; threads inside a run: {result.threads}"),
        ("machine", result.machine.line),
        ("at", result.at.strftime("%Y-%m-%d %H:%M UTC")),
    ]


def _problems(result: Comparison) -> list[tuple[str, str, str]]:
    parts = (("left out", result.unreadable), ("A fails", result.a.failures))
    listed = (*parts, ("B fails", result.b.failures))
    return [(name, what, reason) for what, pairs in listed for name, reason in pairs[:ROWS]]
