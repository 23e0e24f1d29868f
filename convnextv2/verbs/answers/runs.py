"""The answers of verbs about recipes, runs and their cost."""

from __future__ import annotations

from typing import Annotated, NotRequired

from typing_extensions import TypedDict

from convnextv2.verbs.answers.keys import means


class Replayed(TypedDict):
    """One image of a step that was not finite."""

    name: Annotated[str, means("The image.")]
    target: Annotated[str, means("Its class; empty without labels.")]
    loss: Annotated[float | None, means("The loss of this image alone.")]
    gradient_norm: Annotated[float | None, means("The norm of its gradient.")]


class PlannedCluster(TypedDict):
    """What a recipe will cost on several devices.

    The least figures hold if as much communication as possible runs beside the computation, the
    most if none does.
    """

    ranks: Annotated[int, means("The devices.")]
    global_batch: Annotated[int, means("The images in a step, on all devices together.")]
    parameters: Annotated[int, means("The parameters that are trained.")]
    mbytes_per_step: Annotated[float, means("What each device sends in a step, in MB.")]
    compute_s: Annotated[float, means("The computation of a step.")]
    communication_s: Annotated[float, means("The communication of a step by itself.")]
    steps: Annotated[int, means("The steps of the whole run.")]
    least_hours: Annotated[float, means("The time of the whole run, at least.")]
    most_hours: Annotated[float, means("The time of the whole run, at most.")]
    least_share: Annotated[float, means("The share of waiting for communication, at least.")]
    most_share: Annotated[float, means("The share of waiting for communication, at most.")]


class Planned(TypedDict):
    """What a recipe will cost on this machine."""

    verb: Annotated[str, means("train or pretrain.")]
    images_per_second: Annotated[float, means("The pace of training.")]
    data_wait: NotRequired[Annotated[float, means("The share of the time spent waiting for data.")]]
    memory_gib: NotRequired[Annotated[float, means("The peak memory of the host.")]]
    epochs: Annotated[int, means("The epochs of the whole run.")]
    steps: Annotated[int, means("The steps of the whole run.")]
    hours: Annotated[float, means("The time of the whole run, without evaluation.")]
    disk_gib: NotRequired[Annotated[float, means("The disk space of the run folder.")]]
    cluster: NotRequired[Annotated[PlannedCluster, means("With `ranks`.")]]


class Benchmarked(TypedDict):
    """One row of a benchmark. A row that failed has only the failure."""

    work: Annotated[str, means("pretrain, train, inference or loader.")]
    model: Annotated[str, means("The size; empty for loader.")]
    backend: Annotated[str, means("The engine.")]
    images_per_second: NotRequired[Annotated[float, means("The median.")]]
    spread: NotRequired[Annotated[float, means("Half the interquartile range, over the median.")]]
    memory_mib: NotRequired[Annotated[float, means("The peak beyond what the imports took.")]]
    failure: NotRequired[Annotated[str, means("Why there is no figure.")]]


class RecipeLine(TypedDict):
    """One recipe that comes with the package."""

    name: Annotated[str, means("What `--config` takes.")]
    summary: Annotated[str, means("The first line of the file.")]
