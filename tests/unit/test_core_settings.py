"""Settings: the embedded default, the file, the variables, and clear errors."""

import sys
from pathlib import Path

import pytest

from retinue.core.errors import ConfigError
from retinue.core.settings import (
    Settings,
    _cores_of_container,
    cores,
    default_home,
    load_settings,
)


def test_the_embedded_default_needs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RETINUE_HOME", str(tmp_path / "home"))
    settings = load_settings()
    assert settings.server.host == "127.0.0.1"
    assert settings.execution.precision == "f32"
    assert settings.records_url == f"sqlite:///{tmp_path}/home/records.sqlite3"
    assert settings.blobs_url == f"file://{tmp_path}/home/blobs"


def test_overrides_beat_variables_beat_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("retinue.toml").write_text(
        "[server]\nport = 1\n[batching]\nmax_batch = 4\nmax_queue = 9\n"
    )
    monkeypatch.setenv("RETINUE_BATCHING__MAX_BATCH", "5")
    settings = load_settings(server={"port": 3})
    assert settings.server.port == 3
    assert settings.batching.max_batch == 5
    assert settings.batching.max_queue == 9


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[server]\nprot = 1\n", r"server\.prot"),
        ("[server]\nport = 70000\n", r"server\.port.*65535"),
        ("[execution]\nprecision = 'int3'\n", r"execution\.precision"),
        ("[server\n", "cannot read settings file"),
        ("nonsense = 1\n", "nonsense"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "x.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_settings(file)


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("RETINUE_MODELS", "nanodet-g-416", "models.*JSON"),
        ("RETINUE_SERVER__PROT", "1", r"server\.prot"),
        ("RETINUE_SRVER__PORT", "1", "RETINUE_SRVER__PORT names no setting"),
        ("RETINUE_PORT", "1", "RETINUE_PORT names no setting; use RETINUE_SERVER__PORT"),
        ("RETINUE_SERVER_PORT", "1", "use RETINUE_SERVER__PORT"),
        ("RETINUE_KEEP_DAYS", "1", "use RETINUE_RECORDS__KEEP_DAYS or RETINUE_BLOBS__KEEP_DAYS"),
        ("RETINUE_HOME", "~no-such-user/x", "home.*home directory"),
    ],
)
def test_a_wrong_variable_is_named(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match=message):
        load_settings()


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETINUE_HOME", "")
    monkeypatch.setenv("RETINUE_SERVER__PORT", "")
    settings = load_settings()
    assert settings.home == default_home()
    assert settings.server.port == 8900


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no settings file"):
        load_settings(tmp_path / "nope.toml")


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().home = Path("x")  # type: ignore[misc]


def test_variables_of_a_kubernetes_service_are_not_taken_for_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RETINUE_PORT", "tcp://10.0.0.7:8900")
    monkeypatch.setenv("RETINUE_SERVICE_HOST", "10.0.0.7")
    monkeypatch.setenv("RETINUE_PORT_8900_TCP_ADDR", "10.0.0.7")
    assert load_settings().server.port == 8900


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("200000 100000\n", 2),
        ("150000 100000\n", 2),
        ("5000 100000\n", 1),
        ("max 100000\n", sys.maxsize),
        ("nonsense", sys.maxsize),
        ("1 0", sys.maxsize),
    ],
)
def test_a_containers_limit_counts_as_cores(tmp_path: Path, text: str, number: int) -> None:
    (tmp_path / "cpu.max").write_text(text)
    assert _cores_of_container(tmp_path / "cpu.max") == number
    assert _cores_of_container(tmp_path / "missing") == sys.maxsize
    assert 1 <= cores() <= 4096
