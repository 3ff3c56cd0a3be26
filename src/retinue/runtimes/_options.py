"""Checks of what a runtime is asked for, in the words of the settings file."""

from __future__ import annotations

from retinue.core.errors import ConfigError


def check_threads(threads: int) -> None:
    """Refuse a run without a thread.

    Raises:
        ConfigError: ``threads`` is less than 1.
    """
    if threads < 1:
        raise ConfigError(f"threads must be at least 1, not {threads}")
