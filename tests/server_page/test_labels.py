"""The page of the server for a model that gives an image any number of labels."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from browsers import browsing
from PIL import Image
from playwright.sync_api import Browser, expect
from server_process import serving
from trees import CLASSES, network, photograph, save

from convnextv2.inference.predictor import Predictor

pytestmark = pytest.mark.filterwarnings("ignore")  # uvicorn's, of its own parts


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """The address of a server of two models: one finds two labels, and one finds none."""
    for name, limits in (("some", [0.0, 1.0, 0.0, 1.0]), ("none", [1.0] * 4)):
        save(network(), tmp_path / name, kind="multi_label", thresholds=limits)
    models = [f"{name}={tmp_path / name}" for name in ("some", "none")]
    options = ["--device", "cpu", "--precision", "float32", "--drain_s", "0"]
    with serving(*models, *options) as address:
        yield address


def test_labels_above_their_thresholds_are_listed_and_none_is_said(
    browser: Browser, address: str, tmp_path: Path
) -> None:
    Image.fromarray(photograph(1)).save(tmp_path / "photo.png")
    (found,) = Predictor(tmp_path / "some", device="cpu", precision="float32")(
        [tmp_path / "photo.png"]
    )
    names = [label["name"] for label in found["labels"]]
    assert sorted(names) == [CLASSES[0], CLASSES[2]]
    with browsing(browser, address) as page:
        expect(page.locator("#card")).to_contain_text("any number of 4 labels")
        page.locator("#file").set_input_files(tmp_path / "photo.png")
        article = page.get_by_role("region", name="Results").get_by_role("article")
        above = article.get_by_role("list", name="Labels, the most probable first")
        expect(above.get_by_role("listitem")).to_have_count(2)
        for item, label in zip(above.get_by_role("listitem").all(), found["labels"], strict=True):
            expect(item).to_contain_text(label["name"])
            expect(item).to_contain_text(f"{100 * label['score']:.1f} %, threshold 0.0 %")
        expect(page.get_by_role("status")).to_have_text(f"photo.png: {', '.join(names)}.")
        below = article.get_by_role("list", name="Labels below their thresholds")
        expect(below).not_to_be_visible()
        article.get_by_text("2 other labels").click()
        expect(below.get_by_role("listitem")).to_have_count(2)
        page.get_by_label("Model").select_option("none")
        expect(page.get_by_text("No label reaches its threshold.")).to_be_visible()
        expect(page.get_by_role("status")).to_have_text("photo.png: no label.")
