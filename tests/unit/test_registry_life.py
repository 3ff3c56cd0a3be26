"""What names a version: promotion, rollback, aliases, removal, and a ledger in trouble."""

from __future__ import annotations

from pathlib import Path

import pytest

from retinue.core.errors import (
    Conflict,
    InvalidRequest,
    ModelCorrupt,
    ModelNotFound,
    NotFound,
    NotWritable,
    StorageError,
)
from retinue.models.registry import Lineage, Registry, Target
from retinue.testing.versions import NAME, derive, install


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "cache")


def prod(registry: Registry) -> str:
    return registry.ledger(NAME).aliases()["prod"].version


def test_installs_move_prod_until_someone_chose(registry: Registry, tmp_path: Path) -> None:
    first = install(registry, tmp_path)
    assert prod(registry) == first.version
    second = install(registry, tmp_path, 32)
    assert prod(registry) == second.version
    registry.promote(NAME, first.version)
    third = install(registry, tmp_path, 8)
    assert install(registry, tmp_path, 32) == second
    assert registry.pull(third.card) == third
    assert prod(registry) == first.version
    assert registry.get(NAME) == first
    actions = [event.action for event in registry.ledger(NAME).events()]
    assert actions == ["install", "install", "promote", "install"]


def test_what_was_made_from_another_is_prod_by_promotion_only(
    registry: Registry, tmp_path: Path
) -> None:
    parent = install(registry, tmp_path)
    made = derive(registry, parent)
    assert made.lineage == Lineage(parent=parent.version, agreement=0.9, agreement_low=0.85)
    assert (made.path.parent / "report.json").read_bytes() == b"{}"
    assert registry.get(NAME) == parent == registry.pull(parent.card)
    assert registry.get(NAME, made.version) == made
    registry.ledger(NAME).path.unlink()
    assert registry.get(NAME) == parent
    with pytest.raises(InvalidRequest, match="is 'prod'"):
        registry.remove(NAME, parent.version)
    registry.remove(NAME, parent.version, force=True)
    with pytest.raises(ModelNotFound, match=f"promote {NAME} VERSION"):
        registry.get(NAME)
    registry.promote(NAME, made.version)
    assert registry.get(NAME) == made


def test_promotion_and_rollback(registry: Registry, tmp_path: Path) -> None:
    one, two, three = (install(registry, tmp_path, cell) for cell in (8, 16, 32))
    registry.promote(NAME, one.version, actor="ann@host", reason="proven")
    registry.promote(NAME, two.version)
    event = registry.rollback(NAME, actor="guard")
    assert (event.action, event.actor, event.changes) == (
        "rollback",
        "guard",
        {"prod": Target(one.version)},
    )
    assert registry.get(NAME) == one
    assert registry.rollback(NAME).changes["prod"] == Target(three.version)
    registry.rollback(NAME, to=two.version[:5])
    assert registry.get(NAME) == two
    with pytest.raises(InvalidRequest, match="already"):
        registry.rollback(NAME, to="prod")


def test_without_a_version_before_there_is_no_rollback(registry: Registry, tmp_path: Path) -> None:
    first = install(registry, tmp_path)
    with pytest.raises(NotFound, match=f"before {first.version}.*--to"):
        registry.rollback(NAME)
    with pytest.raises(ModelNotFound, match="not installed"):
        registry.rollback("nothing")


def test_expectations(registry: Registry, tmp_path: Path) -> None:
    first, second = install(registry, tmp_path), install(registry, tmp_path, 32)
    wrong = {"prod": Target(first.version)}
    with pytest.raises(Conflict, match=f"prod was {first.version} and is {second.version}"):
        registry.promote(NAME, first.version, expect=wrong)
    with pytest.raises(Conflict):
        registry.rollback(NAME, expect=wrong)
    registry.rollback(NAME, expect={"prod": Target(second.version)})


def test_an_alias_that_was_moved_meanwhile_is_left_there(
    registry: Registry, tmp_path: Path
) -> None:
    first, second = install(registry, tmp_path), install(registry, tmp_path, 32)
    registry.alias(NAME, "stable", first.version, expect={"stable": None})
    with pytest.raises(Conflict, match="stable"):
        registry.alias(NAME, "stable", second.version, expect={"stable": None})
    assert registry.get(NAME, "stable").version == first.version


def test_canary_and_shadow_end_with_the_promotion(registry: Registry, tmp_path: Path) -> None:
    first, second = install(registry, tmp_path), install(registry, tmp_path, 32)
    registry.alias(NAME, "canary", first.version, share=0.25)
    registry.alias(NAME, "shadow", first.version)
    registry.alias(NAME, "mine", first.version)
    assert registry.ledger(NAME).aliases()["canary"] == Target(first.version, 0.25)
    for alias in ("canary", "shadow"):
        with pytest.raises(InvalidRequest, match="in production"):
            registry.alias(NAME, alias, second.version)
    event = registry.promote(NAME, "canary")
    assert event.changes == {"prod": Target(first.version), "canary": None, "shadow": None}
    assert set(registry.ledger(NAME).aliases()) == {"prod", "mine"}
    registry.alias(NAME, "mine", None)
    with pytest.raises(NotFound, match="mine"):
        registry.alias(NAME, "mine", None)
    with pytest.raises(InvalidRequest, match="promote"):
        registry.alias(NAME, "prod", second.version)


