"""Plug-in discovery: one file is one plug-in, its file name is its key.

A folder is listed without importing anything; the chosen module is imported on use. Packages from
outside register a module of the same shape under the entry-point group ``retinue.<kind>``; the
built-ins take the same path through `load`.
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Any

from retinue.core.errors import PluginError, RetinueError


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of plug-in.

    Attributes:
        name: Also the entry-point group's last part, for example "runtimes".
        package: The package whose files are the built-ins.
        attribute: What each module exposes, for example "RUNTIME".
        not_plugins: Modules of the package that are shared code.
    """

    name: str
    package: str
    attribute: str
    not_plugins: tuple[str, ...] = ()


RUNTIMES = Kind("runtimes", "retinue.runtimes", "RUNTIME", ("isolated", "tensors"))
MODELS = Kind(
    "models",
    "retinue.models",
    "MODEL",
    (
        "base",
        "card",
        "catalogue",
        "fetch",
        "importers",
        "ledger",
        "loading",
        "nms",
        "obtain",
        "registry",
        "sources",
    ),
)
INDEXES = Kind("indexes", "retinue.index", "INDEX", ("tuning",))
OBSERVERS = Kind("observers", "retinue.monitor", "OBSERVER")
APPS = Kind("apps", "retinue.apps", "APP")
KINDS = (RUNTIMES, INDEXES, MODELS, OBSERVERS, APPS)


@cache
def _outside(kind: Kind) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=f"retinue.{kind.name}")}


def _builtin(kind: Kind) -> set[str]:
    folder = importlib.import_module(kind.package).__path__
    names = {module.name for module in pkgutil.iter_modules(folder)}
    return {name for name in names if not name.startswith("_")} - set(kind.not_plugins)


def names(kind: Kind) -> list[str]:
    """Return the keys of all plug-ins of a kind, sorted, importing none of them."""
    return sorted(_builtin(kind) | set(_outside(kind)))


def load(kind: Kind, name: str) -> Any:
    """Import one plug-in and return what it exposes.

    A built-in wins over an outsider of the same name.

    Raises:
        PluginError: no such plug-in, its import failed, or it lacks the attribute of its kind.
    """
    try:
        module = _module(kind, name)
    except RetinueError:
        raise
    except Exception as error:  # an isolation boundary: a plug-in may raise anything
        reason = f"{type(error).__name__}: {error}"
        raise PluginError(f"{kind.name} plug-in {name!r} cannot be imported: {reason}") from error
    try:
        return getattr(module, kind.attribute)
    except AttributeError:
        message = f"{kind.name} plug-in {name!r} ({module.__name__}) has no {kind.attribute}"
        raise PluginError(message) from None


def _module(kind: Kind, name: str) -> ModuleType:
    if name in _builtin(kind):
        return importlib.import_module(f"{kind.package}.{name}")
    point = _outside(kind).get(name)
    if point is None:
        known = ", ".join(names(kind)) or "none"
        raise PluginError(f"no {kind.name} plug-in is called {name!r}; known: {known}")
    return importlib.import_module(point.module)


def resolve(reference: str) -> Any:
    """Import the attribute that a "module:attribute" reference of a manifest names."""
    module, _, attribute = reference.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise PluginError(f"cannot import {reference!r}: {error}") from error
