"""The composition root: what the settings name is what runs."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import retinue.monitor
from retinue.core.errors import PluginError
from retinue.core.settings import Settings
from retinue.host.services import HostServices
from retinue.testing.records import record

OBSERVER = """
seen = []

class Watch:
    def observe(self, record):
        seen.append(record.id)
        return ()

OBSERVER = Watch
"""


def services(folder: Path, *observers: str) -> HostServices:
    settings = Settings(home=folder, cache=folder, observers=observers)
    return HostServices(settings, (), models=(), record=False)


def test_a_setting_names_observers_beside_the_apps_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "night_watch.py").write_text(OBSERVER)
    monkeypatch.setattr(retinue.monitor, "__path__", [*retinue.monitor.__path__, str(tmp_path)])
    given = record()

    async def main() -> None:
        made = services(tmp_path, "night_watch")
        await made.start()
        await made.finish(given)
        await made.drain(1)

    asyncio.run(main())
    from retinue.monitor import night_watch  # type: ignore[attr-defined]

    assert night_watch.seen == [given.id]


def test_an_observer_that_is_not_there_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="'nope'"):
        asyncio.run(services(tmp_path, "nope").start())
