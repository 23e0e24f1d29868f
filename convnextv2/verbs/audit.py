"""Audit image data before training."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from convnextv2.auditing.copies import copy_findings, find_copies, left_out
from convnextv2.auditing.correct import correct
from convnextv2.auditing.findings import KINDS, Finding, counts_of
from convnextv2.auditing.images import Images
from convnextv2.auditing.judging import find_wrong_labels
from convnextv2.auditing.page import AuditReport, write_report
from convnextv2.auditing.pictures import Pictures
from convnextv2.auditing.quality import odd_images
from convnextv2.auditing.reading import find_images
from convnextv2.auditing.scan import Look, look_at
from convnextv2.auditing.summary import summarise
from convnextv2.console import print_json, say
from convnextv2.data.source import Source
from convnextv2.errors import RecipeError
from convnextv2.files import write_json
from convnextv2.inference.embedder import open_embedder
from convnextv2.kernels import choice
from convnextv2.lock import locked
from convnextv2.places import check_folder_place, check_unread
from convnextv2.recipe.options import takes
from convnextv2.text import counted
from convnextv2.verbs.options.data import AuditOptions


@takes(AuditOptions)
def audit(options: AuditOptions) -> AuditReport:
    """Audit image data: bad files, copies, leaks between splits, odd images, wrong labels.

    Data of every task are read as `train` reads them. They are never changed: the folder `out` gets
    audit.json and audit.csv with every finding, contact sheets, a page (audit.html), and corrected
    data that `train` takes.

    Returns:
        What was found.

    Raises:
        DataError: There are no images, or their annotations cannot be used at all.
        RecipeError: An option has a wrong value, or `out` cannot be written.
        RunError: Another process is writing `out`.
    """
    began = time.monotonic()
    given, notes = options.recipe()
    recipe = given.model_copy(update={"data_dir": str(options.data)})
    out = Path(options.out)
    _check_out(out, Path(options.data))
    embedder = None
    if options.init:
        choice.choose(recipe.kernels)
        embedder = open_embedder(options.init, device=recipe.device, precision=recipe.precision)
        notes += embedder.notes
    images = find_images(recipe, options.task)
    for line in (*notes, *images.notes, *images.defects):
        say(line)
    source = Source(images.paths, max_pixels=recipe.max_image_pixels)
    channels = options.in_channels or source.usual_channels()
    looks = look_at(
        images.paths,
        channels=channels,
        value_range=recipe.value_range,
        max_pixels=recipe.max_image_pixels,
    )
    copies = find_copies(looks)
    wrong_labels, label_note = find_wrong_labels(
        images,
        looks,
        embedder,
        batch_size=recipe.images_per_batch(),
        max_pixels=recipe.max_image_pixels,
    )
    findings = _sorted(
        [
            *_unreadable(images, looks),
            *copy_findings(images, looks, copies),
            *odd_images(images, looks),
            *wrong_labels,
        ]
    )
    with locked(out) as note:
        if note:
            say(note)
        _claim(out)
        corrected = correct(images, findings, left_out(images, copies), out, options.wrong_labels)
        report = AuditReport(
            images,
            summarise(images, looks),
            findings,
            corrected,
            label_note,
            time.monotonic() - began,
        )
        page = write_report(
            report, out, Pictures(channels, recipe.value_range, recipe.max_image_pixels)
        )
    for line in _lines(report):
        say(line)
    say(f"Page: {page}")
    print_json(_answer(report, out))
    return report


def _check_out(out: Path, data: Path) -> None:
    """Check that `out` overwrites nothing but an audit, and that later audits do not read it."""
    check_unread(out, [data])
    check_folder_place(out)
    if out.is_dir() and any(out.iterdir()) and not (out / "audit.json").is_file():
        raise RecipeError(
            f"out = {out}: is not empty, and holds no earlier audit. Choose another folder."
        )


def _claim(out: Path) -> None:
    """Mark a new folder as the output of an audit, so that an interrupted audit can be repeated."""
    if not (out / "audit.json").exists():
        write_json(out / "audit.json", {"out": str(out), "finished": False})


def _unreadable(images: Images, looks: Sequence[Look]) -> list[Finding]:
    return [
        Finding("unreadable", images.paths[i], images.splits[i], images.label_of(i), look.error)
        for i, look in enumerate(looks)
        if look.error
    ]


def _sorted(findings: Sequence[Finding]) -> list[Finding]:
    """Sort findings by kind, and those of the same kind by score, the highest first."""
    order = {kind: place for place, kind in enumerate(KINDS)}
    return sorted(findings, key=lambda finding: (order[finding.kind], -(finding.score or 0)))


def _lines(report: AuditReport) -> list[str]:
    """Describe an audit in a few lines."""
    summary, images = report.summary, report.images
    splits = ", ".join(f"{split or 'no split'} {n:,}" for split, n in summary.splits.items())
    what = f" ({splits})" if any(summary.splits) else ""
    classes = len(images.class_names)
    number = counted(len(images), "image(s)")
    lines = [f"{number}{what}, {counted(classes, 'class(es)')}, {images.task}"]
    lines += [report.label_note] if images.targets is not None else []
    counts = counts_of(report.findings)
    lines += [f"{KINDS[kind][0]:32} {count:6,}" for kind, count in counts.items()]
    lines += ["Nothing was found."] * (not counts and not images.defects)
    few = ", ".join(f"{n:,} {why}" for why, n in report.corrected.dropped.items()) or "none"
    if report.corrected.path is None:
        lines.append(f"There are no corrected data, since no image would be left: {few}.")
    else:
        kept = counted(report.corrected.kept, "image(s)")
        lines.append(f"Corrected data: {report.corrected.path}, {kept}; left out: {few}.")
    return lines


def _answer(report: AuditReport, out: Path) -> dict[str, object]:
    record = report.as_record()
    record.pop("findings")
    return {"out": str(out), **record}
