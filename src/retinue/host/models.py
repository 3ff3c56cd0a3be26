"""The models that are served: loading, replacing, unloading, and what is installed beside them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from retinue.core.errors import (
    AccessError,
    ModelNotFound,
    RetinueError,
    ShuttingDown,
    StorageError,
)
from retinue.core.record import Record
from retinue.core.settings import Settings
from retinue.host.contract import RepositoryEntry, VersionStatus
from retinue.host.guard import Guard
from retinue.host.loader import Loader
from retinue.host.rollout import Wanted, wanted
from retinue.models.registry import Entry, Registry, split_ref
from retinue.monitor.metrics import MetricsObserver
from retinue.pipeline.deployment import Deployment, Handle, Member, Plan

# A version that cannot be loaded is tried again after so long at first, then more and more rarely.
RETRY_S, RETRY_MOST_S = 2.0, 120.0
HELD_CHECK_S, HELD_LONG_S = 0.02, 0.5
# What is given back already may take so much longer than the rest at the end.
RETIRE_S = 5.0
NO_LEDGER = (0, 0)

_log = logging.getLogger("retinue")


@dataclass(slots=True)
class _Served:
    """A model that is served.

    Attributes:
        guard: Judges its versions, and has its deployment.
        state: The ledger's state that it is served by.
        seen: The one that was last tried.
        problem: Why not all that the ledger asks for is served, "" if it is.
        retry_at: When to try again, on ``time.monotonic()``'s clock.
        pause_s: How long to wait before that.
    """

    guard: Guard
    state: tuple[int, int] = NO_LEDGER
    seen: tuple[int, int] = NO_LEDGER
    problem: str = ""
    retry_at: float = 0.0
    pause_s: float = RETRY_S

    @property
    def deployment(self) -> Deployment:
        """Its versions."""
        return self.guard.deployment

    def due(self, state: tuple[int, int]) -> bool:
        """Tell whether a ledger in this state is to be looked at (again)."""
        return state != self.seen or (bool(self.problem) and time.monotonic() >= self.retry_at)

    def tried(self, state: tuple[int, int], problem: str) -> bool:
        """Note what came of a try; tell whether the problem, if there is one, is a new one."""
        if state != self.seen or not problem:
            self.pause_s = RETRY_S
        news = problem != self.problem
        self.seen, self.problem = state, problem
        self.retry_at = time.monotonic() + self.pause_s
        self.pause_s = min(2 * self.pause_s, RETRY_MOST_S)
        return news and bool(problem)


class ServedModels:
    """Versions by model name; all models share the machine's devices."""

    def __init__(
        self,
        settings: Settings,
        metrics: MetricsObserver,
        abandoned: Callable[[Record], None] | None = None,
    ) -> None:
        """Set it up without loading anything.

        Args:
            settings: All settings.
            metrics: Where batches, shed items and queues are counted.
            abandoned: Takes the records of requests whose callers went away.
        """
        self._settings = settings
        self._metrics = metrics
        self._loader = Loader(settings, metrics, abandoned)
        self._served: dict[str, _Served] = {}
        # Name to what is served whatever the aliases say, "" for what they say.
        self._pinned: dict[str, str] = {}
        self._changing: dict[str, str] = {}
        self._failed: dict[str, str] = {}
        self._retiring: set[asyncio.Task[None]] = set()
        self._lock = asyncio.Lock()
        self._draining = False

    def names(self) -> tuple[str, ...]:
        """Return the names of the models that are served."""
        return tuple(self._served)

    def handle(self, model: str, key: bytes | str) -> Handle:
        """Return a request's hold on a version; see `Services.pipeline`."""
        name, ref = split_ref(model)
        served = self._served.get(name)
        if served is None:
            known = ", ".join(sorted(self._served)) or "none"
            message = f"no model {name[:64]!r} is loaded; loaded: {known}"
            raise ModelNotFound(f"{message} (setting `models` names more)")
        return served.deployment.handle("" if ref == self._pinned[name] else ref, key)

    def versions(self, name: str) -> Sequence[VersionStatus]:
        """Return what is loaded of a model, the version that answers first."""
        served = self._served[name]
        shares, judged = served.deployment.shares(), served.guard.status()
        return [
            VersionStatus(version, role, share, judged.get(version, {}))
            for (version, role), share in shares.items()
        ]

    async def serve(self, model: str) -> None:
        """Load a model and serve it by its aliases; what is loaded of it already stays.

        Args:
            model: "NAME", or "NAME@REF" for one version, whatever the aliases say.

        Raises:
            ShuttingDown: `drain` began in the meantime.
            RetinueError: it cannot be loaded or run; nothing has changed then.
        """
        name, ref = split_ref(model)
        async with self._lock:
            self._pinned[name] = ref
            await self._bring_about(name, anew=False)

    async def follow(self) -> None:
        """Look at the ledgers again and again, and serve what they say; until cancelled."""
        while not self._draining:
            await asyncio.sleep(self._settings.rollout.follow_s)
            for name in self.names():
                async with self._lock:
                    served = self._served.get(name)
                    if served is not None and not self._draining and not self._pinned[name]:
                        await self._catch_up(name, served)

    async def _catch_up(self, name: str, served: _Served) -> None:
        state = served.seen
        try:
            state = await asyncio.to_thread(self._registry().ledger(name).state)
            if not served.due(state):
                return
            if state == NO_LEDGER != served.state:
                raise StorageError(
                    f"its ledger is gone; bring it back, or promote a version of {name}"
                )
            await self._bring_about(name, anew=False)
        except ShuttingDown:
            return
        except Exception as error:  # noqa: BLE001 - isolation boundary: the others are followed on
            known = error.message if isinstance(error, RetinueError) else ""
            self._metrics.rollout.failed(name)
            if served.tried(state, known or repr(error)):
                _log.error("%s goes on as it is: %s", name, served.problem, exc_info=not known)

    async def _bring_about(self, name: str, *, anew: bool) -> None:
        """Serve what the ledger asks for. The lock is held.

        Args:
            name: The model.
            anew: Whether the version that answers is loaded again even if it is loaded.
        """
        ref, guarded = self._pinned.get(name, ""), self._settings.rollout.guard_share > 0
        asked = await asyncio.to_thread(wanted, self._registry(), name, ref, guarded=guarded)
        served = self._served.get(name)
        have = {} if served is None else served.deployment.members
        plan, members, problems = await self._load_members(asked, {} if anew else dict(have))
        if served is None:
            guard = Guard(name, self._registry(), self._metrics, self._settings.rollout)
            served = self._served[name] = _Served(guard)
            self._pinned.setdefault(name, "")
        before = served.deployment.members
        served.guard.serve(plan, members, asked.state)
        served.state = asked.state
        if problems:
            self._metrics.rollout.failed(name)
        if served.tried(asked.state, "; ".join(problems)):
            _log.warning("%s is served without %s", name, served.problem)
        for version, member in before.items():
            if members.get(version) is not member:
                self._retire(name, member)
        for version, member in members.items():
            self._metrics.watch_queue(name, version, partial(_depth, member))

    async def _load_members(
        self, asked: Wanted, have: dict[str, Member]
    ) -> tuple[Plan, dict[str, Member], list[str]]:
        """Load what is not there; a version that serving can do without may be left out."""
        plan, members, fresh = asked.plan, {}, []
        problems = [f"{role}: {message}" for role, message in asked.missing.items()]
        try:
            for version, entry in asked.plan.entries.items():
                if version not in plan.entries:
                    continue  # it was only for one that cannot be had
                member = have.get(version)
                if member is None or not member.pipeline.ready:
                    try:
                        member = await self._load(entry)
                    except RetinueError as error:
                        if version == plan.prod or isinstance(error, ShuttingDown):
                            raise
                        problems.append(f"{plan.role(version)} {version}: {error.message}")
                        plan = plan.without(version)
                        continue
                    fresh.append(member)
                members[version] = member
        except BaseException:
            for member in fresh:
                await member.pipeline.drain(0)
            raise
        return plan, members, problems

    async def _load(self, entry: Entry) -> Member:
        member = await self._loader.load(entry)
        if self._draining:
            await member.pipeline.drain(0)
            self._check_running()
        return member

    def _retire(self, name: str, member: Member) -> None:
        """Give a version back once no request holds it."""
        task = asyncio.create_task(self._end(name, member))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def _end(self, name: str, member: Member) -> None:
        pause_s, retired = HELD_LONG_S, time.monotonic()
        end = retired + self._settings.server.drain_s
        # A reference that is given up sets no event.
        while member.held and not self._draining and time.monotonic() < end:
            await asyncio.sleep(HELD_CHECK_S)
            if time.monotonic() >= retired + pause_s:
                # A failed request's error, its traceback and its frames hold each other.
                gc.collect()
                pause_s *= 2
        await member.pipeline.drain(max(0.0, end - time.monotonic()))
        one, version = self._served.get(name), member.entry.version
        if one is None or version not in one.deployment.members:
            self._metrics.forget_queue(name, version)

    def repository(self) -> Sequence[RepositoryEntry]:
        """Return all models that are installed or loaded, by name."""
        # Of several versions the one that a bare name means comes first.
        installed = reversed(self._registry().installed())
        found = {entry.card.name: entry.version for entry in installed}
        found |= {n: one.deployment.prod.entry.version for n, one in self._served.items()}
        return [self._describe(name, found[name]) for name in sorted(found)]

    def _describe(self, name: str, version: str) -> RepositoryEntry:
        state = self._changing.get(name)
        served = self._served.get(name)
        if state is None and served is not None and served.deployment.prod.pipeline.ready:
            return RepositoryEntry(name, version, "READY", served.problem)
        reason = "no instance is alive" if served else self._failed.get(name, "unloaded")
        return RepositoryEntry(name, version, state or "UNAVAILABLE", "" if state else reason)

    async def load(self, model: str) -> None:
        """Load an installed model, or load it anew; see `retinue.host.contract.Host.load`."""
        self._check_control()
        async with self._lock:
            self._check_running()
            self._changing[model] = "LOADING"
            try:
                await self._bring_about(model, anew=True)
                self._failed.pop(model, None)
            except ModelNotFound:
                raise
            except RetinueError as error:
                self._failed[model] = error.message
                raise
            finally:
                del self._changing[model]

    async def unload(self, model: str) -> None:
        """Give a model back; see `retinue.host.contract.Host.unload`."""
        self._check_control()
        async with self._lock:
            served = self._served.pop(model, None)
            if served is None:
                raise ModelNotFound(f"no model {model[:64]!r} is loaded")
            self._failed.pop(model, None)
            self._metrics.rollout.serving(model, {})
            self._changing[model] = "UNLOADING"
            try:
                await self._give_back(served, self._settings.server.drain_s)
            finally:
                del self._changing[model]
            for version in served.deployment.members:
                self._metrics.forget_queue(model, version)

    async def drain(self, timeout_s: float) -> None:
        """Finish accepted work in at most so many seconds, close the models, end the threads."""
        self._draining = True
        await asyncio.gather(
            *(self._give_back(served, timeout_s) for served in self._served.values()),
            self._finish_change(timeout_s),
        )
        if self._retiring:
            await asyncio.wait(self._retiring, timeout=timeout_s + RETIRE_S)
        if not await self._loader.devices.stop(timeout_s and 1.0):
            _log.warning("a thread still runs; it is left behind")

    async def _give_back(self, served: _Served, timeout_s: float) -> None:
        members = served.deployment.members.values()
        await asyncio.gather(*(member.pipeline.drain(timeout_s) for member in members))
        await served.guard.close()

    async def _finish_change(self, timeout_s: float) -> None:
        """Wait for a model that is being replaced or unloaded: it finishes its work too."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s), self._lock:
                pass

    def _check_running(self) -> None:
        if self._draining:
            raise ShuttingDown("the server is shutting down and loads no model; try another one")

    def _registry(self) -> Registry:
        return Registry(self._settings.cache)

    def _check_control(self) -> None:
        if not self._settings.server.model_control:
            raise AccessError(
                "clients may not load or unload models here; the setting server.model_control "
                "lets them"
            )


def _depth(member: Member) -> int:
    return member.pipeline.queue_depth
