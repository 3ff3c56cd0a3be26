"""What a measurement was taken on, and the progress of counted steps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from retinue import __version__
from retinue.calibrate import machine
from retinue.calibrate.machine import this_machine
from retinue.host.counting import Counter


def test_this_machine() -> None:
    found = this_machine()
    assert found.cores >= 1
    assert found.versions["retinue"] == __version__
    assert "onnxruntime" in found.versions
    assert json.loads(json.dumps(found.to_dict()))["processor"] == found.processor
    assert found.processor in found.line


def test_a_system_that_tells_little(tmp_path: Path) -> None:
    assert machine._cpuinfo(tmp_path / "none") == {}
    (tmp_path / "some").write_text(
        "model name\t: Some: CPU\nflags : avx2 x\n\nmodel name : Other\n"
    )
    found = machine._cpuinfo(tmp_path / "some")
    assert found == {"model name": "Some: CPU", "flags": "avx2 x"}


def test_counting_off_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with Counter() as counter:
        counter.start("looking at the pictures", 1200)
        counter.advance(1200)
        counter.finish()
        counter.start("thinking")
        counter.finish()
    assert capsys.readouterr().err == "looking at the pictures (1,200)\nthinking\n"
    assert capsys.readouterr().out == ""


def test_counting_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with Counter() as counter:
        counter.start("[a] pictures", 3)
        counter.advance(3)
        counter.finish()
        counter.start("cut off", 3)
    shown = capsys.readouterr().err
    assert "[a] pictures" in shown
    assert "3/3" in shown
