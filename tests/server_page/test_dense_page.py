"""The page of the server for a segmentor and a detector."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from browsers import browsing
from dense import detector, picture, save_dense, segmentor
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, Route, expect
from server_process import serving

from convnextv2.inference.dense import open_finder, open_pixel_classifier
from convnextv2.weights.opened import open_weights

pytestmark = pytest.mark.filterwarnings("ignore")  # uvicorn's, of its own parts


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the weights of both, and a photograph of 200 x 150 px."""
    folder = tmp_path_factory.mktemp("dense")
    save_dense(segmentor(), folder / "places")
    save_dense(detector(), folder / "things")
    picture(folder / "photo.png", 0, 200, 150)
    return folder


@pytest.fixture(scope="module")
def address(root: Path) -> Iterator[str]:
    models = [f"{name}={root / name}" for name in ("places", "things")]
    options = ["--device", "cpu", "--precision", "float32", "--drain_s", "0"]
    with serving(*models, *options) as address:
        yield address


@pytest.fixture(params=[(1280, 900), (390, 844)], ids=["desktop", "phone"])
def page(browser: Browser, address: str, request: pytest.FixtureRequest) -> Iterator[Page]:
    width, height = request.param
    with browsing(browser, address, viewport={"width": width, "height": height}) as page:
        yield page
        assert page.evaluate("document.documentElement.scrollWidth") <= width  # nothing sticks out


def show(page: Page, model: str, said: str, photo: Path) -> Locator:
    page.get_by_label("Model").select_option(model)
    expect(page.locator("#card")).to_contain_text(said)
    page.locator("#file").set_input_files(photo)
    article = page.get_by_role("region", name="Results").get_by_role("article")
    expect(article).to_have_count(1)
    return article


def pixels_of(photo: Path) -> torch.Tensor:
    return torch.from_numpy(np.array(Image.open(photo))).permute(2, 0, 1)


def painted(article: Locator) -> np.ndarray:
    """Return the opacity of the canvas over the picture, (H, W) from 0 to 255."""
    alphas, width = article.locator("canvas").evaluate(
        """async (canvas) => {
            await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
            const { width, height } = canvas;
            const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
            return [Array.from(data.filter((_, i) => i % 4 === 3)), width];
        }"""
    )
    return np.array(alphas).reshape(-1, width)


def test_a_segmentor_colours_the_pixels_and_its_legend_has_the_shares(
    page: Page, root: Path
) -> None:
    pixel_classifier = open_pixel_classifier(
        open_weights(root / "places" / "model.safetensors"), device="cpu", precision="float32"
    )
    classes = pixel_classifier(pixels_of(root / "photo.png")).numpy()
    article = show(page, "places", "assigns pixels to 3 classes", root / "photo.png")
    rows = article.get_by_role("group", name="Classes and shares").get_by_role("checkbox")
    present = np.unique(classes)
    assert len(present) > 1
    expect(rows).to_have_count(len(present))
    for k in present:
        name = pixel_classifier.class_names[k]
        expect(article.locator("label", has_text=name)).to_contain_text(
            f"{100 * (classes == k).mean():.1f} %"
        )
    expect(page.get_by_role("status")).to_contain_text("photo.png: ")
    before = painted(article)
    assert (before > 0).mean() > 0.99
    largest = int(np.bincount(classes.ravel()).argmax())
    article.get_by_label(pixel_classifier.class_names[largest]).uncheck()
    after = painted(article)
    assert (after > 0).mean() == pytest.approx(1 - (classes == largest).mean(), abs=0.03)
    page.get_by_label("Opacity").focus()
    page.keyboard.press("Home")
    expect(page.get_by_label("Opacity")).to_have_attribute("aria-valuetext", "0 %")
    assert not painted(article).any()


