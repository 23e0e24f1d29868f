"""The limits of a server: the amounts that it accepts, and the times that it waits."""

from __future__ import annotations

from dataclasses import dataclass

from convnextv2.recipe.options import option


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The limits of one server: the amounts that it accepts, and the times that it waits."""

    max_body_mb: float = option(
        32.0, "Maximum request body.", metavar="MB", unit="MB", gt=0, le=1_000_000
    )
    max_bodies_mb: float = option(
        512.0,
        "Maximum of all request bodies together that are being received or answered.",
        metavar="MB",
        unit="MB",
        gt=0,
        le=1_000_000,
    )
    max_images: int = option(
        64, "Maximum number of images in a request.", metavar="N", gt=0, le=1_000_000
    )
    max_image_pixels: int = option(
        64_000_000,
        "Largest image to decode, judged by its header. Twice as many pixels are decoded at once.",
        metavar="N",
        unit="pixels",
        gt=0,
        le=1_000_000_000_000,
    )
    max_answer_mb: float = option(
        16.0,
        "Largest answer of a detector or a segmentor.",
        metavar="MB",
        unit="MB",
        gt=0,
        le=1_000_000,
    )
    max_map_pixels: int = option(
        4_000_000,
        "Largest mask or map of classes in an answer. Those of larger images are reduced.",
        metavar="N",
        unit="pixels",
        gt=0,
        le=1_000_000_000_000,
    )
    max_queue: int = option(
        256,
        "Maximum number of images that wait, over all requests. Further requests are refused.",
        metavar="N",
        gt=0,
        le=1_000_000,
    )
    max_batch: int = option(
        32, "Maximum number of images that the model scores at once.", metavar="N", gt=0, le=100_000
    )
    max_delay_ms: float = option(
        2.0,
        "Time that the first image of a batch waits for others while the model is idle.",
        metavar="MS",
        unit="ms",
        ge=0,
        le=3_600_000,
    )
    deadline_s: float = option(
        10.0,
        "Maximum time from the last byte of a request to its answer.",
        metavar="S",
        unit="s",
        gt=0,
        le=31_536_000,
    )
    read_timeout_s: float = option(
        20.0,
        "Maximum time to receive a request's head, to receive its body, and for the client to read "
        "the answer.",
        metavar="S",
        unit="s",
        gt=0,
        le=31_536_000,
    )
    drain_s: float = option(
        1.0,
        "Time to accept requests after SIGTERM, until load balancers stop sending them.",
        metavar="S",
        unit="s",
        ge=0,
        le=31_536_000,
    )
