"""``retinue models quantize``: what it prints, writes, promotes and leaves behind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from retinue.calibrate import quantize_search
from retinue.calibrate.tensorrt import check
from retinue.core.errors import (
    Conflict,
    GateRefused,
)
from retinue.host.quantize_cli import quantize as command
from retinue.models.registry import Registry
from retinue.testing.quantizing import Workshop, workshop


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    return workshop(tmp_path, monkeypatch)


def app() -> typer.Typer:
    made = typer.Typer(pretty_exceptions_enable=False)
    made.command()(command)
    return made


def test_the_command(shop: Workshop, tmp_path: Path) -> None:
    out, trt = tmp_path / "out", tmp_path / "trt.onnx"
    arguments = ["sees", "--data", str(shop.data)]
    arguments += ["--runtime", "onnxruntime", "--out", str(out), "--tensorrt", str(trt)]
    result = CliRunner().invoke(app(), arguments, catch_exceptions=False)
    assert result.exit_code == 0
    version = next(e.version for e in shop.registry.installed() if e.version != shop.entry.version)
    assert f"retinue models promote sees {version}" in result.output
    assert "TensorRT was not run" in " ".join(result.output.split())
    assert json.loads((out / "report.json").read_text())["parent"] == shop.entry.version
    assert (out / "report.html").read_text().startswith("<!doctype html>")
    assert check(trt) == []
    assert shop.registry.get("sees").version == shop.entry.version


@pytest.mark.parametrize("ledger", ["as it is", "none yet"])
def test_the_command_promotes_when_asked(shop: Workshop, tmp_path: Path, ledger: str) -> None:
    if ledger == "none yet":
        (shop.entry.path.parents[1] / "ledger.jsonl").unlink()
    arguments = ["sees", "--data", str(shop.data), "--promote"]
    result = CliRunner().invoke(
        app(), [*arguments, "--runtime", "onnxruntime", "--json"], catch_exceptions=False
    )
    told = json.loads(result.stdout)
    assert shop.registry.get("sees").version == told["version"] != shop.entry.version


def test_a_promotion_that_is_refused_leaves_the_version(
    shop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_: object, **__: object) -> None:
        raise Conflict("someone else changed it meanwhile")

    monkeypatch.setattr(Registry, "promote", refuses)
    arguments = ["sees", "--data", str(shop.data), "--runtime", "onnxruntime", "--promote"]
    for flag, told in (("--json", '"version": "'), ("", "is installed")):
        result = CliRunner().invoke(app(), [*arguments, *([flag] if flag else [])])
        assert isinstance(result.exception, Conflict)
        assert told in result.stdout


def test_a_refusal_is_reported_too(
    shop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantize_search, "steps", lambda sensitivities, number: [])
    out = tmp_path / "out"
    arguments = ["sees", "--data", str(shop.data), "--runtime", "onnxruntime"]
    result = CliRunner().invoke(app(), [*arguments, "--out", str(out), "--json"])
    assert isinstance(result.exception, GateRefused)
    told = json.loads(result.stdout)
    assert told["version"] is None
    assert told["refusal"].startswith("no variant is both faster and within 0.5 points")
    assert "Refused" in (out / "report.html").read_text()


def test_killed_at_work_nothing_is_left(shop: Workshop, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "retinue", "models", "quantize", "sees"]
    command += ["--data", str(shop.data), "--runtime", "onnxruntime"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        # It tells each step: this one is amid the work.
        assert any("calibrating" in line for line in process.stderr)
        process.kill()
    assert [e.version for e in shop.registry.installed()] == [shop.entry.version]
    assert shop.left_behind() != []
    shop.registry.verify(shop.entry)
    shop.run()
    assert shop.left_behind() == []
