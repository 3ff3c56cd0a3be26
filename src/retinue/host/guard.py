"""The live guard: judges versions by the comparisons, and takes out the one that fails."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from functools import partial

from retinue.core.errors import Conflict, NotFound, RetinueError
from retinue.core.record import Record
from retinue.core.settings import Rollout
from retinue.measure.sequential import MeanDropDetector
from retinue.models.ledger import Ledger, Target
from retinue.models.registry import Registry
from retinue.monitor.metrics import MetricsObserver
from retinue.pipeline.deployment import Deployment, Member, Plan
from retinue.pipeline.mirror import Role

ACTOR = "guard"
RETRY_S = 30.0

_log = logging.getLogger("retinue")


class Guard:
    """Judges one model's versions; implements `retinue.pipeline.mirror.Judge`.

    Each version that was derived from another one is allowed an agreement ``guard_tolerance`` below
    the one that was measured when it was made. When the comparisons show that it is less, the
    version answers no more from that moment on, and the ledger is told why.
    """

    def __init__(
        self, name: str, registry: Registry, metrics: MetricsObserver, settings: Rollout
    ) -> None:
        self._name = name
        self._registry = registry
        self._metrics = metrics
        self._settings = settings
        self._detectors: dict[str, MeanDropDetector] = {}
        # Version that was taken out to the length of the ledger that knows of it.
        self._told: dict[str, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.deployment = Deployment(
            name,
            self,
            shadow_share=settings.shadow_share,
            guard_share=settings.guard_share,
        )

    def serve(self, plan: Plan, members: Mapping[str, Member], state: tuple[int, int]) -> None:
        """Serve by another plan, and judge its versions; what is known of those that stay is kept.

        A version that was taken out and that a ledger asks for which knows of that was promoted
        again by somebody: it is served, and judged anew.

        Args:
            plan: What is wanted.
            members: All versions of the plan, loaded.
            state: The ledger's state that the plan was read in.
        """
        again = {version for version, told in self._told.items() if state[0] >= told}
        for version in again:
            del self._told[version]
            self.deployment.pardon(version)
        known = {v: one for v, one in self._detectors.items() if v not in again}
        detectors = {}
        for version in plan.references:
            lineage = plan.entries[version].lineage
            assert lineage is not None
            detectors[version] = known.get(version) or MeanDropDetector(
                # A bound of 0 could never be missed, and one of 1 would forgive nothing.
                min(max(lineage.agreement_low - self._settings.guard_tolerance, 0.01), 0.99),
                false_alarm_every=self._settings.guard_alarm_every,
            )
        for version in self._detectors.keys() - detectors.keys():
            self._metrics.rollout.unwatched(self._name, version)
        self._detectors = detectors
        self.deployment.apply(plan, members)
        self._metrics.rollout.serving(self._name, self.deployment.shares())

    def compared(self, role: Role, version: str, reference: str, agreement: float) -> None:
        """Take in one comparison; see `retinue.pipeline.mirror.Judge`."""
        rollout = self._metrics.rollout
        rollout.compared(self._name, version, role, reference, agreement)
        detector = self._detectors.get(version)
        if role != "guard" or detector is None or version in self.deployment.condemned:
            return
        failed = detector.update(agreement)
        rollout.evidence(self._name, version, detector.evidence)
        if failed:
            self._condemn(version, reference, detector)

    def repeated(self, role: Role, record: Record) -> None:
        """Count a repetition as a request of the app "shadow" or "guard"."""
        for _ in self._metrics.observe(record):
            pass

    def skipped(self, role: Role, version: str) -> None:
        """Count a comparison that could not be made."""
        self._metrics.rollout.skipped(self._name, version, role)

    def status(self) -> dict[str, dict[str, float]]:
        """Return, by version, what the guard knows: comparisons, mean agreement, evidence."""
        return {
            version: {
                "compared": detector.count,
                "agreement": round(detector.mean, 4) if detector.count else 0.0,
                "evidence": round(detector.evidence, 4),
            }
            for version, detector in self._detectors.items()
        }

    async def close(self) -> None:
        """Give up what has not been written yet."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _condemn(self, version: str, reference: str, detector: MeanDropDetector) -> None:
        reason = (
            f"after {detector.count} compared requests the answers agree with those of "
            f"{reference} to less than the bound {detector.bound:.3f}"
        )
        _log.error("%s@%s is taken out: %s", self._name, version, reason)
        was_prod = self.deployment.plan.prod == version
        self.deployment.condemn(version)
        self._metrics.rollout.rolled_back(self._name)
        self._metrics.rollout.serving(self._name, self.deployment.shares())
        task = asyncio.create_task(self._write(version, reference, reason, was_prod))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _write(self, version: str, reference: str, reason: str, was_prod: bool) -> None:
        """Tell the ledger, again and again until it is told or says something else."""
        turn = self._roll_back if was_prod else self._drop_canary
        while True:
            try:
                self._told[version] = await asyncio.to_thread(
                    self._tell, partial(turn, version, reference, reason)
                )
            except RetinueError as error:
                _log.error("%s: the rollback cannot be written: %s", self._name, error.message)
                await asyncio.sleep(RETRY_S)
                continue
            return

    def _tell(self, turn: Callable[[], None]) -> int:
        """Change the aliases, unless others did; return the length of the ledger then."""
        try:
            turn()
        except Conflict:
            _log.info("%s: the aliases were moved meanwhile; they stay", self._name)
        return self._ledger().state()[0]

    def _ledger(self) -> Ledger:
        return self._registry.ledger(self._name)

    def _roll_back(self, version: str, reference: str, reason: str) -> None:
        expect = {"prod": Target(version)}
        registry, name = self._registry, self._name
        try:
            registry.rollback(name, actor=ACTOR, reason=reason, expect=expect)
        except NotFound:
            # It was the first to be promoted: what it was made from takes its place.
            registry.promote(name, reference, actor=ACTOR, reason=reason, expect=expect)

    def _drop_canary(self, version: str, reference: str, reason: str) -> None:
        name = self._name
        found = self._ledger().aliases().get("canary")
        if found is None or found.version != version:
            raise Conflict(f"canary of {name} is not {version} any more")
        self._ledger().append(
            "alias", {"canary": None}, expect={"canary": found}, actor=ACTOR, reason=reason
        )
