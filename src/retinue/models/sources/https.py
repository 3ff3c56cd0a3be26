"""``https://...``: a file, or several below a folder whose URL ends with a slash.

Plain ``http://`` is accepted for this machine's loopback addresses only.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from retinue.core.errors import FetchError
from retinue.models.sources.base import Policy, Progress
from retinue.models.sources.transfer import download, open_client, parse_url, plain_hosts


def fetch(url: str, targets: Mapping[str, Path], *, progress: Progress, policy: Policy) -> None:
    """Download the files; see `retinue.models.sources.base.SourcePlugin`."""
    base = parse_url(url)
    folder = base.path.endswith("/")
    if not folder and len(targets) != 1:
        raise FetchError(f"{url} is one file, but the card names {len(targets)}; end it with '/'")
    with open_client(policy, plain_hosts=plain_hosts(base)) as client:
        for name, target in targets.items():
            download(
                client,
                parse_url(url + quote(name)) if folder else base,
                target,
                label=name,
                progress=progress,
                policy=policy,
                advice="check the URL in the model's card",
            )


SOURCE = fetch
