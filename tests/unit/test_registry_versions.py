"""What a version is: digests, references, versions made from others, damage, old caches."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from retinue.core.errors import (
    ConfigError,
    InvalidRequest,
    ModelCorrupt,
    ModelNotFound,
    StorageError,
)
from retinue.core.settings import Execution
from retinue.models.card import RunWith
from retinue.models.loading import execution_of, load_model, try_model
from retinue.models.registry import Entry, Lineage, Registry, Target, split_ref
from retinue.testing.versions import NAME, card_of, derive, install

LOGITS = {"layout": "yolov8", "nms_iou": 0.5}


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "cache")


def old_layout(registry: Registry, entry: Entry) -> Entry:
    """Make of an installed model what an earlier release would have written."""
    folder = entry.path.parent.parent
    file = entry.path.parent / "entry.json"
    stored = json.loads(file.read_text())
    del stored["serving"], stored["lineage"]
    file.write_text(json.dumps(stored))
    registry.ledger(NAME).path.unlink()
    version = entry.sha256[:12]
    entry.path.parent.rename(folder / version)
    (folder / "current").write_text(version + "\n")
    return registry.get(NAME)


def test_a_version_is_the_weights_and_how_they_are_read(registry: Registry, tmp_path: Path) -> None:
    first = install(registry, tmp_path)
    install(registry, tmp_path, summary="better words", license="Apache-2.0")
    assert registry.get(NAME).version == first.version
    assert registry.get(NAME).card.summary == "better words"
    other = install(registry, tmp_path, output=LOGITS)
    assert (other.version != first.version, other.sha256 == first.sha256) == (True, True)
    assert {entry.version for entry in registry.versions(NAME)} == {first.version, other.version}


def test_digests_never_change(registry: Registry, tmp_path: Path) -> None:
    """A version's name is kept in ledgers and records: no release may compute another one."""
    card = install(registry, tmp_path).card
    assert card.serving_key() == (
        '{"classes":["red","green","blue"],"family":"yolo","input":{"height":64,"width":64},'
        '"output":{"layout":"yolov8"},"task":"detect"}'
    )
    fixed = card.model_copy(update={"run_with": RunWith(runtime="openvino", precision="bf16")})
    assert '"run_with":{"precision":"bf16","runtime":"openvino"}' in fixed.serving_key()


def test_a_card_that_was_changed_on_disk_is_damage(registry: Registry, tmp_path: Path) -> None:
    entry = install(registry, tmp_path)
    file = entry.path.parent / "card.json"
    file.write_text(file.read_text().replace('"nms_iou": 0.6', '"nms_iou": 0.7'))
    with pytest.raises(ModelCorrupt, match=r"card\.json was changed"):
        registry.get(NAME)
    install(registry, tmp_path)
    assert registry.get(NAME) == entry