def test_a_detector_draws_boxes_and_lists_objects_from_a_score_on(page: Page, root: Path) -> None:
    finder = open_finder(
        open_weights(root / "things" / "model.safetensors"), device="cpu", precision="float32"
    )
    found = finder(*finder.transform(pixels_of(root / "photo.png")))
    article = show(page, "things", "finds objects of 2 classes", root / "photo.png")
    objects = article.get_by_role("listbox", name="Objects, the most certain first")
    many = int((found.scores >= 0.5).sum())
    assert many > 5
    expect(objects.get_by_role("option")).to_have_count(many)
    first = objects.get_by_role("option").first
    expect(first).to_contain_text(finder.class_names[int(found.labels[0])])
    expect(first).to_contain_text(f"{100 * found.scores[0]:.1f} %")
    x0, y0, x1, y1 = (int(round(value)) for value in found.boxes[0])
    expect(first).to_contain_text(f"{x1 - x0} × {y1 - y0} px at x {x0}, y {y0}")
    expect(page.get_by_role("status")).to_contain_text(f"photo.png: {many} objects (")
    assert painted(article).any()

    least = page.get_by_label("Minimum score")
    least.focus()
    page.keyboard.press("End")  # 100 %
    some = int((found.scores >= 1).sum())
    assert some == 0
    expect(article.get_by_text("No object reaches this score.")).to_be_visible()
    assert not painted(article).any()
    page.keyboard.press("Home")  # 0 %
    expect(objects.get_by_role("option")).to_have_count(len(found.scores))
    counts = np.bincount(found.labels, minlength=2)
    for k in np.flatnonzero(counts):
        row = article.locator("label", has_text=finder.class_names[k])
        expect(row.locator(".prob")).to_have_text(str(counts[k]))
    told = f"Score of at least 0 %: {len(found.scores)} objects."
    expect(page.get_by_role("status")).to_contain_text(told)


def test_objects_are_walked_through_by_keys_and_chosen_in_the_picture(
    page: Page, root: Path
) -> None:
    article = show(page, "things", "finds objects of 2 classes", root / "photo.png")
    objects = article.get_by_role("listbox")
    options = objects.get_by_role("option")
    expect(options.first).to_be_visible()
    objects.focus()
    plain = painted(article)
    page.keyboard.press("ArrowDown")
    expect(options.first).to_have_attribute("aria-selected", "true")
    named = options.first.get_attribute("id")
    expect(objects).to_have_attribute("aria-activedescendant", str(named))
    assert (painted(article) != plain).any()  # it is emphasised
    page.keyboard.press("ArrowDown")
    expect(options.nth(1)).to_have_attribute("aria-selected", "true")
    expect(options.first).to_have_attribute("aria-selected", "false")
    page.keyboard.press("End")
    expect(options.last).to_have_attribute("aria-selected", "true")
    page.keyboard.press("Escape")
    expect(article.locator('[aria-selected="true"]')).to_have_count(0)
    box = article.locator(".picture").bounding_box()
    assert box is not None
    finder = open_finder(
        open_weights(root / "things" / "model.safetensors"), device="cpu", precision="float32"
    )
    found = finder(*finder.transform(pixels_of(root / "photo.png")))
    x0, y0, x1, y1 = found.boxes[0]
    article.locator(".picture").click(
        position={"x": (x0 + x1) / 400 * box["width"], "y": (y0 + y1) / 300 * box["height"]}
    )
    expect(article.locator('[aria-selected="true"]')).to_have_count(1)


def test_a_detector_of_one_class_is_described_in_the_singular(page: Page) -> None:
    def keep_one(route: Route) -> None:
        answer = route.fetch()
        described = answer.json()
        for version in described["versions"]:
            version["class_names"] = version["class_names"][:1]
        route.fulfill(response=answer, json=described)

    page.route("**/v1/models/things", keep_one)
    page.get_by_label("Model").select_option("things")
    expect(page.locator("#task")).to_contain_text("finds objects of 1 class,")
    expect(page.locator("body")).to_contain_text("1 class")
