"""From a model's name to an installed one: pulled first where it is only in the catalogue."""

from __future__ import annotations

from retinue.models.catalogue import find
from retinue.models.registry import Entry, Registry, split_ref
from retinue.models.sources.base import Progress


def obtain(registry: Registry, model: str, progress: Progress | None = None) -> Entry:
    """Return an installed model; pull it first when it is only in the catalogue.

    Args:
        registry: Where it is looked for.
        model: "NAME" or "NAME@REF".
        progress: Hears of the transfer.

    Raises:
        ModelNotFound: neither installed nor in the catalogue.
        RetinueError: the pull failed, or its licence must be accepted first.
    """
    name, ref = split_ref(model)
    if not registry.versions(name):
        registry.pull(find(name), progress=progress)
    return registry.get(name, ref)
