"""The answers of verbs about recipes, runs and their cost."""

from __future__ import annotations

from typing import Annotated, NotRequired

from typing_extensions import TypedDict

from convnextv2.verbs.answers.keys import means


class Replayed(TypedDict):
    """One image of a step with a non-finite loss or gradient."""

    name: Annotated[str, means("The name of the image.")]
    target: Annotated[str, means("Its class; empty without labels.")]
    loss: Annotated[float | None, means("The loss of this image alone.")]
    gradient_norm: Annotated[float | None, means("The norm of its gradient.")]


class PlannedCluster(TypedDict):
    """The predicted cost of a recipe on several devices.

    The `least_` figures hold if as much communication as possible overlaps the computation, the
    `most_` figures if none does.
    """

    ranks: Annotated[int, means("The number of devices.")]
    global_batch: Annotated[int, means("The number of images in a step, on all devices together.")]
    parameters: Annotated[int, means("The number of trained parameters.")]
    mbytes_per_step: Annotated[float, means("The data that each device sends in a step, in MB.")]
    compute_s: Annotated[float, means("The time for the computation of a step, in seconds.")]
    communication_s: Annotated[
        float, means("The time for the communication of a step by itself, in seconds.")
    ]
    steps: Annotated[int, means("The number of steps of the whole run.")]
    least_hours: Annotated[float, means("The shortest time of the whole run, in hours.")]
    most_hours: Annotated[float, means("The longest time of the whole run, in hours.")]
    least_share: Annotated[
        float, means("The smallest share of the time that is spent waiting for communication.")
    ]
    most_share: Annotated[
        float, means("The largest share of the time that is spent waiting for communication.")
    ]


class Planned(TypedDict):
    """The predicted cost of a recipe on this machine."""

    verb: Annotated[str, means("train or pretrain.")]
    images_per_second: Annotated[float, means("The training throughput, in images per second.")]
    data_wait: NotRequired[Annotated[float, means("The share of the time spent waiting for data.")]]
    memory_gib: NotRequired[Annotated[float, means("The peak memory of the host.")]]
    epochs: Annotated[int, means("The number of epochs of the whole run.")]
    steps: Annotated[int, means("The number of steps of the whole run.")]
    hours: Annotated[float, means("The time of the whole run, without evaluation.")]
    disk_gib: NotRequired[Annotated[float, means("The disk space of the run folder.")]]
    cluster: NotRequired[Annotated[PlannedCluster, means("With `ranks`.")]]


class Benchmarked(TypedDict):
    """One row of a benchmark. A measurement that failed has a failure in place of figures."""

    work: Annotated[str, means("pretrain, train, inference or loader.")]
    model: Annotated[str, means("The size; empty for loader.")]
    backend: Annotated[str, means("The engine.")]
    images_per_second: NotRequired[Annotated[float, means("The median throughput.")]]
    spread: NotRequired[
        Annotated[float, means("Half the interquartile range, divided by the median.")]
    ]
    memory_mib: NotRequired[Annotated[float, means("The peak memory beyond that of the imports.")]]
    failure: NotRequired[Annotated[str, means("The reason why there are no figures.")]]


class RecipeLine(TypedDict):
    """One recipe that comes with the package."""

    name: Annotated[str, means("The name that `--config` takes.")]
    summary: Annotated[str, means("The first line of the file.")]
