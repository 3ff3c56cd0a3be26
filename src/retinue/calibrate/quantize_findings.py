"""What a search for a faster variant came to: as values, as JSON, as sentences, as a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

from retinue.calibrate.machine import Machine
from retinue.calibrate.quantize_search import Candidate
from retinue.calibrate.report import Bar, Mood, number, render, size
from retinue.calibrate.select import Split
from retinue.calibrate.sensitivity import Sensitivity
from retinue.calibrate.speed import Speed
from retinue.core.settings import Execution
from retinue.measure.paired import Interval, Paired
from retinue.models.registry import Entry

SCHEMA: Final = "retinue.quantize/1"
NOW, FULL, VARIANT = "now", "full precision, same runtime", "variant"
NAMES: Final = {
    "map": "mAP@[.50:.95]",
    "top1": "top-1",
    "cosine": "cosine with the parent",
    "agreement": "agreement with the parent",
}
_FEW: Final = 100
_LAYERS: Final = 20
_UNDECIDED: Final = ("less sure", "not examined")
_MOODS: Final[dict[str, Mood]] = {
    "chosen": "good",
    "too much lost": "bad",
    "failed": "bad",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was measured of the chosen variant on the pictures held out.

    Attributes:
        accuracy: Of the model as it is now, and of the variant, in [0, 1].
        agreement: Of the two, in [0, 1].
        telling: Number of pictures that it is of: those in which either found anything.
        speed: Of `NOW`, `VARIANT`, and `FULL` where the variant's runtime is another.
        bytes: Size of the variant's file.
    """

    accuracy: Paired
    agreement: Interval
    telling: int
    speed: Speed
    bytes: int

    @property
    def lost(self) -> float:
        """Points (hundredths) of the metric that the variant loses."""
        return -100 * self.accuracy.difference.value


@dataclass(frozen=True, slots=True)
class Findings:
    """All that was found.

    Attributes:
        parent: The model that was to be made faster.
        source: What the pictures are.
        split: How they were divided.
        chosen_by: Number of pictures that variants were chosen by.
        metric: What is measured.
        max_drop: Points of it that may be lost.
        candidates: All variants that were considered.
        sensitivities: Of the layers, the most sensitive ones first.
        chosen: The variant that was chosen, or None.
        verdict: Its final measurement.
        refusal: Why no version is made; "" when one is.
        tensorrt: What was written for TensorRT; "" for nothing.
        execution: How the model is executed now.
        machine: Where.
        at: When, in UTC.
        seconds: How long it took.
    """

    parent: Entry
    source: str
    split: Split
    chosen_by: int
    metric: str
    max_drop: float
    candidates: tuple[Candidate, ...]
    sensitivities: tuple[Sensitivity, ...]
    chosen: Candidate | None
    verdict: Verdict | None
    refusal: str
    tensorrt: str
    execution: Execution
    machine: Machine
    at: datetime
    seconds: float

    @property
    def says(self) -> tuple[str, ...]:
        """What can be told and what cannot, in plain sentences."""
        said = [self.refusal] if self.refusal else []
        if self.verdict is not None:
            said += [*_on_loss(self, self.verdict), _on_speed(self.verdict)]
        said.append(
            "INT8 is exact in its own way on each processor: the figures are of this one. "
            "On another one, compare again before promoting."
        )
        said.append(self.tensorrt or "TensorRT was not run.")
        return tuple(said)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON's types, of the schema that the user's guide describes.

        Shares are in [0, 1], drops in points, times in milliseconds, intervals of 95 %.
        """
        split = self.split
        return {
            "schema": SCHEMA,
            "at": self.at.isoformat(),
            "name": self.parent.card.name,
            "parent": self.parent.version,
            "data": {
                "source": self.source,
                "calibration": len(split.calibration),
                "calibration_digest": split.digest,
                "chosen_by": self.chosen_by,
                "held_out": len(split.held_out),
                "duplicates": split.duplicates,
                "unreadable": [list(pair) for pair in split.unreadable],
            },
            "metric": self.metric,
            "max_drop": self.max_drop,
            "refusal": self.refusal,
            "chosen": _candidate(self.chosen) if self.chosen is not None else None,
            "verdict": _verdict(self.verdict, self.max_drop) if self.verdict is not None else None,
            "candidates": [_candidate(c) for c in self.candidates],
            "sensitivity": [asdict(s) for s in self.sensitivities],
            "tensorrt": self.tensorrt,
            "says": list(self.says),
            "execution": self.execution.model_dump(mode="json"),
            "machine": self.machine.to_dict(),
            "seconds": round(self.seconds, 1),
        }

    def to_html(self) -> str:
        """Return it as a page that needs nothing else."""
        verdict = self.verdict
        candidates = ranked(self)
        return render(
            "quantize.html",
            found=self,
            metric=NAMES[self.metric],
            columns=COLUMNS,
            tiles=_tiles(self),
            accuracy=_accuracy(verdict) if verdict is not None else [],
            change=_change(self, verdict) if verdict is not None else [],
            agreement=[Bar.of("agreement", verdict.agreement, scale=100)] if verdict else [],
            speeds=[Bar.of(k, t) for k, t in verdict.speed.ms.items()] if verdict else [],
            candidates=[row(c) for c in candidates],
            moods=[_MOODS.get(c.state, "") for c in candidates],
            layers=_layers(self.sensitivities),
            facts=_facts(self),
        )


COLUMNS: Final = (
    "variant",
    "runtime",
    "ms",
    "speed-up",
    "alike",
    "SNR dB",
    "lost",
    "agreement",
    "outcome",
)


def outcome(candidate: Candidate) -> str:
    """Return what became of a candidate, in a few words."""
    return candidate.state or _UNDECIDED[candidate.drop is None]


def row(candidate: Candidate) -> tuple[str, ...]:
    """Return a candidate's cells of a table with `COLUMNS`."""
    look, run_with = candidate.look, candidate.run_with
    figures = (
        (look.ms, look.speedup, look.agreement, look.snr_db) if look is not None else (None,) * 4
    )
    cells = [*figures, candidate.drop, candidate.agreement]
    runtime = run_with.runtime + ("" if run_with.precision == "f32" else f" {run_with.precision}")
    reason = f": {candidate.reason}" if candidate.reason else ""
    shown = ["" if value is None else number(value) for value in cells]
    return (candidate.label, runtime, *shown, f"{outcome(candidate)}{reason}")


