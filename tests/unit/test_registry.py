"""The registry, on small real ONNX files and packages that the test publishes itself."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from retinue.core.errors import (
    AccessError,
    ChecksumMismatch,
    FetchError,
    ModelCorrupt,
    ModelNotFound,
    NotWritable,
    PluginError,
    UnsafePickle,
    UnsupportedModel,
)
from retinue.models.card import Card
from retinue.models.fetch import sha256_of
from retinue.models.registry import Registry
from retinue.testing import onnx_models
from retinue.testing.source_suite import QUICK, Heard
from retinue.testing.web import Answer, Site, serve


def model_file(path: Path, seed: int = 0, floats: int = 4) -> Path:
    """Write a valid ONNX file whose bytes depend on the seed."""
    weights = np.random.default_rng(seed).normal(size=floats).astype(np.float32)
    return onnx_models.save(
        path,
        [helper.make_node("ReduceSum", ["w"], ["s"]), helper.make_node("Mul", ["x", "s"], ["y"])],
        {"x": ("float32", ("N", 3, 8, 8))},
        {"y": ("float32", ("N", 3, 8, 8))},
        {"w": weights},
    )


def card_of(file: Path, url: str = "", **fields: object) -> Card:
    values = {
        "name": "tiny",
        "task": "detect",
        "family": "yolo",
        "license": "MIT",
        "source": {"url": url or file.as_uri(), "files": {file.name: sha256_of(file)}},
        "input": {"height": 8, "width": 8},
        "output": {"layout": "yolov8"},
        **fields,
    }
    return Card.model_validate(values)


@pytest.fixture
def site():
    with serve() as running:
        yield running


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "cache", policy=QUICK)


def offered(site: Site, file: Path, **fields: object) -> Card:
    site.pages["/" + file.name] = file.read_bytes()
    return card_of(file, f"{site.url}/{file.name}", **fields)


def leftovers(cache: Path) -> list[str]:
    return [p.name for p in cache.rglob("*") if p.name.startswith(".tmp-") or p.suffix == ".bin"]


def test_a_pull_installs_and_the_second_asks_nothing(
    site: Site, registry: Registry, tmp_path: Path
) -> None:
    card = offered(site, model_file(tmp_path / "m.onnx"))
    heard = Heard()
    entry = registry.pull(card, progress=heard)
    assert re.fullmatch("[0-9a-f]{12}", entry.version)
    assert entry.path.read_bytes() == (tmp_path / "m.onnx").read_bytes()
    assert entry.size == entry.path.stat().st_size
    assert heard.labels == ["m.onnx", "checking tiny"]
    registry.verify(entry)
    assert registry.get("tiny") == entry == registry.get("tiny", entry.version)
    assert registry.installed() == [entry]
    assert registry.damaged() == []
    site.pages.clear()
    again = Heard()
    assert registry.pull(card, progress=again) == entry
    assert len(site.requests) == 1
    assert again.labels == []
    assert leftovers(tmp_path / "cache") == []


def test_a_changed_card_pulls_again_and_old_versions_stay(
    site: Site, registry: Registry, tmp_path: Path
) -> None:
    first = registry.pull(offered(site, model_file(tmp_path / "m.onnx", 1)))
    card = offered(site, model_file(tmp_path / "m.onnx", 2))
    second = registry.pull(card)
    assert first.version != second.version
    assert registry.get("tiny") == second
    assert registry.get("tiny", first.version) == first
    assert registry.installed() == [second, first]
    # The older card is still on the disk: no transfer, it only becomes current again.
    asked = len(site.requests)
    assert registry.pull(first.card) == first
    assert registry.get("tiny") == first
    assert len(site.requests) == asked


def test_a_card_with_other_settings_is_updated_without_a_transfer(
    site: Site, registry: Registry, tmp_path: Path
) -> None:
    file = model_file(tmp_path / "m.onnx")
    registry.pull(offered(site, file))
    changed = offered(site, file, summary="better words")
    assert registry.pull(changed).card.summary == "better words"
    assert registry.get("tiny").card == changed
    assert len(site.requests) == 1


def test_force_fetches_again(site: Site, registry: Registry, tmp_path: Path) -> None:
    card = offered(site, model_file(tmp_path / "m.onnx"))
    assert registry.pull(card) == registry.pull(card, force=True)
    assert len(site.requests) == 2


def test_a_binding_licence_is_accepted_first(
    site: Site, registry: Registry, tmp_path: Path
) -> None:
    card = offered(site, model_file(tmp_path / "m.onnx"), license="AGPL-3.0-only")
    with pytest.raises(AccessError, match=r"AGPL-3\.0-only.*--accept-license"):
        registry.pull(card)
    assert not site.requests
    assert not (tmp_path / "cache").exists()
    entry = registry.pull(card, accept_license=True)
    assert registry.pull(card) == entry


def test_a_tampered_download_is_never_used(site: Site, registry: Registry, tmp_path: Path) -> None:
    card = offered(site, model_file(tmp_path / "m.onnx", 1))
    site.pages["/m.onnx"] = model_file(tmp_path / "other.onnx", 2).read_bytes()
    with pytest.raises(ChecksumMismatch):
        registry.pull(card)
    assert registry.installed() == []
    assert not (tmp_path / "cache" / "models" / "tiny").exists()


def test_a_truncated_download_is_never_used(site: Site, registry: Registry, tmp_path: Path) -> None:
    file = model_file(tmp_path / "m.onnx", floats=100_000)
    card = offered(site, file)
    site.pages["/m.onnx"] = Answer(file.read_bytes(), cut=1000)
    with pytest.raises(FetchError):
        registry.pull(card)
    assert not (tmp_path / "cache" / "models" / "tiny").exists()


@pytest.mark.parametrize("content", [b"", b"not onnx", b"\x08\x09"])
def test_what_is_no_onnx_is_refused(
    site: Site, registry: Registry, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(ModelCorrupt, match="not a valid ONNX"):
        registry.pull(offered(site, tmp_path / "m.onnx"))
    assert registry.installed() == []
    assert leftovers(tmp_path / "cache") == []


def test_the_importer_is_found_before_the_transfer(
    site: Site, registry: Registry, tmp_path: Path
) -> None:
    card = offered(site, model_file(tmp_path / "m.onnx"))
    source = card.source.model_copy(update={"importer": "no_such"})
    with pytest.raises(PluginError, match="no_such"):
        registry.pull(card.model_copy(update={"source": source}))
    assert not site.requests


def test_an_importers_refusal_leaves_nothing(
    site: Site, registry: Registry, tmp_path: Path
) -> None:
    """A pickle that would run a command, through the real importer."""
    import pickle

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return print, ("ran",)

    (tmp_path / "evil.pth").write_bytes(pickle.dumps(Evil()))
    card = offered(site, tmp_path / "evil.pth")
    source = card.source.model_copy(update={"importer": "efficientnet_lite"})
    with pytest.raises((UnsafePickle, ModelCorrupt, UnsupportedModel)):
        registry.pull(card.model_copy(update={"source": source}))
    assert not (tmp_path / "cache" / "models" / "tiny").exists()


def test_two_files_need_an_importer(site: Site, registry: Registry, tmp_path: Path) -> None:
    one, two = model_file(tmp_path / "1.onnx", 1), model_file(tmp_path / "2.onnx", 2)
    files = {"1.onnx": sha256_of(one), "2.onnx": sha256_of(two)}
    card = card_of(one, source={"url": tmp_path.as_uri(), "files": files})
    with pytest.raises(UnsupportedModel, match="exactly one"):
        registry.pull(card)


def test_damage_is_listed_named_and_repaired(
    site: Site, registry: Registry, tmp_path: Path
) -> None:
    card = offered(site, model_file(tmp_path / "m.onnx"))
    entry = registry.pull(card)
    whole = entry.path.read_bytes()

    def cut() -> None:
        entry.path.write_bytes(whole[:-1])

    def gone() -> None:
        entry.path.unlink()

    def no_card() -> None:
        (entry.path.parent / "card.json").write_text('{"name": "tiny"')

    def no_entry() -> None:
        (entry.path.parent / "entry.json").unlink()

    def other_entry() -> None:
        file = entry.path.parent / "entry.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "sha256": "0" * 64}))

    for number, damage in enumerate((cut, gone, no_card, no_entry, other_entry)):
        damage()
        assert len(registry.installed()) == (1 if number < 2 else 0)
        (found,) = registry.damaged()
        assert (found.name, found.version) == ("tiny", entry.version)
        with pytest.raises(ModelCorrupt, match="retinue models pull tiny"):
            registry.get("tiny")
        assert registry.pull(card).sha256 == entry.sha256
        assert registry.damaged() == []
        registry.verify(registry.get("tiny"))
    assert leftovers(tmp_path / "cache") == []


def test_changed_bytes_of_the_same_length_are_found(
    site: Site, registry: Registry, tmp_path: Path
) -> None:
    card = offered(site, model_file(tmp_path / "m.onnx"))
    entry = registry.pull(card)
    data = bytearray(entry.path.read_bytes())
    data[len(data) // 2] ^= 1
    entry.path.write_bytes(data)
    assert registry.installed() == [entry]
    assert registry.get("tiny") == entry
    with pytest.raises(ModelCorrupt, match="sha256"):
        registry.verify(entry)
    registry.pull(card)
    registry.verify(registry.get("tiny"))


def test_a_lost_ledger_means_the_latest(site: Site, registry: Registry, tmp_path: Path) -> None:
    registry.pull(offered(site, model_file(tmp_path / "m.onnx", 1)))
    latest = registry.pull(offered(site, model_file(tmp_path / "m.onnx", 2)))
    registry.ledger("tiny").path.unlink()
    assert registry.get("tiny") == latest


def test_remove(site: Site, registry: Registry, tmp_path: Path) -> None:
    for seed in (1, 2):
        registry.pull(offered(site, model_file(tmp_path / "m.onnx", seed)))
    registry.remove("tiny")
    assert registry.installed() == []
    (left,) = (tmp_path / "cache" / "models" / "tiny").iterdir()
    assert left == registry.ledger("tiny").path
    with pytest.raises(ModelNotFound, match="not installed"):
        registry.remove("tiny")


@pytest.mark.parametrize("name", ["tiny", "", "..", "../x", "/etc", ".locks", "a/b"])
def test_unknown_names(registry: Registry, tmp_path: Path, name: str) -> None:
    (tmp_path / "cache" / "models" / ".locks").mkdir(parents=True)
    with pytest.raises(ModelNotFound, match="retinue models pull"):
        registry.get(name)
    with pytest.raises(ModelNotFound):
        registry.remove(name)


def test_an_unknown_version_names_the_installed(
    site: Site, registry: Registry, tmp_path: Path
) -> None:
    entry = registry.pull(offered(site, model_file(tmp_path / "m.onnx")))
    for version in ("0" * 12, "../x", entry.version[:3], entry.version + "0", "tiny"):
        with pytest.raises(ModelNotFound, match=entry.version):
            registry.get("tiny", version)


def test_an_empty_or_strange_cache_lists_nothing(tmp_path: Path) -> None:
    assert Registry(tmp_path / "none").installed() == []
    (tmp_path / "models" / "tiny" / "0123456789ab").mkdir(parents=True)
    (tmp_path / "models" / "a file").write_text("")
    (tmp_path / "models" / "b").write_text("")
    assert Registry(tmp_path).installed() == []
    assert [found.name for found in Registry(tmp_path).damaged()] == ["tiny"]


@pytest.mark.parametrize("depth", [0, 1])
def test_a_cache_that_cannot_be_written(site: Site, tmp_path: Path, depth: int) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = tmp_path / "file" if depth == 0 else tmp_path / "file" / "cache"
    with pytest.raises(NotWritable, match="file"):
        Registry(cache).pull(offered(site, model_file(tmp_path / "m.onnx")))
    assert not site.requests


def test_an_installed_model_needs_no_writable_cache(
    site: Site, registry: Registry, tmp_path: Path
) -> None:
    card = offered(site, model_file(tmp_path / "m.onnx"))
    entry = registry.pull(card)
    locks = tmp_path / "cache" / "models" / ".locks"
    for file in locks.iterdir():
        file.unlink()
    locks.rmdir()
    locks.write_text("no lock can be made here")
    assert registry.pull(card) == entry
