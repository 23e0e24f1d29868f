"""FCMAE pre-training, from a recipe to a finished run. Labels are not needed, and not read."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from convnextv2.data.left_out import Quarantine
from convnextv2.data.loader import Batch, build_training_loader
from convnextv2.data.sources import find_sources
from convnextv2.data.transforms import build_batch_transform, describe_preprocessing
from convnextv2.distributed import Place, choose_precision, say
from convnextv2.model.fcmae import FCMAE, draw_masks
from convnextv2.recipe.knobs import Recipe
from convnextv2.run import Run
from convnextv2.training.assembly import build_network, load_init, say_notes, train_model
from convnextv2.training.batch import resolve_batch
from convnextv2.training.memory import memory_notes
from convnextv2.weights.files import Description


def train_masked(recipe: Recipe, run: Run, place: Place) -> None:
    """Pre-train an encoder and its decoder on images without labels."""
    source, _ = find_sources(recipe, labelled=False)
    say_notes(source)
    say(f"{len(source):,} images for pre-training.")
    torch.manual_seed(recipe.seed)
    encoder = build_network(recipe, None)
    provenance = load_init(recipe, encoder, run)
    model = FCMAE(
        encoder,
        tile=recipe.tile,
        norm_target=recipe.norm_target,
        decoder_dim=recipe.decoder_dim,
        decoder_depth=recipe.decoder_depth,
    )
    preprocessing = describe_preprocessing(recipe)
    height, width = preprocessing["image_size"]
    grid = model.grid(height, width)

    def trial(trained: nn.Module, n: int) -> Tensor:
        device = next(trained.parameters()).device
        indices = draw_masks(n, grid, recipe.mask_ratio, torch.Generator())
        visible, masked = (of_tiles.to(device) for of_tiles in indices)
        images = torch.zeros(n, recipe.in_channels, height, width, device=device)
        loss: Tensor = trained(images, visible, masked)
        return loss

    dtype = choose_precision(recipe.precision, place.device)
    asked = recipe.batch_size
    recipe = resolve_batch(recipe, model, trial, precision=dtype, place=place)
    if asked != "auto":
        for line in memory_notes(
            model,
            trial,
            batch_size=recipe.images_per_batch(),
            averaged=recipe.ema,
            precision=dtype,
            place=place,
        ):
            say(line)
    to_images = build_batch_transform(recipe, num_classes=0)

    def loss_fn(trained: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        images = to_images.normalise(batch.pixels.to(place.device))
        visible, masked = draw_masks(len(images), grid, recipe.mask_ratio, generator)
        loss: Tensor = trained(images, visible.to(place.device), masked.to(place.device))
        return loss

    description = Description(
        kind="fcmae",
        model=recipe.model,
        arguments=encoder.arguments,
        fcmae=model.arguments,
        preprocessing=preprocessing,
        provenance=provenance,
    )
    quarantine = Quarantine(run.path) if recipe.bad_images == "quarantine" else None
    loader = build_training_loader(recipe, source, place, quarantine)
    train_model(recipe, run, place, model, description, loader, loss_fn)
