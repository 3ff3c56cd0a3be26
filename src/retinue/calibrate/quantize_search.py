"""The search for the fastest variant that loses no more than it may.

Every variant gets a quick look: its speed, and how much its answers are like the model's. Of the
best recipe of each runtime, further variants leave the most sensitive layers in floating point: a
few of them are often most of the loss and little of the time. Then the fastest variant sits an
exam, on pictures that are not used for the final figures; among those of about the same speed the
one most like the model goes first. The first that passes in two of three resamples of the pictures
is chosen; without one, that which passes in most. One that is clearly less like the model than one
that did not surely pass is not examined: accuracy on some hundred pictures is a coarse figure, by
which a worse one would at last pass by luck.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from retinue.calibrate import variants_nncf
from retinue.calibrate.evaluate import Exam
from retinue.calibrate.quantize_bench import Bench, Look
from retinue.calibrate.samples import counted
from retinue.calibrate.sensitivity import Sensitivity, measure, steps
from retinue.calibrate.variants import Network, Recipe, Tool
from retinue.calibrate.variants_onnxruntime import StaticQuantizer
from retinue.core.errors import RetinueError, StorageError
from retinue.models.card import RunWith
from retinue.models.fetch import Progress

State = Literal["", "chosen", "too much lost", "not faster", "failed", "unavailable"]

LEAST_SPEEDUP: Final = 1.05
"""Less is not worth another version of a model."""
AS_FAST: Final = 1.1
"""Variants whose speeds differ by less than this are told apart by likeness."""
LEAST_AGREEMENT: Final = 0.5
"""A variant that answers otherwise more often than not is another model, whatever the metric."""
CLEARLY: Final = 0.03
"""Agreement in quick looks that differs by less may do so by chance."""
_ALIKE_FAST: Final = 1.25
"""Recipes of one runtime differ by less: what a quick look tells beyond that is chance."""
SURE: Final = 2 / 3
"""Share of resamples that must be within the drop for the search to look no further."""
_ALONE_PICTURES: Final = 4
_STEPS: Final[dict[Tool, int]] = {"onnxruntime": 8, "nncf": 4}
"""How many variants leave layers out; NNCF calibrates anew for each."""


@dataclass(slots=True)
class Candidate:
    """A variant, and what is known of it so far.

    Attributes:
        label: As reports call it.
        run_with: What runs it.
        recipe: How its weights are made; None for those of the parent.
        excluded: Nodes that stay in floating point.
        path: Its ONNX file, once made.
        look: The quick look's figures.
        drop: What it lost in the exam of the search, in points of the metric.
        sure: Share of that exam's resamples in which it lost no more than it may.
        agreement: With the parent in that exam, in [0, 1].
        state: What became of it; "" when time was up before.
        reason: Why, where that needs saying.
    """

    label: str
    run_with: RunWith
    recipe: Recipe | None
    excluded: tuple[str, ...] = ()
    path: Path | None = None
    look: Look | None = None
    drop: float | None = None
    sure: float = 0.0
    agreement: float | None = None
    state: State = ""
    reason: str = ""


class Kitchen:
    """Makes the weights of recipes, each once."""

    def __init__(self, network: Network, pictures: int, progress: Progress) -> None:
        """Take a network, how many pictures calibrate it, and who hears of it."""
        self.network = network
        self.static = StaticQuantizer(network, pictures, progress)
        self._pictures = pictures
        self._made: dict[tuple[Recipe, tuple[str, ...]], Path | RetinueError] = {}
        self._progress = progress

    def make(self, recipe: Recipe, excluded: tuple[str, ...] = ()) -> Path:
        """Return the file of a recipe; a failure is remembered and raised again.

        Raises:
            MissingExtra: its tool is not installed.
            UnsupportedModel: its tool cannot.
            OSError: the file cannot be written.
        """
        key = recipe, excluded
        if key not in self._made:
            out = self.network.folder / f"variant-{len(self._made)}.onnx"
            try:
                self._made[key] = self._make(recipe, excluded, out)
            except RetinueError as error:
                self._made[key] = error
        made = self._made[key]
        if isinstance(made, RetinueError):
            raise made
        return made

    def _make(self, recipe: Recipe, excluded: tuple[str, ...], out: Path) -> Path:
        if recipe.tool == "onnxruntime":
            return self.static.make(recipe, out, excluded=excluded)
        self._progress.start(f"NNCF quantises ({recipe.method})")
        made = variants_nncf.make(
            self.network, recipe, out, pictures=self._pictures, excluded=excluded
        )
        self._progress.finish()
        return made


@dataclass(frozen=True, slots=True)
class Bounds:
    """When a variant is good enough, and when the search ends.

    Attributes:
        max_drop: Points of the metric that may be lost.
        late: Whether time is up.
    """

    max_drop: float
    late: Callable[[], bool]


class Search:
    """Looks at candidates, examines them, refines one."""

    def __init__(
        self, bench: Bench, kitchen: Kitchen, exam: Exam, bounds: Bounds, progress: Progress
    ) -> None:
        """Take the means; the model as it is now sits the exam at once."""
        self._bench = bench
        self._kitchen = kitchen
        self._exam = exam
        self._bounds = bounds
        self._progress = progress
        self._now = exam.sit(bench.model, progress)
        self.candidates: list[Candidate] = []
        self.sensitivities: tuple[Sensitivity, ...] = ()

    def run(self, candidates: Sequence[Candidate]) -> Candidate | None:
        """Return the fastest candidate that passes, or None; `candidates` then tells of all."""
        self._look_at(candidates)
        self._look_at(self._refined())
        left = [c for c in self.candidates if not c.state and c.look is not None]
        while left:
            best = _best(left)
            if self._passes(best) and best.sure >= SURE:
                best.state = "chosen"
                return best
            left.remove(best)
            for worse in [c for c in left if _alike(c) < _alike(best) - CLEARLY]:
                worse.reason = "clearly less like the model than one that did not surely pass"
                left.remove(worse)
            if self._bounds.late():
                break  # only now: the best one is examined, however long it took to find
        passed = [c for c in self.candidates if not c.state and c.drop is not None]
        if not passed:
            return None
        surest = max(passed, key=lambda c: c.sure)
        surest.state = "chosen"
        return surest

    def _look_at(self, candidates: Sequence[Candidate]) -> None:
        self.candidates += candidates
        for number, candidate in enumerate(candidates, start=1):
            self._progress.start(f"variant {number} of {len(candidates)}: {candidate.label}")
            if not self._bounds.late():
                self._look(candidate)
            self._progress.finish()

    def _look(self, candidate: Candidate) -> None:
        """Make a candidate and look at it; what goes wrong is its own state."""
        if candidate.state:
            return
        try:
            recipe = candidate.recipe
            if recipe is not None:
                candidate.path = self._kitchen.make(recipe, candidate.excluded)
            with self._bench.loaded(self._path(candidate), candidate.run_with) as model:
                candidate.look = self._bench.look(model)
        except StorageError:
            raise
        except RetinueError as error:
            missing = error.code in ("missing_extra", "invalid_config")
            candidate.state = "unavailable" if missing else "failed"
            # Of a precision or device that is lacking, the runtime's own words say it best.
            cause = error.__cause__ if error.code == "invalid_config" else None
            candidate.reason = cause.message if isinstance(cause, RetinueError) else error.message
            return
        if candidate.look.speedup < LEAST_SPEEDUP:
            candidate.state = "not faster"
        elif candidate.look.agreement < LEAST_AGREEMENT:
            candidate.state = "too much lost"

    def _path(self, candidate: Candidate) -> Path:
        return candidate.path or self._bench.entry.path

    def _passes(self, candidate: Candidate) -> bool:
        try:
            with self._bench.loaded(self._path(candidate), candidate.run_with) as model:
                sitting = self._exam.sit(model, self._progress)
        except RetinueError as error:
            candidate.state, candidate.reason = "failed", error.message
            return False
        paired = self._exam.compare(self._now, sitting)
        lost = -100 * paired.difference.value
        candidate.drop = lost
        candidate.sure = 1 - paired.worse_than(self._bounds.max_drop / 100)
        candidate.agreement = self._exam.agreement(self._now, sitting).value
        good = lost <= self._bounds.max_drop and candidate.agreement >= LEAST_AGREEMENT
        candidate.state = "" if good else "too much lost"
        return good

    def _refined(self) -> list[Candidate]:
        """Return variants of the best recipe of each runtime that leave sensitive layers out."""
        # Also of those that lose too much: that may be the work of a few layers.
        fast = [c for c in self.candidates if c.state in ("", "too much lost") and c.look]
        made = [c for c in fast if c.recipe is not None]
        bases = [
            _best([c for c in made if c.run_with == run_with], _ALIKE_FAST)
            for run_with in dict.fromkeys(c.run_with for c in made)
        ]
        if not bases or self._bounds.late():
            return []
        self._measure(_best(bases, _ALIKE_FAST))
        refined = []
        for base in bases:
            assert base.recipe is not None
            for out in steps(self.sensitivities, _STEPS[base.recipe.tool]):
                label = f"{base.label}, {counted(len(out), 'node')} in f32"
                refined.append(Candidate(label, base.run_with, base.recipe, out))
        return refined

    def _measure(self, candidate: Candidate) -> None:
        """Measure each layer as this candidate quantises and runs it."""
        recipe = candidate.recipe
        assert recipe is not None
        if recipe.tool != "onnxruntime":
            recipe = Recipe("onnxruntime", "minmax", recipe.per_channel, recipe.weights)
        made = self._kitchen.network.folder / "alone.onnx"

        def alone(layers: Sequence[str]) -> float | None:
            try:
                self._kitchen.static.make(recipe, made, only=layers)
                with self._bench.loaded(made, candidate.run_with) as model:
                    return self._bench.noise(model, _ALONE_PICTURES)
            except RetinueError:
                return None

        self.sensitivities = measure(
            self._kitchen.network, alone, late=self._bounds.late, progress=self._progress
        )


def _best(candidates: Sequence[Candidate], as_fast: float = AS_FAST) -> Candidate:
    """Return the one most like the model, of those that are about as fast as the fastest."""
    looks = [(c, c.look) for c in candidates if c.look is not None]
    fastest = max(look.speedup for _, look in looks)
    near = [(c, look) for c, look in looks if look.speedup * as_fast >= fastest]
    return max(near, key=lambda pair: pair[1].likeness)[0]


def _alike(candidate: Candidate) -> float:
    return candidate.look.agreement if candidate.look is not None else 0.0
