"""Durations as people write them, such as 1h30m."""

from __future__ import annotations

_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
"""Seconds of each unit, from the largest to the smallest."""


_LONGEST_S = 10 * 366 * 86400


def read_duration(text: str) -> float:
    """Read a duration such as 30m, 1h30m, 90s or 2d.

    Args:
        text: The duration. A number without a unit is in minutes.

    Returns:
        Seconds.

    Raises:
        ValueError: It is not a duration, is 0, or is longer than ten years.
    """
    rest, seconds = text.strip().lower().replace(" ", ""), 0.0
    if rest.replace(".", "", 1).isdigit():
        rest += "m"
    for unit, factor in _UNITS.items():
        number, found, after = rest.partition(unit)
        if found:
            seconds, rest = seconds + factor * float(number), after
    if rest or not 0 < seconds < _LONGEST_S:
        raise ValueError
    return seconds


def duration(seconds: float) -> str:
    """Write seconds as `read_duration` reads them, in the two largest units."""
    rest, parts = round(seconds), []
    for unit, factor in _UNITS.items():
        number, rest = divmod(rest, factor)
        if number:
            parts.append(f"{number}{unit}")
    return "".join(parts[:2]) or "0s"
