"""The allocator's settings."""

from __future__ import annotations

import platform

from retinue.host.memory import keep_freed_memory


def test_glibc_takes_the_thresholds() -> None:
    assert keep_freed_memory() is (platform.libc_ver()[0] == "glibc")
