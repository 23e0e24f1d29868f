"""The server's metrics, which Prometheus reads."""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """The metrics of one server, in a registry of their own."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        ProcessCollector(registry=registry)  # memory, processor time, file descriptors
        self.requests = Counter(
            "convnextv2_requests", "Answered requests.", ("route", "code"), registry=registry
        )
        self.answered = Histogram(
            "convnextv2_request_seconds",
            "Time from a request's head to the end of its answer.",
            ("route", "code"),
            buckets=_SECONDS,
            registry=registry,
        )
        self.batchers = Counter(
            "convnextv2_batcher_restarts",
            "Batchers that have failed and were started again.",
            ("model",),
            registry=registry,
        )
        self.rejected = Counter(
            "convnextv2_rejected", "Refused requests, by reason.", ("reason",), registry=registry
        )
        self.in_flight = Gauge(
            "convnextv2_requests_in_flight", "Requests that are being answered.", registry=registry
        )
        self.queue = Gauge(
            "convnextv2_queue_images",
            "Images that were accepted and are not answered yet.",
            registry=registry,
        )
        self.images = Counter("convnextv2_images", "Images scored.", ("model",), registry=registry)
        self.batch = Histogram(
            "convnextv2_batch_images",
            "Number of images in a batch.",
            ("model",),
            buckets=(1, 2, 4, 8, 16, 32, 64, 128),
            registry=registry,
        )
        self.waited = Histogram(
            "convnextv2_queue_seconds",
            "Time that an image waited for the model.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.decoded = Histogram(
            "convnextv2_decode_seconds",
            "Time to decode and resize an image.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.scored = Histogram(
            "convnextv2_model_seconds",
            "Time of the model for a batch.",
            ("model",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.model = Gauge(
            "convnextv2_model_info",
            "1 for each version served.",
            ("model", "version", "sha256", "engine"),
            registry=registry,
        )

    def text(self) -> bytes:
        """Return the metrics in Prometheus's text format."""
        return generate_latest(self.registry)
