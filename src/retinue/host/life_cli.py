"""``retinue models promote | rollback | alias | history | versions | remove``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from retinue.host.cli_parts import AsJson, Name, Reason, Ref, open_registry, print_json

if TYPE_CHECKING:
    from retinue.models.registry import Entry, Event, Registry, Target

NoCheck = Annotated[
    bool, typer.Option("--no-check", help="Do not load the version and run it once before.")
]


def promote(name: Name, ref: Ref, reason: Reason = "", no_check: NoCheck = False) -> None:
    """Put a version in production; a server that runs follows by itself."""
    registry = open_registry()
    entry = registry.get(name, ref)
    before = registry.ledger(name).aliases().get("prod")
    _check(entry, no_check)
    # The check takes its time: whoever moved prod meanwhile is not overruled unseen.
    registry.promote(name, entry.version, reason=reason, expect={"prod": before})
    _say_prod(name, entry.version, before)


def rollback(
    name: Name,
    to: Annotated[str, typer.Option(help="A version or alias; none: the one before.")] = "",
    reason: Reason = "",
) -> None:
    """Put the version in production that was there before; again: further back."""
    registry = open_registry()
    before = registry.ledger(name).aliases().get("prod")
    event = registry.rollback(name, to=to, reason=reason, expect={"prod": before})
    now = event.changes["prod"]
    if now is not None:
        _say_prod(name, now.version, before)


def alias(
    name: Name,
    alias: Annotated[
        str,
        typer.Argument(
            metavar="ALIAS[:PERCENT]", help="`shadow`, `canary:10`, or a word of your own."
        ),
    ],
    ref: Annotated[
        str, typer.Argument(help="A version or alias; none: what the alias names already.")
    ] = "",
    remove: Annotated[bool, typer.Option("--remove", help="Remove the alias.")] = False,
    reason: Reason = "",
    no_check: NoCheck = False,
) -> None:
    """Make an alias name a version: a shadow, a canary with a share, or one of your own.

    A shadow sees the traffic and its answers are only compared; a canary answers its share.
    """
    from retinue.core.errors import InvalidRequest

    registry = open_registry()
    word, share = _share(alias)
    if remove:
        if ref or share is not None:
            raise InvalidRequest(f"--remove takes the alias alone: {name} {word} --remove")
        registry.alias(name, word, None, reason=reason)
        typer.echo(f"{name}: {word} is removed")
        return
    if word == "canary" and share is None:
        raise InvalidRequest("a canary needs its share of the requests in percent, as canary:10")
    before = registry.ledger(name).aliases().get(word)
    if not ref and before is None:
        raise InvalidRequest(f"name the version: retinue models alias {name} {alias} VERSION")
    entry = registry.get(name, ref or word)
    if word in ("canary", "shadow"):
        _check(entry, no_check)
    registry.alias(
        name, word, entry.version, share=share or 1.0, reason=reason, expect={word: before}
    )
    says = f" for {100 * share:.6g}% of the requests" if share else ""
    typer.echo(f"{name}: {word} is {entry.version}{says}")


def history(name: Name, as_json: AsJson = False) -> None:
    """Show what a model's aliases named, when, by whom and why; checks that it is whole."""
    from retinue.core.errors import ModelNotFound

    registry = open_registry()
    events = registry.ledger(name).events()
    if not events and not registry.versions(name):
        raise ModelNotFound(f"model {name!r} is not installed and never was; it has no history")
    if as_json:
        print_json(events)
        return
    columns = ("#", "when (UTC)", "what", "change", "by", "why")
    _table(
        columns,
        [
            (
                str(event.number),
                f"{event.at:%Y-%m-%d %H:%M:%S}",
                event.action,
                _changes(event),
                event.actor,
                event.reason,
            )
            for event in events
        ],
    )


def versions(name: Name, as_json: AsJson = False) -> None:
    """Show a model's versions and the aliases that name them, what is in production first."""
    from retinue.core.errors import ModelNotFound

    registry = open_registry()
    found = registry.versions(name)
    for damage in registry.damaged():
        if damage.name == name:
            typer.echo(damage.reason, err=True)
    if not found:
        raise ModelNotFound(f"no whole version of model {name!r} is installed")
    rows = _rows(registry, name, found)
    if as_json:
        print_json(rows)
        return
    columns = (
        "version",
        "aliases",
        "size",
        "run with",
        "made from",
        "agreement",
        "installed (UTC)",
    )
    _table(columns, [_cells(row) for row in rows])


