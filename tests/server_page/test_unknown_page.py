"""The page of the server for a classifier that says "unknown"."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from browsers import browsing
from PIL import Image
from playwright.sync_api import Browser, expect
from server_process import serving
from trees import network, photograph, save

from convnextv2 import validate
from convnextv2.evaluation.unknown import load_unknown, save_unknown
from convnextv2.inference.predictor import Predictor

pytestmark = pytest.mark.filterwarnings("ignore")  # uvicorn's, of its own parts


@pytest.fixture
def address(tmp_path: Path, pictures: Path) -> Iterator[str]:
    """The address of a server of two models: to one, all is known, and to one, all is foreign."""
    save(network(), tmp_path / "known")
    validate(tmp_path / "known" / "model.safetensors", data_dir=pictures, coverage=0.5, workers=0)
    fitted = load_unknown(tmp_path / "known" / "unknown.safetensors")
    shutil.copytree(tmp_path / "known", tmp_path / "strange")
    for name, farthest in (("known", 1e6), ("strange", 1e-6)):
        usual = fitted.foreign.usual - (1e3 if name == "strange" else 0)
        about = fitted.about.model_copy(update={"farthest": farthest})
        foreign = replace(fitted.foreign, usual=usual.astype("float32"))
        changed = replace(fitted, about=about, foreign=foreign)
        save_unknown(tmp_path / name / "unknown.safetensors", changed)
    models = [f"{name}={tmp_path / name}" for name in ("known", "strange")]
    options = ["--device", "cpu", "--precision", "float32", "--drain_s", "0"]
    with serving(*models, *options) as address:
        yield address


def test_possible_classes_and_foreign_images_are_named(
    browser: Browser, address: str, tmp_path: Path
) -> None:
    Image.fromarray(photograph(1)).save(tmp_path / "photo.png")
    (found,) = Predictor(tmp_path / "known", device="cpu", precision="float32")(
        [tmp_path / "photo.png"]
    )
    with browsing(browser, address) as page:
        page.locator("#file").set_input_files(tmp_path / "photo.png")
        article = page.get_by_role("region", name="Results").get_by_role("article")
        names = ", ".join(found["possible"]) or "none of the classes"
        expect(article.locator(".possible")).to_contain_text(f"Possible: {names} (in 50.0 %")
        expect(article.locator(".foreign")).to_have_count(0)
        page.locator("select").first.select_option("strange")
        page.locator("#file").set_input_files(tmp_path / "photo.png")
        expect(article.locator(".foreign").first).to_contain_text("Foreign: this image is unlike")
        if folder := os.environ.get("SCREENSHOTS"):
            page.set_viewport_size({"width": 390, "height": 844})
            page.screenshot(path=f"{folder}/unknown-phone.png", full_page=True)
