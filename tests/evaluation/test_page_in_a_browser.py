"""Reports in a real browser: what is shown is whole, and below its own heading."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from playwright.sync_api import Browser, Page

from convnextv2.evaluation.detection import DetectionEvaluation, Precision
from convnextv2.evaluation.detection_sections import detection_headline, detection_sections
from convnextv2.evaluation.metrics import count, summarise
from convnextv2.evaluation.page import build_page, write_page
from convnextv2.evaluation.segmentation import summarise as summarise_maps
from convnextv2.evaluation.segmentation_sections import (
    segmentation_headline,
    segmentation_sections,
)

STEPS = [{"kind": "train", "step": i, "epoch": i / 9, "loss": 3 / i} for i in range(1, 19)]


def records(**figures: float) -> list[dict[str, object]]:
    evals = [{"kind": "eval", "step": 9 * i, "epoch": i, "loss": 1 / i, **figures} for i in (1, 2)]
    return [*STEPS, *evals]


def classifier() -> str:
    logits = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(40) % 3
    confidences, classes = logits.softmax(1).sort(1, descending=True)
    found = summarise(count(targets, classes, confidences[:, 0], 40.0, 3), 3)
    best_by = "balanced_accuracy"
    return build_page(
        "classifier",
        summary={},
        recipe={"best_by": best_by},
        metrics=records(top1=0.5, balanced_accuracy=0.4),
        evaluation=found,
        class_names=["ankle boot", "sneaker", "sandal"],
    )


def segmentor() -> str:
    counts = torch.tensor([[50, 4, 0], [3, 20, 1], [2, 0, 9]])
    found = summarise_maps(counts, 4, ("ground", "tree", "car"))
    return build_page(
        "segmentor",
        summary=segmentation_headline(found),
        recipe={"best_by": "miou"},
        metrics=records(miou=0.1, pixel_accuracy=0.8, mean_accuracy=0.2),
        sections=segmentation_sections(found, []),
    )


def detector() -> str:
    curves = np.linspace(1, 0, 101)[None].repeat(2, 0)
    by_class = np.full(2, 0.1), np.full(2, 0.2)
    boxes = Precision(0.11, 0.22, 0.33, (0.44, 0.55, 0.66), 0.77, *by_class, curves)
    found = DetectionEvaluation(3, np.array([5, 7]), 9, boxes, None)
    return build_page(
        "detector",
        summary=detection_headline(found),
        recipe={"best_by": "ap"},
        metrics=records(ap=0.11, ap50=0.22, ap75=0.33),
        sections=detection_sections(found, ["cat", "dog"], [], 0.5),
    )


@pytest.fixture(params=[1280, 390], ids=["desktop", "phone"])
def page(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    page = browser.new_page(viewport={"width": request.param, "height": 800})
    yield page
    page.close()


CUT = """() => [...document.querySelectorAll("svg text")]
    .filter(text => text.getBoundingClientRect().right > document.documentElement.clientWidth)
    .map(text => text.textContent)"""
SHIFTED = """() => [...document.querySelectorAll("table.classes")].flatMap(table => {
    const edges = row => [...row.cells].map(cell => cell.getBoundingClientRect())
        .filter(box => box.width).map(box => Math.round(box.right));
    const head = edges(table.tHead.rows[0]), first = edges(table.tBodies[0].rows[0]);
    return `${head}` === `${first}` ? [] : [table.tHead.textContent];
})"""


@pytest.mark.parametrize("build", [classifier, segmentor, detector])
def test_labels_are_whole_and_figures_are_below_their_headings(
    build, page: Page, tmp_path: Path
) -> None:
    write_page(tmp_path / "report.html", build())
    page.goto((tmp_path / "report.html").as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert page.locator("svg text").count() > 10 and page.locator("table.classes").count() > 0
    assert page.evaluate(CUT) == []
    assert page.evaluate(SHIFTED) == []
