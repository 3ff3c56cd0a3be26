"""``retinue doctor``: what this machine has, what is missing, and how to get it."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path

from retinue.core import plugins
from retinue.core.apps import Fact
from retinue.core.errors import RetinueError
from retinue.core.settings import Settings
from retinue.models.registry import Registry

LITTLE_BYTES = 2**30


def facts(settings: Settings) -> Iterator[tuple[str, Fact]]:
    """Yield facts with the part that they are about: "machine", then each app that has any.

    Args:
        settings: Name the folders and the runtime.
    """
    for fact in _machine(settings):
        yield "machine", fact
    for name in plugins.names(plugins.APPS):
        app = plugins.load(plugins.APPS, name)
        if not app.doctor:
            continue
        try:
            found = plugins.resolve(app.doctor)()
        except RetinueError as error:
            found = [Fact(app.title, error.message, ok=False)]
        for fact in found:
            yield name, fact


def _machine(settings: Settings) -> Iterator[Fact]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Fact("Python", f"{platform.python_version()} on {platform.system()}, {cores} cores")
    for label, folder in (("models", settings.cache), ("state", settings.home)):
        yield _folder(label, Path(folder))
    yield _runtime(settings.execution.runtime)
    registry = Registry(settings.cache)
    names = sorted({entry.card.name for entry in registry.installed()})
    yield Fact("installed models", ", ".join(names) or "none yet; pulled when first needed")
    for damage in registry.damaged():
        yield Fact("damaged model", damage.reason, ok=False, advice="retinue models pull --force")


def _folder(label: str, folder: Path) -> Fact:
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    free = shutil.disk_usage(there).free
    words = f"{folder}, {free / 2**30:.1f} GiB free"
    if not os.access(there, os.W_OK):
        return Fact(label, words, ok=False, advice=f"{there} cannot be written; change its owner")
    if free < LITTLE_BYTES:
        return Fact(label, words, ok=False, advice="make room, or choose another folder")
    return Fact(label, words)


def _runtime(name: str) -> Fact:
    try:
        plugins.load(plugins.RUNTIMES, name)
    except RetinueError as error:
        return Fact("runtime", name, ok=False, advice=error.message)
    return Fact("runtime", name)
