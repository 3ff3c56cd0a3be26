"""One model's versions that are served together: who answers, and who is asked beside."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from weakref import WeakSet

from retinue.core.errors import ModelNotFound
from retinue.core.protocols import Model, Pipeline
from retinue.core.record import Record
from retinue.core.statistics import Statistics
from retinue.core.types import Array, Image, Tensors
from retinue.models.registry import Entry
from retinue.pipeline.mirror import Judge, Mirror
from retinue.pipeline.pipeline import ModelPipeline

LEAST_DIGITS: Final = 4
_HASHED: Final = 65_536


@dataclass(frozen=True, slots=True)
class Plan:
    """Which versions are served, and as what.

    Attributes:
        entries: All versions that are needed, by version.
        prod: The version that answers.
        canary: The version that answers a share of the requests, "" for none.
        share: That share, in [0, 1].
        shadow: The version that is asked beside ``prod``, never to be answered with; "" for none.
        references: Version to the version that its answers are compared with.
        names: The aliases and the versions that they name, loaded or not.
    """

    entries: Mapping[str, Entry]
    prod: str
    canary: str = ""
    share: float = 0.0
    shadow: str = ""
    references: Mapping[str, str] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)

    def without(self, version: str) -> Plan:
        """Return the plan without a version that is not ``prod``, and what that alone needs."""
        canary = "" if self.canary == version else self.canary
        shadow = "" if self.shadow == version else self.shadow
        references = {v: r for v, r in self.references.items() if version not in (v, r)}
        needed = {self.prod, canary, shadow, *references.values()}
        return Plan(
            {v: entry for v, entry in self.entries.items() if v in needed},
            self.prod,
            canary,
            self.share if canary else 0.0,
            shadow,
            references,
            self.names,
        )

    def role(self, version: str) -> str:
        """Return what a version is served as: "prod", "canary", "shadow" or "reference"."""
        roles = {self.shadow: "shadow", self.canary: "canary", self.prod: "prod"}
        return roles.get(version, "reference")


class Member:
    """A version that is loaded.

    Attributes:
        entry: What the registry knows of it.
        pipeline: What serves it.
    """

    def __init__(self, entry: Entry, pipeline: ModelPipeline) -> None:
        self.entry = entry
        self.pipeline = pipeline
        self._handles: WeakSet[Handle] = WeakSet()

    @property
    def held(self) -> bool:
        """Whether a request refers to it."""
        return len(self._handles) > 0

    def hold(self, handle: Handle) -> None:
        """Count a handle, for as long as somebody refers to it."""
        self._handles.add(handle)


class Handle:
    """One request's hold on a version; implements `retinue.core.protocols.Pipeline`.

    All that the request asks is answered by this version, and the version is not given up while the
    handle is referred to, whatever is promoted meanwhile.
    """

    __slots__ = ("__weakref__", "_deployment", "_member")

    def __init__(self, deployment: Deployment, member: Member) -> None:
        self._deployment = deployment
        self._member = member
        member.hold(self)

    @property
    def model(self) -> Model:
        """The version's model."""
        return self._member.pipeline.model

    @property
    def max_batch(self) -> int:
        """Most items of one run."""
        return self._member.pipeline.max_batch

    @property
    def queue_depth(self) -> int:
        """Items that the version accepted and does not run yet."""
        return self._member.pipeline.queue_depth

    @property
    def ready(self) -> bool:
        """Whether the version takes work."""
        return self._member.pipeline.ready

    def statistics(self) -> Statistics:
        """Return what the version has done since it was loaded."""
        return self._member.pipeline.statistics()

    async def submit(self, item: bytes | Image, **terms: Any) -> Record:
        """Carry one item through the version's pipeline; see `Pipeline.submit`."""
        record = await self._member.pipeline.submit(item, **terms)
        for mirror in self._deployment.mirrors(record.version):
            mirror.item(item, record)
        return record

    async def infer(self, tensors: Tensors, **terms: Any) -> dict[str, Array]:
        """Run raw tensors through the version's pipeline; see `Pipeline.infer`."""
        outputs = await self._member.pipeline.infer(tensors, **terms)
        for mirror in self._deployment.mirrors(self.model.version):
            mirror.tensors(tensors, outputs, self.model)
        return outputs


