"""Continue a run: what must be as it was, what may change, and where the run continues."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch

from convnextv2.data.dense.objects import ObjectTable
from convnextv2.data.dense.source import AnnotatedSource
from convnextv2.data.source import Source
from convnextv2.data.storage import Stored
from convnextv2.distributed import Place
from convnextv2.errors import CheckpointError, RunError
from convnextv2.kernels import choice
from convnextv2.recipe.knobs import Recipe
from convnextv2.recipe.values import show
from convnextv2.training.state import Progress

_FREE = frozenset(
    (
        *("out", "resume", "resume_allow", "overwrite", "device", "distribute", "rank_timeout_s"),
        *(
            "compile",
            "shard",
            "kernels",
            "val_precision",
            "val_while_train",
            "val_every_epochs",
            "patience",
            "time",
            "async_save",
            "health_every_epochs",
            "probe_every_epochs",
            "probe_dir",
        ),
        *("save_every_epochs", "save_every_steps", "save_every_minutes", "keep_checkpoints"),
        *("keep_policy", "mindcv_files", "log_every_steps", "tensorboard", "loggers", "bad_steps"),
        "workers",
        *("data_dir", "dataset", "dataset_download", "val_split", "columns", "images_dir"),
        *("labels", "label_separator", "shard_cache_gb"),
        *("image_suffix", "bad_images", "data_wait_s", "init", "resume_init", "resume_opt"),
        *(
            "grad_checkpoint",
            "batch_size",
            "accumulate",
            "global_batch",
            "precision",
            "class_order",
        ),
        *("crop_pct", "teacher", "unlabelled", "classes", "slide", "test_scales", "test_flip"),
    )
)
"""Knobs that do not change what is learned, or whose effect is compared by itself.

