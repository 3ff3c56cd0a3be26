"""``retinue doctor`` tells what is there and what is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from retinue.core.settings import Settings
from retinue.host.cli import cli
from retinue.host.doctor import facts


def found(settings: Settings) -> dict[str, tuple[bool, str]]:
    return {fact.name: (fact.ok, fact.words) for part, fact in facts(settings) if part == "machine"}


def test_a_new_machine_is_well(tmp_path: Path) -> None:
    machine = found(Settings(home=tmp_path / "home", cache=tmp_path / "cache"))
    assert all(ok for ok, _ in machine.values())
    assert str(tmp_path / "cache") in machine["models"][1]
    assert "none yet" in machine["installed models"][1]
    assert not (tmp_path / "cache").exists()


def test_a_runtime_that_is_missing_is_said(tmp_path: Path) -> None:
    settings = Settings(
        home=tmp_path, cache=tmp_path, execution={"runtime": "nothing_of_that_name"}
    )
    assert found(settings)["runtime"] == (False, "nothing_of_that_name")


def test_a_damaged_model_is_said(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "some-model" / "0123456789ab"
    folder.mkdir(parents=True)
    (folder / "card.json").write_text("{")
    machine = found(Settings(home=tmp_path, cache=tmp_path))
    assert machine["damaged model"][0] is False


def test_the_command_prints_lines_or_json(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RETINUE_HOME", str(tmp_path))
    monkeypatch.setenv("RETINUE_CACHE", str(tmp_path))
    plain = CliRunner().invoke(cli, ["doctor"])
    assert plain.exit_code == 0 and "Python" in plain.output
    lines = CliRunner().invoke(cli, ["doctor", "--json"]).output.splitlines()
    rows = [json.loads(line) for line in lines]
    assert {"part", "name", "words", "ok", "advice"} == set(rows[0])
