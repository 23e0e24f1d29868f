"""The findings of an audit: one record for each fault or oddity of an image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

KINDS: dict[str, tuple[str, str]] = {
    "unreadable": (
        "Unreadable files",
        "Training would stop at these, or leave them out if bad_images is skip.",
    ),
    "leak": (
        "Leaks between splits",
        "The same or nearly the same picture is in two splits, so figures measured on one of them "
        "are too good. Check similar pictures before you treat them as copies.",
    ),
    "contradiction": (
        "Copies with different labels",
        "If they show the same picture, at most one of the labels is right.",
    ),
    "wrong_label": (
        "Probably wrong labels",
        "Classifiers that never saw these images confidently predict another class.",
    ),
    "duplicate": ("Duplicates", "The same picture is in one split more than once."),
    "near_duplicate": (
        "Near duplicates",
        "Nearly the same picture: saved again, resized, cropped a little, or mirrored. Similar "
        "pictures may be two photographs of the same thing, so they stay in the corrected data.",
    ),
    "dark": ("Dark images", "95 % of the pixels are darker than a fifth of full brightness."),
    "bright": ("Bright images", "95 % of the pixels are nearly white."),
    "flat": ("Images of one shade", "There is hardly any contrast: an empty or a blank image."),
    "blurred": ("Blurred images", "Sharp detail is missing, compared with the other images."),
    "odd_shape": ("Odd shapes", "Much longer or wider than the other images."),
    "odd_size": ("Odd sizes", "Much smaller or larger than the other images."),
    "odd_channels": ("Odd channels", "Grey among coloured images, or another number of bands."),
}
"""Kind -> its title and what it means, the most serious first."""


class Finding(NamedTuple):
    """Something odd about one image.

    Attributes:
        kind: A key of `KINDS`.
        path: The image.
        split: Its split; empty if the data have none.
        label: Its class; several are separated by |.
        detail: What is odd, in words.
        other: The image that it is a copy of.
        other_split: The split of that one.
        other_label: The class of that one.
        suggested: The class that an image with a probably wrong label seems to have.
        score: How certain the finding is. For copies, it is the correlation of their details; for
            labels, the probability that the label is wrong; otherwise, the measured value.
    """

    kind: str
    path: str
    split: str
    label: str
    detail: str
    other: str = ""
    other_split: str = ""
    other_label: str = ""
    suggested: str = ""
    score: float | None = None


def counts_of(findings: Iterable[Finding]) -> dict[str, int]:
    """Count the findings of each kind that occurs, in the order of `KINDS`."""
    counts = Counter(finding.kind for finding in findings)
    return {kind: counts[kind] for kind in KINDS if counts[kind]}


def as_record(finding: Finding) -> dict[str, Any]:
    """Return a finding as an entry of audit.json."""
    return finding._asdict()
