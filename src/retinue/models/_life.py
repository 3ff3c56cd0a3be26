"""What is installed, and the life of its versions: promotion, rollback, aliases."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from retinue.core.errors import InvalidRequest, ModelCorrupt, ModelNotFound, NotFound, StorageError
from retinue.models._disk import locked
from retinue.models._refs import not_installed, resolve
from retinue.models._shelf import Damage, Entry, Shelf, check_size, verify
from retinue.models.card import NAME
from retinue.models.fetch import Quiet
from retinue.models.ledger import (
    CANARY,
    PROD,
    SHADOW,
    Event,
    Ledger,
    Standing,
    Target,
    Writer,
    check_alias,
)

LEDGER, CURRENT = "ledger.jsonl", "current"


class Installed:
    """The installed versions below one cache folder. Holds no state; safe for threads."""

    def __init__(self, cache: Path) -> None:
        """Name the cache folder; nothing is read or made yet."""
        self._shelf = Shelf(cache / "models")

    def installed(self) -> list[Entry]:
        """Return every installed version, sorted by name, what each bare name means first.

        Versions whose weights are damaged are among them; those whose card cannot be read are
        only in `damaged`. No weights are read.
        """
        return [entry for name in self._shelf.names() for entry in self.versions(name)]

    def versions(self, name: str) -> list[Entry]:
        """Return a model's versions: what its bare name means first, then the latest first.

        Empty when it is not installed; of damaged versions as `installed`.
        """
        found: list[Entry] = []
        for version in self._shelf.versions(name):
            try:
                found.append(self._shelf.read(name, version))
            except ModelCorrupt:
                continue
        try:
            meant = self._version(name, "", self._aliases(name)) if found else ""
        except (ModelCorrupt, ModelNotFound, StorageError):
            meant = ""  # one ledger that cannot be read must not hide the other models
        return sorted(found, key=lambda entry: entry.version != meant)

    def damaged(self) -> list[Damage]:
        """Return the versions whose files are missing, cut short or unreadable, and bad ledgers.

        Changed bytes of the right length are found by `verify` alone.
        """
        found: list[Damage] = []
        for name in self._shelf.names():
            for version in self._shelf.versions(name):
                try:
                    check_size(self._shelf.read(name, version))
                except ModelCorrupt as error:
                    found.append(Damage(name, version, error.message))
            try:
                self.ledger(name).events()
            except (ModelCorrupt, StorageError) as error:
                found.append(Damage(name, LEDGER, error.message))
        return found

    def get(self, name: str, ref: str = "") -> Entry:
        """Return an installed version of a model.

        Args:
            name: The model.
            ref: "" or "prod" for what is in production, another alias, or the start of a version,
                at least four hex digits.

        Raises:
            ModelNotFound: it is not installed, or the reference means no version or several.
            ModelCorrupt: its files are missing, cut short or unreadable, or its ledger is damaged.
        """
        version = self._version(name, ref, self._aliases(name))
        return check_size(self._shelf.read(name, version))

    def verify(self, entry: Entry) -> None:
        """Check an entry's weights against their digest, reading them whole.

        Raises:
            ModelCorrupt: they differ, or cannot be read.
        """
        verify(entry)

    def ledger(self, name: str) -> Ledger:
        """Return a model's ledger; it stays when the model's versions are removed.

        Raises:
            ModelNotFound: no model can be called so.
        """
        if not NAME.fullmatch(name):
            raise not_installed(name)
        root = self._shelf.root

        def lock() -> AbstractContextManager[None]:
            return locked(root / ".ledgers" / f"{name}.lock", f"the ledger of {name}", Quiet())

        return Ledger(root / name / LEDGER, lock)

    def promote(
        self,
        name: str,
        ref: str,
        *,
        actor: str = "",
        reason: str = "",
        expect: Mapping[str, Target | None] | None = None,
    ) -> Event:
        """Put a version in production; a canary or shadow that names it is dropped with that.

        Args:
            name: The model.
            ref: The version, as in `get`; its weights are checked against their digest.
            actor: By whom; "" for the system's user.
            reason: Why.
            expect: Alias to what it must name still, None where there must be none.

        Raises:
            Conflict: an alias names something else than expected.
            ModelNotFound, ModelCorrupt: as `get`.
            InvalidRequest: the reason is too long.
            StorageError: the ledger cannot be written; nothing was changed.
        """
        entry = self.get(name, ref)
        verify(entry)
        with self.ledger(name).changing() as writer:
            writer.check(expect or {})
            # It may have been removed while its weights were read.
            version = self._version(name, entry.version, {})
            self._pin(name, writer, version)
            changes = to_prod(writer.standing, version)
            return writer.write("promote", changes, actor=actor, reason=reason)

    def rollback(
        self,
        name: str,
        *,
        actor: str = "",
        reason: str = "",
        to: str = "",
        expect: Mapping[str, Target | None] | None = None,
    ) -> Event:
        """Put the version in production that was there before; a second one goes further back.

        Args:
            name: The model.
            actor: By whom; "" for the system's user.
            reason: Why.
            to: Another version than the one before, as in `get`.
            expect: As in `promote`.

        Raises:
            Conflict: an alias names something else than expected.
            NotFound: there is no version to go back to.
            ModelCorrupt: its files are missing or cut short, or the ledger is damaged.
            InvalidRequest: ``to`` is in production, or the reason is too long.
            StorageError: the ledger cannot be written; nothing was changed.
        """
        with self.ledger(name).changing() as writer:
            writer.check(expect or {})
            aliases = writer.standing.aliases
            now = aliases[PROD].version if PROD in aliases else self._version(name, "", aliases)
            version = self._version(name, to, aliases) if to else writer.back()
            if version is None:
                raise NotFound(
                    f"model {name!r} has no version before {now} to go back to; name one: "
                    f"retinue models rollback {name} --to VERSION"
                )
            if version == now:
                raise InvalidRequest(f"{version} is in production already")
            check_size(self._shelf.read(name, version))
            self._pin(name, writer, version)
            changes = to_prod(writer.standing, version)
            return writer.write("rollback", changes, actor=actor, reason=reason)

    def alias(
        self,
        name: str,
        alias: str,
        ref: str | None,
        *,
        share: float = 1.0,
        actor: str = "",
        reason: str = "",
        expect: Mapping[str, Target | None] | None = None,
    ) -> Event:
        """Make an alias name a version, or remove it.

        "shadow" and "canary" have a meaning for a server; others are the user's own.

        Args:
            name: The model.
            alias: Not "prod", which `promote` and `rollback` move.
            ref: The version, as in `get`; None removes the alias.
            share: Of "canary": the share of requests that it answers, in (0, 1].
            actor: By whom; "" for the system's user.
            reason: Why.
            expect: As in `promote`.

        Raises:
            Conflict: an alias names something else than expected.
            InvalidRequest: the alias may not be called so or is "prod", the share is out of range,
                or a canary or shadow would be the version in production.
            NotFound: the alias that is to be removed does not exist.
            ModelNotFound, ModelCorrupt: as `get`.
            StorageError: the ledger cannot be written; nothing was changed.
        """
        if alias == PROD:
            raise InvalidRequest("prod is moved with: retinue models promote, or rollback")
        check_alias(alias)
        with self.ledger(name).changing() as writer:
            writer.check(expect or {})
            aliases = writer.standing.aliases
            if ref is None:
                if alias not in aliases:
                    raise NotFound(f"model {name!r} has no alias {alias!r}")
                return writer.write("alias", {alias: None}, actor=actor, reason=reason)
            version = self._version(name, ref, aliases)
            if alias in (CANARY, SHADOW) and version == self._version(name, "", aliases):
                raise InvalidRequest(
                    f"{version} is in production; as {alias} it would be compared with itself"
                )
            check_size(self._shelf.read(name, version))
            changes = {alias: Target(version, share)}
            return writer.write("alias", changes, actor=actor, reason=reason)

    def _aliases(self, name: str) -> Mapping[str, Target]:
        if not self._shelf.versions(name):
            raise not_installed(name)
        return self.ledger(name).aliases()

    def _version(self, name: str, ref: str, aliases: Mapping[str, Target]) -> str:
        """Return the version that a reference means."""
        versions = self._shelf.versions(name)
        if not versions:
            raise not_installed(name)
        return resolve(name, ref, aliases=aliases, versions=versions, bare=self._bare(name))

    def _bare(self, name: str) -> str:
        """Return the version that a name means while no ledger says so, "" for none."""
        versions = self._shelf.versions(name)
        try:
            current = (self._shelf.root / name / CURRENT).read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError):
            current = ""
        if current in versions:
            return current
        return next((v for v in versions if not self._is_made(name, v)), "")

    def _is_made(self, name: str, version: str) -> bool:
        try:
            return self._shelf.read(name, version).lineage is not None
        except ModelCorrupt:
            return False

    def _pin(self, name: str, writer: Writer, coming: str = "") -> None:
        """Write down what the bare name means while no line says so, before that changes."""
        meant = self._bare(name)
        if PROD in writer.standing.aliases or meant in ("", coming):
            return
        reason = "what the name meant before"
        writer.write("install", {PROD: Target(meant)}, reason=reason, version=meant)


def to_prod(standing: Standing, version: str) -> dict[str, Target | None]:
    """Return the changes that put a version in production."""
    aliases = standing.aliases
    dropped = [a for a in (CANARY, SHADOW) if a in aliases and aliases[a].version == version]
    return {PROD: Target(version), **dict.fromkeys(dropped)}
