"""Two threads that share short work."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor


class Pair:
    """The calling thread and one helper; what they do lets go of the interpreter's lock."""

    def __init__(self) -> None:
        self._helper = ThreadPoolExecutor(1, thread_name_prefix="ar-draw")

    def share(self, tasks: Sequence[Callable[[], None]]) -> None:
        """Do all tasks, in any order. The caller does them all if no core is free for the helper.

        Raises:
            Exception: the first that a task raised.
        """
        left = deque(tasks)

        def work() -> None:
            while left:
                try:
                    task = left.popleft()
                except IndexError:
                    return
                task()

        helped = self._helper.submit(work) if len(tasks) > 1 else None
        try:
            work()
        finally:
            if helped is not None and not helped.cancel():
                helped.result()

    def close(self) -> None:
        """End the helper. May be called twice."""
        self._helper.shutdown()
