"""Versions that are served together: holds, canaries, shadows, guards."""

from __future__ import annotations

import asyncio
import gc
import random
import weakref
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retinue.core.errors import CorruptMedia, ModelNotFound, ModelRunFailed
from retinue.core.record import Record
from retinue.core.settings import Batching, Limits
from retinue.core.types import Embedding, Outcome
from retinue.models.registry import Entry
from retinue.pipeline.deployment import Deployment, Member, Plan, position
from retinue.pipeline.mirror import MOST_UNDER_WAY
from retinue.pipeline.pipeline import ModelPipeline
from retinue.testing.models import FakeModel, FakeRuntime, fake_card, numbered, until


class Judged:
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.comparisons: list[tuple[str, str, str, float]] = []
        self.records: list[tuple[str, Record]] = []
        self.left_out: list[tuple[str, str]] = []

    def compared(self, role: str, version: str, reference: str, agreement: float) -> None:
        self.comparisons.append((role, version, reference, agreement))

    def repeated(self, role: str, record: Record) -> None:
        self.records.append((role, record))

    def skipped(self, role: str, version: str) -> None:
        self.left_out.append((role, version))


class Turned(FakeModel):
    """Answers the opposite vector."""

    def postprocess(self, prepared, outputs) -> Outcome:
        value = super().postprocess(prepared, outputs).unwrap()
        assert isinstance(value, Embedding)
        return Outcome(Embedding(-value.vector))


class Breaking(FakeModel):
    """Fails on everything."""

    def run(self, batch):
        raise ModelRunFailed("broken")


def member(version: str, kind: type[FakeModel] = FakeModel, **runtime) -> Member:
    model = kind(FakeRuntime(**runtime), version=version)
    entry = Entry(fake_card("fake", "embed"), version, Path("model.onnx"), "0" * 64, 1)
    return Member(entry, ModelPipeline([model], batching=Batching(), limits=Limits(), workers=1))


def run(main, *members: Member, judge: Judged | None = None, **plan) -> None:
    """Serve members, the first as prod, and run ``main(deployment, judge)``."""

    async def body() -> None:
        heard = judge or Judged()
        deployment = Deployment("fake", heard, guard_share=1.0, chance=random.Random(0))
        by_version = {one.entry.version: one for one in members}
        for one in members:
            await one.pipeline.start()
        entries = {version: one.entry for version, one in by_version.items()}
        deployment.apply(Plan(entries, members[0].entry.version, **plan), by_version)
        try:
            await main(deployment, heard)
        finally:
            for one in members:
                await one.pipeline.drain(5)

    asyncio.run(body())


def test_a_version_is_held_as_long_as_a_request_refers_to_it() -> None:
    async def main(deployment: Deployment, judge: Judged) -> None:
        one = deployment.members["aaaa"]
        handle = deployment.handle()
        assert handle.model.version == "aaaa"
        assert one.held
        deployment.apply(Plan({}, "bbbb"), {"bbbb": deployment.members["bbbb"]})
        assert deployment.handle().model.version == "bbbb"
        assert (await handle.submit(numbered(1))).version == "aaaa"
        del handle
        assert not one.held

    run(main, member("aaaa"), member("bbbb"))


def test_a_failed_request_does_not_hold_its_version() -> None:
    async def main(deployment: Deployment, judge: Judged) -> None:
        gc.disable()
        try:
            record = await deployment.handle().submit(b"no picture")
            with pytest.raises(Exception, match="input"):
                await deployment.handle().infer({"wrong": np.zeros((1, 1), np.float32)})
            assert record.outcome.error is not None
            assert not deployment.members["aaaa"].held
        finally:
            gc.enable()

    run(main, member("aaaa"))


@given(st.binary() | st.text(), st.text(max_size=20))
def test_a_place_is_in_the_unit_interval_and_stays(key: bytes | str, salt: str) -> None:
    assert 0 <= position(salt, key) < 1
    assert position(salt, key) == position(salt, key)


def test_places_are_fixed_for_ever() -> None:
    # Another place would move users from one version to the other at an update.
    assert position("nanodet@4f2a", "user-1") == pytest.approx(PLACE)
    assert position("nanodet@4f2a", b"user-1") == position("nanodet@4f2a", "user-1")


PLACE = 0.4151849493281965


