"""Every line of every chart shows the records that its label names, and nothing else.

The points are read back from the page and compared with the records. Each kind of record has values
of its own under the same names, so that a chart of the wrong records cannot pass.
"""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from convnextv2.evaluation.charts import BOTTOM, LEFT, RIGHT, TOP
from convnextv2.evaluation.comparison import Compared, draw_curves
from convnextv2.evaluation.health_section import health_sections
from convnextv2.evaluation.page import build_page

EPOCHS, STEPS = 6, 4
SVG = "{http://www.w3.org/2000/svg}"


def records(seed: int = 0) -> list[dict]:
    """A log as the loop writes it: each epoch's record repeats the figures of its evaluation."""
    rng = np.random.default_rng(seed)
    found = []
    for epoch in range(EPOCHS + 1):
        step, where = epoch * STEPS, {"epoch": epoch, "step": epoch * STEPS}
        if epoch:
            found += [
                {"kind": "train", "epoch": epoch - 1 + i / STEPS, "step": step - STEPS + i}
                | {"loss": 3 + float(rng.random()), "lr": 1e-3}
                for i in range(1, STEPS + 1)
            ]
            names = ("top1", "map", "miou", "pixel_accuracy", "ap", "ap50", "macro_f1")
            figures = {name: float(rng.random()) for name in names}
            figures["loss"] = 1 + float(rng.random())
            found.append({"kind": "eval", **where, **figures})
        health = {
            name: rng.random(5).tolist()
            for name in ("diversity", "dead", "saturated", "effective_rank", "gradient_norm")
        }
        health |= {name: rng.random(5).tolist() for name in ("grn_gamma", "grn_beta")}
        layers = ["1.1", "2.1", "3.1", "3.2", "4.1"]
        health["mean_diversity"] = float(np.mean(health["diversity"]))
        found.append({"kind": "health", **where, "images": 8, "layers": layers} | health)
        probe = {name: float(rng.random()) for name in ("knn", "linear", "commonest")}
        found.append({"kind": "probe", **where, "loss": 9.0, **probe})
        if epoch:
            found.append({"kind": "epoch", **where, "last_loss": 7.0, **figures, "loss": 8.0})
    return found


def lines_on(page: str) -> dict[tuple[str, str], list[tuple[float, float]]]:
    """The points of each line by the title of its chart and its label, back in their units."""
    found = {}
    for figure in page.split("<figure>")[1:]:
        title = figure.split("<h3>")[1].split(" <span")[0]
        svg = figure[figure.index("<svg") : figure.index("</svg>") + len("</svg>")]
        chart = ElementTree.fromstring(svg)
        if "lines" not in chart.attrib["class"]:
            continue
        x_most, y_least, y_most = map(float, chart.attrib["data-domain"].split())
        for line in chart.iter("path"):
            if not line.attrib["class"].startswith("line"):
                continue
            places = [tuple(map(float, each.split())) for each in line.attrib["d"][1:].split("L")]
            found[title, line.attrib["data-name"]] = [
                (
                    (x - LEFT) / (RIGHT - LEFT) * x_most,
                    y_least + (BOTTOM - y) / (BOTTOM - TOP) * (y_most - y_least),
                )
                for x, y in places
            ]
    return found


