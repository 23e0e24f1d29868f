"""Builds the transforms of a recipe's images.

The transforms themselves take plain arguments. Only this module maps knobs to these arguments.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from convnextv2.data.auto_augment import build_policy
from convnextv2.data.mixup import Erasing, Mixing
from convnextv2.data.transforms import BatchTransform, EvalTransform, TrainTransform
from convnextv2.errors import RecipeError
from convnextv2.preprocessing import Preprocessing
from convnextv2.recipe.channels import wrong_count
from convnextv2.recipe.knobs import Recipe


def per_channel(values: Sequence[float], channels: int, name: str = "mean") -> tuple[float, ...]:
    """Return one value for each channel.

    Args:
        values: One value for each channel, or one for all channels. If there is one channel, any
            number of values, which are averaged.
        channels: The number of channels.
        name: The name of the knob, for error messages.

    Raises:
        RecipeError: The number of values does not match the number of channels.
    """
    if len(values) == channels:
        return tuple(values)
    if len(values) == 1:
        return tuple(values) * channels
    if channels == 1:
        return (math.fsum(values) / len(values),)
    raise RecipeError(wrong_count(name, values, channels))


def build_preprocessing(recipe: Recipe) -> Preprocessing:
    """Build the recipe's preprocessing of evaluation images."""
    full_scale = 255 if max(recipe.mean + recipe.std) > 1 else 1
    mean = per_channel(recipe.mean, recipe.in_channels)
    std = per_channel(recipe.std, recipe.in_channels, "std")
    return Preprocessing(
        recipe.height_and_width(),
        channels=recipe.in_channels,
        eval_preset=recipe.eval_preset,
        interpolation=recipe.interpolation,
        crop_pct=recipe.crop_pct,
        mean=tuple(value / full_scale for value in mean),
        std=tuple(value / full_scale for value in std),
        antialias=recipe.antialias,
        value_range=recipe.value_range,
    )


def build_train_transform(recipe: Recipe) -> TrainTransform:
    """Build the recipe's augmentation of single images, for training and pre-training.

    Raises:
        RecipeError: The policy is malformed.
    """
    strengths = (
        recipe.color_jitter
        if isinstance(recipe.color_jitter, tuple)
        else (recipe.color_jitter,) * 3
    )
    brightness, contrast, saturation, hue = (*strengths, 0.0)[:4]  # hue may be left out
    preprocessing = build_preprocessing(recipe)
    fill = tuple(round(255 * value) for value in preprocessing.mean)
    return TrainTransform(
        recipe.height_and_width(),
        scale=recipe.scale,
        ratio=recipe.ratio,
        hflip=recipe.hflip,
        vflip=recipe.vflip,
        jitter=(brightness, contrast, saturation, hue),
        augment=build_policy(recipe.auto_augment, fill=fill, interpolation=recipe.interpolation)
        if recipe.auto_augment
        else None,
        interpolation=recipe.interpolation,
        antialias=preprocessing.averages,
        splits=recipe.aug_splits,
        padding=recipe.crop_padding,
    )


def build_eval_transform(recipe: Recipe) -> EvalTransform:
    """Build the transform that prepares the recipe's evaluation images."""
    return EvalTransform(build_preprocessing(recipe))


def build_batch_transform(recipe: Recipe, num_classes: int) -> BatchTransform:
    """Build the recipe's normalisation, erasing and mixing.

    Pre-training and evaluation need only the normalisation.
    """
    preprocessing = build_preprocessing(recipe)
    value = recipe.erase_value
    return BatchTransform(
        preprocessing.mean,
        preprocessing.std,
        num_classes=num_classes,
        erasing=Erasing(
            recipe.erase_prob,
            recipe.erase_scale,
            recipe.erase_ratio,
            per_channel(value, recipe.in_channels, "erase_value")
            if isinstance(value, tuple)
            else value,
            recipe.erase_attempts,
        ),
        mixing=Mixing(recipe.mixup, recipe.cutmix, recipe.mix_prob, recipe.mix_switch_prob),
        splits=recipe.aug_splits,
    )
