"""Turns copies into findings, and chooses those that a corrected data set leaves out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from convnextv2.auditing.duplicates import SURE_DETAIL, Copy, near_copies
from convnextv2.auditing.findings import Finding
from convnextv2.auditing.images import Images
from convnextv2.auditing.scan import Look


@dataclass(frozen=True)
class Copies:
    """Groups of images that show the same picture.

    Attributes:
        groups: The images with equal pixels, by the first of them. A group may have a single image.
        group_of: Image -> the first image of its group, for each image that can be read.
        near: Pairs of groups that show nearly the same picture, or possibly do.
    """

    groups: dict[int, list[int]]
    group_of: dict[int, int]
    near: list[Copy]

    def sure(self) -> list[Copy]:
        """Return the pairs that count as the same picture without being checked by a person."""
        return [copy for copy in self.near if copy.score >= SURE_DETAIL]


def find_copies(looks: Sequence[Look]) -> Copies:
    """Find equal pixels, and nearly equal pictures among those that differ."""
    groups: dict[bytes, list[int]] = defaultdict(list)
    for i, look in enumerate(looks):
        if not look.error:
            groups[look.pixel_hash].append(i)
    by_first = {group[0]: group for group in groups.values()}
    firsts = list(by_first)
    small = [look.small for i in firsts if (look := looks[i]).small is not None]
    near = near_copies(np.stack(small), firsts) if small else []
    group_of = {i: first for first, group in by_first.items() for i in group}
    return Copies(by_first, group_of, near)


def copy_findings(images: Images, looks: Sequence[Look], copies: Copies) -> list[Finding]:
    """Report copies as leaks, contradictions, or duplicates within a split.

    An image is compared with the first of its copies in each split.
    """
    found: list[Finding] = []
    for group in copies.groups.values():
        firsts = _first_in_each_split(images, group)
        for second in group:
            for first in firsts:
                if first < second:
                    equal = looks[first].file_hash == looks[second].file_hash
                    how = "the same file" if equal else "the same pixels in another file"
                    found += _pair_findings(images, first, second, how, 1.0, "duplicate")
    for copy in copies.near:
        how = "nearly the same picture" if copy.score >= SURE_DETAIL else "a similar picture"
        how += ", mirrored" if copy.mirrored else ""
        for one in _first_in_each_split(images, copies.groups[copy.first]):
            for other in _first_in_each_split(images, copies.groups[copy.second]):
                first, second = sorted((one, other))
                found += _pair_findings(images, first, second, how, copy.score, "near_duplicate")
    return found


def _first_in_each_split(images: Images, group: Sequence[int]) -> list[int]:
    firsts: dict[str, int] = {}
    for i in group:
        firsts.setdefault(images.splits[i], i)
    return list(firsts.values())


def _pair_findings(
    images: Images, first: int, second: int, how: str, score: float, within: str
) -> Iterator[Finding]:
    """Yield the finding about a pair; `within` is its kind if it is not a leak or contradiction."""
    kinds = ["leak"] * (images.splits[first] != images.splits[second])
    kinds += ["contradiction"] * contradict(images, first, second)
    for kind in kinds or [within]:
        yield Finding(
            kind,
            images.paths[second],
            images.splits[second],
            images.label_of(second),
            how,
            images.paths[first],
            images.splits[first],
            images.label_of(first),
            score=round(score, 4),
        )


def contradict(images: Images, first: int, second: int) -> bool:
    """Return whether two images have different labels."""
    if images.targets is None or images.task != "classification":
        return False
    one, other = images.targets[first], images.targets[second]
    return bool(np.any((one != other) & (one >= 0) & (other >= 0)))


def left_out(images: Images, copies: Copies) -> dict[int, str]:
    """Choose the copies that a corrected data set leaves out.

    If copies have different labels, all of them are left out. Otherwise one of them stays: the
    first in a split for validation or testing, so that figures are still measured on the same
    images, or else the first. A copy is left out only if an image that it resembles stays, so that
    a chain of similar images does not vanish as a whole. Pairs that are only possibly the same
    picture stay, for the user to decide.

    Args:
        images: The images.
        copies: Their copies.

    Returns:
        The index of each copy to leave out -> the reason.
    """
    near: dict[int, set[int]] = defaultdict(set)
    for copy in copies.sure():
        near[copy.first].add(copy.second)
        near[copy.second].add(copy.first)
    why = {i: "a copy has a different label" for i in _contradicting(images, copies)}
    stays: dict[int, int] = {}
    training = images.training_splits()
    for i in sorted(copies.group_of, key=lambda i: (images.splits[i] in training, i)):
        group = copies.group_of[i]
        kept = [stays[each] for each in (group, *sorted(near[group])) if each in stays]
        if i in why:
            continue
        if kept:
            why[i] = f"a copy of {images.paths[kept[0]]}"
        else:
            stays[group] = i
    return why


def _contradicting(images: Images, copies: Copies) -> set[int]:
    found: set[int] = set()
    pairs = [(first, i) for first, group in copies.groups.items() for i in group[1:]]
    pairs += [
        (one, other)
        for copy in copies.sure()
        for one in copies.groups[copy.first]
        for other in copies.groups[copy.second]
    ]
    for one, other in pairs:
        if contradict(images, one, other):
            found |= {one, other}
    return found
