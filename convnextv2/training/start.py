"""The start of a run.

A run starts in one of five ways. The first that applies is taken:

1. Resume: continue exactly from the newest whole checkpoint of the run folder (`resume: True`, or
   `resume: auto` if there is a checkpoint).
2. Continue inside: continue from a MindSpore checkpoint that lies in the run folder, as MindCV's
   `--ckpt_path ckpt/tiny-3_1251.ckpt` does. If the run has its own checkpoint of that epoch, it
   continues exactly from that one.
3. Continue: take the weights, the average and the position of a MindSpore checkpoint from elsewhere
   (`init` with `resume_init` or `resume_opt`).
4. From weights: take the encoder and whatever else fits from any weights (`init`; see
   `training.init` and `training.dense_init`).
5. From scratch: use random weights.

Only this module chooses the way.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from torch import nn

from convnextv2.console import say
from convnextv2.distributed import Place
from convnextv2.errors import RunError
from convnextv2.find import find_weights
from convnextv2.model.convnext import ConvNeXtV2
from convnextv2.recipe.knobs import Recipe
from convnextv2.run import Run
from convnextv2.text import typed
from convnextv2.training.dense_init import load_dense_init
from convnextv2.training.init import infer_from_run, infer_from_weights, load_init
from convnextv2.weights.catalog import proposed_start
from convnextv2.weights.opened import Weights, open_weights

PRETRAINED = "pretrained"
"""The word for `init` that leaves the choice of public weights to this package."""


class Way(Enum):
    """The way in which a run starts; see the top of this module."""

    RESUME = "resume"
    CONTINUE_INSIDE = "continue inside"
    CONTINUE = "continue"
    WEIGHTS = "from weights"
    SCRATCH = "from scratch"

    @property
    def continues_mindcv(self) -> bool:
        """True if the run continues from a MindSpore checkpoint."""
        return self in (Way.CONTINUE_INSIDE, Way.CONTINUE)


@dataclass
class Start:
    """Everything that a run starts with.

    Attributes:
        recipe: The recipe, completed from the initial weights.
        run: The run folder.
        place: This rank.
        way: The way in which the run starts.
        weights: The opened file that `init` names; None if the run resumes or starts from scratch.
            Only `release` changes it.
        began: The time at which the command began, by `time.monotonic`.
    """

    recipe: Recipe
    run: Run
    place: Place
    way: Way
    weights: Weights | None = None
    began: float = field(default_factory=time.monotonic)

    def release(self) -> None:
        """Free the tensors of the initial weights that the report does not need.

        A checkpoint's moments and average would otherwise stay in memory for the whole training.
        The report needs only the network of a pre-training run, with which it reconstructs images.
        """
        if self.weights is not None:
            is_shown = self.weights.description.kind == "fcmae"
            self.weights = self.weights.without_container(keeps_tensors=is_shown)

    def load_into(
        self, model: nn.Module, classes: Sequence[str] = (), named: int = 0
    ) -> dict[str, Any]:
        """Load the initial weights into a network, and print what was done with each.

        A run that resumes gets its weights from its checkpoint instead.

        Args:
            model: The network, with random weights: a `ConvNeXtV2`, or one around an encoder, see
                `training.dense_init`.
            classes: The names of the rows of its head; empty without a head.
            named: The number of these rows that are classes of the data.

        Returns:
            The provenance of the model that is trained. The licence of the initial weights applies
            to it too.
        """
        if self.way is Way.RESUME:
            return self.run.provenance()
        if self.weights is None:
            return {}
        if not isinstance(model, ConvNeXtV2):
            return load_dense_init(model, self.weights, classes=classes)
        return load_init(
            model,
            self.weights,
            classes=classes,
            class_order=self.recipe.class_order,
            named=named,
            keeps_classes=self.way.continues_mindcv,
        )


def decide(recipe: Recipe, path: Path) -> tuple[Recipe, Way]:
    """Decide how a run starts.

    Args:
        recipe: The recipe as the user gave it.
        path: The run folder, which need not exist.

    Returns:
        The recipe, in which `resume: auto` has become True or False, and the way.

    Raises:
        RunError: With `resume: auto`, the folder can neither be resumed nor safely be started
            again; see `settle_auto`.
    """
    recipe = settle_auto(recipe, path)
    if recipe.resume:
        return recipe, Way.RESUME
    if recipe.init and (recipe.resume_init or recipe.resume_opt):
        inside = not recipe.overwrite and _is_inside(recipe.init, path)
        return recipe, Way.CONTINUE_INSIDE if inside else Way.CONTINUE
    return recipe, Way.WEIGHTS if recipe.init else Way.SCRATCH


def settle_auto(recipe: Recipe, path: Path) -> Recipe:
    """Decide what `resume: auto` means for a folder.

    Args:
        recipe: Any recipe. Only one with `resume: auto` is changed.
        path: The run folder, which need not exist.

    Returns:
        The recipe. `resume` is True if the folder has a checkpoint. If the folder is a run that was
        killed before its first checkpoint, starting again loses nothing, so `overwrite` is True.

    Raises:
        RunError: The folder has weights but no checkpoint to continue from, or starting again would
            delete files that no run wrote.
    """
    if recipe.resume != "auto":
        return recipe
    run = Run(path)
    if run.last_checkpoint() is not None:
        return recipe.model_copy(update={"resume": True})
    if (path / "last").exists():
        raise RunError(_only_weights("auto", path))
    is_run = (path / "recipe.yaml").is_file()
    # The user may have named any folder, such as the one with the recipe and the images.
    if is_run and (others := run.foreign_content(recipe.model)):
        raise RunError(
            f"resume = auto: {path} has no checkpoint to resume from, and starting again would "
            f"delete files that no run wrote: {', '.join(others)}. Use another folder for out, "
            "or --overwrite to delete them."
        )
    return recipe.model_copy(update={"resume": False, "overwrite": is_run})


def _only_weights(resume: str, path: Path) -> str:
    """Return the message about a run whose checkpoints were deleted."""
    return (
        f"resume = {resume}: {path} has weights in last/, but no checkpoint to resume from. Start "
        f"a run from them with --init {typed(path)} and another folder for out, or delete them "
        "with --overwrite."
    )


def prepare(recipe: Recipe, path: Path, way: Way) -> tuple[Recipe, Weights | None, list[str]]:
    """Open the initial weights, and take from them what the user did not set in the recipe.

    Args:
        recipe: The recipe that `decide` returned.
        path: The run folder.
        way: The way in which the run starts.

    Returns:
        The recipe, the opened weights (None if the way has none), and lines for the user.
    """
    weights = None
    if way not in (Way.RESUME, Way.SCRATCH):
        weights = open_weights(_find_init(recipe))
    if way in (Way.RESUME, Way.CONTINUE_INSIDE):
        return infer_from_run(recipe, path), weights, []
    if weights is None:
        return recipe, None, []
    recipe, notes = infer_from_weights(recipe, weights)
    return recipe, weights, notes


def _find_init(recipe: Recipe) -> Path:
    """Find the initial weights. For the word "pretrained", this package chooses them."""
    if recipe.init != PRETRAINED or Path(PRETRAINED).exists():
        return find_weights(recipe.init)
    chosen = proposed_start(recipe.model)
    say(
        f"init = pretrained: {chosen.name} ({chosen.parameters_m:g} M parameters, "
        f"{chosen.licence}, {chosen.top1:g} % on ImageNet-1K at {chosen.image_size} px)."
    )
    return find_weights(chosen.repository)


def make_folder(recipe: Recipe, path: Path, way: Way) -> Run:
    """Create the folder of a new run, or find the folder of a run that is continued.

    Args:
        recipe: The recipe. With `overwrite`, a run that is already there is deleted.
        path: The run folder.
        way: The way in which the run starts.

    Raises:
        RunError: There is nothing to resume, or the folder exists and `overwrite` is off. With
            `overwrite`: the folder is not a run folder, or holds the initial weights or the
            teacher.
    """
    run = Run(path)
    if way is Way.RESUME:
        if run.last_checkpoint() is None:
            if (path / "last").exists():
                raise RunError(_only_weights("True", path))
            raise RunError(
                f"resume = True: {path} has no checkpoint. Leave resume out to start a run there, "
                "or use resume: auto, which does either."
            )
        return run
    if way is Way.CONTINUE_INSIDE:
        # The checkpoint may still not fit the run, so nothing is deleted yet.
        return run
    if path.exists() and not (path.is_dir() and run.has_only_a_start()):
        needed = {"weights to start from": recipe.init, "teacher": recipe.teacher}
        for what, source in needed.items():
            if recipe.overwrite and _would_delete(path, source):
                raise RunError(
                    f"overwrite = True: would delete the {what}, {source}. Choose another folder "
                    "for out."
                )
        if not recipe.overwrite:
            raise RunError(
                f"out = {path}: exists already. Use --resume to continue it, --overwrite to start "
                "anew, or another folder."
            )
        if not (path / "recipe.yaml").is_file():
            raise RunError(
                f"out = {path}: is not a run folder (no recipe.yaml in it), so it is not "
                "overwritten. Choose another folder."
            )
        run.clear()
    path.mkdir(parents=True, exist_ok=True)
    run.save_recipe(recipe)
    return run


def _would_delete(path: Path, source: str) -> bool:
    """Return whether deleting a folder deletes weights: they lie in it, or it is their run."""
    return bool(source) and (path.resolve() == Path(source).resolve() or _is_inside(source, path))


def _is_inside(source: str, path: Path) -> bool:
    """Return whether weights lie in this folder."""
    return bool(source) and path.resolve() in Path(source).resolve().parents