def remove(
    name: Name,
    ref: Annotated[str, typer.Argument(help="A version; none: all of them.")] = "",
    force: Annotated[
        bool, typer.Option("--force", help="Also if an alias names the version.")
    ] = False,
) -> None:
    """Remove a version of an installed model, or the model and all its versions."""
    registry = open_registry()
    version = registry.remove(name, ref or None, force=force)
    typer.echo(f"{name} {version} is removed" if version else f"{name} is removed")
    if version and registry.versions(name) and "prod" not in registry.ledger(name).aliases():
        meant = _meaning(registry, name) or "nothing until one is promoted"
        typer.echo(f"{name} has no prod any more; the name means {meant}", err=True)


def say_arrival(registry: Registry, entry: Entry) -> None:
    """Say that a version is installed, and what is in production if that is another."""
    name = entry.card.name
    typer.echo(f"{name} {entry.version} ({entry.size / 2**20:.1f} MiB) is ready")
    prod = registry.ledger(name).aliases().get("prod")
    if prod is not None and prod.version != entry.version:
        typer.echo(
            f"prod stays at {prod.version}, which was chosen; serve this one with: "
            f"retinue models promote {name} {entry.version}",
            err=True,
        )


def _check(entry: Entry, no_check: bool) -> None:
    """Check weights, and that the version loads and answers here, unless that is not wanted."""
    from retinue.core.settings import load_settings
    from retinue.models.loading import try_model

    if not no_check:
        try_model(entry, load_settings().execution)


def _say_prod(name: str, version: str, before: Target | None) -> None:
    was = f"it was {before.version}" if before is not None else "it was not set"
    typer.echo(f"{name}: prod is {version} ({was})")


def _share(text: str) -> tuple[str, float | None]:
    """Return (alias, share) of "ALIAS" or "ALIAS:PERCENT"."""
    from retinue.core.errors import InvalidRequest

    word, colon, percent = text.partition(":")
    if not colon:
        return word, None
    try:
        share = float(percent.removesuffix("%")) / 100
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise InvalidRequest(f"{text[:64]!r}: the percentage is above 0 and at most 100")
    return word, share


def _changes(event: Event) -> str:
    lines = [
        f"{alias}: {_shown(target) if target is not None else 'removed'}"
        for alias, target in sorted(event.changes.items())
    ]
    if event.action == "remove":
        lines.insert(0, event.version or "all versions")
    return "\n".join(lines) or event.version


def _shown(target: Target) -> str:
    share = "" if target.share == 1 else f" for {100 * target.share:.6g}%"
    return target.version + share


def _rows(registry: Registry, name: str, found: list[Entry]) -> list[dict[str, Any]]:
    aliases = registry.ledger(name).aliases()
    # While no line of the ledger says so, the name means one of them all the same.
    meant = "" if "prod" in aliases else _meaning(registry, name)
    return [
        {
            "version": entry.version,
            "meant": entry.version == meant,
            "aliases": {a: t.share for a, t in aliases.items() if t.version == entry.version},
            "size": entry.size,
            "run_with": entry.card.run_with and entry.card.run_with.model_dump(),
            "lineage": entry.lineage and entry.lineage.model_dump(),
            "installed_at": entry.installed_at,
            "path": str(entry.path),
        }
        for entry in found
    ]


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    run, line = row["run_with"], row["lineage"]
    names = (
        alias if share == 1 else f"{alias}:{100 * share:.6g}"
        for alias, share in sorted(row["aliases"].items())
    )
    return (
        row["version"],
        ", ".join(names) or ("(prod)" if row["meant"] else ""),
        f"{row['size'] / 2**20:.1f} MiB",
        f"{run['runtime']} {run['precision']}" if run else "",
        line["parent"] if line else "",
        f"{line['agreement']:.3f} (from {line['agreement_low']:.3f})" if line else "",
        f"{row['installed_at']:%Y-%m-%d %H:%M}",
    )


def _meaning(registry: Registry, name: str) -> str:
    """Return the version that a bare name means, "" where it means none."""
    from retinue.core.errors import RetinueError

    try:
        return registry.get(name).version
    except RetinueError:
        return ""


def _table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None)
    for number, column in enumerate(columns):
        table.add_column(column, no_wrap=number == 0, overflow="fold")
    for row in rows:
        # As text: a reason may hold what rich would take for markup.
        table.add_row(*map(Text, row))
    Console(highlight=False).print(table)
