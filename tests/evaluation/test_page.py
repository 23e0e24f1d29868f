"""The report: whole, self-contained, and safe whatever the names are."""

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

from convnextv2.evaluation.charts import MAX_POINTS
from convnextv2.evaluation.metrics import ClassifierEvaluation, count, summarise
from convnextv2.evaluation.page import Example, build_page, write_page

EVIL = "<script>alert('x')</script>\"&"
METRICS = [
    {"kind": "train", "step": step, "epoch": step / 100, "loss": 2 / step, "lr": 1e-3}
    for step in range(1, 1001)
] + [
    {
        "kind": "eval",
        "step": 100 * epoch,
        "epoch": epoch,
        "loss": 0.5,
        "top1": epoch / 11,
        "top5": 1.0,
    }
    for epoch in range(1, 11)
]
VOID = {"meta", "img"}


class Page(HTMLParser):
    """Fails where tags do not match; collects what tests ask for."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def ids(self) -> list[str]:
        return [attrs["id"] for tag, attrs in self.tags if tag == "section"]


def evaluation_of(num_classes: int) -> ClassifierEvaluation:
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(4 * num_classes) % num_classes
    probs = (
        torch.randn(len(targets), num_classes, generator=generator)
        + 2 * torch.eye(num_classes)[targets]
    ).softmax(-1)
    best = probs.topk(min(5, num_classes))
    return summarise(count(targets, best.indices, best.values[:, 0], 3.0, num_classes), num_classes)


def picture(side: int = 28) -> Image.Image:
    return Image.new("L", (side, side), 77)


def full_report(num_classes: int = 3, name: str = "hat") -> str:
    names = [name] + [f"class {i}" for i in range(1, num_classes)]
    return build_page(
        name,
        summary={"parameters": "3.4 M", name: name},
        recipe={name: name, "lr": 1e-3, "betas": (0.9, 0.999), "init": None},
        metrics=METRICS,
        evaluation=evaluation_of(num_classes),
        class_names=names,
        examples=[
            Example(picture(), f"{name}.png", names[0], [(names[1], 0.5), (names[0], 0.4)]),
            Example(picture(200), "sure.png", names[1], [(names[0], 0.9), (names[1], 0.1)]),
            Example(picture(), "right.png", names[1], [(names[1], 0.8), (names[0], 0.2)]),
            Example(picture(), "unknown.png", None, [(names[1], 0.7)]),
        ],
        gallery=Image.new("RGB", (700, 500)),
        pretrain_metrics=METRICS[:50],
        next_steps=[(f"convnextv2 predict {name}", f"Look at {name}.")],
    )


@pytest.mark.parametrize("num_classes", [3, 21])
def test_the_page_is_well_formed_and_has_every_section(num_classes):
    page = Page(full_report(num_classes))
    assert page.ids() == [
        "curves",
        "reconstructions",
        "confusions",
        "classes",
        "calibration",
        "examples",
        "next",
        "recipe",
    ]
    assert {attrs["href"] for tag, attrs in page.tags if tag == "a"} == {
        f"#{name}" for name in page.ids()
    }


def test_the_main_figures_have_their_intervals_if_these_were_computed():
    evaluation = evaluation_of(3)
    assert "interval" not in Page(full_report()).text
    known = replace(evaluation, intervals={"top1": (0.251, 0.804), "macro_f1": (0.1, 0.9)})
    page = build_page("", summary={}, recipe={}, evaluation=known, class_names=["a", "b", "c"])
    text = " ".join(Page(page).text.split())
    assert re.search(rf"top-1 accuracy \(95% interval: 25.1% to 80.4%\) ?{known.top1:.1%}", text)
    assert re.search(rf"macro F1 \(95% interval: 10.0% to 90.0%\) ?{known.macro_f1:.1%}", text)
    assert "balanced accuracy (" not in text


def test_nothing_is_loaded_from_outside():
    html = full_report()
    assert not re.search(
        r"https?:|//[a-z]|url\(|@import|<link|<iframe", html.replace("// The page", "")
    )
    sources = [
        value
        for _, attrs in Page(html).tags
        for key, value in attrs.items()
        if key in ("src", "srcset", "data", "xlink:href")
    ]
    assert len(sources) == 5 and all(
        re.match(r"data:image/(png|jpeg);base64,", source) for source in sources
    )


def test_pictures_are_the_pictures_given():
    images = [attrs for tag, attrs in Page(full_report()).tags if tag == "img"]
    opened = [
        Image.open(io.BytesIO(base64.b64decode(attrs["src"].split(",")[1]))) for attrs in images
    ]
    assert [image.size for image in opened] == [
        (700, 500),
        (200, 200),
        (28, 28),
        (28, 28),
        (28, 28),
    ]
    assert opened[-1].convert("L").getpixel((5, 5)) == 77
    assert all(attrs["alt"] for attrs in images)


@pytest.mark.parametrize("num_classes", [3, 21])
def test_names_cannot_become_markup(num_classes):
    page = Page(full_report(num_classes, name=EVIL))
    assert [tag for tag, _ in page.tags].count("script") == 1, "the page's own"
    assert page.text.count(EVIL) > 8
    assert not any("alert" in key for _, attrs in page.tags for key in attrs)


def test_curves_have_a_point_for_each_record_thinned_where_there_are_too_many():
    paths = {
        (attrs["class"], attrs["data-name"]): attrs["d"].count("L") + 1
        for tag, attrs in Page(build_page("x", summary={}, recipe={}, metrics=METRICS)).tags
        if tag == "path" and "line" in attrs["class"]
    }
    assert paths == {
        ("line strong", "top-1"): 10,
        ("line soft", "training"): MAX_POINTS,
        ("line strong", "validation"): 10,
    }


def test_what_has_no_data_is_left_out():
    page = Page(build_page("x", summary={}, recipe={}))
    assert page.ids() == [] and not any(
        tag in ("svg", "img", "table", "dl", "a") for tag, _ in page.tags
    )


def test_losses_that_are_no_numbers_are_left_out_of_the_curves():
    records = [
        {"kind": "train", "step": 1, "epoch": 1, "loss": float("nan")},
        {"kind": "eval", "step": 1, "epoch": 1},
    ]
    assert Page(build_page("x", summary={}, recipe={}, metrics=records)).ids() == []


def test_a_diverged_model_and_one_without_mistakes_have_a_report():
    perfect = summarise(
        count(torch.arange(3), torch.eye(3).topk(3).indices, torch.ones(3), 0.0, 3), 3
    )
    assert (
        "confusions" not in Page(build_page("x", summary={}, recipe={}, evaluation=perfect)).ids()
    )
    lost = summarise(
        count(torch.arange(3), torch.zeros(3, 1).long(), torch.full((3,), torch.nan), torch.nan, 3),
        3,
    )
    assert "calibration" not in Page(build_page("x", summary={}, recipe={}, evaluation=lost)).ids()


def test_confused_pairs_are_the_most_frequent_first_and_equal_ones_in_the_order_of_classes():
    evaluation = evaluation_of(30)
    mistakes = evaluation.confusion.copy()
    np.fill_diagonal(mistakes, 0)
    cells = [(-mistakes[i, j], i, j) for i in range(30) for j in range(30) if mistakes[i, j]]
    page = build_page("x", summary={}, recipe={}, evaluation=evaluation)
    table = page[page.index('<table class="pairs">') :]
    rows = re.findall(r'<th scope="row">(\d+)</th><td>(\d+)</td><td class="n">(\d+)</td>', table)
    expected = [(i, j, -n) for n, i, j in sorted(cells)][:15]
    assert [tuple(map(int, row)) for row in rows] == expected and len(rows) == 15


def test_few_classes_have_the_whole_matrix_and_many_the_most_confused_pairs():
    evaluation = evaluation_of(3)
    cells = re.findall(r'<td class="(?:hit|miss)[^>]*>(\d+)</td>', full_report(3))
    assert list(map(int, cells)) == [n for n in evaluation.confusion.flatten().tolist() if n]
    assert "Rows are true classes" in full_report(3)
    many = full_report(21)
    assert "Rows are true classes" not in many
    assert 'class="matrix"' not in many and 'class="pairs"' in many


def test_the_most_confident_mistake_comes_first():
    text = Page(full_report()).text
    places = [text.index(name) for name in ("sure.png", "hat.png", "right.png", "unknown.png")]
    assert places == sorted(places)


def test_headline_shows_the_figures_as_measured():
    evaluation = evaluation_of(21)
    text = Page(full_report(21)).text
    assert f"{evaluation.top1:.1%}" in text and f"{evaluation.top5:.1%}" in text and "3.4 M" in text


def test_a_report_is_written_whole(tmp_path):
    path = tmp_path / "report.html"
    write_page(path, "é")
    assert path.read_text(encoding="utf-8") == "é" and list(tmp_path.iterdir()) == [path]


def test_the_training_curve_holds_training_losses_only() -> None:
    records = []
    for epoch in (1, 2):
        records += [
            {"kind": "train", "step": 10 * epoch - 5, "epoch": epoch - 0.5, "loss": 2.0 / epoch},
            {"kind": "eval", "step": 10 * epoch, "epoch": epoch, "loss": 7.0, "top1": 0.5},
            {
                "kind": "epoch",
                "step": 10 * epoch,
                "epoch": epoch,
                "last_loss": 1.0,
                "loss": 7.0,
                "top1": 0.5,
            },
        ]
    page = build_page("x", summary={}, recipe={}, metrics=records)
    assert "training from 2 to 1 at epoch 1.5; validation from 7 to 7 at epoch 2" in page
    page = build_page("x", summary={}, recipe={}, pretrain_metrics=records)
    assert "training from 2 to 1 at epoch 1.5." in page


def test_a_page_of_images_with_other_channels_says_which_are_shown():
    examples = [Example(picture(), "a.tif", "hat", [("hat", 0.9)])]
    page = Page(
        build_page("x", summary={}, recipe={}, examples=examples, gallery=picture(), channels=5)
    )
    assert page.text.count("Channels 1 to 3 of 5 are shown as RGB.") == 2
    assert (
        "Shown"
        not in Page(
            build_page("x", summary={}, recipe={}, examples=examples, gallery=picture())
        ).text
    )


@pytest.mark.parametrize(
    ("best_by", "mark"),
    [
        ("top1", "best 90.0%, epoch 1"),
        ("balanced_accuracy", "best 80.0%, epoch 3"),
        ("macro_f1", "best 70.0%, epoch 4"),
        ("loss", "best 60.0%, epoch 2"),
    ],
)
def test_the_best_epoch_is_marked_by_the_figure_that_chose_it(best_by, mark):
    columns = {
        "top1": (0.9, 0.6, 0.5, 0.5),
        "balanced_accuracy": (0.3, 0.4, 0.8, 0.5),
        "macro_f1": (0.3, 0.4, 0.6, 0.7),
        "loss": (2.0, 1.0, 3.0, 4.0),
    }
    metrics = [
        {"kind": "eval", "step": epoch, "epoch": epoch}
        | {name: values[epoch - 1] for name, values in columns.items()}
        for epoch in range(1, 5)
    ]
    page = build_page("x", summary={}, recipe={"best_by": best_by}, metrics=metrics)
    assert mark in page


def test_classes_are_shown_with_their_training_images_if_these_are_known():
    names = ["hat", "shoe", "cap"]
    options = dict(summary={}, recipe={}, evaluation=evaluation_of(3), class_names=names)
    page = build_page("x", **options, class_counts=[7, 1234, 5], balance=["So & so.", "Few."])
    rows = re.findall(r'<th scope="row">(\w+)</th><td class="n">([\d,]+)</td>', page)
    assert set(rows) >= {("hat", "7"), ("shoe", "1,234"), ("cap", "5")}
    assert "So & so." in Page(page).text
    assert "Training images</th>" in page
    assert "Training images</th>" not in build_page("x", **options)
    assert "balanced accuracy" in page and "macro F1" in page