def test_a_canary_gets_its_share_and_a_key_stays_with_its_version() -> None:
    async def main(deployment: Deployment, judge: Judged) -> None:
        keys = [f"user-{n}" for n in range(4000)]
        chosen = {k for k in keys if deployment.handle(key=k).model.version == "bbbb"}
        assert 0.08 < len(chosen) / len(keys) < 0.12
        assert chosen == {k for k in keys if deployment.handle(key=k).model.version == "bbbb"}
        wider = Plan(deployment.plan.entries, "aaaa", canary="bbbb", share=0.3)
        deployment.apply(wider, deployment.members)
        more = {k for k in keys if deployment.handle(key=k).model.version == "bbbb"}
        assert chosen < more
        assert 0.27 < len(more) / len(keys) < 0.33
        whole = Plan(deployment.plan.entries, "aaaa", canary="bbbb", share=1.0)
        deployment.apply(whole, deployment.members)
        assert all(deployment.handle(key=k).model.version == "bbbb" for k in keys)

    run(main, member("aaaa"), member("bbbb"), canary="bbbb", share=0.1)


def test_callers_may_name_a_loaded_version() -> None:
    async def main(deployment: Deployment, judge: Judged) -> None:
        for ref in ("prod", "1111aa"):
            assert deployment.handle(ref).model.version == "1111aa"
        for ref in ("shadow", "2222", "stable"):
            assert deployment.handle(ref).model.version == "2222bb"
        # Other servers' versions are 1, 2, 3: no digest is meant by that.
        for ref in ("canary", "gone", "cccc", "1", "111", "1111aaa"):
            with pytest.raises(ModelNotFound, match=r"loaded: 1111aa \(prod\), 2222bb \(shadow\)"):
                deployment.handle(ref)

    names = {"stable": "2222bb", "gone": "3333cc"}
    run(main, member("1111aa"), member("2222bb"), shadow="2222bb", names=names)


def test_a_shadow_is_asked_and_compared_and_never_answers() -> None:
    async def main(deployment: Deployment, judge: Judged) -> None:
        for n in range(1, 6):
            record = await deployment.handle(key=bytes([n])).submit(numbered(n), app="mine")
            assert record.version == "aaaa"
        await until(lambda: len(judge.comparisons) == 5)
        assert judge.comparisons == [("shadow", "bbbb", "aaaa", 0.0)] * 5
        assert [(role, r.app, r.version) for role, r in judge.records] == [
            ("shadow", "shadow", "bbbb")
        ] * 5

    run(main, member("aaaa"), member("bbbb", Turned), shadow="bbbb")


def test_a_shadow_that_fails_is_judged_and_bad_input_is_not() -> None:
    async def main(deployment: Deployment, judge: Judged) -> None:
        assert (await deployment.handle().submit(numbered(1))).outcome.error is None
        error = (await deployment.handle().submit(b"\xff\xd8\xff no picture")).outcome.error
        assert isinstance(error, CorruptMedia)
        await until(lambda: judge.comparisons)
        assert judge.comparisons == [("shadow", "bbbb", "aaaa", 0.0)]
        assert not judge.left_out

    run(main, member("aaaa"), member("bbbb", Breaking), shadow="bbbb")


def test_a_reference_that_fails_says_nothing_and_an_answer_that_fails_does() -> None:
    async def main(deployment: Deployment, judge: Judged) -> None:
        await deployment.handle("aaaa").submit(numbered(1))
        await until(lambda: judge.left_out)
        assert judge.left_out == [("guard", "aaaa")]
        assert not judge.comparisons
        error = (await deployment.handle("bbbb").submit(numbered(1))).outcome.error
        assert isinstance(error, ModelRunFailed)
        await until(lambda: judge.comparisons)
        assert judge.comparisons == [("guard", "bbbb", "aaaa", 0.0)]

    refs = {"aaaa": "bbbb", "bbbb": "aaaa"}
    run(main, member("aaaa"), member("bbbb", Breaking), references=refs)


def test_raw_tensors_are_compared_too() -> None:
    class Loose(FakeModel):
        def postprocess(self, prepared, outputs) -> Outcome:
            return Outcome(Embedding(outputs["output"]))

    async def main(deployment: Deployment, judge: Judged) -> None:
        rows = np.array([[3.0], [4.0]], np.float32)
        outputs = await deployment.handle().infer({"input": rows})
        assert outputs["output"].tolist() == rows.tolist()
        await until(lambda: judge.comparisons)
        assert judge.comparisons == [("guard", "aaaa", "bbbb", 1.0)]

    run(main, member("aaaa", Loose), member("bbbb", Loose), references={"aaaa": "bbbb"})


