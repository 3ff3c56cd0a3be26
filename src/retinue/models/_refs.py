"""What a reference to a version means: an alias, or the start of a version's digest."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from retinue.core.errors import InvalidRequest, ModelNotFound
from retinue.models.ledger import PROD, Target

_PREFIX = re.compile(r"[0-9a-f]{4,12}")


def split_ref(text: str) -> tuple[str, str]:
    """Return (name, reference) of "NAME" or "NAME@REF"; the reference is "" without one.

    Raises:
        InvalidRequest: there is an "@" and nothing behind it, or nothing before it.
    """
    name, at, ref = text.partition("@")
    if at and not (name and ref):
        raise InvalidRequest(
            f"{text[:64]!r}: write NAME, or NAME@REF with an alias or the start of a version"
        )
    return name, ref


def not_installed(name: str) -> ModelNotFound:
    """Return the error for a model without any version."""
    return ModelNotFound(
        f"model {name!r} is not installed; fetch it with: retinue models pull {name}"
    )


def resolve(
    name: str, ref: str, *, aliases: Mapping[str, Target], versions: Sequence[str], bare: str
) -> str:
    """Return the version that a reference means.

    Args:
        name: The model.
        ref: "" or "prod", another alias, or at least four hex digits.
        aliases: What the ledger says.
        versions: The versions that are installed.
        bare: The version that the name alone means while there is no "prod"; "" for none.

    Raises:
        ModelNotFound: it means none of them, or more than one; never is another one chosen.
    """
    ref = ref or PROD
    there = f"installed: {', '.join(versions)}"
    if ref in aliases:
        version = aliases[ref].version
        if version not in versions:
            raise ModelNotFound(
                f"{ref!r} of model {name!r} names version {version}, which is not here any more; "
                f"{there}; choose one with: retinue models promote {name} VERSION"
            )
        return version
    if ref == PROD:
        if not bare:
            raise ModelNotFound(
                f"no version of model {name!r} is in production; {there}; choose one with: "
                f"retinue models promote {name} VERSION"
            )
        return bare
    found = [v for v in versions if v.startswith(ref)] if _PREFIX.fullmatch(ref) else []
    if len(found) == 1:
        return found[0]
    if found:
        raise ModelNotFound(
            f"{ref!r} is the start of several versions of model {name!r}: {', '.join(found)}; "
            "give more digits"
        )
    known = f"; aliases: {', '.join(sorted(aliases))}" if aliases else ""
    raise ModelNotFound(f"model {name!r} has no version or alias {ref[:64]!r}; {there}{known}")
