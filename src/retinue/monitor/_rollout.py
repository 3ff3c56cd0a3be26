"""Metrics of versions that take each other's place: who serves, how far they agree, rollbacks."""

from __future__ import annotations

from contextlib import suppress

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

AGREEMENTS = (0.0, 0.25, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.925, 0.95, 0.975, 0.99, 1.0)


class RolloutMetrics:
    """Counts by model and version; both come from the registry, so the labels are bounded."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register the metrics."""
        of_version = ("model", "version")
        self._serving = Gauge(
            "retinue_serving",
            "Share of the requests that a version answers as prod or canary; 1 as shadow.",
            (*of_version, "role"),
            registry=registry,
        )
        self._agreement = Histogram(
            "retinue_agreement",
            "How far a version's answers agree with its reference's, 1 for the same.",
            (*of_version, "role", "reference"),
            registry=registry,
            buckets=AGREEMENTS,
        )
        self._skipped = Counter(
            "retinue_comparisons_skipped",
            "Requests that could not be compared, or in which neither version found anything.",
            (*of_version, "role"),
            registry=registry,
        )
        self._evidence = Gauge(
            "retinue_guard_evidence",
            "Evidence that a version agrees less than it may: at 1 it is rolled back.",
            of_version,
            registry=registry,
        )
        self._rollbacks = Counter(
            "retinue_guard_rollbacks", "Versions that the guard took out.", ("model",),
            registry=registry,
        )  # fmt: skip
        self._failures = Counter(
            "retinue_rollout_failures",
            "Times that what the aliases ask for could not be loaded.",
            ("model",),
            registry=registry,
        )
        self._roles: dict[str, list[tuple[str, str, str]]] = {}

    def serving(self, model: str, shares: dict[tuple[str, str], float]) -> None:
        """Say what a model's versions are served as now.

        Args:
            model: Its name.
            shares: (version, role) to the share of the requests that it answers.
        """
        for labels in self._roles.pop(model, []):
            self._serving.remove(*labels)
        for (version, role), share in shares.items():
            self._serving.labels(model, version, role).set(share)
        self._roles[model] = [(model, version, role) for version, role in shares]

    def compared(self, model: str, version: str, role: str, reference: str, value: float) -> None:
        """Count a comparison; ``value`` is the agreement, in [0, 1]."""
        self._agreement.labels(model, version, role, reference).observe(value)

    def skipped(self, model: str, version: str, role: str) -> None:
        """Count a comparison that could not be made."""
        self._skipped.labels(model, version, role).inc()

    def evidence(self, model: str, version: str, value: float) -> None:
        """Say how much speaks against a version, in [0, 1]."""
        self._evidence.labels(model, version).set(value)

    def unwatched(self, model: str, version: str) -> None:
        """Forget the evidence against a version that is not judged any more."""
        with suppress(KeyError):
            self._evidence.remove(model, version)

    def rolled_back(self, model: str) -> None:
        """Count a version that the guard took out."""
        self._rollbacks.labels(model).inc()

    def failed(self, model: str) -> None:
        """Count a plan that could not be carried out."""
        self._failures.labels(model).inc()
