"""``hf:OWNER/NAME@REVISION``: files of a model repository on the Hugging Face Hub.

``HF_ENDPOINT`` names another hub or mirror and ``HF_TOKEN`` is sent to it, as the hub's own
client does (https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from retinue.core.errors import FetchError
from retinue.models.sources.base import Policy, Progress
from retinue.models.sources.transfer import download, open_client, parse_url, plain_hosts

DEFAULT_ENDPOINT = "https://huggingface.co"
REFERENCE = re.compile(r"hf:([\w-][\w.-]*/[\w-][\w.-]*)@([\w./-]+)")


def fetch(url: str, targets: Mapping[str, Path], *, progress: Progress, policy: Policy) -> None:
    """Download the files; see `retinue.models.sources.base.SourcePlugin`."""
    match = REFERENCE.fullmatch(url)
    if match is None:
        raise FetchError(f"{url!r} is not of the form hf:OWNER/NAME@REVISION")
    repository, revision = match.groups()
    endpoint = (os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")
    base = parse_url(endpoint)
    token = os.environ.get("HF_TOKEN", "").strip()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    advice = "check its name and revision; a gated repository needs HF_TOKEN"
    with open_client(policy, plain_hosts=plain_hosts(base)) as client:
        for name, target in targets.items():
            path = f"{repository}/resolve/{quote(revision, safe='')}/{quote(name)}"
            download(
                client,
                parse_url(f"{endpoint}/{path}"),
                target,
                label=f"{repository} {name}",
                progress=progress,
                policy=policy,
                headers=headers,
                advice=advice,
            )


SOURCE = fetch
