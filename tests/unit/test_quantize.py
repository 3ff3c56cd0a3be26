"""The search for a faster version: what is installed, what is refused, what is told."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from retinue.calibrate import quantize as quantize_module
from retinue.calibrate import quantize_bench, quantize_search
from retinue.calibrate.quantize import Quantized, Wish, quantize
from retinue.calibrate.quantize_findings import NOW, VARIANT, Findings
from retinue.calibrate.samples import Samples, open_samples
from retinue.calibrate.speed import Speed
from retinue.calibrate.tensorrt import check
from retinue.calibrate.variants import Recipe
from retinue.core.errors import (
    Conflict,
    DiskFull,
    GateRefused,
    InputError,
    InvalidRequest,
    ModelRunFailed,
    UnsupportedModel,
)
from retinue.core.settings import Execution, Settings, load_settings
from retinue.host.quantize_cli import quantize as command
from retinue.measure.paired import Interval, paired_mean
from retinue.models.card import RunWith
from retinue.models.loading import load_model
from retinue.models.registry import Entry, Registry
from retinue.testing.datasets import SIZE, squares, write_folder, yolo_files
from retinue.testing.onnx_models import COLOURS, color_detector

PICTURES = squares(72)
CARD = f"""
license = "Apache-2.0"
family = "yolo"
classes = {json.dumps(COLOURS)}
[input]
height = {SIZE}
width = {SIZE}
mean = [0.0, 0.0, 0.0]
std = [255.0, 255.0, 255.0]
[output]
layout = "yolov8"
"""
STATIC = Recipe("onnxruntime", "minmax", True, "s7")
NNCF = Recipe("nncf", "mixed", True, "s7")


def twice_as_fast(models: Mapping[str, Any], rows: object, **_: object) -> Speed:
    """Stand in for a race: what is not the model as it is takes half its time."""
    times = {name: (2.0 if name == NOW or name == "now" else 1.0,) * 3 for name in models}
    return Speed(times, "not timed")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("RETINUE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RETINUE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(quantize_bench, "race", twice_as_fast)
    monkeypatch.setattr(quantize_module, "race", twice_as_fast)
    monkeypatch.setattr(quantize_module, "recipes", lambda saturates: (STATIC,))
    return load_settings()


@pytest.fixture
def registry(settings: Settings) -> Registry:
    return Registry(settings.cache)


@pytest.fixture
def entry(registry: Registry, tmp_path: Path) -> Entry:
    (tmp_path / "card.toml").write_text(CARD)
    path = color_detector(tmp_path / "model.onnx", SIZE)
    return registry.import_onnx(path, name="sees", task="detect", card=tmp_path / "card.toml")


@pytest.fixture
def samples(entry: Entry, settings: Settings, tmp_path: Path) -> Samples:
    files = yolo_files(PICTURES) | {"images/bad.png": b"hello"}
    return open_samples(write_folder(tmp_path / "data", files), entry.card, settings=settings)


def run(
    entry: Entry, samples: Samples, settings: Settings, registry: Registry, **wish: Any
) -> Quantized:
    wish = {"max_drop": 0.5, "runtimes": ("onnxruntime",), **wish}
    return quantize(entry, samples, Wish(**wish), settings=settings, registry=registry)


def left_behind(settings: Settings) -> list[str]:
    return [p.name for p in settings.cache.rglob("*") if ".tmp-" in p.name or ".work" in p.name]


def test_the_layers_that_cost_are_left_out(
    entry: Entry, samples: Samples, settings: Settings, registry: Registry
) -> None:
    """Boxes and scores share one output: in 8 bits the scores are lost, so its end is left out."""
    made = run(entry, samples, settings, registry)
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
    assert left_behind(settings) == []


def test_the_version_says_what_it_is(
    entry: Entry, samples: Samples, settings: Settings, registry: Registry
) -> None:
    made = run(entry, samples, settings, registry)
    found = registry.get("sees", made.entry.version)
    assert found == made.entry
    assert found.card.run_with == RunWith(runtime="onnxruntime")
    assert found.lineage is not None
    assert found.lineage.parent == entry.version
    assert 0.9 < found.lineage.agreement_low <= found.lineage.agreement <= 1
    assert registry.get("sees").version == entry.version  # no alias was moved
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
    load_model(found, settings.execution).close()


def test_a_version_is_not_quantised_again(
    entry: Entry, samples: Samples, settings: Settings, registry: Registry, tmp_path: Path
) -> None:
    made = run(entry, samples, settings, registry)
    with pytest.raises(UnsupportedModel, match=f"quantise sees@{entry.version}"):
        run(made.entry, samples, settings, registry)
    card = tmp_path / "card.toml"
    imported = registry.import_onnx(made.entry.path, name="copy", task="detect", card=card)
    with pytest.raises(UnsupportedModel, match="quantised already"):
        run(imported, samples, settings, registry)


def test_nothing_faster_is_refused(
    entry: Entry,
    samples: Samples,
    settings: Settings,
    registry: Registry,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_faster(models: Mapping[str, Any], rows: object, **_: object) -> Speed:
        return Speed(dict.fromkeys(models, (1.0,) * 3), "not timed")

    monkeypatch.setattr(quantize_bench, "race", no_faster)
    with pytest.raises(GateRefused, match=r"no variant is both faster .* runs at 1.00 x"):
        run(entry, samples, settings, registry)
    assert [e.version for e in registry.installed()] == [entry.version]
    assert left_behind(settings) == []


def test_too_great_a_loss_is_refused_with_the_best_one(
    entry: Entry,
    samples: Samples,
    settings: Settings,
    registry: Registry,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(quantize_search, "steps", lambda sensitivities, number: [])
    monkeypatch.setattr(quantize_search, "LEAST_AGREEMENT", 0.0)
    with pytest.raises(GateRefused, match=r"the best faster one, .* lost \d+\.\d+ points"):
        run(entry, samples, settings, registry)
    assert [e.version for e in registry.installed()] == [entry.version]


def test_the_pictures_held_out_have_the_last_word(
    entry: Entry, samples: Samples, settings: Settings, registry: Registry
) -> None:
    heard: list[Findings] = []
    wish = Wish(runtimes=("onnxruntime",))
    quantize(entry, samples, wish, settings=settings, registry=registry, heard=heard.append)
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
    entry: Entry,
    samples: Samples,
    settings: Settings,
    registry: Registry,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def chokes(*_: object, **__: object) -> Path:
        raise UnsupportedModel("NNCF cannot handle this model: boom")

    monkeypatch.setattr(quantize_module, "recipes", lambda saturates: (NNCF, STATIC))
    monkeypatch.setattr(quantize_search.variants_nncf, "make", chokes)
    findings = run(entry, samples, settings, registry).findings
    failed = [c for c in findings.candidates if c.state == "failed"]
    assert [c.reason for c in failed] == ["NNCF cannot handle this model: boom"]


def test_all_tools_failing_is_a_refusal(
    entry: Entry,
    samples: Samples,
    settings: Settings,
    registry: Registry,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def chokes(self: object, recipe: Recipe, excluded: object) -> Path:
        raise UnsupportedModel("boom")

    monkeypatch.setattr(quantize_search.Kitchen, "make", chokes)
    with pytest.raises(GateRefused, match=r"1 could not be tried .*boom"):
        run(entry, samples, settings, registry)


def test_no_time_is_a_refusal(
    entry: Entry, samples: Samples, settings: Settings, registry: Registry
) -> None:
    with pytest.raises(GateRefused, match="budget of 1e-06 seconds was used up"):
        run(entry, samples, settings, registry, budget_s=1e-6)


def test_what_was_found_in_time_is_examined(
    entry: Entry,
    samples: Samples,
    settings: Settings,
    registry: Registry,
    monkeypatch: pytest.MonkeyPatch,
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
    findings = run(entry, samples, settings, registry, budget_s=1500.0).findings
    assert sum(c.drop is not None for c in findings.candidates) == 1
    assert findings.refusal == ""


def test_layers_are_left_out_of_what_loses_most_answers(
    entry: Entry,
    samples: Samples,
    settings: Settings,
    registry: Registry,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    look = quantize_bench.Bench.look
    looks = 0

    def lost_at_first(self: quantize_bench.Bench, model: Any) -> quantize_bench.Look:
        nonlocal looks
        looks += 1
        seen = look(self, model)
        return replace(seen, agreement=0.1) if looks == 1 else seen

    monkeypatch.setattr(quantize_bench.Bench, "look", lost_at_first)
    findings = run(entry, samples, settings, registry).findings
    assert findings.candidates[0].state == "too much lost"
    assert findings.chosen is not None
    assert findings.chosen.excluded


def test_a_loss_of_most_answers_is_named(
    entry: Entry,
    samples: Samples,
    settings: Settings,
    registry: Registry,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    look = quantize_bench.Bench.look

    def lost(self: quantize_bench.Bench, model: Any) -> quantize_bench.Look:
        return replace(look(self, model), agreement=0.1)

    monkeypatch.setattr(quantize_bench.Bench, "look", lost)
    with pytest.raises(GateRefused, match=r"of \d+ faster ones .* agrees with it in 10 % alone"):
        run(entry, samples, settings, registry)


def test_a_full_disk(
    entry: Entry,
    samples: Samples,
    settings: Settings,
    registry: Registry,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(DiskFull):
        run(entry, samples, settings, registry)
    assert [e.version for e in registry.installed()] == [entry.version]
    assert left_behind(settings) == []


def test_an_interrupt_leaves_nothing(
    entry: Entry,
    samples: Samples,
    settings: Settings,
    registry: Registry,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*_: object, **__: object) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(quantize_search.StaticQuantizer, "make", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(entry, samples, settings, registry)
    assert left_behind(settings) == []


def test_killed_at_work_nothing_is_left(
    entry: Entry, samples: Samples, settings: Settings, registry: Registry, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "retinue", "models", "quantize", "sees"]
    command += ["--data", str(tmp_path / "data"), "--runtime", "onnxruntime"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        # It tells each step: this one is amid the work.
        assert any("calibrating" in line for line in process.stderr)
        process.kill()
    assert [e.version for e in registry.installed()] == [entry.version]
    assert left_behind(settings) != []
    registry.verify(entry)
    run(entry, samples, settings, registry)
    assert left_behind(settings) == []


def test_too_few_pictures(
    entry: Entry, settings: Settings, registry: Registry, tmp_path: Path
) -> None:
    files = yolo_files(PICTURES[:40])
    few = open_samples(write_folder(tmp_path / "few", files), entry.card, settings=settings)
    with pytest.raises(InputError, match="at least 64 are needed"):
        run(entry, few, settings, registry)


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


def test_a_metric_that_the_labels_do_not_allow(
    entry: Entry, samples: Samples, settings: Settings, registry: Registry
) -> None:
    with pytest.raises(InvalidRequest, match="top1"):
        run(entry, samples, settings, registry, metric="top1")


def test_a_model_that_fails(
    entry: Entry,
    samples: Samples,
    settings: Settings,
    registry: Registry,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(self: object, batch: object) -> Any:
        raise ModelRunFailed("boom")

    monkeypatch.setattr("retinue.models.base.VisionModel.run", fails)
    with pytest.raises(ModelRunFailed, match="boom"):
        run(entry, samples, settings, registry)


def app() -> typer.Typer:
    made = typer.Typer(pretty_exceptions_enable=False)
    made.command()(command)
    return made


def test_the_command(
    entry: Entry, samples: Samples, settings: Settings, registry: Registry, tmp_path: Path
) -> None:
    out, trt = tmp_path / "out", tmp_path / "trt.onnx"
    arguments = ["sees", "--data", str(tmp_path / "data")]
    arguments += ["--runtime", "onnxruntime", "--out", str(out), "--tensorrt", str(trt)]
    result = CliRunner().invoke(app(), arguments, catch_exceptions=False)
    assert result.exit_code == 0
    version = next(e.version for e in registry.installed() if e.version != entry.version)
    assert f"retinue models promote sees {version}" in result.output
    assert "TensorRT was not run" in " ".join(result.output.split())
    assert json.loads((out / "report.json").read_text())["parent"] == entry.version
    assert (out / "report.html").read_text().startswith("<!doctype html>")
    assert check(trt) == []
    assert registry.get("sees").version == entry.version


@pytest.mark.parametrize("ledger", ["as it is", "none yet"])
def test_the_command_promotes_when_asked(
    entry: Entry, samples: Samples, registry: Registry, tmp_path: Path, ledger: str
) -> None:
    if ledger == "none yet":
        (entry.path.parents[1] / "ledger.jsonl").unlink()
    arguments = ["sees", "--data", str(tmp_path / "data"), "--promote"]
    result = CliRunner().invoke(
        app(), [*arguments, "--runtime", "onnxruntime", "--json"], catch_exceptions=False
    )
    told = json.loads(result.stdout)
    assert registry.get("sees").version == told["version"] != entry.version


def test_speed_is_of_the_network_alone(
    entry: Entry, samples: Samples, settings: Settings, registry: Registry
) -> None:
    """One in a process of its own would lose time on the way there, the variants none."""
    seen: list[bool] = []

    def spy(entry: Entry, execution: Execution) -> Any:
        seen.append(execution.isolate)
        return load_model(entry, execution)

    apart = settings.execution.model_copy(update={"isolate": True})
    settings = settings.model_copy(update={"execution": apart})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantize_module, "load_model", spy)
        patch.setattr(quantize_bench, "load_model", spy)
        run(entry, samples, settings, registry)
    assert seen
    assert not any(seen)


def test_a_promotion_that_is_refused_leaves_the_version(
    entry: Entry, samples: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_: object, **__: object) -> None:
        raise Conflict("someone else changed it meanwhile")

    monkeypatch.setattr(Registry, "promote", refuses)
    arguments = ["sees", "--data", str(tmp_path / "data"), "--runtime", "onnxruntime", "--promote"]
    for flag, told in (("--json", '"version": "'), ("", "is installed")):
        result = CliRunner().invoke(app(), [*arguments, *([flag] if flag else [])])
        assert isinstance(result.exception, Conflict)
        assert told in result.stdout


def test_a_refusal_is_reported_too(
    entry: Entry, samples: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantize_search, "steps", lambda sensitivities, number: [])
    out = tmp_path / "out"
    arguments = ["sees", "--data", str(tmp_path / "data"), "--runtime", "onnxruntime"]
    result = CliRunner().invoke(app(), [*arguments, "--out", str(out), "--json"])
    assert isinstance(result.exception, GateRefused)
    told = json.loads(result.stdout)
    assert told["version"] is None
    assert told["refusal"].startswith("no variant is both faster and within 0.5 points")
    assert "Refused" in (out / "report.html").read_text()
