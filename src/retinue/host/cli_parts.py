"""What the commands about models share."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from retinue.models.registry import Registry

Name = Annotated[str, typer.Argument(help="Name of a model.")]
NameRef = Annotated[
    str, typer.Argument(metavar="NAME[@REF]", help="A model, and which version of it.")
]
Ref = Annotated[
    str, typer.Argument(help="A version (four digits of it or more) or an alias, as `canary`.")
]
Reason = Annotated[str, typer.Option(help="Why; it is kept in the history.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def open_registry() -> Registry:
    """Return the registry of the settings' cache."""
    from retinue.core.settings import load_settings
    from retinue.models.registry import Registry

    return Registry(load_settings().cache)


def print_json(value: Any) -> None:
    """Print a value as JSON."""
    import orjson

    sys.stdout.write(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode() + "\n")
