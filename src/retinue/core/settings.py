"""Settings: one file (``retinue.toml``), one URL a part, ``RETINUE_*`` variables on top.

The embedded default needs no file at all. A variable names a nested setting with two underscores:
``RETINUE_SERVER__PORT=9000``.
"""

from __future__ import annotations

import os
import sys
import tomllib
from pathlib import Path
from typing import Any, Literal, TypeVar

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from retinue.core.errors import ConfigError

App = TypeVar("App", bound=BaseModel)

DEFAULT_FILE = Path("retinue.toml")


class Section(BaseModel):
    """A table of the settings file; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Server(Section):
    """Where the server listens and what it accepts."""

    host: str = "127.0.0.1"
    port: int = Field(8900, ge=0, le=65535)
    api_keys: tuple[str, ...] = Field(
        (), description="Digests as `retinue keys new` prints them; never the keys themselves."
    )
    insecure: bool = Field(False, description="Serve a non-loopback address without API keys.")
    allowed_origins: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = Field(
        (), description="Further Host names that browsers may use to reach the server."
    )
    max_body_bytes: int = Field(32 * 2**20, gt=0)
    body_timeout_s: float = Field(30.0, gt=0)
    max_connections: int = Field(1000, gt=0)
    drain_s: float = Field(30.0, ge=0, description="How long SIGTERM waits for accepted work.")
    grpc: bool = Field(True, description="Serve the Open Inference Protocol over gRPC too.")
    grpc_port: int | None = Field(
        None, ge=0, le=65535, description="None: the one after `port`; 0 takes a free one."
    )
    model_control: bool = Field(
        False, description="Let clients load and unload models that are installed."
    )


class Limits(Section):
    """What a decoder may be given."""

    max_bytes: int = Field(32 * 2**20, gt=0)
    max_pixels: int = Field(64_000_000, gt=0)
    max_frames: int = Field(1_000, gt=0, description="Frames that an animated image may announce.")


class Execution(Section):
    """How models are executed on this machine."""

    runtime: str = "onnxruntime"
    device: str = Field("", description="Where the runtime executes; for a remote server, its URL.")
    precision: Literal["f32", "bf16", "f16"] = "f32"
    threads: int = Field(1, ge=1, le=256, description="Threads inside one run.")
    instances: int = Field(0, ge=0, le=256, description="Sessions a model; 0: one a core.")
    isolate: bool = Field(
        False, description="Run each session in a process of its own, started anew if it dies."
    )
    warm_up: bool = Field(True, description="Run each session before the model counts as ready.")


class Batching(Section):
    """The scheduler's policy."""

    max_batch: int = Field(1, ge=1, le=1024)
    window_ms: float = Field(0.0, ge=0, description="0: run as soon as an instance is free.")
    max_queue: int = Field(256, ge=1)
    deadline_ms: float = Field(10_000.0, gt=0)
    max_per_client: int = Field(
        0, ge=0, description="Items of one client that may be under way; 0: no limit of its own."
    )
    cache_mb: float = Field(
        0.0, ge=0, description="Memory for answers to repeated images; 0: no response cache."
    )


class Rollout(Section):
    """How the versions of a model take each other's place while they are served."""

    follow_s: float = Field(
        1.0, ge=0, description="How often the aliases are looked at; 0: at the start alone."
    )
    shadow_share: float = Field(
        1.0, ge=0, le=1, description="Share of requests that are repeated on the shadow."
    )
    guard_share: float = Field(
        0.02,
        ge=0,
        le=1,
        description="Share of a derived version's requests that are repeated on its parent.",
    )
    guard_tolerance: float = Field(
        0.05, ge=0, le=1, description="How far agreement may fall below what was measured."
    )
    guard_alarm_every: float = Field(
        1e6, ge=10, description="Comparisons between two false alarms, at least, on average."
    )


class Records(Section):
    """Which finished requests are kept, where, and for how long."""

    url: str = Field("", description="SQLAlchemy URL; empty: SQLite under RETINUE_HOME.")
    sample: float = Field(1.0, ge=0, le=1, description="Share of successful records kept.")
    keep_days: float = Field(30.0, gt=0)
    keep_rows: int = Field(1_000_000, gt=0)


class Blobs(Section):
    """Whether and where inputs are kept beside their records."""

    url: str = Field("", description="fsspec URL; empty: a folder under RETINUE_HOME.")
    sample: float = Field(0.0, ge=0, le=1, description="Share of inputs kept, of records kept.")
    keep_days: float = Field(30.0, gt=0)


def default_home() -> Path:
    """Return the platform's user data directory for Retinue."""
    return Path(platformdirs.user_data_dir("retinue"))


def default_cache() -> Path:
    """Return the platform's user cache directory for Retinue."""
    return Path(platformdirs.user_cache_dir("retinue"))


