"""The search for a faster version: what is installed, what is refused, what is told."""

from __future__ import annotations

import errno
import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from retinue.calibrate import quantize as quantize_module
from retinue.calibrate import quantize_bench, quantize_search
from retinue.calibrate.quantize import Wish, quantize
from retinue.calibrate.quantize_findings import NOW, VARIANT, Findings
from retinue.calibrate.samples import open_samples
from retinue.calibrate.speed import Speed
from retinue.calibrate.variants import Recipe
from retinue.core.errors import (
    DiskFull,
    GateRefused,
    InputError,
    InvalidRequest,
    ModelRunFailed,
    UnsupportedModel,
)
from retinue.core.settings import Execution
from retinue.measure.paired import Interval, paired_mean
from retinue.models.card import RunWith
from retinue.models.loading import load_model
from retinue.models.registry import Entry
from retinue.testing.datasets import squares, write_folder, yolo_files
from retinue.testing.quantizing import STATIC, Workshop, workshop
from retinue.testing.versions import card_of

NNCF = Recipe("nncf", "mixed", True, "s7")


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    return workshop(tmp_path, monkeypatch)


def test_the_layers_that_cost_are_left_out(shop: Workshop) -> None:
    """Boxes and scores share one output: in 8 bits the scores are lost, so its end is left out."""
    made = shop.run()
    findings = made.findings
    whole = next(c for c in findings.candidates if not c.excluded)
    assert findings.chosen is not None
    assert findings.chosen.excluded
    assert whole.look is not None
    assert findings.chosen.look is not None
    assert findings.chosen.look.likeness > whole.look.likeness
    assert findings.sensitivities[0].head
    assert findings.verdict is not None
    assert findings.verdict.lost <= 0.5
    assert findings.verdict.agreement.value > 0.9
    assert findings.refusal == ""
    assert shop.left_behind() == []


def test_the_version_says_what_it_is(shop: Workshop) -> None:
    made = shop.run()
    found = shop.registry.get("sees", made.entry.version)
    assert found == made.entry
    assert found.card.run_with == RunWith(runtime="onnxruntime")
    assert found.lineage is not None
    assert found.lineage.parent == shop.entry.version
    assert 0.9 < found.lineage.agreement_low <= found.lineage.agreement <= 1
    verdict = made.findings.verdict
    assert verdict is not None
    # No difference in n pictures is no proof that there is none: the guard's bound leaves room.
    assert found.lineage.agreement_low <= 1 - 3 / verdict.telling
    assert shop.registry.get("sees").version == shop.entry.version  # no alias was moved
    report = json.loads((found.path.parent / "report.json").read_text())
    assert report["schema"] == "retinue.quantize/1"
    assert report["data"]["calibration_digest"] == made.findings.split.digest
    assert report["data"]["unreadable"][0][0] == "images/bad.png"
    assert report["verdict"]["told"] in ("within", "open")
    assert {c["state"] for c in report["candidates"]} == {"chosen", "not examined"}
    assert "TensorRT was not run." in report["says"]
    page = (found.path.parent / "report.html").read_text()
    assert found.card.name in page
    assert made.findings.split.digest in page
    load_model(found, shop.settings.execution).close()


def test_a_version_is_not_quantised_again(shop: Workshop) -> None:
    made = shop.run()
    with pytest.raises(UnsupportedModel, match=f"quantise sees@{shop.entry.version}"):
        replace(shop, entry=made.entry).run()
    weights = made.entry.path
    imported = shop.registry.import_onnx(weights, card=card_of(weights, name="copy"))
    with pytest.raises(UnsupportedModel, match="quantised already"):
        replace(shop, entry=imported).run()


