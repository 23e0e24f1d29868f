"""Parts that the options of several verbs share: knobs, help texts and the option `json`."""

from __future__ import annotations

from typing import Any

from convnextv2.recipe.options import option

INFERENCE = (
    *("device", "precision", "kernels", "batch_size", "workers", "bad_images"),
    "max_image_pixels",
)
"""Knobs of the verbs that apply a trained model to images."""

LABELLED_IMAGES = (
    *("data_dir", "dataset", "dataset_download", "train_split", "val_split", "val_fraction"),
    *("class_order", "columns", "images_dir", "image_suffix", "labels", "label_separator", "seed"),
    "shard_cache_gb",
)
"""Knobs that select the labelled images to measure."""

PRIOR = (
    "Class frequencies that the probabilities assume: those that training led to (trained), those "
    "of the training images (natural), or equal ones, which find more of the rare classes "
    "(balanced). A number tau: subtract tau times the logarithm of the trained frequencies from "
    "the logits (1 is balanced)."
)

COVERAGE = (
    "Share of images for which the possible classes must include the right one, for example 0.9."
)

RECIPE = "Recipe: a YAML file, or a name that `convnextv2 recipes` lists."

RUN = "Run folder, checkpoint, weights file or artifact."


def json_option() -> Any:
    """Declare the option that makes a verb answer in JSON; see `verbs.answers`."""
    return option(False, "Print the answer as JSON, for use by other programs.")
