"""INT8 that chooses itself: try what there is, keep the fastest that loses no more than it may.

Three sets of pictures, so that no figure flatters: ranges are found on the calibration pictures,
variants are chosen on spare ones (filled up with calibration pictures where few are to spare: a
handful of ranges remembers little of them), and what is reported and decided by is measured once,
of the one variant that was chosen, on pictures held out from all of that.
"""

from __future__ import annotations

import platform
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import orjson

from retinue.calibrate import tensorrt
from retinue.calibrate.evaluate import Exam
from retinue.calibrate.machine import this_machine
from retinue.calibrate.quantize_bench import Bench, feeds
from retinue.calibrate.quantize_findings import FULL, NOW, VARIANT, Findings, Verdict
from retinue.calibrate.quantize_search import (
    LEAST_AGREEMENT,
    Bounds,
    Candidate,
    Kitchen,
    Search,
)
from retinue.calibrate.report import number
from retinue.calibrate.samples import Sample, Samples
from retinue.calibrate.select import Split, split
from retinue.calibrate.speed import race
from retinue.calibrate.variants import prepare, recipes, saturates
from retinue.core.errors import GateRefused, InvalidRequest, UnsupportedModel, storage_errors
from retinue.core.protocols import Precision
from retinue.core.settings import Execution, Settings
from retinue.models.card import RunWith
from retinue.models.fetch import Progress, Quiet
from retinue.models.loading import load_model
from retinue.models.registry import Entry, Lineage, Registry

