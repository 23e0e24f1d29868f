"""Decide what may change when a run is continued, and where it continues."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
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
from convnextv2.text import counted
from convnextv2.training.state import Progress

_WHERE = ("out", "resume", "resume_allow", "overwrite")
"""Knobs that say where a run is and how it starts. They are not compared."""

_FREE = frozenset(
    [
        # where it runs, and how fast
        *("device", "distribute", "rank_timeout_s", "workers", "kernels", "compile", "shard"),
        "grad_checkpoint",
        # how it is evaluated and examined
        *("val_precision", "val_while_train", "val_every_epochs", "patience", "crop_pct"),
        *("slide", "test_scales", "test_flip"),
        *("health_every_epochs", "probe_every_epochs", "probe_dir"),
        # how long it runs, and what it writes
        *("time", "async_save", "save_every_epochs", "save_every_steps", "save_every_minutes"),
        *("keep_checkpoints", "keep_policy", "mindcv_files", "bad_steps"),
        *("log_every_steps", "tensorboard", "loggers"),
        # where its images are and how they are read; their names and labels are compared
        *("data_dir", "dataset", "dataset_download", "val_split", "columns", "images_dir"),
        *("image_suffix", "bad_images", "data_wait_s", "shard_cache_gb", "unlabelled"),
        *("labels", "label_separator", "classes", "class_order"),
        # the weights that it started from, which are in its checkpoint
        *("init", "resume_init", "resume_opt", "teacher"),
        # the batch and the arithmetic, which are compared as conditions
        *("batch_size", "accumulate", "global_batch", "precision"),
    ]
)
"""Knobs that do not change what is learned, or whose effect is compared in another way."""

EVALUATION = ("best_by", "val_precision", "crop_pct", "slide", "test_scales", "test_flip")
"""Knobs that decide what the score of some weights is, and so which weights are best."""

_AT_ONCE = 2**20
"""The number of labels that are hashed at once."""


@dataclass(frozen=True)
class Fingerprint:
    """The images of a set, by which a resumed run notices changes.

    Attributes:
        images: Their number.
        names_sha256: Hash of their names relative to their common folder, in order.
        labels_sha256: Hash of their class numbers, in the same order; empty without labels.
    """

    images: int = 0
    names_sha256: str = ""
    labels_sha256: str = ""

    @classmethod
    def of(cls, source: Source | None) -> Fingerprint:
        """Take the fingerprint of images; None stands for no images."""
        if source is None:
            return cls()
        return cls(len(source), _names_sha256(source.names), _labels_sha256(source))

    def change(self, now: Fingerprint, which: str) -> str:
        """Say what has changed; empty if nothing has. An empty hash is one that is unknown.

        Args:
            now: The fingerprint of the images now.
            which: What the images are for, such as "training".
        """
        if self.images != now.images:
            return _change(f"{which} images", f"{self.images:,}", f"{now.images:,}")
        if self.names_sha256 and self.names_sha256 != now.names_sha256:
            return f"the names of the {now.images:,} {which} images, or their order, have changed"
        if self.labels_sha256 and self.labels_sha256 != now.labels_sha256:
            return f"the labels of the {now.images:,} {which} images have changed"
        return ""


@dataclass(frozen=True)
class Conditions:
    """The conditions on which the result of a run depends, besides its recipe.

    Each checkpoint records them.

    Attributes:
        images: Number of training images.
        names_sha256: Hash of their names relative to their common folder, in order.
        labels_sha256: Hash of their class numbers, in the same order; empty without labels.
        ranks: Number of processes that train.
        global_batch: Images in a step, over all ranks.
        accumulate: Batches in a step, on each rank.
        asked: The batch_size and accumulate of the recipe at the start.
        steps_per_epoch: Steps in an epoch.
        precision: Arithmetic of the forward pass, such as "bfloat16".
        knobs: The knobs of the recipe that are compared, as JSON types; empty in older checkpoints.
            Somebody may have changed the recipe.yaml of the run since.
        versions: Versions of this package and PyTorch, the kind of device, the kernels and the
            number of threads. If they differ, the result is as good but not the same bit for bit.
        validation: The validation images; None in older checkpoints. They do not change what is
            learned, but scores on other images cannot be compared.
        evaluation: The knobs `EVALUATION`, as JSON types; empty in older checkpoints. Likewise,
            scores cannot be compared if they differ.
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
    knobs: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    validation: Fingerprint | None = None
    evaluation: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, saved: Mapping[str, Any]) -> Conditions:
        """Restore the conditions from a checkpoint. One of an older version may lack some."""
        read = cls(**saved)
        validation = saved.get("validation")
        return replace(
            read,
            asked=(read.asked[0], read.asked[1]),
            validation=None if validation is None else Fingerprint(**validation),
        )

    @property
    def training(self) -> Fingerprint:
        """The training images."""
        return Fingerprint(self.images, self.names_sha256, self.labels_sha256)