def expected(log: list[dict]) -> dict[tuple[str, str], list[tuple[float, float]]]:
    """Return the points that each line must show, written by hand from the labels."""

    def over(kind: str, figure: str) -> list[tuple[float, float]]:
        return [(r["epoch"], r[figure]) for r in log if r["kind"] == kind]

    health = [r for r in log if r["kind"] == "health"]
    first, last = health[0], health[-1]
    names = {
        "Feature diversity by layer": "diversity",
        "Effective rank by layer": "effective_rank",
        "Norm of the gradient by layer": "gradient_norm",
    }
    by_layer = {
        (title, f"epoch {record['epoch']}"): list(enumerate(record[figure], 1))
        for title, figure in names.items()
        for record in (first, last)
    }
    dead = "Dead and saturated channels"
    return by_layer | {
        ("Validation accuracy", "top-1"): over("eval", "top1"),
        ("Validation accuracy", "macro F1"): over("eval", "macro_f1"),
        ("Validation mean average precision", "mAP"): over("eval", "map"),
        ("Validation mean IoU", "pixel accuracy"): over("eval", "pixel_accuracy"),
        ("Validation mean IoU", "mIoU"): over("eval", "miou"),
        ("Validation average precision", "AP"): over("eval", "ap"),
        ("Validation average precision", "AP50"): over("eval", "ap50"),
        ("Loss", "training"): over("train", "loss"),
        ("Loss", "validation"): over("eval", "loss"),
        ("Pre-training loss (masked tiles)", "training"): over("train", "loss"),
        ("Probes of frozen features", "commonest"): over("probe", "commonest"),
        ("Probes of frozen features", "neighbours"): over("probe", "knn"),
        ("Probes of frozen features", "linear"): over("probe", "linear"),
        ("Feature diversity", "mean"): [(r["epoch"], np.mean(r["diversity"])) for r in health],
        ("Feature diversity", "lowest"): [(r["epoch"], min(r["diversity"])) for r in health],
        (dead, "dead"): [(r["epoch"], np.mean(r["dead"])) for r in health],
        (dead, "saturated"): [(r["epoch"], np.mean(r["saturated"])) for r in health],
        ("GRN by layer, epoch 6 (means)", "|gamma|"): list(enumerate(last["grn_gamma"], 1)),
        ("GRN by layer, epoch 6 (means)", "|beta|"): list(enumerate(last["grn_beta"], 1)),
    }


def test_each_line_shows_the_records_that_its_label_names() -> None:
    log = records()
    page = build_page(
        "a run",
        summary={},
        recipe={"best_by": "macro_f1"},
        metrics=log,
        pretrain_metrics=log,
        sections=health_sections(log),
    )
    found, wanted = lines_on(page), expected(log)
    assert found.keys() == wanted.keys()
    for label, points in wanted.items():
        # Coordinates are written with one decimal: a tenth of a pixel of about 200.
        span = max(y for _, y in found[label]) - min(y for _, y in found[label]) + 1
        np.testing.assert_allclose(found[label], points, atol=2e-3 * (span + EPOCHS), err_msg=label)


def test_each_line_of_a_comparison_shows_the_run_that_its_letter_names() -> None:
    logs = {"A": records(1), "B": records(2)}
    charts = draw_curves([Compared(letter, letter, records=log) for letter, log in logs.items()])
    page = "".join(
        f"<figure><h3>{title} <span></span></h3>{chart}</figure>" for title, chart in charts
    )
    found = lines_on(page)
    named = {
        "Validation accuracy": ("eval", "top1"),
        "Validation loss": ("eval", "loss"),
        "Training loss": ("train", "loss"),
        "Linear probe of frozen features": ("probe", "linear"),
        "Nearest neighbours of frozen features": ("probe", "knn"),
        "Mean feature diversity": ("health", "mean_diversity"),
    }
    assert found.keys() == {(title, letter) for title in named for letter in logs}
    for (title, letter), points in found.items():
        kind, figure = named[title]
        wanted = [(r["epoch"], r[figure]) for r in logs[letter] if r["kind"] == kind]
        np.testing.assert_allclose(points, wanted, atol=0.02, err_msg=title)


def test_a_run_without_records_of_its_health_has_no_section() -> None:
    assert health_sections([{"kind": "train", "epoch": 1, "step": 2, "loss": 1.0}]) == []


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_run_without_grn_or_finite_figures_has_the_charts_that_it_can(epochs: int) -> None:
    nothing = {name: [None, None] for name in ("grn_gamma", "grn_beta", "diversity")}
    known = {name: [0.0, 0.5] for name in ("dead", "saturated", "effective_rank", "gradient_norm")}
    log = [
        {"kind": "health", "epoch": epoch, "step": epoch, "images": 3, "layers": ["1.1", "2.1"]}
        | {**nothing, **known, "warnings": ["<b>broken</b>"]}
        for epoch in range(epochs)
    ]
    (section,) = health_sections(log)
    assert "&lt;b&gt;broken" in section.content and "<b>" not in section.content
    assert section.content.count("<svg") == 3