class Settings(BaseSettings):
    """All settings.

    Attributes:
        home: The one directory of state: records, blobs.
        cache: The model cache.
        models: Names of models that `retinue up` loads beside the apps' defaults.
        observers: Names of observers that see finished records beside the apps' own.
        apps: Settings of each app by its name, read by the app's own settings class.
    """

    model_config = SettingsConfigDict(
        env_prefix="RETINUE_",
        env_nested_delimiter="__",
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
    )

    home: Path = Field(default_factory=default_home)
    cache: Path = Field(default_factory=default_cache)
    models: tuple[str, ...] = ()
    observers: tuple[str, ...] = ()
    server: Server = Server()
    limits: Limits = Limits()
    execution: Execution = Execution()
    batching: Batching = Batching()
    rollout: Rollout = Rollout()
    records: Records = Records()
    blobs: Blobs = Blobs()
    apps: dict[str, dict[str, Any]] = Field(default_factory=dict)

    @field_validator("home", "cache")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        try:
            return value.expanduser().absolute()
        except RuntimeError as error:
            raise ValueError(f"{value}: {error}") from error

    def app(self, name: str, kind: type[App]) -> App:
        """Return an app's table, as its own model reads it.

        Raises:
            ConfigError: a setting is unknown or out of range.
        """
        try:
            return kind.model_validate(self.apps.get(name, {}))
        except ValidationError as error:
            raise ConfigError(f"settings [apps.{name}]: {explain(error)}") from error

    @property
    def records_url(self) -> str:
        """The records' SQLAlchemy URL, with the embedded default filled in."""
        return self.records.url or f"sqlite:///{self.home / 'records.sqlite3'}"

    @property
    def blobs_url(self) -> str:
        """The blobs' fsspec URL, with the embedded default filled in."""
        return self.blobs.url or (self.home / "blobs").as_uri()


def explain(error: ValidationError) -> str:
    """Return what is wrong with each field, on one line."""
    return "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())


def load_settings(file: Path | None = None, **overrides: Any) -> Settings:
    """Read the settings: overrides, then ``RETINUE_*`` variables, then the file, then defaults.

    Args:
        file: A TOML file; None reads ``retinue.toml`` in the working directory if there is one.
        overrides: Values that win over all others, as from the command line.

    Raises:
        ConfigError: the file cannot be read, or a setting is unknown or out of range.
    """
    _check_variables()
    if file is not None and not file.is_file():
        raise ConfigError(f"no settings file at {file}; give an existing one with --config")
    path = file or (DEFAULT_FILE if DEFAULT_FILE.is_file() else None)

    class _Settings(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            if path is None:
                return (init_settings, env_settings)
            return (init_settings, env_settings, TomlConfigSettingsSource(settings_cls, path))

    try:
        return _Settings(**overrides)
    except ValidationError as error:
        where = f"settings{f' ({path})' if path else ''}"
        raise ConfigError(f"{where}: {explain(error)}") from error
    except SettingsError as error:
        raise ConfigError(
            f"settings: {error}: a RETINUE_* variable that holds a list or table must be JSON"
        ) from error
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read settings file {path}: {error}") from error


def _check_variables() -> None:
    """Refuse variables that are meant as a setting but name none: they would be left unread."""
    nested = [
        f"{name}__{key}"
        for name, field in Settings.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
        for key in field.annotation.model_fields
    ]
    for variable in sorted(os.environ):
        before, _, name = variable.lower().partition("retinue_")
        if before or name.partition("__")[0] in Settings.model_fields:
            continue
        # Kubernetes sets RETINUE_PORT=tcp://... in every pod beside a service called retinue.
        if os.environ[variable].startswith(("tcp://", "udp://")):
            continue
        meant = [n for n in nested if name in (n.replace("__", "_"), n.partition("__")[2])]
        if meant or "__" in name:
            known = " or ".join(f"RETINUE_{n.upper()}" for n in meant) or "RETINUE_SECTION__NAME"
            raise ConfigError(f"settings: variable {variable} names no setting; use {known}")


def cores() -> int:
    """Return how many cores this process may use, a container's limit included."""
    if hasattr(os, "sched_getaffinity"):
        number = len(os.sched_getaffinity(0))
    else:
        number = os.cpu_count() or 1
    return min(number, _cores_of_container(Path("/sys/fs/cgroup/cpu.max")))


def _cores_of_container(limit: Path) -> int:
    """Return the cores that a control group allows, rounded up; very many without a limit.

    Source: cpu.max of https://docs.kernel.org/admin-guide/cgroup-v2.html: microseconds, or "max",
    of every so many.
    """
    try:
        quota, period = limit.read_text("ascii").split()
        return max(1, -(-int(quota) // int(period)))
    except (OSError, ValueError, ZeroDivisionError):
        return sys.maxsize