class Deployment:
    """The versions of one model that are loaded, and which of them a request gets.

    Attributes:
        plan: What is served.
        members: By version.
    """

    def __init__(
        self,
        name: str,
        judge: Judge,
        *,
        shadow_share: float = 1.0,
        guard_share: float = 0.02,
        chance: random.Random | None = None,
    ) -> None:
        """Set it up without any version; `apply` gives it some.

        Args:
            name: The model's name.
            judge: Hears of comparisons.
            shadow_share: Share of ``prod``'s requests that are repeated on ``shadow``.
            guard_share: Share of a version's requests that are repeated on its reference.
            chance: Chooses them; None for one of its own.
        """
        self.name = name
        self.plan = Plan({}, "")
        self.members: Mapping[str, Member] = {}
        self._judge = judge
        self._shares = {"shadow": shadow_share, "guard": guard_share}
        self._chance = chance or random.Random()  # noqa: S311 - a sample, no secret
        self._mirrors: dict[str, list[Mirror]] = {}
        self._condemned: frozenset[str] = frozenset()

    @property
    def prod(self) -> Member:
        """The version that answers what is not the canary's."""
        version = self.plan.prod
        while version in self._condemned and version in self.plan.references:
            version = self.plan.references[version]
        return self.members[version]

    @property
    def condemned(self) -> frozenset[str]:
        """The versions that answer no more, whatever the plan says."""
        return self._condemned

    def apply(self, plan: Plan, members: Mapping[str, Member]) -> None:
        """Serve by another plan from the next request on.

        Args:
            plan: What is wanted.
            members: All versions of the plan, loaded.
        """
        self._condemned &= {plan.prod, plan.canary}
        self.plan, self.members = plan, members
        self._make_mirrors()

    def condemn(self, version: str) -> None:
        """Let a version answer no more: its reference answers, until a plan names another one."""
        self._condemned |= {version}
        self._make_mirrors()

    def pardon(self, version: str) -> None:
        """Let a version that was condemned answer again where the plan says so."""
        self._condemned -= {version}
        self._make_mirrors()

    def shares(self) -> dict[tuple[str, str], float]:
        """Return what the versions are served as.

        Returns:
            (version, role) to the share of the requests that it answers, or, as a shadow, sees.
        """
        plan, answering = self.plan, self.prod.entry.version
        shares = {(version, plan.role(version)): 0.0 for version in self.members}
        canary = 0.0 if plan.canary in self._condemned else plan.share
        if plan.canary:
            shares[plan.canary, "canary"] = canary
        if plan.shadow and plan.role(plan.shadow) == "shadow":
            shares[plan.shadow, "shadow"] = 1.0
        shares[answering, plan.role(answering)] += 1.0 - canary
        return shares

    def handle(self, ref: str = "", key: bytes | str = b"") -> Handle:
        """Return a hold on the version that a request gets.

        Args:
            ref: "" for what the aliases say; else "prod", "canary", "shadow", or at least the
                first four digits of a version that is loaded.
            key: What decides whether the canary answers; the same key gives the same version.

        Raises:
            ModelNotFound: no version that is loaded is called so.
        """
        return Handle(self, self._named(ref) if ref else self._chosen(key))

    def mirrors(self, version: str) -> list[Mirror]:
        """Return what repeats the requests that a version answered."""
        return self._mirrors.get(version, [])

    def _chosen(self, key: bytes | str) -> Member:
        plan = self.plan
        if not plan.canary or plan.canary in self._condemned:
            return self.prod
        chosen = position(f"{self.name}@{plan.canary}", key) < plan.share
        return self.members[plan.canary] if chosen else self.prod

    def _named(self, ref: str) -> Member:
        plan = self.plan
        if ref == "prod":
            return self.prod
        roles = {"canary": plan.canary, "shadow": plan.shadow}
        version = {**plan.names, **roles}.get(ref, ref)
        if version in self.members:
            return self.members[version]
        found = [one for one in self.members if one.startswith(ref)]
        if len(found) == 1 and len(ref) >= LEAST_DIGITS:
            return self.members[found[0]]
        loaded = ", ".join(f"{one} ({plan.role(one)})" for one in self.members)
        raise ModelNotFound(
            f"model {self.name!r} has no version {ref[:80]!r} loaded, or several; loaded: "
            f"{loaded}; name one by its role, or by at least {LEAST_DIGITS} digits"
        )

    def _make_mirrors(self) -> None:
        plan, self._mirrors = self.plan, {}
        for version, reference in plan.references.items():
            if version not in self._condemned and self._shares["guard"] > 0:
                self._mirrors.setdefault(version, []).append(self._mirror("guard", reference))
        if plan.shadow and self._shares["shadow"] > 0:
            self._mirrors.setdefault(plan.prod, []).append(self._mirror("shadow", plan.shadow))

    def _mirror(self, role: Any, version: str) -> Mirror:
        other: Pipeline = self.members[version].pipeline
        return Mirror(role, other, self._shares[role], self._judge, self._chance)


def position(salt: str, key: bytes | str) -> float:
    """Return a key's place in [0, 1), spread evenly and the same everywhere and always.

    Args:
        salt: Another one gives other places.
        key: Of long ones the start and the length count.
    """
    raw = key.encode("utf-8", "surrogatepass") if isinstance(key, str) else key
    head = salt.encode() + len(raw).to_bytes(8, "big")
    digest = hashlib.blake2b(head + raw[:_HASHED], digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53