def current_conditions(
    recipe: Recipe,
    place: Place,
    source: Source,
    validation: Source | None,
    dtype: torch.dtype,
    steps_per_epoch: int,
    asked: tuple[int, int],
) -> Conditions:
    """Determine the conditions of this run now.

    Args:
        recipe: The recipe, with batch_size as a number.
        place: This rank.
        source: The training images.
        validation: The validation images; None if there are none.
        dtype: The precision of the forward pass.
        steps_per_epoch: Steps in an epoch.
        asked: The batch_size and accumulate of the recipe at the start.
    """
    kernels = choice.in_use(place.device)
    assert isinstance(recipe.batch_size, int)
    return Conditions(
        **asdict(Fingerprint.of(source)),
        ranks=place.world_size,
        global_batch=recipe.batch_size * recipe.accumulate * place.world_size,
        accumulate=recipe.accumulate,
        asked=asked,
        steps_per_epoch=steps_per_epoch,
        precision=str(dtype).removeprefix("torch."),
        knobs=_compared_knobs(recipe),
        versions={
            "convnextv2": _own_version(),
            "torch": str(torch.__version__),
            "device": f"{place.device.type} ({platform.machine()})",
            "kernels": kernels + (", compiled" if recipe.compile else ""),
            "threads": str(torch.get_num_threads()) if place.device.type == "cpu" else "",
        },
        validation=Fingerprint.of(validation),
        evaluation=_evaluation_knobs(recipe),
    )


def _compared_knobs(recipe: Recipe) -> dict[str, Any]:
    """Return the knobs that change what is learned, as JSON types."""
    return recipe.model_dump(mode="json", exclude={*_WHERE, *_FREE})


def _evaluation_knobs(recipe: Recipe) -> dict[str, Any]:
    return recipe.model_dump(mode="json", include=set(EVALUATION))


def recipe_then(recipe: Recipe, old: Conditions) -> Recipe:
    """Return the recipe with which a checkpoint was written.

    Args:
        recipe: The recipe in the run's recipe.yaml, which may have changed since.
        old: The conditions in the checkpoint.
    """
    now = _compared_knobs(recipe) | _evaluation_knobs(recipe)
    changed = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in (old.knobs | old.evaluation).items()
        if name in now and now[name] != value
    }
    return recipe.model_copy(update=changed)


def check_changes(
    old_recipe: Recipe,
    new_recipe: Recipe,
    old: Conditions,
    new: Conditions,
    allowed: Collection[str],
    written: Recipe | None = None,
) -> list[str]:
    """Compare a run with the settings with which it is to be continued.

    Args:
        old_recipe: The recipe with which the checkpoint was written.
        new_recipe: The recipe that it would be continued with.
        old: The conditions when its checkpoint was written.
        new: The conditions now.
        allowed: Names of what may differ: knobs, images, ranks and precision.
        written: The recipe in the run's recipe.yaml; None if it has not changed since.

    Returns:
        Lines about the differences that are allowed.

    Raises:
        RunError: A difference changes what is learned, and is not allowed.
    """
    lines: list[tuple[str, str]] = []
    refused: list[tuple[str, str]] = []
    for name in Recipe.model_fields:
        was, will_be = getattr(old_recipe, name), getattr(new_recipe, name)
        if was == will_be or name in _WHERE:
            continue
        if new_recipe.time and old_recipe.time and name == "epochs":  # the time decides the epochs
            continue
        line = _change(name, show(was), show(will_be))
        is_free = name in _FREE or (name == "epochs" and will_be > was)
        (lines if is_free or name in allowed else refused).append((name, line))
    for name, line in _differences(old_recipe, new_recipe, old, new):
        (lines if name in allowed or name == "versions" else refused).append((name, line))
    if refused:
        names = list(dict.fromkeys(name for name, _ in refused))
        is_edited = written is not None and any(
            getattr(written, name, None) != getattr(old_recipe, name, None) for name in names
        )
        back = (
            "Undo the changes to the recipe.yaml of the run"
            if is_edited
            else "Give the command as before, leave the recipe out (the run has its own)"
        )
        raise RunError(
            f"resume: {counted(len(refused), 'change(s)')} would alter the result "
            f"({'; '.join(line for _, line in refused)}). {back}, or allow it: "
            f"--resume_allow {','.join(names)}."
        )
    return [line for _, line in lines]


def _change(what: str, was: object, will_be: object) -> str:
    return f"{what}: {was} before, {will_be} from here on"


