"""Check that the knobs of a recipe suit its channels: operations on colours need colour images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from convnextv2.recipe.knobs import Recipe

COLOUR_POLICIES = ("autoaug", "autoaugr", "3a")
"""Policies of `auto_augment` that are made of operations on colours.

Each of the others has one such operation among many, and works without it.
"""


def is_colour(channels: int) -> bool:
    """Return whether images with this many channels are grey or RGB, as photographs are."""
    return channels in (1, 3)


def channel_mistakes(recipe: Recipe) -> list[str]:
    """Find the knobs of a recipe that do not suit its `in_channels`.

    Args:
        recipe: The recipe. It need not be complete, because each knob is checked by itself.

    Returns:
        One line for each mistake. The line begins with the name of the knob.
    """
    channels = recipe.in_channels
    mistakes = []
    # Without images, as in a benchmark, there is nothing to normalise.
    if (recipe.data_dir or recipe.dataset) and not goes_with(recipe.mean, channels):
        mistakes.append(wrong_count("mean", recipe.mean, channels, recipe.data_dir))
    if isinstance(recipe.erase_value, tuple) and not goes_with(recipe.erase_value, channels):
        mistakes.append(
            f"erase_value = {recipe.erase_value}: expected one number, or one for each channel "
            f"(in_channels = {channels})."
        )
    if is_colour(channels):
        return mistakes
    if recipe.dataset not in ("", "imagenet"):
        mistakes.append(
            f"in_channels = {channels}: the images of dataset {recipe.dataset} have no such bands. "
            "Use 3 for RGB, or 1 for grey."
        )
    jitter = recipe.color_jitter
    strengths = jitter if isinstance(jitter, tuple) else (jitter,) * 3
    if any(strengths[2:]) and not recipe.auto_augment:
        brightness, contrast = strengths[:2]
        mistakes.append(
            f"color_jitter = {jitter}: saturation and hue are for RGB, and in_channels = "
            f"{channels}. Use [{brightness:g}, {contrast:g}, 0] for brightness and contrast."
        )
    policy = (recipe.auto_augment or "").strip().partition("-")[0]
    if policy in COLOUR_POLICIES:
        mistakes.append(
            f"auto_augment = {recipe.auto_augment}: {policy} changes colours, and in_channels = "
            f"{channels}. Use randaug, trivialaugwide or augmix, which act on each channel by "
            "itself."
        )
    return mistakes


def goes_with(values: Sequence[float], channels: int) -> bool:
    """Return whether the number of values fits the number of channels.

    It fits if there is one value for each channel or one for all. A grey image also accepts three
    values and uses their average.
    """
    return len(values) in (1, channels) or channels == 1


def wrong_count(name: str, values: Sequence[float], channels: int, data: str = "") -> str:
    """Describe a mean or std that does not have one number for each channel.

    Args:
        name: The knob, mean or std.
        values: Its numbers.
        channels: The number of channels.
        data: The path of the images, for the command that measures them.

    Returns:
        A line that says what is wrong and how to get the right numbers.
    """
    shown = ", ".join(f"{value:g}" for value in values)
    return (
        f"{name} = [{shown}]: expected one number for each channel (in_channels = {channels}). "
        "Measure mean and std with: convnextv2 statistics "
        f"{data or 'DATA'} --in_channels {channels}"
    )