def ranked(found: Findings) -> list[Candidate]:
    """Return the candidates: the chosen one, then the others from the fastest one on."""
    return sorted(found.candidates, key=_rank)


def _rank(candidate: Candidate) -> tuple[bool, float]:
    look = candidate.look
    return candidate.state != "chosen", -look.speedup if look is not None else 0.0


def _on_loss(found: Findings, verdict: Verdict) -> list[str]:
    change, n = verdict.accuracy.difference, verdict.accuracy.images
    low, high = (number(100 * v, sign=True) for v in (change.low, change.high))
    span = f"95 % interval {low} to {high}"
    measured = f"On {n} held-out pictures {NAMES[found.metric]} changed by "
    measured += (
        f"{number(100 * change.value, sign=True)} points ({span}); {found.max_drop} may be lost."
    )
    bound = found.max_drop / 100
    why = (
        "the interval reaches to both sides of the bound"
        if change.low < -bound
        else "they are too few to show a loss as small as that"
    )
    told = {
        "within": "It can be told that no more is lost than is allowed.",
        "beyond": "It can be told that more is lost than is allowed.",
        "open": f"These pictures cannot tell whether more is lost than is allowed: {why}. "
        "More pictures would.",
    }[verdict.accuracy.verdict(bound)]
    few = [f"{n} pictures are few: intervals come out too narrow."] if n < _FEW else []
    return [measured, told, *few]


def _on_speed(verdict: Verdict) -> str:
    ratio = verdict.speed.ratio(NOW, VARIANT)
    return (
        f"One run is {number(ratio.median)} times as fast as now "
        f"({number(ratio.low)} to {number(ratio.high)})."
    )


