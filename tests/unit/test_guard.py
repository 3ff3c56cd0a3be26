"""The live guard: what it takes out, what it leaves alone, and what the ledger says of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest

from retinue.core.errors import DiskFull
from retinue.core.settings import Rollout
from retinue.core.types import Image
from retinue.host import guard
from retinue.host.services import HostServices
from retinue.models.ledger import Target
from retinue.models.registry import Entry, Registry
from retinue.testing.models import until
from retinue.testing.onnx_models import color_detector
from retinue.testing.serving import RED, served
from retinue.testing.versions import derive, install


def parent_in(cache: Path) -> Entry:
    return install(Registry(cache), cache, name="one")


def derived(cache: Path, parent: Entry, *, blind: bool) -> Entry:
    """Install a version that was derived from the parent; a blind one finds nothing any more."""
    weights = color_detector(cache / "blind.onnx", blind_to=range(3)) if blind else None
    return derive(Registry(cache), parent, weights=weights, agreement=1.0)


def guarded(cache: Path, main: Callable[[HostServices], Awaitable[None]], **more: float) -> None:
    rollout = Rollout.model_validate({"guard_share": 1.0, "follow_s": 0.02} | more)
    served(cache, main, "one", instances=1, rollout=rollout)


async def ask_until(host: HostServices, version: str, most: int = 300) -> int:
    """Ask until this version answers; return how many requests others answered."""
    for number in range(most):
        record = await host.pipeline("one").submit(RED)
        if record.version == version:
            return number
        await asyncio.sleep(0.002)
    raise AssertionError(f"{version} never answered")


def roles(host: HostServices) -> dict[str, str]:
    return {one.version: one.role for one in host.versions("one")}


def test_a_version_that_went_blind_is_rolled_back_by_itself(tmp_path: Path) -> None:
    parent = parent_in(tmp_path)
    bad = derived(tmp_path, parent, blind=True)
    registry = Registry(tmp_path)
    registry.promote("one", parent.version, actor="test")
    registry.promote("one", bad.version, actor="test")

    async def main(host: HostServices) -> None:
        assert roles(host) == {bad.version: "prod", parent.version: "reference"}
        answered = await ask_until(host, parent.version)
        assert 3 <= answered <= 60
        await until(lambda: roles(host) == {parent.version: "prod"})
        last = registry.ledger("one").events()[-1]
        assert (last.action, last.actor) == ("rollback", "guard")
        assert "compared requests" in last.reason
        assert registry.get("one").version == parent.version
        metrics = host.metrics.render()[0].decode()
        assert 'retinue_guard_rollbacks_total{model="one"} 1.0' in metrics
        assert f'retinue_agreement_count{{model="one",reference="{parent.version}"' in metrics
        assert 'app="guard"' in metrics

    guarded(tmp_path, main)


def test_a_sound_version_stays(tmp_path: Path) -> None:
    parent = parent_in(tmp_path)
    good = derived(tmp_path, parent, blind=False)
    Registry(tmp_path).promote("one", good.version, actor="test")

    async def main(host: HostServices) -> None:
        for _ in range(200):
            assert (await host.pipeline("one").submit(RED)).version == good.version
        (status, _) = host.versions("one")
        assert status.guard["agreement"] == 1.0
        assert status.guard["evidence"] < 0.5

    guarded(tmp_path, main)


def test_without_a_guard_nothing_stops_it(tmp_path: Path) -> None:
    parent = parent_in(tmp_path)
    bad = derived(tmp_path, parent, blind=True)
    Registry(tmp_path).promote("one", bad.version, actor="test")

    async def main(host: HostServices) -> None:
        assert roles(host) == {bad.version: "prod"}
        for _ in range(100):
            assert (await host.pipeline("one").submit(RED)).version == bad.version

    guarded(tmp_path, main, guard_share=0.0)


def test_a_bad_canary_is_dropped_and_prod_stays(tmp_path: Path) -> None:
    parent = parent_in(tmp_path)
    bad = derived(tmp_path, parent, blind=True)
    registry = Registry(tmp_path)
    registry.promote("one", parent.version, actor="test")
    registry.alias("one", "canary", bad.version, share=1.0, actor="test")

    async def main(host: HostServices) -> None:
        await ask_until(host, parent.version)
        await until(lambda: "canary" not in registry.ledger("one").aliases())
        assert registry.ledger("one").aliases()["prod"] == Target(parent.version)
        assert registry.ledger("one").events()[-1].actor == "guard"

    guarded(tmp_path, main)


def test_a_full_disk_keeps_the_ledger_and_not_the_bad_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    parent = parent_in(tmp_path)
    bad = derived(tmp_path, parent, blind=True)
    registry = Registry(tmp_path)
    registry.promote("one", parent.version, actor="test")
    registry.promote("one", bad.version, actor="test")
    monkeypatch.setattr(guard, "RETRY_S", 0.05)
    real = Registry.rollback
    full = True

    def rollback(self: Registry, *args: object, **more: object) -> object:
        if full:
            raise DiskFull("no space is left")
        return real(self, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Registry, "rollback", rollback)

    async def main(host: HostServices) -> None:
        nonlocal full
        await ask_until(host, parent.version)
        await asyncio.sleep(0.2)
        assert (await host.pipeline("one").submit(RED)).version == parent.version
        assert registry.get("one").version == bad.version
        assert "cannot be written" in caplog.text
        full = False
        await until(lambda: registry.get("one").version == parent.version)

    guarded(tmp_path, main)


def test_somebody_else_who_moved_the_alias_has_the_last_word(tmp_path: Path) -> None:
    parent = parent_in(tmp_path)
    bad = derived(tmp_path, parent, blind=True)
    other = derived(tmp_path, parent, blind=False)
    registry = Registry(tmp_path)
    registry.promote("one", bad.version, actor="test")

    async def main(host: HostServices) -> None:
        registry.promote("one", other.version, actor="somebody")
        await ask_until(host, parent.version)
        await asyncio.sleep(0.2)
        assert registry.get("one").version == other.version
        assert registry.ledger("one").events()[-1].actor == "somebody"

    guarded(tmp_path, main, follow_s=0.0)


def test_the_first_promoted_gives_way_to_its_parent(tmp_path: Path) -> None:
    parent = parent_in(tmp_path)
    bad = derived(tmp_path, parent, blind=True)
    registry = Registry(tmp_path)
    registry.promote("one", bad.version, actor="test")

    async def main(host: HostServices) -> None:
        await ask_until(host, parent.version)
        await until(lambda: registry.get("one").version == parent.version)

    guarded(tmp_path, main)


def test_a_parent_that_is_gone_leaves_the_version_unguarded_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    parent = parent_in(tmp_path)
    good = derived(tmp_path, parent, blind=False)
    registry = Registry(tmp_path)
    registry.promote("one", good.version, actor="test")
    for file in parent.path.parent.iterdir():
        file.unlink()

    async def main(host: HostServices) -> None:
        assert (await host.pipeline("one").submit(RED)).version == good.version
        (entry,) = host.repository()
        assert (entry.state, "reference" in entry.reason) == ("READY", True)
        assert "is served without reference" in caplog.text

    guarded(tmp_path, main)


def test_who_promotes_it_again_is_obeyed_however_fast(tmp_path: Path) -> None:
    parent = parent_in(tmp_path)
    bad = derived(tmp_path, parent, blind=True)
    registry = Registry(tmp_path)
    registry.promote("one", parent.version, actor="test")
    registry.promote("one", bad.version, actor="test")

    async def main(host: HostServices) -> None:
        await ask_until(host, parent.version)
        await until(lambda: registry.ledger("one").events()[-1].actor == "guard")
        # Before the server has looked at what its guard wrote.
        registry.promote("one", bad.version, actor="test", reason="I know what I do")
        await ask_until(host, bad.version)
        # And it is judged anew.
        await ask_until(host, parent.version)
        await until(lambda: registry.ledger("one").events()[-1].actor == "guard")

    guarded(tmp_path, main, follow_s=0.3)


def test_what_was_taken_out_is_said_at_once(tmp_path: Path) -> None:
    parent = parent_in(tmp_path)
    bad = derived(tmp_path, parent, blind=True)
    Registry(tmp_path).promote("one", bad.version, actor="test")
    serving = f'retinue_serving{{model="one",role="%s",version="{parent.version}"}} 1.0'

    async def main(host: HostServices) -> None:
        await ask_until(host, parent.version)
        assert serving % "reference" in host.metrics.render()[0].decode()
        await until(lambda: roles(host) == {parent.version: "prod"})
        metrics = host.metrics.render()[0].decode()
        assert serving % "prod" in metrics
        # No alarm goes on ringing for what does not serve any more.
        assert "retinue_guard_evidence{" not in metrics

    guarded(tmp_path, main, follow_s=0.1)


def test_requests_without_anything_to_find_do_not_hide_a_blind_version(tmp_path: Path) -> None:
    parent = parent_in(tmp_path)
    bad = derived(tmp_path, parent, blind=True)
    Registry(tmp_path).promote("one", bad.version, actor="test")
    black = Image(np.zeros((64, 64, 3), np.uint8), 64, 64)

    async def main(host: HostServices) -> None:
        for number in range(400):
            picture = black if number % 20 else RED
            record = await host.pipeline("one").submit(picture)
            if record.version == parent.version:
                return
            await asyncio.sleep(0.002)
        raise AssertionError("nobody noticed")

    guarded(tmp_path, main)