The latter are the names of the images, the images of a step over all ranks, and the arithmetic.
"""

_AT_ONCE = 2**20
"""Labels that are hashed at once."""


@dataclass(frozen=True)
class Conditions:
    """What the result of a run depends on besides its recipe. A checkpoint records it.

    Attributes:
        images: Number of training images.
        names_sha256: Hash of their names relative to their common folder, in order.
        labels_sha256: Hash of their class numbers, in the same order; empty without labels.
        ranks: Number of processes that train.
        global_batch: Images in a step, over all ranks.
        accumulate: Batches in a step, on each rank.
        asked: batch_size and accumulate as the recipe had them at the start.
        steps_per_epoch: Steps in an epoch.
        precision: Arithmetic of the forward pass, such as "bfloat16".
        versions: Versions of this package and PyTorch, the kind of device, the kernels and the
            number of threads. If they differ, the result is as good but not the same bit for bit.
    """

    images: int = 0
    names_sha256: str = ""
    labels_sha256: str = ""
    ranks: int = 0
    global_batch: int = 0
    accumulate: int = 1
    asked: tuple[int, int] = (0, 0)
    steps_per_epoch: int = 0
    precision: str = ""
    versions: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, saved: Mapping[str, Any]) -> Conditions:
        """Restore the conditions from a checkpoint. One of an older version may lack some."""
        here = cls(**saved)
        return replace(here, asked=(here.asked[0], here.asked[1]))


def conditions(
    recipe: Recipe,
    place: Place,
    source: Source,
    dtype: torch.dtype,
    steps_per_epoch: int,
    asked: tuple[int, int],
) -> Conditions:
    """Determine the conditions of this run now.

    Args:
        recipe: The recipe, with batch_size as a number.
        place: This rank.
        source: The training images.
        dtype: The precision of the forward pass.
        steps_per_epoch: Steps in an epoch.
        asked: batch_size and accumulate as the recipe had them at the start.
    """
    kernels = choice.in_use(place.device)
    assert isinstance(recipe.batch_size, int)
    return Conditions(
        images=len(source),
        names_sha256=_names_sha256(source.names),
        labels_sha256=_labels_sha256(source),
        ranks=place.world_size,
        global_batch=recipe.batch_size * recipe.accumulate * place.world_size,
        accumulate=recipe.accumulate,
        asked=asked,
        steps_per_epoch=steps_per_epoch,
        precision=str(dtype).removeprefix("torch."),
        versions={
            "convnextv2": _own_version(),
            "torch": str(torch.__version__),
            "device": f"{place.device.type} ({platform.machine()})",
            "kernels": kernels + (", compiled" if recipe.compile else ""),
            "threads": str(torch.get_num_threads()) if place.device.type == "cpu" else "",
        },
    )


def check(
    before: Recipe, now: Recipe, then: Conditions, here: Conditions, allowed: Collection[str]
) -> list[str]:
    """Compare a run with the settings that it is to be continued with.

    Args:
        before: The recipe that the run was started with.
        now: The recipe that it would be continued with.
        then: The conditions when its checkpoint was written.
        here: The conditions now.
        allowed: Names of what may differ: knobs, images, ranks and precision.

    Returns:
        Lines that name the differences that are allowed.

    Raises:
        RunError: A difference changes what is learned, and is not allowed.
    """
    lines: list[tuple[str, str]] = []
    refused: list[tuple[str, str]] = []
    for name in Recipe.model_fields:
        old, new = getattr(before, name), getattr(now, name)
        if old == new or name in ("out", "resume", "resume_allow", "overwrite"):
            continue
        if now.time and before.time and name == "epochs":  # the given time decides it
            continue
        line = f"{name}: {show(old)} before, {show(new)} from here on"
        raised = name == "epochs" and new > old
        free = name in _FREE or raised
        (lines if free or name in allowed else refused).append((name, line))
    for name, line in _differences(before, now, then, here):
        (lines if name in allowed or name == "versions" else refused).append((name, line))
    if refused:
        names = list(dict.fromkeys(name for name, _ in refused))
        raise RunError(
            f"resume: {len(refused)} thing{'s' * (len(refused) > 1)} changed that the result "
            "depends "
            f"on ({'; '.join(line for _, line in refused)}). Give the command as before, leave the "
            f"recipe out (the run has its own), or allow it: --resume_allow {','.join(names)}."
        )
    return [line for _, line in lines]


def _differences(
    before: Recipe, now: Recipe, then: Conditions, here: Conditions
) -> list[tuple[str, str]]:
    """Find the differences outside the recipe, each with the name under which it can be allowed."""
    found = []
    if then.images and then.images != here.images:
        line = f"training images: {then.images:,} before, {here.images:,} from here on"
        found.append(("images", line))
    elif then.names_sha256 and then.names_sha256 != here.names_sha256:
        found.append(
            ("images", f"the names of the {here.images:,} training images, or their order")
        )
    elif then.labels_sha256 and then.labels_sha256 != here.labels_sha256:
        found.append(("images", f"the labels of the {here.images:,} training images"))
    if then.global_batch and then.global_batch != here.global_batch:
        line = f"images in a step: {then.global_batch} before, {here.global_batch} from here on"
        same = (before.batch_size, before.accumulate) == (now.batch_size, now.accumulate)
        found.append(("ranks" if same else "batch_size", line))
    elif then.steps_per_epoch and then.steps_per_epoch != here.steps_per_epoch:
        line = (
            f"steps in an epoch: {then.steps_per_epoch} before, {here.steps_per_epoch} from here on"
        )
        if then.images == here.images:
            found.append(("ranks", line))
    if now.elastic and before.batch_size != now.batch_size:
        line = f"images in a micro-batch: {before.batch_size} before, {now.batch_size} from here on"
        found.append(("batch_size", line))
    if then.precision and then.precision != here.precision:
        line = f"arithmetic: {then.precision} before, {here.precision} from here on"
        found.append(("precision", line))
    for name, current in here.versions.items():
        if then.versions.get(name, current) != current:
            line = f"{name}: {then.versions.get(name)} before, {current} from here on"
            found.append(("versions", f"{line}; the last bits of the result may differ"))
    if then.ranks and then.ranks != here.ranks and not now.elastic:
        line = f"ranks: {then.ranks} before, {here.ranks} from here on"
        found.append(("versions", f"{line}; the last bits of the result may differ"))
    return found


def keep_global_batch(recipe: Recipe, before: Recipe, then: Conditions, ranks: int) -> Recipe:
    """Adapt the batch to a changed number of ranks, so that a step has as many images as before.

    A step then takes the same images, because ranks take turns in one common order.

    Args:
        recipe: The recipe that the run would be continued with.
        before: The recipe in its recipe.yaml.
        then: The conditions when its checkpoint was written.
        ranks: The number of ranks now.

    Returns:
        The recipe. If it asks for the batch_size and accumulate of the start or of recipe.yaml,
        and these no longer make the same step, they are replaced.
    """
    asked = recipe.batch_size, recipe.accumulate
    if not then.global_batch or asked not in (then.asked, (before.batch_size, before.accumulate)):
        return recipe
    each, rest = divmod(then.global_batch, ranks)
    assert isinstance(recipe.batch_size, int), "a run has found what auto is"
    if rest or recipe.batch_size * recipe.accumulate == each:
        return recipe
    size = max(size for size in range(1, recipe.batch_size + 1) if each % size == 0)
    if recipe.elastic and size != recipe.batch_size:  # other sums; `check` refuses these ranks
        return recipe
    return recipe.model_copy(update={"batch_size": size, "accumulate": each // size})


def convert_position(progress: Progress, then: Conditions, here: Conditions) -> None:
    """Count a position in the middle of an epoch in the batches and steps that hold now.

    Args:
        progress: The position as it was saved. It is changed in place.
        then: The conditions when it was saved.
        here: The conditions now.
    """
    if not then.global_batch:
        return
    images = progress.batch // then.accumulate * then.global_batch
    progress.batch = images // here.global_batch * here.accumulate
    if then.steps_per_epoch != here.steps_per_epoch or then.global_batch != here.global_batch:
        steps_in_epoch = progress.batch // here.accumulate
        progress.step = progress.epoch * here.steps_per_epoch + steps_in_epoch


def check_classes(before: Sequence[str], now: Sequence[str], allowed: Collection[str]) -> None:
    """Check that the data have the classes that the rows of a trained head stand for.

    Args:
        before: The classes that the head was trained on, in order.
        now: The classes of the data, in order.
        allowed: Names of what may differ.

    Raises:
        CheckpointError: The data have other classes.
    """
    if before and now and len(before) != len(now):
        raise CheckpointError(
            f"resume: the run was trained on {len(before)} classes, the data have {len(now)} now. "
            "Give the data back their classes, or start a new run with --init."
        )
    changed = [(old, new) for old, new in zip(before, now, strict=False) if old != new]
    if changed and "classes" not in allowed:
        raise CheckpointError(
            f"resume: the run was trained on other classes: {changed[0][0]!r} is now "
            f"{changed[0][1]!r} ({len(changed)} of {len(before)} differ). Give the data back their "
            "names, start a new run with --init, or, where only the names changed, allow it: "
            "--resume_allow classes."
        )


def is_before(record: Mapping[str, Any], progress: Progress, position: float) -> bool:
    """Return whether a record is kept when a run goes back to a position.

    The run writes the others again as it repeats those steps.

    Args:
        record: A record of metrics.jsonl.
        progress: The position, in steps of the checkpoint.
        position: The same position in epochs. Steps alone are not enough if an earlier part of the
            run had more of them in an epoch.
    """
    if record["step"] == progress.step and record["kind"] != "train":
        return not progress.batch and progress.is_closed
    return bool(record["step"] <= progress.step or record["epoch"] < position - 1e-3)


def _own_version() -> str:
    try:
        return version("convnextv2")
    except PackageNotFoundError:  # it runs from its sources
        return "sources"


def _names_sha256(names: Sequence[str]) -> str:
    """Hash names relative to their common folder, so that a data set may move as a whole."""
    if isinstance(names, Stored):
        return names.names_sha256()
    ends = [min(names), max(names)] if len(names) else []  # their common prefix is that of all
    shared = os.path.commonprefix(ends).rpartition("/")[0]
    digest = hashlib.sha256()
    for name in names:
        digest.update(name[len(shared) :].encode(errors="surrogateescape") + b"\0")
    return digest.hexdigest()


def _labels_sha256(source: Source) -> str:
    """Hash labels, independently of their integer type, or the objects in the images."""
    if isinstance(source, AnnotatedSource) and isinstance(source.annotations, ObjectTable):
        return source.annotations.digest()
    targets = source.targets
    if targets is None:
        return ""
    digest = hashlib.sha256()
    for start in range(0, len(targets), _AT_ONCE):  # a part at a time: there may be a billion
        digest.update(np.ascontiguousarray(targets[start : start + _AT_ONCE], dtype="<i8").data)
    return digest.hexdigest()
