"""The two devices that models share: decoders, and what runs the models."""

from __future__ import annotations

from retinue.pipeline.device import Device


class Devices:
    """Threads that decode and preprocess, and threads that run models.

    Models that are given the same devices are scheduled together: detection, segmentation and
    embedding of one camera's frames go by one order, and no more runs go on at a time than the
    machine has room for.
    """

    def __init__(self, prepare: int, run: int, name: str = "") -> None:
        """Set them up; `start` starts the threads.

        Args:
            prepare: Images that are decoded and preprocessed at the same time, at least 1.
            run: Batches that are run at the same time, at least 1.
            name: The model's, if they are for one alone; for thread names.
        """
        self.prepare = Device(prepare, name=f"preparing for {name}" if name else "preparing")
        self.run = Device(run, name=f"running {name}" if name else "running")

    def start(self) -> None:
        """Start the threads, on the event loop. Does nothing when they run already."""
        self.prepare.start()
        self.run.start()

    async def stop(self, timeout_s: float) -> bool:
        """End the threads after their current work; return whether all ended in time."""
        ended = [await device.stop(timeout_s) for device in (self.prepare, self.run)]
        return all(ended)