RUNTIMES: Final = ("onnxruntime", "openvino")
"""Runtimes of this machine that INT8 makes faster."""
CHOOSING: Final = 256
"""Pictures that variants are chosen by, where there are as many: each variant answers them all."""
LEAST_TELLING: Final = 12
"""Held-out pictures in which the model finds anything: fewer tell nothing of a variant."""
_TIMING_S: Final = 20.0
_REPORTS: Final = ("report.json", "report.html")


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked for.

    Attributes:
        max_drop: Points (hundredths) of the metric that may be lost.
        metric: "map", "top1", "cosine", "agreement"; "" for what task and labels allow.
        calibration: Pictures to calibrate with.
        runtimes: Runtimes to try, of `RUNTIMES`.
        budget_s: Seconds that the search may take, roughly; the final measurement comes on top.
        tensorrt: Where to write a network for TensorRT too; None for nowhere.
        seed: Decides which pictures are held out, and which calibrate; not below 0.

    Raises:
        InvalidRequest: a figure is out of range, or a runtime is none of `RUNTIMES`.
    """

    max_drop: float = 0.5
    metric: str = ""
    calibration: int = 512
    runtimes: tuple[str, ...] = RUNTIMES
    budget_s: float = 1800.0
    tensorrt: Path | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.max_drop <= 100:
            raise InvalidRequest(f"the drop must be 0 to 100 points, not {self.max_drop}")
        if not 0 < self.budget_s < float("inf"):
            raise InvalidRequest(f"the budget must be above 0 seconds, not {self.budget_s}")
        if self.seed < 0:
            raise InvalidRequest(f"the seed must not be below 0, it is {self.seed}")
        unknown = sorted(set(self.runtimes) - set(RUNTIMES))
        if unknown or not self.runtimes:
            known = ", ".join(RUNTIMES)
            asked = f"runtime {', '.join(unknown)}" if unknown else "no runtime"
            raise InvalidRequest(f"{asked}: INT8 is tried on {known}")


@dataclass(frozen=True, slots=True)
class Quantized:
    """A new version.

    Attributes:
        entry: As it is installed; no alias names it yet.
        findings: What was measured.
    """

    entry: Entry
    findings: Findings


def quantize(
    entry: Entry,
    samples: Samples,
    wish: Wish,
    *,
    settings: Settings,
    registry: Registry,
    progress: Progress | None = None,
    heard: Callable[[Findings], None] | None = None,
) -> Quantized:
    """Make a model faster and install the result as a version of it, or refuse.

    Args:
        entry: The model, in full precision.
        samples: Representative pictures, opened for its card.
        wish: What is asked for.
        settings: Execution and limits.
        registry: Where the version is installed.
        progress: Hears of each step.
        heard: Is given the findings before the version is installed or refused.

    Raises:
        GateRefused: nothing is both faster and within the drop; the message says what was best.
        InputError: too few pictures, or none can be read.
        InvalidRequest: the metric does not fit the pictures.
        UnsupportedModel: the network is quantised already, or has nothing to quantise.
        ModelError: the model itself cannot be loaded or run.
        StorageError: the disk is full, or not writable.
    """
    if entry.lineage is not None:
        made = f"{entry.card.name}@{entry.version} was itself made from {entry.lineage.parent}"
        raise UnsupportedModel(f"{made}; quantise {entry.card.name}@{entry.lineage.parent}")
    heard_of = progress or Quiet()
    parts = split(
        samples,
        calibration=wish.calibration,
        limits=settings.limits,
        seed=wish.seed,
        progress=heard_of,
    )
    with registry.workspace(entry.card.name) as folder, storage_errors(folder, "quantising"):
        job = _Job(entry, samples.source, parts, wish, settings, folder, heard_of)
        findings = job.run()
        if heard is not None:
            heard(findings)
        if findings.refusal:
            raise GateRefused(f"{entry.card.name}@{entry.version}: {findings.refusal}")
        return Quantized(_install(findings, registry, folder), findings)


@dataclass(frozen=True, slots=True)
class _Job:
    entry: Entry
    source: str
    parts: Split
    wish: Wish
    settings: Settings
    folder: Path
    progress: Progress

    def run(self) -> Findings:
        """Search, then measure what was chosen."""
        began = time.monotonic()
        choosing, machine = self._choosing(), this_machine()
        limits = self.settings.limits
        # All in this process: the way to another one is no part of a network's time.
        execution = self.settings.execution.model_copy(update={"isolate": False})
        with closing(load_model(self.entry, execution)) as model:
            bench = Bench(self.entry, execution, model)
            bench.show(self.parts.calibration, limits)
            inputs = feeds(model, self.parts.calibration, limits)
            network = prepare(self.entry.path, self.folder, inputs)
            kitchen = Kitchen(network, len(self.parts.calibration), self.progress)
            exam = Exam(choosing, self.wish.metric, card=self.entry.card, limits=limits)
            # Made now: labels that do not serve are refused before the search.
            final = Exam(self.parts.held_out, exam.metric, card=self.entry.card, limits=limits)
            written = self._for_tensorrt(kitchen)
            end = began + self.wish.budget_s
            bounds = Bounds(self.wish.max_drop, lambda: time.monotonic() > end)
            search = Search(bench, kitchen, exam, bounds, self.progress)
            weak = saturates(platform.machine(), machine.instructions)
            chosen = search.run(list(candidates(self.wish.runtimes, saturates=weak)))
            verdict = self._verdict(bench, chosen, final) if chosen is not None else None
        return Findings(
            parent=self.entry,
            source=self.source,
            split=self.parts,
            chosen_by=len(choosing),
            metric=exam.metric,
            max_drop=self.wish.max_drop,
            candidates=tuple(search.candidates),
            sensitivities=search.sensitivities,
            chosen=chosen,
            verdict=verdict,
            refusal=_refusal(search.candidates, verdict, self.wish, late=bounds.late()),
            tensorrt=written,
            execution=execution,
            machine=machine,
            at=datetime.now(UTC),
            seconds=time.monotonic() - began,
        )

    def _choosing(self) -> tuple[Sample, ...]:
        spare, used = self.parts.spare, self.parts.calibration
        missing = max(CHOOSING - len(spare), 0)
        return _some(spare, CHOOSING) + _some(used, missing)

    def _verdict(self, bench: Bench, chosen: Candidate, exam: Exam) -> Verdict:
        path, run_with = chosen.path or self.entry.path, chosen.run_with
        full = RunWith(runtime=run_with.runtime)
        with bench.loaded(path, run_with) as variant, bench.loaded(self.entry.path, full) as same:
            now, then = (exam.sit(model, self.progress) for model in (bench.model, variant))
            models = {NOW: bench.model, FULL: same, VARIANT: variant}
            if full == (self.entry.card.run_with or _served(self.settings.execution)):
                del models[FULL]
            speed = race(models, bench.rows, seconds=_TIMING_S, progress=self.progress)
        accuracy, agreement = exam.compare(now, then), exam.agreement(now, then)
        telling = int(exam.telling(now, then).sum())
        return Verdict(accuracy, agreement, telling, speed, path.stat().st_size)

    def _for_tensorrt(self, kitchen: Kitchen) -> str:
        out = self.wish.tensorrt
        if out is None:
            return ""
        tensorrt.export(kitchen.static, out)
        return f"A network with Q/DQ pairs was written to {out}. {tensorrt.NOT_RUN}"


def _some(samples: tuple[Sample, ...], number: int) -> tuple[Sample, ...]:
    """Return a number of pictures, evenly chosen."""
    n = min(number, len(samples))
    return tuple(samples[i * len(samples) // n] for i in range(n))


def _served(execution: Execution) -> RunWith:
    return RunWith(runtime=execution.runtime, precision=execution.precision)


def candidates(runtimes: Sequence[str], *, saturates: bool) -> Iterator[Candidate]:
    """Yield what is tried: each recipe on each runtime, and the parent's weights in less precision.

    Args:
        runtimes: Keys of runtimes.
        saturates: Whether the processor's 8-bit products may saturate.
    """
    for runtime in runtimes:
        for recipe in recipes(saturates=saturates):
            yield Candidate(recipe.label, RunWith(runtime=runtime), recipe)
        # ONNX Runtime computes in the precision of the file, whatever is asked for.
        precisions: tuple[Precision, ...] = () if runtime == "onnxruntime" else ("bf16", "f16")
        for precision in precisions:
            run_with = RunWith(runtime=runtime, precision=precision)
            yield Candidate(f"the parent's weights in {precision}", run_with, None)


def _refusal(tried: Sequence[Candidate], verdict: Verdict | None, wish: Wish, *, late: bool) -> str:
    """Return why there is no version; "" where there is one."""
    bound = f"{wish.max_drop} points"
    if verdict is None:
        return _nothing_found(tried, bound, f"{wish.budget_s:g}" if late else "")
    change = verdict.accuracy.difference
    if verdict.lost > wish.max_drop:
        return (
            f"the best variant lost {verdict.lost:.2f} points on {verdict.accuracy.images} "
            f"held-out pictures (95 % interval {-100 * change.high:.2f} to "
            f"{-100 * change.low:.2f}); {bound} were allowed"
        )
    if verdict.telling < LEAST_TELLING:
        return (
            f"the model finds anything in {verdict.telling} held-out pictures alone, and needs "
            f"{LEAST_TELLING} to be judged by; give pictures of what it is made to find"
        )
    if verdict.agreement.value < LEAST_AGREEMENT:
        share = f"{100 * verdict.agreement.value:.0f} %"
        return f"the best variant agrees with the model in {share} of its answers alone"
    if verdict.speed.ratio(NOW, VARIANT).low <= 1:
        return "the best variant turned out not to be faster when it was timed at length"
    return ""


def _nothing_found(tried: Sequence[Candidate], bound: str, budget: str) -> str:
    said = [f"no variant is both faster and within {bound}"]
    examined = [c for c in tried if c.drop is not None]
    looked = [c for c in tried if c.look is not None]
    if examined:
        best = min(examined, key=lambda c: (c.drop, -(c.agreement or 0)))
        said.append(
            f"the best faster one, {_named(best)}, lost {number(best.drop or 0.0)} points "
            f"and agrees in {100 * (best.agreement or 0):.0f} %"
        )
    elif looked:
        said.append(_of_looks(looked))
    wrong = [c for c in tried if c.state in ("failed", "unavailable")]
    if wrong:
        first = f"{_named(wrong[0])}: {wrong[0].reason}"
        said.append(f"{len(wrong)} could not be tried ({first})")
    if budget:
        said.append(f"the budget of {budget} seconds was used up; give more with --budget")
    return "; ".join(said)


def _of_looks(looked: Sequence[Candidate]) -> str:
    """Return what the variants fell out by, where none got so far as to be examined."""
    looks = [(c, c.look) for c in looked if c.look is not None]
    lossy = [pair for pair in looks if pair[0].state == "too much lost"]
    if not lossy:
        best, look = max(looks, key=lambda pair: pair[1].speedup)
        return f"the fastest, {_named(best)}, runs at {look.speedup:.2f} x"
    best, look = max(lossy, key=lambda pair: pair[1].likeness)
    return (
        f"of {len(lossy)} faster ones even that most like the model, {_named(best)}, agrees with "
        f"it in {100 * look.agreement:.0f} % alone"
    )


def _named(candidate: Candidate) -> str:
    return f"{candidate.label} on {candidate.run_with.runtime}"


def _install(findings: Findings, registry: Registry, folder: Path) -> Entry:
    chosen, verdict, parent = findings.chosen, findings.verdict, findings.parent
    assert chosen is not None
    assert verdict is not None
    made = folder / "made" / "model.onnx"
    made.parent.mkdir()
    shutil.copyfile(chosen.path or parent.path, made)
    agreement = verdict.agreement
    # What was seen in none of n pictures may still happen in 3 of n (the rule of three).
    low = max(min(agreement.low, 1 - 3 / verdict.telling), 0.0)
    lineage = Lineage(parent=parent.version, agreement=agreement.value, agreement_low=low)
    json = orjson.dumps(findings.to_dict(), option=orjson.OPT_INDENT_2)
    reports = dict(zip(_REPORTS, (json, findings.to_html().encode()), strict=True))
    card = parent.card.model_copy(update={"run_with": chosen.run_with})
    return registry.derive(parent, made, card, lineage, reports)
