"""The start and end that `train` and `pretrain` share: recipe, ranks, run folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from convnextv2.distributed import Place, say, start, stop
from convnextv2.model.kernels import native
from convnextv2.recipe.knobs import Recipe
from convnextv2.recipe.read import read_recipe
from convnextv2.run import Run, create_run, decide_resume, open_run
from convnextv2.training.assembly import infer_from_init

# Knobs that a verb does not look at.
_IDLE = {
    "train": ("mask_ratio", "tile", "norm_target", "decoder_dim", "decoder_depth"),
    "pretrain": (
        *("val_while_train", "val_every_epochs", "val_split", "val_fraction", "erase_prob", "mixup", "cutmix", "mix_prob"),
        *("mix_switch_prob", "num_classes", "head_init_scale", "freeze", "layer_decay", "layer_decay_form"),
        *("loss", "label_smoothing"),
    ),
}


@contextmanager
def new_run(verb: str, config: str | Path | None, knobs: Mapping[str, Any]) -> Iterator[tuple[Recipe, Run, Place]]:
    """Read the recipe (of the run itself, where it is resumed without a config), join the other ranks, make the run folder; leave
    the ranks at the end."""
    recipe, notes = read_recipe(knobs, config=config)
    recipe = decide_resume(recipe, _folder(verb, recipe))
    if recipe.resume and config is None and recipe.out:
        own = open_run(Path(recipe.out)).path / "recipe.yaml"
        recipe, notes = read_recipe({**knobs, "resume": True}, config=own)
    recipe, inferred = infer_from_init(recipe)
    notes += inferred
    place, more = start(recipe.device, recipe.distribute)
    try:
        for note in notes + more + _idle_knobs(verb, recipe) + _kernels(recipe, place):
            say(note)
        path = _folder(verb, recipe)
        if place.is_main:
            create_run(recipe, path)
        place.barrier()
        say(f"Run folder: {path}")
        yield recipe, Run(path), place
    except BaseException:
        stop(failed=True)
        raise
    stop()


def _folder(verb: str, recipe: Recipe) -> Path:
    return Path(recipe.out or f"runs/{verb}-{recipe.model}")


def _kernels(recipe: Recipe, place: Place) -> list[str]:
    """Choose the kernels of this process; a line where they are not those that were to be expected."""
    if place.device.type != "cpu":
        return ["No effect here: kernels (for the CPU only)."] if recipe.kernels != "auto" else []
    chosen = native.choose(recipe.kernels)
    return [] if chosen == recipe.kernels or chosen == "native" else [f"Kernels: {chosen}; about half as fast on a CPU."]


def _idle_knobs(verb: str, recipe: Recipe) -> list[str]:
    """A line that names the knobs which were set, and which this verb does not look at."""
    defaults = Recipe()
    idle = [name for name in _IDLE[verb] if getattr(recipe, name) != getattr(defaults, name)]
    return [f"No effect in {verb}: {', '.join(idle)}."] if idle else []
