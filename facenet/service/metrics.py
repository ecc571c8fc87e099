"""Figures of the service in Prometheus' form. No label holds a name of a person or an id."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)


class Metrics:
    """The figures of one service."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        names: tuple[str, ...] = ("route", "method", "status")
        self.requests = Counter("facenet_requests", "Requests answered.", names, registry=self.registry)
        self.seconds = Histogram(
            "facenet_request_seconds", "Time of a request.", ("route",), buckets=SECONDS, registry=self.registry
        )
        self.faces = Counter("facenet_faces", "Faces looked up or enrolled.", ("what",), registry=self.registry)
        self.refused = Counter("facenet_refused", "Pictures that were refused.", ("code",), registry=self.registry)

    def count(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count an exchange; an unknown method is "other"."""
        method = method if method in ("GET", "HEAD", "POST", "PUT", "DELETE") else "other"
        self.requests.labels(route, method, str(status)).inc()
        self.seconds.labels(route).observe(seconds)

    def watch(self, name: str, what: str, value: Callable[[], float]) -> None:
        """Show the present value of something."""
        Gauge(f"facenet_{name}", what, registry=self.registry).set_function(value)

    def total(self) -> dict[str, int]:
        """Return how many requests were answered, and how many of these failed with 500 or more."""
        samples = [one for family in self.requests.collect() for one in family.samples if one.name.endswith("_total")]
        failed = sum(int(one.value) for one in samples if one.labels["status"] >= "500")
        return {"requests": sum(int(one.value) for one in samples), "failed": failed}

    def text(self) -> bytes:
        """Return all figures as text."""
        return generate_latest(self.registry)
