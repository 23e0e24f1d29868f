"""Names of classes that HTML, Markdown, CSV or a command line could take for their own."""

import csv
import json
import re
import shutil
from pathlib import Path

import pytest
from runs import SMALL, draw

from convnextv2.cli import main

NAMES = ("=1+1", "<u>", "-x", "a,b", 'x"|y')


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("odd")
    for k, name in enumerate(NAMES):
        for i in range(4):
            draw(root / "data" / "train" / name / f"<i>{i}.png", k % 3, 10 * k + i)
        draw(root / "data" / "val" / name / "=v,.png", k % 3, 100 + k)
    copied = root / "data" / "train" / NAMES[0] / "<i>0.png"
    shutil.copy(copied, root / "data" / "val" / NAMES[1] / "-copy.png")  # it contradicts its label
    out = root / "run"
    options = [*SMALL, "--epochs", "1"]
    assert main(["train", "--data_dir", str(root / "data"), "--out", str(out), *options]) == 0
    return out


def table(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert all(None not in row and None not in row.values() for row in rows)
    return rows


def has_no_markup_of_names(page: Path) -> bool:
    text = page.read_text()
    return "&lt;u&gt;" in text and not re.search(r"<u>|<i>\d", text)


def test_pages_show_them_as_text(run: Path) -> None:
    made = run.parent
    assert main(["explain", str(run), "--out", str(made / "map.html")]) == 0
    images = str(made / "data" / "val")
    assert main(["explain", str(run), images, "--out", str(made / "images.html")]) == 0
    assert main(["compare", str(run), str(run), "--out", str(made / "compared.html")]) == 0
    for page in (run / "report.html", made / "map.html", made / "images.html"):
        assert has_no_markup_of_names(page), page
    assert "<u>" not in (made / "compared.html").read_text()


def test_an_audit_writes_them_into_its_page_and_tables(run: Path) -> None:
    made = run.parent / "audit"
    assert main(["audit", str(run.parent / "data"), "--out", str(made)]) == 0
    assert has_no_markup_of_names(made / "audit.html")
    assert {row["label"] for row in table(made / "audit.csv")} <= set(NAMES)
    found = json.loads((made / "audit.json").read_text())
    assert any("-copy.png" in json.dumps(finding) for finding in found["findings"])
    assert {row["label"] for row in table(made / "manifest.csv")} == set(NAMES)


def test_tables_keep_them_and_their_images_as_they_are(run: Path) -> None:
    images, made = run.parent / "data" / "val", run.parent
    for verb, out in (("predict", "classes.csv"), ("embed", "embeddings.csv")):
        assert main([verb, str(run), str(images), "--out", str(made / out)]) == 0
    predicted = table(made / "classes.csv")
    assert {row[f"class_{i}"] for row in predicted for i in range(1, 6)} == set(NAMES)
    paths = {str(path) for path in images.rglob("*.png")}
    assert {row["image"] for row in predicted} == paths
    assert {row["path"] for row in table(made / "embeddings.csv")} == paths


def test_the_card_of_a_model_shows_them_as_text(run: Path) -> None:
    folder = run.parent / "hub"
    options = ["--dry_run", "--onnx", "off", "--to", "timm", "--license", "mit"]
    assert main(["push", str(run), "me/odd", *options, "--out", str(folder)]) == 0
    card = (folder / "README.md").read_text()
    assert "<u>" not in card and r"\<u\>" in card and r'x"\|y' in card
