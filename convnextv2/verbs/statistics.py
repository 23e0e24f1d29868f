"""Measure the channels of images, for a recipe."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from convnextv2.console import print_json
from convnextv2.data.sources import find_sources
from convnextv2.data.statistics import HIGH, LOW, Statistics, measure
from convnextv2.data.workers import resolve_workers
from convnextv2.recipe.options import takes
from convnextv2.recipe.values import show
from convnextv2.text import counted
from convnextv2.verbs.options.data import StatisticsOptions

_SHOWN = 5
"""The number of left-out files that are named."""


@takes(StatisticsOptions)
def statistics(options: StatisticsOptions) -> dict[str, Any]:
    """Measure the training images of a folder or table, and print and return what a recipe needs.

    Labels are not needed. Pixels are measured as the files are decoded, before they are resized.

    Returns:
        images, in_channels, mean, std and value_range (None for 8-bit files). Further entries hold
        sizes, bands, types, the minimum, maximum and percentiles of the values, the numbers of NaN
        and no-data values, and the files that were left out.

    Raises:
        DataError: There are no images, or none of them can be measured.
        RecipeError: An option has a wrong value.
        MissingPackageError: A package for these files is missing.
    """
    given, notes = options.recipe()
    named = {"data_dir": str(options.data), "num_samples": options.max_images}
    recipe = given.model_copy(update=named)
    source, _ = find_sources(recipe, labelled=False)
    notes += source.notes
    channels = options.in_channels
    if channels is None:
        channels = source.usual_channels()
        if channels != 3:
            notes.append(f"in_channels {channels}, as {source.names[0]} has it.")
    for note in notes:
        print(note, file=sys.stderr)  # other programs may read the output
    workers = resolve_workers(recipe.workers)[0] if len(source) > 256 else 0
    found = measure(source, channels, value_range=recipe.value_range, workers=workers)
    described = _described(found, len(source))
    if not options.json:
        print(_page(found, len(source), str(options.data)))
    print_json(described)
    return described


def _described(found: Statistics, given: int) -> dict[str, Any]:
    tally = found.tally
    heights, widths = np.array(tally.sizes).T
    described: dict[str, Any] = {
        "images": tally.images,
        "images_given": given,
        "in_channels": tally.channels,
        "mean": list(found.mean),
        "std": list(found.std),
        "value_range": list(found.value_range) if found.value_range else None,
        "types": dict(tally.kinds),
        "bands": {str(bands): count for bands, count in sorted(tally.bands.items())},
        "height": _three(heights),
        "width": _three(widths),
    }
    if tally.deep:
        described |= {
            "minimum": [_finite(value) for value in tally.low.tolist()],
            "percentile_0.1": [_finite(value) for value in found.low],
            "percentile_99.9": [_finite(value) for value in found.high],
            "maximum": [_finite(value) for value in tally.high.tolist()],
            "percentiles_exact": found.is_exact,
            "nan_or_no_data": tally.empty.tolist(),
            "infinite": tally.infinite.tolist(),
        }
    return described | {"other_bands": tally.wrong_bands, "unreadable": tally.unreadable}


def _three(sizes: np.ndarray[Any, Any]) -> dict[str, float]:
    return {
        "min": int(sizes.min()),
        "median": float(np.median(sizes)),
        "max": int(sizes.max()),
    }


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _page(found: Statistics, given: int, data: str) -> str:
    tally = found.tally
    heights, widths = np.array(tally.sizes).T
    kinds = ", ".join(f"{kind} ({count:,})" for kind, count in tally.kinds.most_common())
    bands = ", ".join(f"{count:,} of {number}" for number, count in sorted(tally.bands.items()))
    lines = [
        f"{tally.images:,} of {given:,} training images of {data} were measured.",
        f"Types    {kinds}",
        f"Bands    {bands}",
        f"Width    {_span(widths)}",
        f"Height   {_span(heights)}",
        "",
        *_table(found),
    ]
    if tally.deep:
        how = "exact" if found.is_exact else "exact to 0.4 % of the value"
        lines += [
            f"Percentiles {LOW:.1%} and {HIGH:.1%} are {how}. NaN and no data count as black."
        ]
    lines += _left_out("have another number of channels", tally.wrong_bands)
    lines += _left_out("cannot be read", tally.unreadable)
    lines += ["", f"# for a recipe; measured on {counted(tally.images, 'image(s)')}"]
    lines += [f"in_channels: {tally.channels}"]
    if found.value_range:
        lines.append(f"value_range: {show(found.value_range)}")
    lines.append(f"mean: [{', '.join(f'{value:.4g}' for value in found.mean)}]")
    lines.append(f"std: [{', '.join(f'{value or 1:.4g}' for value in found.std)}]")
    if constant := [str(c + 1) for c, value in enumerate(found.std) if value == 0]:
        lines.append(f"# std is set to 1 for constant channels: {', '.join(constant)}")
    return "\n".join(lines)


def _span(sizes: np.ndarray[Any, Any]) -> str:
    return f"{sizes.min()} to {sizes.max()} px, median {np.median(sizes):g}"


def _table(found: Statistics) -> list[str]:
    """Lay out the statistics as lines of text, one for each channel."""
    tally = found.tally
    heads, columns = ["channel"], [[str(c + 1) for c in range(tally.channels)]]
    if tally.deep:
        for head, values in (
            ("minimum", tally.low.tolist()),
            (f"{LOW:.1%}", found.low),
            (f"{HIGH:.1%}", found.high),
            ("maximum", tally.high.tolist()),
        ):
            heads.append(head)
            columns.append([f"{value:.6g}" for value in values])
        heads.append("NaN, no data")
        columns.append([f"{count:,}" for count in tally.empty.tolist()])
    for name in ("mean", "std"):
        heads.append(name)
        columns.append([f"{value:.4f}" for value in getattr(found, name)])
    widths = [
        max(len(head), *map(len, column)) for head, column in zip(heads, columns, strict=True)
    ]
    rows = [heads, *zip(*columns, strict=True)]
    return [
        "  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]


def _left_out(what: str, messages: Sequence[str]) -> list[str]:
    if not messages:
        return []
    more = [f"  and {len(messages) - _SHOWN:,} more"] if len(messages) > _SHOWN else []
    shown = [f"  {message}" for message in messages[:_SHOWN]]
    return [f"Left out, because they {what}: {len(messages):,}", *shown, *more]
