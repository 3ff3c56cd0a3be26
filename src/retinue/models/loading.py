"""From an entry of the registry to a model that runs: digest, runtime, family."""

from __future__ import annotations

from functools import partial

from retinue.core import plugins
from retinue.core.errors import ModelCorrupt, PluginError, RetinueError
from retinue.core.protocols import Model, Runtime, RuntimeFactory
from retinue.core.settings import Execution
from retinue.models.card import Family
from retinue.models.fetch import sha256_of
from retinue.models.registry import Entry
from retinue.runtimes.isolated import Isolated


def load_model(entry: Entry, execution: Execution) -> Model:
    """Load one instance of a model.

    Args:
        entry: What the registry knows of it; its file's digest is checked first.
        execution: Runtime, device, threads, precision and whether in a process of its own;
            ``instances`` and ``warm_up`` are the caller's business.

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
    factory: RuntimeFactory = (
        partial(Isolated, execution.runtime)
        if execution.isolate
        else plugins.load(plugins.RUNTIMES, execution.runtime)
    )
    _check_digest(entry)
    runtime = factory(
        entry.path,
        threads=execution.threads,
        precision=execution.precision,
        device=execution.device,
        name=entry.card.name,
    )
    return _build(family, entry, runtime)


def _build(family: Family, entry: Entry, runtime: Runtime) -> Model:
    try:
        return family.build(entry.card, entry.version, runtime)
    except RetinueError:
        runtime.close()
        raise


def _check_digest(entry: Entry) -> None:
    advice = f"fetch it again: retinue models remove {entry.card.name}, then pull or import it"
    try:
        digest = sha256_of(entry.path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ModelCorrupt(f"cannot read {entry.path}: {reason}; {advice}") from error
    if digest != entry.sha256:
        message = f"{entry.path} is not what was installed: sha256 {digest}, not {entry.sha256}"
        raise ModelCorrupt(f"{message}; {advice}")