def _candidate(candidate: Candidate) -> dict[str, Any]:
    recipe, look = candidate.recipe, candidate.look
    return {
        "label": candidate.label,
        "runtime": candidate.run_with.runtime,
        "precision": candidate.run_with.precision,
        "recipe": asdict(recipe) if recipe is not None else None,
        "excluded": list(candidate.excluded),
        "look": asdict(look) if look is not None else None,
        "drop": candidate.drop,
        "sure": candidate.sure,
        "agreement": candidate.agreement,
        "state": outcome(candidate),
        "reason": candidate.reason,
    }


def _verdict(verdict: Verdict, max_drop: float) -> dict[str, Any]:
    speed = verdict.speed
    paired = verdict.accuracy
    ratios = {name: asdict(speed.ratio(name, VARIANT)) for name in speed.rounds if name != VARIANT}
    return {
        "before": asdict(paired.a),
        "after": asdict(paired.b),
        "difference": asdict(paired.difference),
        "told": paired.verdict(max_drop / 100),
        "lost_more_than_allowed": paired.worse_than(max_drop / 100),
        "images": paired.images,
        "resamples": paired.resamples,
        "agreement": asdict(verdict.agreement),
        "telling": verdict.telling,
        "ms": {name: asdict(timing) for name, timing in speed.ms.items()},
        "speedup": ratios,
        "order": speed.order,
        "bytes": verdict.bytes,
    }


def _tiles(found: Findings) -> list[tuple[str, ...]]:
    verdict = found.verdict
    if verdict is None:
        return []
    mood = {"within": "good", "beyond": "bad", "open": "open"}
    change = verdict.accuracy.difference
    told = mood[verdict.accuracy.verdict(found.max_drop / 100)]
    return [
        (f"{number(verdict.speed.ratio(NOW, VARIANT).median)}\N{MULTIPLICATION SIGN}", "as fast"),
        (number(100 * change.value, sign=True), f"points of {NAMES[found.metric]}", told),
        (f"{number(100 * verdict.agreement.value, 1)} %", "agreement with the parent"),
        (size(verdict.bytes), f"was {size(found.parent.size)}"),
    ]


def _accuracy(verdict: Verdict) -> list[Bar]:
    pair = verdict.accuracy
    return [Bar.of("before", pair.a, scale=100), Bar.of("after", pair.b, scale=100)]


def _change(found: Findings, verdict: Verdict) -> list[Bar]:
    moods: dict[str, Mood] = {"within": "good", "beyond": "bad", "open": "open"}
    mood = moods[verdict.accuracy.verdict(found.max_drop / 100)]
    return [
        Bar.of("after \N{MINUS SIGN} before", verdict.accuracy.difference, scale=100, mood=mood)
    ]


def _short(layers: Sequence[str]) -> str:
    if len(layers) <= 3:
        return ", ".join(layers)
    return f"{layers[0]} and {len(layers) - 1} more nodes"


def _layers(sensitivities: Sequence[Sensitivity]) -> list[tuple[str, str, str]]:
    return [
        (
            _short(s.layers),
            "not measured" if s.snr_db is None else number(s.snr_db, 1),
            "yes" if s.head else "",
        )
        for s in sensitivities[:_LAYERS]
    ]


def _facts(found: Findings) -> list[tuple[str, str]]:
    split = found.split
    unread = [f"{name} ({reason})" for name, reason in split.unreadable[:5]]
    excluded = found.chosen.excluded if found.chosen is not None else ()
    facts = [
        ("pictures", found.source),
        ("calibrated with", f"{len(split.calibration)} pictures, sha256 {split.digest}"),
        ("chosen by", f"{found.chosen_by} pictures"),
        ("measured on", f"{len(split.held_out)} pictures, held out from both"),
        ("left out", f"{split.duplicates} duplicates, {len(split.unreadable)} unreadable"),
        ("allowed drop", f"{found.max_drop} points of {NAMES[found.metric]}"),
        ("now", f"{found.execution.runtime} {found.execution.precision}"),
        ("threads", str(found.execution.threads)),
        ("machine", found.machine.line),
        ("took", f"{found.seconds:.0f} s"),
    ]
    if unread:
        facts.append(("unreadable", "; ".join(unread)))
    if excluded:
        facts.append(("in floating point", ", ".join(excluded)))
    if found.verdict is not None:
        facts.append(("timing", found.verdict.speed.order))
    return facts
