"""From an entry of the registry to a model that runs: digest, runtime, family."""

from __future__ import annotations

from functools import partial

import numpy as np

from retinue.core import plugins
from retinue.core.errors import ConfigError, PluginError, RetinueError
from retinue.core.protocols import Model, Runtime, RuntimeFactory
from retinue.core.settings import Execution
from retinue.core.types import Image
from retinue.models._shelf import verify
from retinue.models.card import Card, Family
from retinue.models.registry import Entry
from retinue.runtimes.isolated import Isolated


def load_model(entry: Entry, execution: Execution) -> Model:
    """Load one instance of a model.

    Args:
        entry: What the registry knows of it; its file's digest is checked first.
        execution: Runtime, device, threads, precision and whether in a process of its own;
            ``instances`` and ``warm_up`` are the caller's business. Runtime and precision that
            the card's ``run_with`` names come before these.

    Raises:
        ModelCorrupt: the file is missing, does not have the entry's digest, or cannot be parsed.
        ConfigError: the card does not describe these weights, or the runtime does not offer the
            precision or the device.
        InstanceCrashed: the process of an isolated runtime died while it loaded.
        Unavailable: a remote server does not answer.
        MissingExtra: the runtime's engine is not installed.
        PluginError: no such runtime or family.
        UnsupportedModel: the engine lacks an operator, or the weights take no picture.
    """
    family = plugins.load(plugins.MODELS, entry.card.family)
    if not isinstance(family, Family):
        message = f"models plug-in {entry.card.family!r}: {plugins.MODELS.attribute} is no Family"
        raise PluginError(message)
    verify(entry)
    return _build(family, entry, _open(entry, execution_of(entry.card, execution)))


def execution_of(card: Card, execution: Execution) -> Execution:
    """Return how a version is executed: as its card's ``run_with`` says, else as the settings do.

    A device's name belongs to a runtime: the settings' device is not asked of another one.
    """
    fixed = card.run_with
    if fixed is None:
        return execution
    device = execution.device if fixed.runtime == execution.runtime else ""
    return execution.model_copy(
        update={"runtime": fixed.runtime, "precision": fixed.precision, "device": device}
    )


def try_model(entry: Entry, execution: Execution) -> None:
    """Load a model, answer one black picture, and close it.

    Raises:
        RetinueError: as `load_model`, or what the answer failed with.
    """
    model = load_model(entry, execution)
    try:
        height, width = model.decode_size
        black = Image(np.zeros((height, width, 3), np.uint8), width, height)
        (outcome,) = model.predict([black])
        outcome.unwrap()
    finally:
        model.close()


def _open(entry: Entry, execution: Execution) -> Runtime:
    factory: RuntimeFactory = (
        partial(Isolated, execution.runtime)
        if execution.isolate
        else plugins.load(plugins.RUNTIMES, execution.runtime)
    )
    try:
        return factory(
            entry.path,
            threads=execution.threads,
            precision=execution.precision,
            device=execution.device,
            name=entry.card.name,
        )
    except ConfigError as error:
        fixed = entry.card.run_with
        if fixed is None:
            raise
        raise type(error)(
            f"{entry.card.name} {entry.version} is run as it was measured, with {fixed.runtime} "
            f"in {fixed.precision}, and cannot be here, whatever the settings: {error.message}"
        ) from error


def _build(family: Family, entry: Entry, runtime: Runtime) -> Model:
    try:
        return family.build(entry.card, entry.version, runtime)
    except RetinueError:
        runtime.close()
        raise
