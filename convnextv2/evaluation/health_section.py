"""Build the section of a report on the feature health of a pre-training run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from convnextv2.evaluation.charts import Format, Point, Series, line_chart, percent
from convnextv2.evaluation.page import Section

Figure = Callable[[Mapping[str, Any]], float]
"""Computes a number from a record; NaN if it has none."""

_DIVERSITY = (0, 0.5)
"""The range of diversity."""
_LEAD = (
    "Measured on {} fixed images. A layer is a block, counted from the stem. Diversity is the mean "
    "cosine distance of two channels: 0 if all are alike, 0.5 if they are unrelated. Dead channels "
    "are hardly ever active; saturated ones are almost constant. The effective rank is the number "
    "of directions that a block's outputs fill, as a share of its channels."
)


def health_sections(records: Sequence[Mapping[str, Any]]) -> list[Section]:
    """Build the section of a run's feature health.

    Args:
        records: The records of the run.

    Returns:
        One section, or none if the run has no records of its health.
    """
    found = [record for record in records if record["kind"] == "health"]
    if not found:
        return []
    charts = [
        _by_layer(found, "diversity", "Feature diversity by layer", _number, _DIVERSITY),
        _over_epochs(
            found,
            "Feature diversity",
            {"mean": _mean_of("diversity"), "lowest": _min_of("diversity")},
            _number,
            _DIVERSITY,
        ),
        _by_layer(found, "effective_rank", "Effective rank by layer", percent, (0,)),
        _over_epochs(
            found,
            "Dead and saturated channels",
            {"saturated": _mean_of("saturated"), "dead": _mean_of("dead")},
            percent,
            (0,),
        ),
        _grn(found[-1]),
        _by_layer(found, "gradient_norm", "Norm of the gradient by layer", _number, (0,)),
    ]
    figures = Markup("").join(
        Markup(
            '<figure><h3>{} <span class="readout" aria-live="off"></span></h3>{}</figure>\n'
        ).format(title, chart)
        for title, chart in filter(None, charts)
    )
    lead = Markup('<p class="lead">{}</p>\n').format(_LEAD.format(found[-1]["images"]))
    content = lead + _warnings(found) + Markup('<div class="charts">\n{}</div>').format(figures)
    return [Section("health", "Health of the features", content)]


def _warnings(records: Sequence[Mapping[str, Any]]) -> Markup:
    """List the warnings, each with its epoch."""
    items = Markup("").join(
        Markup("<li>Epoch {}: {}</li>").format(record["epoch"], line)
        for record in records
        for line in record.get("warnings", ())
    )
    return Markup("<ul>{}</ul>\n").format(items) if items else Markup("")


def _by_layer(
    records: Sequence[Mapping[str, Any]],
    figure: str,
    title: str,
    y_format: Format,
    y_span: Sequence[float],
) -> tuple[str, Markup] | None:
    """Draw a figure over the layers, at the first and the last examination."""
    chosen = records[:1] if len(records) == 1 else [records[0], records[-1]]
    tones = ["strong"] if len(chosen) == 1 else ["soft", "strong"]
    series = [
        Series(f"epoch {record['epoch']}", _points(record[figure]), tone)
        for record, tone in zip(chosen, tones, strict=True)
    ]
    series = [each for each in series if each.points]
    if not series:
        return None
    chart = line_chart(series, title=title, y_format=y_format, x_name="layer", y_span=y_span)
    return title, chart


def _grn(record: Mapping[str, Any]) -> tuple[str, Markup] | None:
    """Draw GRN's parameters over the layers at the last examination."""
    series = [
        Series("|beta|", _points(record["grn_beta"]), "soft"),
        Series("|gamma|", _points(record["grn_gamma"])),
    ]
    if not series[0].points:
        return None
    title = f"GRN by layer, epoch {record['epoch']} (means)"
    chart = line_chart(series, title=title, y_format=_number, x_name="layer", y_span=(0,))
    return title, chart


def _over_epochs(
    records: Sequence[Mapping[str, Any]],
    title: str,
    lines: Mapping[str, Figure],
    y_format: Format,
    y_span: Sequence[float],
) -> tuple[str, Markup] | None:
    """Draw figures over the epochs, each a function of a record. The last line is emphasised."""
    series = []
    for name, figure in lines.items():
        points = [(float(record["epoch"]), figure(record)) for record in records]
        tone = "strong" if name == list(lines)[-1] else "soft"
        series.append(Series(name, [point for point in points if math.isfinite(point[1])], tone))
    series = [each for each in series if each.points]
    if not series:
        return None
    return title, line_chart(series, title=title, y_format=y_format, y_span=y_span)


def _mean_of(figure: str) -> Figure:
    """Return a function that computes the mean of a figure over the layers of a record."""

    def mean(record: Mapping[str, Any]) -> float:
        known = [value for value in record[figure] if value is not None]
        return sum(known) / len(known) if known else math.nan

    return mean


def _min_of(figure: str) -> Figure:
    """Return a function that computes the minimum of a figure over the layers of a record."""

    def lowest(record: Mapping[str, Any]) -> float:
        return min((value for value in record[figure] if value is not None), default=math.nan)

    return lowest


def _points(values: Sequence[float | None]) -> list[Point]:
    """Return (layer, value) for the layers that have one. The first layer is 1."""
    return [(float(i), value) for i, value in enumerate(values, 1) if value is not None]


def _number(value: float) -> str:
    return f"{value:.3g}"
