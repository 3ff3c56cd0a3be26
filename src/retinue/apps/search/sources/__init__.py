"""Where bulk indexing gets its pictures: folders, archives, tables, URLs and object stores.

`open_source` looks at what SOURCE names and returns what it offers, one by one and lazily. A
picture's bytes are read by `Found.read`, which any thread may call.
"""

from __future__ import annotations

from retinue.apps.search.sources.base import Found, Refused
from retinue.apps.search.sources.opening import open_source, source_name

__all__ = ["Found", "Refused", "open_source", "source_name"]
