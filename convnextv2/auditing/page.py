"""Writes the results of an audit: audit.json, audit.csv, contact sheets and a page."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from convnextv2.auditing.correct import Corrected
from convnextv2.auditing.findings import KINDS, Finding, as_record, counts_of
from convnextv2.auditing.images import Images
from convnextv2.auditing.pictures import Pictures, contact_sheet, lines_of
from convnextv2.auditing.summary import Summary
from convnextv2.evaluation.page import Section, build_page, picture_of, write_page
from convnextv2.evaluation.templates import open_template
from convnextv2.files import replacing, write_json
from convnextv2.text import typed

MAX_SHOWN = 24
"""Number of findings of a kind on the page and on a contact sheet."""
_MAX_CLASSES = 200


@dataclass(frozen=True, eq=False)
class AuditReport:
    """The result of an audit.

    Attributes:
        images: The images.
        summary: Statistics of the data set.
        findings: The faults that were found, the most serious kind first.
        corrected: The corrected data set.
        label_note: A message about the search for wrong labels, or why there was none.
        seconds: The duration of the audit, in seconds.
    """

    images: Images
    summary: Summary
    findings: Sequence[Finding]
    corrected: Corrected
    label_note: str
    seconds: float

    def as_record(self) -> dict[str, Any]:
        """Return the content of audit.json."""
        return {
            "data": str(self.images.root),
            "task": self.images.task,
            "images": len(self.images),
            **self.summary.as_record(),
            "counts": counts_of(self.findings),
            "findings": [as_record(finding) for finding in self.findings],
            "annotations": list(self.images.defects),
            "notes": list(self.images.notes),
            "labels": self.label_note,
            "corrected": {
                "path": str(self.corrected.path) if self.corrected.path else None,
                "images": self.corrected.kept,
                "dropped": dict(self.corrected.dropped),
                "changed": self.corrected.changed,
            },
            "seconds": round(self.seconds, 1),
        }


def write_report(report: AuditReport, out: Path, pictures: Pictures) -> Path:
    """Write the files of an audit.

    Returns:
        The page.
    """
    write_json(out / "audit.json", report.as_record())
    _write_csv(report.findings, out / "audit.csv")
    shown = {kind: _of_kind(report.findings, kind)[:MAX_SHOWN] for kind in KINDS}
    _write_sheets(shown, out / "sheets", pictures)
    page = out / "audit.html"
    write_page(page, _build(report, shown, pictures))
    return page


def _of_kind(findings: Iterable[Finding], kind: str) -> list[Finding]:
    return [finding for finding in findings if finding.kind == kind]


def _write_csv(findings: Sequence[Finding], path: Path) -> None:
    with (
        replacing(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(Finding._fields)
        for finding in findings:
            writer.writerow(["" if value is None else value for value in finding])


def _write_sheets(shown: Mapping[str, Sequence[Finding]], folder: Path, pictures: Pictures) -> None:
    """Write a contact sheet of each kind, and remove those of an earlier audit."""
    for kind in KINDS:
        (folder / f"{kind}.png").unlink(missing_ok=True)
        drawn = [
            (picture, lines_of(finding))
            for finding in shown[kind]
            if (picture := pictures.of(finding)) is not None
        ]
        if drawn:
            folder.mkdir(parents=True, exist_ok=True)
            with replacing(folder / f"{kind}.png") as temporary:
                contact_sheet(drawn).save(temporary, "png", optimize=True)


def _build(report: AuditReport, shown: Mapping[str, Sequence[Finding]], pictures: Pictures) -> str:
    template = open_template(__package__, "sections.html.jinja")
    macros: Any = template.module
    counts = counts_of(report.findings)
    sections = [Section("images", "Images", Markup(_overview(macros, report)))]
    if report.images.defects:
        lead = "Annotations that cannot be used, and what training does with them."
        made = macros.lines(lead, report.images.defects)
        sections.append(Section("annotations", "Annotations", Markup(made)))
    for kind, count in counts.items():
        title, lead = KINDS[kind]
        cards = [
            (finding, picture_of(picture) if (picture := pictures.of(finding)) else None)
            for finding in shown[kind]
        ]
        lead = f"{lead} {report.label_note}" if kind == "wrong_label" else lead
        made = macros.found(lead, cards, count, count > len(cards))
        sections.append(Section(kind, title, Markup(made)))
    if "wrong_label" not in counts and report.label_note:
        made = macros.lines(report.label_note, [])
        sections.append(Section("wrong_label", "Labels", Markup(made)))
    sections.append(_corrected(macros, report.corrected))
    return build_page(
        f"Audit of {report.images.root.resolve().name}",
        summary=_headline(report, counts),
        recipe={},
        sections=sections,
        next_steps=_next_steps(report),
    )


def _headline(report: AuditReport, counts: Mapping[str, int]) -> dict[str, str]:
    figures = {"images": f"{len(report.images):,}"}
    figures |= {KINDS[kind][0].lower(): f"{count:,}" for kind, count in list(counts.items())[:5]}
    return figures if counts else figures | {"findings": "none"}


def _overview(macros: Any, report: AuditReport) -> str:
    summary, images = report.summary, report.images
    unnamed = "no split" if len(summary.splits) > 1 else "all"
    splits = {split: split or unnamed for split in summary.splits}
    what = "Images in which each class occurs, by split."
    if images.task == "classification":
        what = "Images of each class and split."
    if not summary.classes:
        what = "The images have no labels."
    totals = [sum(each.images.values()) for each in summary.classes]
    most = max(totals, default=0) or 1
    rows = [
        (each.name, list(each.images.values()), total / most)
        for each, total in zip(summary.classes, totals, strict=True)
    ]
    if len(rows) > _MAX_CLASSES:
        what += f" The first {_MAX_CLASSES} of {len(rows):,} classes; audit.json has all."
    facts = [("images", ", ".join(f"{splits[s]} {n:,}" for s, n in summary.splits.items()))]
    facts += [
        ("width, px", f"{summary.widths[0]} to {summary.widths[2]}, median {summary.widths[1]:g}"),
        (
            "height, px",
            f"{summary.heights[0]} to {summary.heights[2]}, median {summary.heights[1]:g}",
        ),
        ("formats", ", ".join(f"{name} {n:,}" for name, n in summary.formats.items())),
        ("bands", ", ".join(f"{bands}: {n:,}" for bands, n in summary.bands.items())),
        ("size of the files", f"{summary.file_bytes / 1e6:,.1f} MB"),
    ]
    return str(macros.overview(list(splits.values()), rows[:_MAX_CLASSES], what, facts))


def _corrected(macros: Any, corrected: Corrected) -> Section:
    if corrected.path is None:
        lead = "No image would be left."
    else:
        lead = (
            f"{corrected.path.name} lists {corrected.kept:,} images. The data themselves are "
            "unchanged. These are left out:"
            if corrected.dropped
            else f"{corrected.path.name} lists all {corrected.kept:,} images: nothing is left out."
        )
    dropped = sorted(corrected.dropped.items(), key=lambda item: -item[1])
    if corrected.changed:
        dropped.append(("labels changed to the suggested ones", corrected.changed))
    return Section("corrected", "Corrected data", Markup(macros.corrected(lead, dropped)))


def _next_steps(report: AuditReport) -> list[tuple[str, str]]:
    corrected = report.corrected
    if corrected.path is None:
        return []
    verb = "train" if report.images.targets is not None else "pretrain"
    command = f"convnextv2 {verb} --data_dir {typed(corrected.path)}{corrected.options}"
    return [(command, "Train on the corrected data.")]