def _differences(
    old_recipe: Recipe, new_recipe: Recipe, old: Conditions, new: Conditions
) -> list[tuple[str, str]]:
    """Find the differences outside the recipe, each with the name by which it can be allowed."""
    found = []
    if old.images and (line := old.training.change(new.training, "training")):
        found.append(("images", line))
    old_batch = old_recipe.batch_size, old_recipe.accumulate
    new_batch = new_recipe.batch_size, new_recipe.accumulate
    if old.global_batch and old.global_batch != new.global_batch:
        line = _change("images in a step", old.global_batch, new.global_batch)
        found.append(("ranks" if old_batch == new_batch else "batch_size", line))
    elif old.steps_per_epoch and old.steps_per_epoch != new.steps_per_epoch:
        if old.images == new.images:
            line = _change("steps in an epoch", old.steps_per_epoch, new.steps_per_epoch)
            found.append(("ranks", line))
    if new_recipe.elastic and old_batch[0] != new_batch[0]:
        found.append(("batch_size", _change("images in a micro-batch", old_batch[0], new_batch[0])))
    if old.precision and old.precision != new.precision:
        found.append(("precision", _change("precision", old.precision, new.precision)))
    bits = "; the last bits of the result may differ"
    for name, current in new.versions.items():
        if old.versions.get(name, current) != current:
            found.append(("versions", _change(name, old.versions.get(name), current) + bits))
    if old.ranks and old.ranks != new.ranks and not new_recipe.elastic:
        found.append(("versions", _change("ranks", old.ranks, new.ranks) + bits))
    return found


def keep_global_batch(recipe: Recipe, old_recipe: Recipe, old: Conditions, ranks: int) -> Recipe:
    """Adapt the batch to a changed number of ranks, so that a step has as many images as before.

    A step then takes the same images, because ranks take turns in one common order.

    Args:
        recipe: The recipe that the run would be continued with.
        old_recipe: The recipe in the run's recipe.yaml.
        old: The conditions when its checkpoint was written.
        ranks: The number of ranks now.

    Returns:
        The recipe. If it has the batch_size and accumulate of the start or of recipe.yaml, and
        these no longer make a step of the same images, they are replaced.
    """
    asked = recipe.batch_size, recipe.accumulate
    if not old.global_batch or asked not in (
        old.asked,
        (old_recipe.batch_size, old_recipe.accumulate),
    ):
        return recipe
    each, rest = divmod(old.global_batch, ranks)
    assert isinstance(recipe.batch_size, int), "auto is resolved when the run starts"
    if rest or recipe.batch_size * recipe.accumulate == each:
        return recipe
    size = max(size for size in range(1, recipe.batch_size + 1) if each % size == 0)
    if recipe.elastic and size != recipe.batch_size:  # sums would differ; `check_changes` refuses
        return recipe
    return recipe.model_copy(update={"batch_size": size, "accumulate": each // size})


def convert_position(progress: Progress, old: Conditions, new: Conditions) -> None:
    """Convert a position in the middle of an epoch to the current batches and steps.

    Args:
        progress: The position as it was saved. It is changed in place.
        old: The conditions when it was saved.
        new: The conditions now.
    """
    if not old.global_batch:
        return
    images = progress.batch // old.accumulate * old.global_batch
    progress.batch = images // new.global_batch * new.accumulate
    if old.steps_per_epoch != new.steps_per_epoch or old.global_batch != new.global_batch:
        steps_in_epoch = progress.batch // new.accumulate
        progress.step = progress.epoch * new.steps_per_epoch + steps_in_epoch


def check_classes(before: Sequence[str], now: Sequence[str], allowed: Collection[str]) -> None:
    """Check that the data have the classes that the rows of a trained head stand for.

    Args:
        before: The classes that the head was trained on, in order.
        now: The classes of the data, in order.
        allowed: Names of what may differ; "classes" allows renamed classes.

    Raises:
        CheckpointError: The data have other classes.
    """
    if before and now and len(before) != len(now):
        raise CheckpointError(
            f"resume: the run was trained on {len(before)} classes, but the data have {len(now)}. "
            "Restore the classes of the data, or start a new run with --init."
        )
    changed = [(old, new) for old, new in zip(before, now, strict=False) if old != new]
    if changed and "classes" not in allowed:
        raise CheckpointError(
            f"resume: the run was trained on other classes: {changed[0][0]!r} is now "
            f"{changed[0][1]!r} ({len(changed)} of {len(before)} differ). Restore the names, start "
            "a new run with --init, or, if only the names changed, allow it: --resume_allow "
            "classes."
        )


def is_before(record: Mapping[str, Any], progress: Progress, position: float) -> bool:
    """Return whether a record is kept when a run goes back to a position.

    The other records are written again when the run repeats their steps.

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
    except PackageNotFoundError:  # the package is not installed
        return "sources"


def _names_sha256(names: Sequence[str]) -> str:
    """Hash names relative to their common folder, so that a data set may move as a whole."""
    if isinstance(names, Stored):
        return names.names_sha256()
    ends = [min(names), max(names)] if len(names) else []  # these two share the prefix of all
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
    for start in range(0, len(targets), _AT_ONCE):  # there may be a billion, so not all at once
        digest.update(np.ascontiguousarray(targets[start : start + _AT_ONCE], dtype="<i8").data)
    return digest.hexdigest()
