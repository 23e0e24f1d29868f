"""The server's metrics in Prometheus's format."""

from __future__ import annotations

from functools import partial

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_CLASSES = (0, 1, 2, 3, 5, 10, 20, 50, 100, 1000)
_IMAGES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The metrics of one server, in a registry of their own."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        ProcessCollector(registry=registry)  # memory, processor time, file descriptors
        counter, gauge = partial(Counter, registry=registry), partial(Gauge, registry=registry)
        histogram = partial(Histogram, registry=registry)
        seconds = partial(histogram, buckets=_SECONDS)

        self.requests = counter("convnextv2_requests", "Answered requests.", ("route", "code"))
        self.answered = seconds(
            "convnextv2_request_seconds",
            "Time from a request's head to the end of its answer.",
            ("route", "code"),
        )
        self.batchers = counter(
            "convnextv2_batcher_restarts",
            "Batchers that have failed and were started again.",
            ("model",),
        )
        self.rejected = counter("convnextv2_rejected", "Refused requests, by reason.", ("reason",))
        self.in_flight = gauge("convnextv2_requests_in_flight", "Requests that are being answered.")
        self.queue = gauge(
            "convnextv2_queue_images", "Images that were accepted and are not answered yet."
        )
        self.images = counter("convnextv2_images", "Images scored.", ("model",))
        self.possible = histogram(
            "convnextv2_possible_classes",
            "Number of classes of an image that cannot be excluded.",
            ("model",),
            buckets=_CLASSES,
        )
        self.foreign = counter("convnextv2_foreign_images", "Images that are foreign.", ("model",))
        self.objects = counter("convnextv2_objects", "Objects found.", ("model",))
        self.batch = histogram(
            "convnextv2_batch_images", "Number of images in a batch.", ("model",), buckets=_IMAGES
        )
        self.waited = seconds(
            "convnextv2_queue_seconds", "Time that an image waited for the model."
        )
        self.decoded = seconds("convnextv2_decode_seconds", "Time to decode and resize an image.")
        self.scored = seconds(
            "convnextv2_model_seconds", "Time of the model for a batch.", ("model",)
        )
        self.model = gauge(
            "convnextv2_model_info",
            "1 for each version served.",
            ("model", "version", "sha256", "engine"),
        )

    def text(self) -> bytes:
        """Return the metrics in Prometheus's text format."""
        return generate_latest(self.registry)