def test_the_condemned_answer_no_more_until_a_plan_names_another() -> None:
    async def main(deployment: Deployment, judge: Judged) -> None:
        deployment.condemn("aaaa")
        assert deployment.handle().model.version == "bbbb"
        assert not deployment.mirrors("aaaa")
        deployment.apply(deployment.plan, deployment.members)
        assert deployment.handle().model.version == "bbbb"
        back = Plan(deployment.plan.entries, "bbbb")
        deployment.apply(back, deployment.members)
        again = Plan(deployment.plan.entries, "aaaa", references={"aaaa": "bbbb"})
        deployment.apply(again, deployment.members)
        assert deployment.handle().model.version == "aaaa"
        assert deployment.mirrors("aaaa")

    run(main, member("aaaa"), member("bbbb"), references={"aaaa": "bbbb"})


def test_a_condemned_canary_leaves_everything_to_prod() -> None:
    async def main(deployment: Deployment, judge: Judged) -> None:
        assert deployment.handle(key="k").model.version == "bbbb"
        deployment.condemn("bbbb")
        assert deployment.handle(key="k").model.version == "aaaa"

    run(main, member("aaaa"), member("bbbb"), canary="bbbb", share=1.0)


def test_when_a_version_and_its_parent_are_condemned_the_parents_parent_answers() -> None:
    async def main(deployment: Deployment, judge: Judged) -> None:
        deployment.condemn("bbbb")
        deployment.condemn("aaaa")
        assert deployment.handle(key="k").model.version == "cccc"
        assert deployment.shares() == {
            ("aaaa", "prod"): 0.0,
            ("bbbb", "canary"): 0.0,
            ("cccc", "reference"): 1.0,
        }

    run(
        main,
        member("aaaa"),
        member("bbbb"),
        member("cccc"),
        canary="bbbb",
        share=0.5,
        references={"aaaa": "bbbb", "bbbb": "cccc"},
    )


def test_what_cannot_be_compared_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    class Longer(FakeModel):
        def postprocess(self, prepared, outputs) -> Outcome:
            return Outcome(Embedding(np.ones(3, np.float32)))

    async def main(deployment: Deployment, judge: Judged) -> None:
        await deployment.handle().submit(numbered(1))
        await until(lambda: judge.left_out)
        assert judge.left_out == [("shadow", "bbbb")]
        assert "cannot be compared" in caplog.text

    run(main, member("aaaa"), member("bbbb", Longer), shadow="bbbb")


def test_a_slow_shadow_holds_nobody_up_and_few_pictures() -> None:
    async def main(deployment: Deployment, judge: Judged) -> None:
        for n in range(3 * MOST_UNDER_WAY):
            record = await asyncio.wait_for(deployment.handle().submit(numbered(n + 1)), 5)
            assert record.outcome.error is None
        assert len(judge.left_out) >= 2 * MOST_UNDER_WAY - 2
        assert set(judge.left_out) == {("shadow", "bbbb")}

    run(main, member("aaaa"), member("bbbb", batch_s=0.2), shadow="bbbb")


def test_only_a_share_is_compared() -> None:
    async def main(deployment: Deployment, judge: Judged) -> None:
        deployment = Deployment("fake", judge, guard_share=0.2, chance=random.Random(1))
        members = MEMBERS
        deployment.apply(Plan({}, "aaaa", references={"aaaa": "bbbb"}), members)
        for n in range(200):
            await deployment.handle().submit(numbered(n + 1))
        await asyncio.sleep(0.05)
        assert 20 <= len(judge.comparisons) + len(judge.left_out) <= 60

    MEMBERS = {"aaaa": member("aaaa"), "bbbb": member("bbbb")}
    run(main, *MEMBERS.values())


def test_a_plan_without_a_version_names_it_nowhere() -> None:
    entries = dict.fromkeys(("a", "b", "c"), weakref)
    plan = Plan(entries, "a", "b", 0.5, "c", {"a": "c", "b": "a"})  # type: ignore[arg-type]
    less = plan.without("c")
    assert (less.canary, less.share, less.shadow) == ("b", 0.5, "")
    assert dict(less.references) == {"b": "a"}
    assert set(less.entries) == {"a", "b"}
    assert plan.without("b").share == 0.0
    roles = [plan.role(v) for v in ("a", "b", "c", "d")]
    assert roles == ["prod", "canary", "shadow", "reference"]
