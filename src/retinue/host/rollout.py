"""From a model's ledger to the plan of what is served."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from retinue.core.errors import RetinueError
from retinue.models.ledger import Target
from retinue.models.registry import Entry, Registry
from retinue.pipeline.deployment import Plan


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a model's ledger asks for.

    Attributes:
        plan: The plan.
        state: The ledger's state that it was read in.
        missing: Role to why its version cannot be had.
    """

    plan: Plan
    state: tuple[int, int]
    missing: Mapping[str, str]


def wanted(registry: Registry, name: str, ref: str, *, guarded: bool) -> Wanted:
    """Read what is to be served under a name.

    Args:
        registry: Where it is installed.
        name: The model.
        ref: A version or alias that is served alone, whatever the aliases say; "" for these.
        guarded: Whether derived versions are compared with their parents.

    Raises:
        ModelNotFound: the model, or the version that is to answer, is not installed.
        RetinueError: it is damaged, or the ledger cannot be read.
    """
    ledger = registry.ledger(name)
    # Read first: whatever is written later makes another state, and so another look.
    state = ledger.state()
    entry = registry.get(name, ref)
    prod = entry.version
    if ref:
        return Wanted(Plan({prod: entry}, prod), state, {})
    search = _Search(registry, name, {prod: entry})
    aliases = ledger.aliases()
    canary = search.alias("canary", aliases, prod)
    shadow = search.alias("shadow", aliases, prod)
    answering = [version for version in (prod, canary) if version]
    parents = {version: search.parent(version) for version in answering} if guarded else {}
    plan = Plan(
        search.entries,
        prod,
        canary,
        aliases["canary"].share if canary else 0.0,
        shadow,
        {version: parent for version, parent in parents.items() if parent},
        {alias: target.version for alias, target in aliases.items()},
    )
    return Wanted(plan, state, search.missing)


class _Search:
    """Finds the versions beside ``prod``, which serving can do without."""

    def __init__(self, registry: Registry, name: str, entries: dict[str, Entry]) -> None:
        self.entries = entries
        self.missing: dict[str, str] = {}
        self._registry = registry
        self._name = name

    def alias(self, alias: str, aliases: Mapping[str, Target], prod: str) -> str:
        """Return the version that an alias names, "" where it adds nothing."""
        target = aliases.get(alias)
        if target is None or target.version == prod:
            return ""
        return self._get(alias, target.version)

    def parent(self, version: str) -> str:
        """Return the version that a version was derived from, "" if it was not."""
        lineage = self.entries[version].lineage
        return "" if lineage is None else self._get("reference", lineage.parent)

    def _get(self, role: str, version: str) -> str:
        try:
            entry = self._registry.get(self._name, version)
        except RetinueError as error:
            self.missing[role] = error.message
            return ""
        self.entries[entry.version] = entry
        return entry.version
