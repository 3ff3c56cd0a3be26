"""What the GPU itself counts while something runs on it.

SM activity is that of NVML's performance monitoring (GPM, from Hopper on): the share of time in
which a streaming multiprocessor had work, in the mean over all of them. The common "GPU
utilization" only says whether any kernel ran at all, and is near 100 % long before the SMs are.
"""

from __future__ import annotations

import os
import statistics
import threading
from typing import Any, Self

GPM = {
    "sm_active": "NVML_GPM_METRIC_SM_UTIL",
    "sm_occupancy": "NVML_GPM_METRIC_SM_OCCUPANCY",
    "tensor_active": "NVML_GPM_METRIC_ANY_TENSOR_UTIL",
    "memory_bandwidth": "NVML_GPM_METRIC_DRAM_BW_UTIL",
}
PERIOD_S = 0.05


class Counters:
    """Counts while a ``with`` block runs; `figures` has the means in percent, watts and MHz.

    Where there is no such GPU, driver or permission, ``figures`` is empty or has fewer keys, and
    ``why`` says why.
    """

    def __init__(self) -> None:
        self.figures: dict[str, float] = {}
        self.why = ""
        self._nvml: Any = None
        self._handle: Any = None
        self._samples: list[Any] = []
        self._polled: dict[str, list[float]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._poll, daemon=True)

    def __enter__(self) -> Self:
        try:
            import pynvml  # the module of nvidia-ml-py
        except ImportError as error:
            self.why = str(error)
            return self
        try:
            pynvml.nvmlInit()
            self._nvml, self._handle = pynvml, _handle(pynvml)
            self._sample()
        except pynvml.NVMLError as error:
            self.why = str(error)
        if self._handle is not None:
            self._thread.start()
        return self

    def __exit__(self, *failure: object) -> None:
        if self._nvml is None:
            return
        nvml = self._nvml
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()
        try:
            if self._samples:
                self._sample()
                self.figures |= _gpm(nvml, *self._samples)
        except nvml.NVMLError as error:
            self.why = str(error)
        self.figures |= {name: statistics.fmean(found) for name, found in self._polled.items()}
        for sample in self._samples:
            nvml.nvmlGpmSampleFree(sample)
        nvml.nvmlShutdown()

    def _sample(self) -> None:
        nvml = self._nvml
        if not nvml.nvmlGpmQueryDeviceSupport(self._handle).isSupportedDevice:
            self.why = "this GPU has no GPM counters"
            return
        sample = nvml.nvmlGpmSampleAlloc()
        self._samples.append(sample)
        nvml.nvmlGpmSampleGet(self._handle, sample)

    def _poll(self) -> None:
        nvml, handle = self._nvml, self._handle
        sources = {
            "any_kernel": lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu,
            "power_w": lambda: nvml.nvmlDeviceGetPowerUsage(handle) / 1000,
            "sm_mhz": lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM),
        }
        while not self._stop.wait(PERIOD_S):
            for name, read in list(sources.items()):
                try:
                    self._polled.setdefault(name, []).append(float(read()))
                except nvml.NVMLError:
                    del sources[name]
                    self._polled.pop(name)


def _handle(nvml: Any) -> Any:
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0] or "0"
    if first.isdigit():
        return nvml.nvmlDeviceGetHandleByIndex(int(first))
    return nvml.nvmlDeviceGetHandleByUUID(first)


def _gpm(nvml: Any, before: Any, after: Any) -> dict[str, float]:
    asked = nvml.c_nvmlGpmMetricsGet_t()
    asked.version = nvml.NVML_GPM_METRICS_GET_VERSION
    asked.numMetrics = len(GPM)
    asked.sample1, asked.sample2 = before, after
    for place, constant in enumerate(GPM.values()):
        asked.metrics[place].metricId = getattr(nvml, constant)
    nvml.nvmlGpmMetricsGet(asked)
    return {
        name: asked.metrics[place].value
        for place, name in enumerate(GPM)
        if asked.metrics[place].nvmlReturn == nvml.NVML_SUCCESS
    }


def device_line() -> str:
    """Return one line that names the GPU and its driver, "" without one."""
    try:
        import pynvml

        pynvml.nvmlInit()
        handle = _handle(pynvml)
        name, driver = pynvml.nvmlDeviceGetName(handle), pynvml.nvmlSystemGetDriverVersion()
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle).total / 2**30
        pynvml.nvmlShutdown()
    except Exception:  # noqa: BLE001 - without the library, the driver or the GPU: no line
        return ""
    return f"{name}, {memory:.0f} GiB, driver {driver}"