def test_damaged_weights_are_not_promoted(registry: Registry, tmp_path: Path) -> None:
    first, second = install(registry, tmp_path), install(registry, tmp_path, 32)
    data = bytearray(first.path.read_bytes())
    data[len(data) // 2] ^= 1
    first.path.write_bytes(data)
    with pytest.raises(ModelCorrupt, match="sha256"):
        registry.promote(NAME, first.version)
    first.path.unlink()
    for use in (registry.promote, lambda n, r: registry.alias(n, "shadow", r)):
        with pytest.raises(ModelCorrupt):
            use(NAME, first.version)
    assert prod(registry) == second.version


def test_removal_of_a_version(registry: Registry, tmp_path: Path) -> None:
    first, second = install(registry, tmp_path), install(registry, tmp_path, 32)
    made = derive(registry, first)
    registry.promote(NAME, made.version)
    with pytest.raises(InvalidRequest, match=r"'prod'.*--force"):
        registry.remove(NAME, made.version)
    with pytest.raises(InvalidRequest, match=f"watches {made.version}"):
        registry.remove(NAME, first.version)
    with pytest.raises(ModelNotFound):
        registry.remove(NAME, "0000")
    registry.remove(NAME, second.version[:4])
    assert registry.rollback(NAME).changes["prod"] == Target(first.version)
    registry.remove(NAME, "prod", force=True)
    assert registry.ledger(NAME).aliases() == {}
    with pytest.raises(ModelNotFound, match="promote"):
        registry.get(NAME)
    registry.remove(NAME)
    assert registry.installed() == []
    assert [event.action for event in registry.ledger(NAME).events()][-3:] == ["rollback"] + [
        "remove"
    ] * 2


def test_a_model_that_was_removed_begins_anew(registry: Registry, tmp_path: Path) -> None:
    first = install(registry, tmp_path)
    registry.promote(NAME, first.version)
    registry.remove(NAME)
    second = install(registry, tmp_path, 32)
    assert registry.get(NAME) == second
    with pytest.raises(NotFound):
        registry.rollback(NAME)


def test_an_alias_of_a_version_that_is_gone(registry: Registry, tmp_path: Path) -> None:
    first, second = install(registry, tmp_path), install(registry, tmp_path, 32)
    second.path.parent.rename(tmp_path / "lost")
    with pytest.raises(ModelNotFound, match=f"'prod'.*{second.version}, which is not here"):
        registry.get(NAME)
    assert registry.versions(NAME) == [first]
    assert registry.rollback(NAME).changes["prod"] == Target(first.version)


def test_a_changed_ledger_is_named_and_nothing_is_guessed(
    registry: Registry, tmp_path: Path
) -> None:
    entry = install(registry, tmp_path)
    path = registry.ledger(NAME).path
    path.write_bytes(path.read_bytes().replace(b'"number":1', b'"number":2'))
    for use in (registry.get, registry.rollback, registry.remove):
        with pytest.raises(ModelCorrupt, match="line 1 of the ledger"):
            use(NAME)
    assert [damage.version for damage in registry.damaged()] == ["ledger.jsonl"]
    assert registry.installed() == [entry]


def test_one_ledger_that_cannot_be_read_hides_no_other_model(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "cache")
    for name in ("one", "two"):
        install(registry, tmp_path, name=name)
    ledger = tmp_path / "cache" / "models" / "one" / "ledger.jsonl"
    ledger.unlink(missing_ok=True)
    ledger.symlink_to(ledger)
    assert {entry.card.name for entry in registry.installed()} == {"one", "two"}
    assert [damage.name for damage in registry.damaged()] == ["one"]
    assert registry.get("two").card.name == "two"
    with pytest.raises(StorageError):
        registry.get("one")


def test_a_folder_that_cannot_be_written(registry: Registry, tmp_path: Path) -> None:
    first, _ = install(registry, tmp_path), install(registry, tmp_path, 32)
    ledgers = tmp_path / "cache" / "models" / ".ledgers"
    for file in ledgers.iterdir():
        file.unlink()
    ledgers.rmdir()
    ledgers.write_text("no lock can be made here")
    before = registry.ledger(NAME).path.read_bytes()
    for change in (registry.rollback, lambda n: registry.promote(n, first.version)):
        with pytest.raises(NotWritable, match="make it writable"):
            change(NAME)
    assert registry.ledger(NAME).path.read_bytes() == before