def test_nothing_faster_is_refused(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_faster(models: Mapping[str, Any], rows: object, **_: object) -> Speed:
        return Speed(dict.fromkeys(models, (1.0,) * 3), "not timed")

    monkeypatch.setattr(quantize_bench, "race", no_faster)
    with pytest.raises(GateRefused, match=r"no variant is both faster .* runs at 1.00 x"):
        shop.run()
    assert [e.version for e in shop.registry.installed()] == [shop.entry.version]
    assert shop.left_behind() == []


def test_pictures_in_which_nothing_is_found_prove_nothing(shop: Workshop, tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    (tmp_path / "gray").mkdir()
    for number in range(72):
        gray = np.repeat(chance.integers(0, 255, (64, 64, 1), np.uint8), 3, axis=2)
        Image.fromarray(gray).save(tmp_path / "gray" / f"{number}.png")
    gray = open_samples(tmp_path / "gray", shop.entry.card, settings=shop.settings)
    with pytest.raises(GateRefused, match=r"finds anything in 0 held-out pictures"):
        replace(shop, samples=gray).run()
    assert [e.version for e in shop.registry.installed()] == [shop.entry.version]


def test_too_great_a_loss_is_refused_with_the_best_one(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantize_search, "steps", lambda sensitivities, number: [])
    monkeypatch.setattr(quantize_search, "LEAST_AGREEMENT", 0.0)
    with pytest.raises(GateRefused, match=r"the best faster one, .* lost \d+\.\d+ points"):
        shop.run()
    assert [e.version for e in shop.registry.installed()] == [shop.entry.version]


def test_the_pictures_held_out_have_the_last_word(shop: Workshop) -> None:
    heard: list[Findings] = []
    wish = Wish(runtimes=("onnxruntime",))
    quantize(
        shop.entry,
        shop.samples,
        wish,
        settings=shop.settings,
        registry=shop.registry,
        heard=heard.append,
    )
    (findings,) = heard
    verdict = findings.verdict
    assert verdict is not None
    lossy = replace(verdict, accuracy=replace(verdict.accuracy, difference=_interval(-0.1)))
    refusal = quantize_module._refusal([], lossy, wish, late=False)
    assert "lost 10.00 points on 36 held-out pictures" in refusal
    alike = replace(verdict, agreement=_interval(0.3))
    assert "agrees with the model in 30 %" in quantize_module._refusal([], alike, wish, late=False)
    right = np.ones(36)
    same = replace(findings, verdict=replace(verdict, accuracy=paired_mean(right, right)))
    assert any("too few to show a loss as small as that" in said for said in same.says)
    slow = replace(verdict, speed=Speed({NOW: (1.0,) * 3, VARIANT: (1.0,) * 3}, ""))
    assert "not to be faster" in quantize_module._refusal([], slow, wish, late=False)
    assert set(_names(findings.split.held_out)).isdisjoint(_names(findings.split.calibration))


def _interval(value: float) -> Interval:
    return Interval(value, value - 0.01, value + 0.01)


def _names(parts: Any) -> list[str]:
    return [sample.name for sample in parts]


def test_a_tool_that_fails_leaves_the_others(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def chokes(*_: object, **__: object) -> Path:
        raise UnsupportedModel("NNCF cannot handle this model: boom")

    monkeypatch.setattr(quantize_module, "recipes", lambda saturates: (NNCF, STATIC))
    monkeypatch.setattr(quantize_search.variants_nncf, "make", chokes)
    findings = shop.run().findings
    failed = [c for c in findings.candidates if c.state == "failed"]
    assert [c.reason for c in failed] == ["NNCF cannot handle this model: boom"]


def test_all_tools_failing_is_a_refusal(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    def chokes(self: object, recipe: Recipe, excluded: object) -> Path:
        raise UnsupportedModel("boom")

    monkeypatch.setattr(quantize_search.Kitchen, "make", chokes)
    with pytest.raises(GateRefused, match=r"1 could not be tried .*boom"):
        shop.run()


def test_no_time_is_a_refusal(shop: Workshop) -> None:
    with pytest.raises(GateRefused, match="budget of 1e-06 seconds was used up"):
        shop.run(budget_s=1e-6)


def test_what_was_found_in_time_is_examined(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Making and looking took all the time: the best one is examined all the same."""
    clock = 0.0
    look_at = quantize_search.Search._look_at

    def slowly(self: quantize_search.Search, candidates: Any) -> None:
        nonlocal clock
        look_at(self, candidates)
        clock += 1000.0

    monkeypatch.setattr(quantize_search.Search, "_look_at", slowly)
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    findings = shop.run(budget_s=1500.0).findings
    assert sum(c.drop is not None for c in findings.candidates) == 1
    assert findings.refusal == ""


def test_layers_are_left_out_of_what_loses_most_answers(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = quantize_bench.Bench.look
    looks = 0

    def lost_at_first(self: quantize_bench.Bench, model: Any) -> quantize_bench.Look:
        nonlocal looks
        looks += 1
        seen = look(self, model)
        return replace(seen, agreement=0.1) if looks == 1 else seen

    monkeypatch.setattr(quantize_bench.Bench, "look", lost_at_first)
    findings = shop.run().findings
    assert findings.candidates[0].state == "too much lost"
    assert findings.chosen is not None
    assert findings.chosen.excluded


def test_a_loss_of_most_answers_is_named(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    look = quantize_bench.Bench.look

    def lost(self: quantize_bench.Bench, model: Any) -> quantize_bench.Look:
        return replace(look(self, model), agreement=0.1)

    monkeypatch.setattr(quantize_bench.Bench, "look", lost)
    with pytest.raises(GateRefused, match=r"of \d+ faster ones .* agrees with it in 10 % alone"):
        shop.run()


def test_a_full_disk(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(DiskFull):
        shop.run()
    assert [e.version for e in shop.registry.installed()] == [shop.entry.version]
    assert shop.left_behind() == []


def test_an_interrupt_leaves_nothing(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(quantize_search.StaticQuantizer, "make", interrupted)
    with pytest.raises(KeyboardInterrupt):
        shop.run()
    assert shop.left_behind() == []


def test_too_few_pictures(shop: Workshop, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "few", yolo_files(squares(40)))
    few = open_samples(folder, shop.entry.card, settings=shop.settings)
    with pytest.raises(InputError, match="at least 64 are needed"):
        replace(shop, samples=few).run()


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"max_drop": -1.0}, "0 to 100 points"),
        ({"max_drop": float("nan")}, "0 to 100 points"),
        ({"budget_s": 0.0}, "above 0 seconds"),
        ({"budget_s": float("inf")}, "above 0 seconds"),
        ({"runtimes": ("nonesuch",)}, "runtime nonesuch: INT8 is tried on onnxruntime, openvino"),
        ({"runtimes": ("onnxruntime", "triton")}, "runtime triton: INT8 is tried on"),
        ({"runtimes": ()}, "no runtime: INT8 is tried on"),
        ({"seed": -1}, "the seed must not be below 0"),
    ],
)
def test_wishes_out_of_range(wish: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        Wish(**wish)


def test_a_metric_that_the_labels_do_not_allow(shop: Workshop) -> None:
    with pytest.raises(InvalidRequest, match="top1"):
        shop.run(metric="top1")


def test_a_model_that_fails(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: object, batch: object) -> Any:
        raise ModelRunFailed("boom")

    monkeypatch.setattr("retinue.models.base.VisionModel.run", fails)
    with pytest.raises(ModelRunFailed, match="boom"):
        shop.run()


def test_speed_is_of_the_network_alone(shop: Workshop) -> None:
    """One in a process of its own would lose time on the way there, the variants none."""
    seen: list[bool] = []

    def spy(entry: Entry, execution: Execution) -> Any:
        seen.append(execution.isolate)
        return load_model(entry, execution)

    apart = shop.settings.execution.model_copy(update={"isolate": True})
    isolating = replace(shop, settings=shop.settings.model_copy(update={"execution": apart}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantize_module, "load_model", spy)
        patch.setattr(quantize_bench, "load_model", spy)
        isolating.run()
    assert seen
    assert not any(seen)
