"""How the C library's allocator treats the memory of requests."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
MMAP_THRESHOLD = 4 * 2**20
TRIM_THRESHOLD = 16 * 2**20


def keep_freed_memory() -> bool:
    """Make the allocator keep what a request gave back, for the next one.

    By default glibc returns larger blocks to the system at once, and each request's bodies, pixels
    and tensors then cost a page fault every 4 kB: for a tensor of 600 kB over gRPC that was 60 %
    of a request's CPU time. At most `TRIM_THRESHOLD` is kept at the end of each heap (a thread may
    have one of its own), and blocks of more than `MMAP_THRESHOLD` still go back.

    Source: mallopt(3).

    Returns:
        Whether the C library took both; others than glibc have their own ways.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    taken = mallopt(_M_MMAP_THRESHOLD, MMAP_THRESHOLD), mallopt(_M_TRIM_THRESHOLD, TRIM_THRESHOLD)
    return all(taken)