def test_a_card_of_another_model_is_damage(registry: Registry, tmp_path: Path) -> None:
    card = install(registry, tmp_path).path.with_name("card.json")
    card.write_text(card.read_text().replace(f'"name": "{NAME}"', '"name": "other"', 1))
    card.write_text(card.read_text().replace(f'"name":"{NAME}"', '"name":"other"', 1))
    with pytest.raises(ModelCorrupt, match=r"card\.json is of model other"):
        registry.get(NAME)


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00", "yesterday"])
def test_a_time_that_is_none_is_damage(registry: Registry, tmp_path: Path, at: str) -> None:
    file = install(registry, tmp_path).path.with_name("entry.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"installed_at": at}))
    assert registry.versions(NAME) == []
    assert len(registry.damaged()) == 1


def test_references(registry: Registry, tmp_path: Path) -> None:
    first, second = install(registry, tmp_path), install(registry, tmp_path, 32)
    registry.alias(NAME, "canary", first.version, share=0.1)
    for ref in ("", "prod", second.version, second.version[:4]):
        assert registry.get(NAME, ref) == second
    assert registry.get(NAME, "canary") == first
    for ref in ("shadow", second.version[:3], "0000", "../x", "a" * 500):
        with pytest.raises(ModelNotFound, match=f"{second.version}.*aliases: canary, prod"):
            registry.get(NAME, ref)
    assert split_ref("a@b") == ("a", "b")
    assert split_ref("a") == ("a", "")
    for bad in ("a@", "@b", "@"):
        with pytest.raises(InvalidRequest, match="NAME@REF"):
            split_ref(bad)


def test_a_start_of_several_versions_is_ambiguous(registry: Registry, tmp_path: Path) -> None:
    entry = install(registry, tmp_path)
    twin = entry.version[:8] + ("0000" if entry.version[8:] != "0000" else "1111")
    (entry.path.parent.parent / twin).mkdir()
    with pytest.raises(ModelNotFound, match=r"several versions.*more digits"):
        registry.get(NAME, entry.version[:6])
    assert registry.get(NAME, entry.version[:9]) == entry


def test_making_it_again_updates_report_and_lineage(registry: Registry, tmp_path: Path) -> None:
    parent = install(registry, tmp_path)
    first = derive(registry, parent, agreement=0.8)
    again = derive(registry, parent, agreement=0.9, summary="again")
    assert first.version == again.version
    assert registry.get(NAME, again.version) == again
    assert again.lineage is not None
    assert (again.lineage.agreement, again.card.summary) == (0.9, "again")


def test_what_cannot_be_made_from_another(registry: Registry, tmp_path: Path) -> None:
    parent = install(registry, tmp_path)
    with pytest.raises(InvalidRequest, match="itself"):
        derive(registry, parent, run_with=None)
    with pytest.raises(InvalidRequest, match="must say so"):
        derive(registry, parent, name="other")
    lineage = Lineage(parent=parent.version, agreement=1, agreement_low=1)
    for report in ("model.onnx", "../x", "a/b", ".hidden", ""):
        with pytest.raises(InvalidRequest, match="report"):
            registry.derive(parent, parent.path, parent.card, lineage, {report: b""})
    (tmp_path / "bad.onnx").write_bytes(b"no")
    with pytest.raises(ModelCorrupt, match="not a valid ONNX"):
        registry.derive(parent, tmp_path / "bad.onnx", parent.card, lineage)
    with pytest.raises(StorageError):
        registry.derive(parent, tmp_path / "none.onnx", parent.card, lineage)
    assert registry.installed() == [parent]


def test_a_workspace_is_gone_afterwards_and_clears_what_was_killed(registry: Registry) -> None:
    with registry.workspace(NAME) as folder, registry.workspace(NAME) as other:
        assert folder != other
        (folder / "work").write_bytes(b"1")
        root = folder.parent
        (root / ".tmp-dead").mkdir()
        (root / ".tmp-dead.lock").touch()
        with registry.workspace(NAME):
            assert (folder / "work").exists()
            assert not (root / ".tmp-dead").exists()
    assert not root.exists()


def test_an_old_cache_is_read_and_used_without_writing(registry: Registry, tmp_path: Path) -> None:
    install(registry, tmp_path, 32)
    entry = old_layout(registry, install(registry, tmp_path))
    assert entry.version == entry.sha256[:12]
    assert registry.versions(NAME)[0] == entry
    assert registry.pull(entry.card) == entry
    assert not registry.ledger(NAME).path.exists()
    assert install(registry, tmp_path).version == entry.version
    other = install(registry, tmp_path, output=LOGITS)
    assert other.version != entry.version
    assert registry.rollback(NAME).changes["prod"] == Target(entry.version)


def test_damage_in_an_old_cache_is_repaired_in_its_place(
    registry: Registry, tmp_path: Path
) -> None:
    entry = old_layout(registry, install(registry, tmp_path))
    for file in (entry.path, entry.path.parent / "card.json", entry.path.parent / "entry.json"):
        file.write_bytes(b"{")
        assert registry.pull(entry.card) == entry
        assert registry.versions(NAME) == [entry]


def test_the_first_promotion_in_an_old_cache_can_be_rolled_back(
    registry: Registry, tmp_path: Path
) -> None:
    parent = old_layout(registry, install(registry, tmp_path))
    made = derive(registry, parent)
    registry.promote(NAME, made.version)
    registry.rollback(NAME)
    assert registry.get(NAME) == parent


def test_a_changed_card_makes_a_version_without_a_transfer(
    registry: Registry, tmp_path: Path
) -> None:
    entry = install(registry, tmp_path)
    (tmp_path / "16.onnx").unlink()
    changed = card_of(entry.path, source=entry.card.source, output=LOGITS)
    other = registry.pull(changed)
    assert other.version != entry.version
    assert registry.get(NAME) == other == registry.pull(changed)
    assert registry.pull(entry.card) == entry == registry.get(NAME)


def test_a_version_is_run_with_what_it_was_measured_with(
    registry: Registry, tmp_path: Path
) -> None:
    settings = Execution(runtime="triton", device="http://127.0.0.1:1", threads=2)
    parent = install(registry, tmp_path)
    assert execution_of(parent.card, settings) == settings
    made = derive(registry, parent)
    found = execution_of(made.card, settings)
    assert (found.runtime, found.precision, found.device) == ("onnxruntime", "f32", "")
    assert (found.threads, found.instances) == (2, settings.instances)
    here = Execution(runtime="onnxruntime", device="cpu", precision="f32")
    assert execution_of(made.card, here).device == "cpu"
    load_model(made, settings).close()
    try_model(made, settings)


def test_a_version_that_does_not_run_fails_its_try(registry: Registry, tmp_path: Path) -> None:
    parent = install(registry, tmp_path)
    run_with = RunWith(runtime="onnxruntime", precision="bf16")
    made = derive(registry, parent, run_with=run_with)
    with pytest.raises(ConfigError, match="bf16"):
        try_model(made, Execution())
