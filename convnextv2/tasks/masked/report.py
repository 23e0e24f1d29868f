"""The page of a pre-training run."""

from __future__ import annotations

from convnextv2.data.left_out import Quarantine
from convnextv2.evaluation.health_section import health_sections
from convnextv2.evaluation.page import build_page, write_page
from convnextv2.run import Run
from convnextv2.tasks.masked.gallery import run_gallery
from convnextv2.tasks.masked.masking import masked_tiles
from convnextv2.tasks.page import title
from convnextv2.text import typed
from convnextv2.weights.opened import Weights


def report_pretraining(run: Run, weights: Weights) -> None:
    """Write the report of a finished pre-training run.

    Args:
        run: The run.
        weights: The weights of the run, for reconstructions of some of its images.
    """
    recipe, records = run.recipe, run.metrics()
    epochs = str(recipe.epochs)
    if recipe.time:  # only the log knows how many fitted
        epochs = str(records[-1]["epoch"]) if records else "–"
    quarantine = Quarantine(run.path) if recipe.bad_images == "quarantine" else None
    name = typed(run.path)
    fine_tune = f"convnextv2 train --config finetune --data_dir DATA --init {name} --out RUN"
    height, width = weights.preprocessing.image_size
    tile = weights.description.fcmae["tile"]
    page = build_page(
        f"FCMAE pre-training: {title(recipe)}",
        summary={
            "model": recipe.model.removeprefix("convnextv2_"),
            "masked": masked_tiles((height // tile, width // tile), recipe.mask_ratio),
            "epoch" if epochs == "1" else "epochs": epochs,
            **({"teacher": recipe.teacher} if recipe.teacher else {}),
        },
        recipe=recipe.model_dump(),
        pretrain_metrics=records,
        gallery=run_gallery(run, weights, quarantine),
        sections=health_sections(records),
        channels=recipe.in_channels,
        next_steps=[
            (fine_tune, "Fine-tune the encoder on labelled images."),
            (
                f"convnextv2 reconstruct {name} IMAGE_OR_FOLDER",
                "Reconstruct other images.",
            ),
        ],
    )
    write_page(run.report, page)
