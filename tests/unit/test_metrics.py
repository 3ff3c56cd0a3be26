"""What Prometheus gets to see."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.parser import text_string_to_metric_families

import retinue
from retinue.core import errors
from retinue.core.types import STAGES, Detections, Outcome, Scores
from retinue.monitor.metrics import CODES, CONFIDENCES, SECONDS, MetricsObserver
from retinue.testing.observer_suite import odd_records
from retinue.testing.records import ODD_TEXTS, record, records

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]
DETECT = {"app": "detect", "model": "nanodet", "version": "0123456789ab"}


def scrape(metrics: MetricsObserver) -> Samples:
    body, content_type = metrics.render()
    assert content_type.startswith("text/plain")
    families = text_string_to_metric_families(body.decode("utf-8"))
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float | None:
    return samples.get((name, tuple(sorted(labels.items()))))


def labels_of(samples: Samples, name: str, label: str) -> set[str]:
    return {dict(labels)[label] for found, labels in samples if found == name}


def test_requests_and_failures_are_counted() -> None:
    metrics = MetricsObserver()
    full = Outcome(error=errors.QueueFull("full; wait"))
    for outcome in (record().outcome, record().outcome, full):
        assert list(metrics.observe(record(outcome=outcome))) == []
    samples = scrape(metrics)
    assert value(samples, "retinue_requests_total", **DETECT) == 3
    assert value(samples, "retinue_failures_total", **DETECT, code="queue_full") == 1


def test_stages_are_in_seconds() -> None:
    metrics = MetricsObserver()
    timings = {"decode": 0.4, "run": 30.0, "total": 20_000.0, "lunch": 9.0}
    metrics.observe(record(outcome=Outcome(value=Scores(np.ones(1, "f4")), timings_ms=timings)))
    samples = scrape(metrics)
    name = "retinue_stage_duration_seconds"
    assert value(samples, f"{name}_sum", **DETECT, stage="run") == pytest.approx(0.03)
    assert value(samples, f"{name}_bucket", **DETECT, stage="decode", le="0.0005") == 1
    assert value(samples, f"{name}_bucket", **DETECT, stage="total", le="10.0") == 0
    assert value(samples, f"{name}_count", **DETECT, stage="total") == 1
    assert labels_of(samples, f"{name}_count", "stage") == set(STAGES)
    assert (SECONDS[0], SECONDS[-1]) == (0.0005, 10.0)


def test_batches_queues_and_detections() -> None:
    metrics = MetricsObserver()
    metrics.observe(record(batch_size=4, queue_depth=7))
    metrics.observe(record(batch_size=0, queue_depth=0, outcome=Outcome(value=_found([]))))
    samples = scrape(metrics)
    assert value(samples, "retinue_batch_size_sum", **DETECT) == 4
    assert value(samples, "retinue_batch_size_count", **DETECT) == 1
    assert value(samples, "retinue_queue_depth_at_admission_bucket", **DETECT, le="8.0") == 2
    assert value(samples, "retinue_detections_per_image_bucket", **DETECT, le="0.0") == 1
    assert value(samples, "retinue_detections_per_image_sum", **DETECT) == 3


def _found(scores: list[float]) -> Detections:
    n = len(scores)
    return Detections(np.zeros((n, 4), "f4"), np.array(scores, "f4"), np.zeros(n, "i8"))


def test_confidence_of_detections_and_of_the_best_class() -> None:
    metrics = MetricsObserver()
    metrics.observe(record(outcome=Outcome(value=_found([0.99, 0.51, 0.5]))))
    best = Scores(np.array([0.1, 0.7, 0.2], "f4"))
    metrics.observe(record(model="lite0", outcome=Outcome(value=best)))
    samples = scrape(metrics)
    name = "retinue_confidence"
    for bound, expected in (("0.45", 0), ("0.5", 1), ("0.55", 2), ("0.95", 2), ("1.0", 3)):
        assert value(samples, f"{name}_bucket", **DETECT, le=bound) == expected
    lite = DETECT | {"model": "lite0"}
    assert value(samples, f"{name}_count", **lite) == 1
    assert value(samples, f"{name}_sum", **lite) == pytest.approx(0.7)
    assert CONFIDENCES[:3] == (0.05, 0.1, 0.15)


scores = hnp.arrays(np.float32, st.integers(0, 30), elements=st.floats(-0.5, 1.5, width=32))


@settings(deadline=None, max_examples=40)
@given(st.lists(scores, max_size=5))
def test_the_confidence_histogram_agrees_with_its_twin(batches: list[np.ndarray]) -> None:
    metrics = MetricsObserver()
    registry = CollectorRegistry()
    twin = Histogram("retinue_confidence", ".", buckets=CONFIDENCES, registry=registry)
    for batch in batches:
        metrics.observe(record(outcome=Outcome(value=_found(list(batch)))))
        for score in batch:
            twin.observe(float(score))
    samples = scrape(metrics)
    if not sum(map(len, batches)):
        return
    for bound in (*map(str, CONFIDENCES), "+Inf"):
        expected = registry.get_sample_value("retinue_confidence_bucket", {"le": bound})
        assert value(samples, "retinue_confidence_bucket", **DETECT, le=bound) == expected
    expected_sum = registry.get_sample_value("retinue_confidence_sum")
    assert value(samples, "retinue_confidence_sum", **DETECT) == pytest.approx(expected_sum)


def test_queue_depth_is_asked_at_each_scrape() -> None:
    metrics = MetricsObserver()
    depth = [3]
    metrics.watch_queue("nanodet", "v1", lambda: depth[0])
    assert value(scrape(metrics), "retinue_queue_depth", model="nanodet", version="v1") == 3
    depth[0] = 5
    assert value(scrape(metrics), "retinue_queue_depth", model="nanodet", version="v1") == 5


def test_models_apps_and_versions_are_bounded() -> None:
    metrics = MetricsObserver(max_models=3, max_apps=2)
    metrics.watch_queue("real", "v1", lambda: 0)
    for n in range(50):
        metrics.observe(record(model=f"m{n}", version=f"v{n}", app=f"a{n}"))
    for n in range(9):
        metrics.observe(record(model="real", version="v1", app="a0"))
        metrics.observe(record(model="m1", version="v1", app=f"b{n}"))
    samples = scrape(metrics)
    name = "retinue_requests_total"
    assert labels_of(samples, name, "model") == {"m0", "m1", "real", "other"}
    assert labels_of(samples, name, "app") == {"a0", "a1", "other"}
    assert value(samples, name, app="a0", model="real", version="v1") == 9
    total = sum(v for (found, _labels), v in samples.items() if found == name)
    assert total == 50 + 18


def test_a_model_loaded_late_still_gets_its_own_series() -> None:
    metrics = MetricsObserver(max_models=1)
    metrics.observe(record(model="a"))
    metrics.watch_queue("late", "v1", lambda: 0)
    metrics.observe(record(model="late", version="v1"))
    assert "late" in labels_of(scrape(metrics), "retinue_requests_total", "model")


def test_names_that_clients_invent_take_no_place() -> None:
    metrics = MetricsObserver(max_models=2)
    missing = Outcome(error=errors.ModelNotFound("no such model; see `retinue models list`"))
    for n in range(9):
        metrics.observe(record(model=f"invented{n}", outcome=missing))
    metrics.observe(record(model="real"))
    assert labels_of(scrape(metrics), "retinue_requests_total", "model") == {"other", "real"}


def test_only_known_codes_become_labels() -> None:
    class Own(errors.InputError):
        code = "of a plug-in, perhaps made of the client's text"

    metrics = MetricsObserver()
    for error in (Own("x"), errors.QueueFull("x"), errors.RetinueError("x")):
        metrics.observe(record(outcome=Outcome(error=error)))
    codes = labels_of(scrape(metrics), "retinue_failures_total", "code")
    assert codes == {"other", "queue_full", "internal"}
    assert len(CODES) > 30


def test_http_labels_are_bounded() -> None:
    metrics = MetricsObserver(max_routes=2)
    for n in range(9):
        metrics.http(f"/r{n}", "POST", 200, 0.02)
    for method, status in (("BREW", 418), ("GET", 99), ("GET", 10_000)):
        metrics.http("/r0", method, status, 0.001)
    samples = scrape(metrics)
    name = "retinue_http_requests_total"
    assert labels_of(samples, name, "route") == {"/r0", "/r1", "other"}
    assert labels_of(samples, name, "method") == {"GET", "POST", "other"}
    assert labels_of(samples, name, "status") == {"200", "418", "other"}
    assert value(samples, name, route="other", method="POST", status="200") == 7
    seconds = "retinue_http_request_duration_seconds"
    assert value(samples, f"{seconds}_count", route="/r0", method="POST") == 1


def test_drops_are_counted() -> None:
    metrics = MetricsObserver()
    metrics.dropped("record_queue_full", 3)
    metrics.dropped("record_queue_full")
    for n in range(200):
        metrics.dropped(f"kind{n}")
    samples = scrape(metrics)
    assert value(samples, "retinue_dropped_total", kind="record_queue_full") == 4
    assert len(labels_of(samples, "retinue_dropped_total", "kind")) <= 51


def test_process_and_build_are_shown() -> None:
    samples = scrape(MetricsObserver())
    names = {name for name, _labels in samples}
    assert {"process_cpu_seconds_total", "process_resident_memory_bytes"} <= names
    assert labels_of(samples, "retinue_build_info", "version") == {retinue.__version__}


def test_odd_records_leave_a_page_that_can_be_read() -> None:
    metrics = MetricsObserver()
    for odd in (*records(), *odd_records()):
        metrics.observe(odd)
    for text in ODD_TEXTS:
        metrics.http(text, text, 200, 0.1)
        metrics.dropped(text)
        metrics.watch_queue(text, text, lambda: 1)
    samples = scrape(metrics)
    assert all(np.isfinite(found) for (name, _), found in samples.items() if "created" not in name)
    assert max(len(text) for _, labels in samples for _, text in labels) <= 200


def test_a_registry_may_be_given() -> None:
    registry = CollectorRegistry()
    MetricsObserver(registry).observe(record())
    assert registry.get_sample_value("retinue_requests_total", DETECT) == 1


def test_threads_lose_no_count() -> None:
    metrics = MetricsObserver()

    def work() -> None:
        for n in range(200):
            metrics.observe(record(app=f"a{n % 7}"))
            metrics.http("/v1/detect", "POST", 200, 0.01)
            if n % 50 == 0:
                metrics.render()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    samples = scrape(metrics)
    name = "retinue_requests_total"
    assert sum(v for (found, _), v in samples.items() if found == name) == 800
    count = "retinue_confidence_count"
    assert sum(v for (found, _), v in samples.items() if found == count) == 2400
