"""The page of the server, as a person uses it: a real browser before a real server."""

import base64
import json
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from urllib.request import Request, urlopen

import numpy as np
import pytest
from browsers import browsing
from fields import field, save_tiff
from PIL import Image
from playwright.sync_api import Browser, FilePayload, Locator, Page, expect
from server_process import serving
from trees import CLASSES, PREPROCESSING, network, save

from convnextv2.cli import main

KEY = "open sesame"
SMALL = (
    "--model custom --depths 1,1,1,1 --dims 8,16,24,32 --image_size 64 --batch_size 4 --workers 0 "
    "--precision float32 --device cpu --tensorboard False"
).split()

pytestmark = pytest.mark.filterwarnings("ignore")  # exporters warn of themselves


def draw(path: Path, colour: int, seed: int) -> Path:
    """A wide grey picture with a patch whose colour tells its class.

    The patch is on the left if the seed is odd, otherwise on the right.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(90, 130, (70, 100, 3))
    patch = pixels[5:65, 20:50] if seed % 2 else pixels[5:65, 50:80]
    patch[:] = 40
    patch[..., colour] = 230
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("patches")
    for colour, name in enumerate(("red", "green", "blue")):
        for i in range(16):
            draw(root / "train" / name / f"{i}.png", colour, 100 * colour + i)
        for i in range(2):
            draw(root / "val" / name / f"{name}-{i}.png", colour, 1000 + 100 * colour + i)
    return root


@pytest.fixture(scope="module")
def server(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that wants a key.

    It serves a classifier, its ONNX artifact, a pre-trained model, and a classifier of five
    channels.
    """
    out = tmp_path_factory.mktemp("served")
    data = ["--data_dir", str(photos), *SMALL]
    training = ["--epochs", "4", "--val_every_epochs", "4", "--lr", "0.01", "--scale", "0.7,1"]
    masked = ["--out", str(out / "masked"), "--epochs", "1", "--decoder_dim", "16"]
    exporting = "--format onnx --images 6 --workers 0 --batch_size 4 --data_dir".split()
    artifact = ["--out", str(out / "colours-onnx"), *exporting, str(photos)]
    assert main(["train", *data, "--out", str(out / "colours"), *training]) == 0
    assert main(["pretrain", *data, *masked]) == 0
    assert main(["export", str(out / "colours"), *artifact]) == 0
    five = {"channels": 5, "mean": [0.5] * 5, "std": [0.2] * 5, "value_range": [0.0, 4000.0]}
    save(network(in_channels=5), out / "bands", preprocessing=PREPROCESSING | five)
    models = [str(out / name) for name in ("colours", "colours-onnx", "masked", "bands")]
    options = "--device cpu --max_batch 4 --drain_s 0 --api_key".split()
    with serving(*models, *options, KEY) as address:
        yield address


def watched(
    browser: Browser, address: str, headers: dict[str, str]
) -> AbstractContextManager[Page]:
    """Open the page of the server, whose requests have these headers beside their own ones."""
    permissions = ["clipboard-read", "clipboard-write", "camera"]
    return browsing(browser, address, permissions=permissions, extra_http_headers=headers)


@pytest.fixture
def page(browser: Browser, server: str) -> Iterator[Page]:
    with watched(browser, server, {"X-API-Key": KEY}) as page:
        expect(page.locator("#card")).to_contain_text("classifier, 3 classes")
        yield page


def results(page: Page) -> Locator:
    return page.get_by_role("region", name="Results").get_by_role("article")


def choose(page: Page, *files: Path) -> None:
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose files").click()
    chooser.value.set_files(list(files))


def carry(page: Page, *files: FilePayload) -> object:
    """A DataTransfer of these files, in the browser."""
    told = [
        [file["name"], file["mimeType"], base64.b64encode(file["buffer"]).decode()]
        for file in files
    ]
    return page.evaluate_handle(
        """(files) => {
            const carried = new DataTransfer();
            for (const [name, type, content] of files) {
                const bytes = Uint8Array.from(atob(content), (c) => c.charCodeAt(0));
                carried.items.add(new File([bytes], name, { type }));
            }
            return carried;
        }""",
        told,
    )


def payload(path: Path) -> FilePayload:
    return {"name": path.name, "mimeType": "image/png", "buffer": path.read_bytes()}


def switch(page: Page, model: str, expected: str) -> None:
    page.get_by_label("Model").select_option(model)
    expect(page.locator("#card")).to_contain_text(expected)


def test_a_chosen_file_shows_its_classes_with_bars_and_percentages(
    page: Page, photos: Path
) -> None:
    choose(page, photos / "val" / "green" / "green-0.png")
    rows = results(page).get_by_role("listitem")
    expect(rows).to_have_count(3)
    expect(rows.first).to_contain_text("green")
    expect(page.get_by_role("img", name="green-0.png")).to_be_visible()
    expect(page.get_by_role("heading", name="green-0.png")).to_be_visible()
    shares = [float(text.removesuffix(" %")) for text in page.locator("li .prob").all_inner_texts()]
    assert shares == sorted(shares, reverse=True) and sum(shares) == pytest.approx(100, abs=0.2)
    bars = page.locator("li .bar")
    for i, share in enumerate(shares):
        whole, filled = (
            locator.bounding_box() for locator in (bars.nth(i), bars.nth(i).locator("span"))
        )
        assert (
            whole
            and filled
            and filled["width"] / whole["width"] == pytest.approx(share / 100, abs=0.01)
        )


def test_dropped_images_give_a_result_each_in_their_order(page: Page, photos: Path) -> None:
    files = [photos / "val" / name / f"{name}-1.png" for name in ("blue", "red")]
    carried = carry(page, *map(payload, files))
    page.dispatch_event("#drop", "dragover", {"dataTransfer": carried})
    expect(page.locator("#drop")).to_have_class("over")
    page.dispatch_event("#drop", "drop", {"dataTransfer": carried})
    expect(results(page)).to_have_count(2)
    expect(results(page).get_by_role("heading")).to_have_text(["blue-1.png", "red-1.png"])
    expect(results(page).locator("li:first-child .name")).to_have_text(["blue", "red"])
    expect(page.locator("#drop")).not_to_have_class("over")
    expect(page.get_by_role("status")).to_have_text("2 images classified.")


def test_a_pasted_image_is_classified(page: Page, photos: Path) -> None:
    content = base64.b64encode((photos / "val" / "blue" / "blue-0.png").read_bytes()).decode()
    page.evaluate(
        """async (content) => {
            const bytes = Uint8Array.from(atob(content), (c) => c.charCodeAt(0));
            const png = new Blob([bytes], { type: "image/png" });
            await navigator.clipboard.write([new ClipboardItem({ "image/png": png })]);
        }""",
        content,
    )
    page.keyboard.press("Control+V")
    expect(results(page).get_by_role("listitem").first).to_contain_text("blue")


def test_the_explanation_lies_on_what_the_network_saw_and_is_bright_where_it_looked(
    page: Page, photos: Path
) -> None:
    choose(
        page, photos / "val" / "red" / "red-1.png", photos / "val" / "red" / "red-0.png"
    )  # patches left and right
    expect(results(page)).to_have_count(2)
    shades = page.locator("article canvas")
    expect(shades.first).to_be_hidden()
    page.get_by_label("Show where it looked").check()
    expect(page.get_by_text("Bright regions support the first class.")).to_be_visible()
    image, shade = page.locator("article img").first.bounding_box(), shades.first.bounding_box()
    assert image and shade
    side = 0.875 * image["height"]  # of the square in the middle that the network sees
    assert (shade["width"], shade["height"]) == pytest.approx((side, side), abs=2)
    assert shade["x"] + side / 2 == pytest.approx(image["x"] + image["width"] / 2, abs=2)
    pixels = """(canvas) => {
        const { width, height } = canvas;
        return [...canvas.getContext("2d").getImageData(0, 0, width, height).data];
    }"""
    left, right = (
        np.reshape(shades.nth(i).evaluate(pixels), (2, 2, 4))[..., 3].mean(0) for i in range(2)
    )
    assert left[0] < left[1] and right[0] > right[1]  # less shade on the patch's side
    page.get_by_label("Show where it looked").uncheck()
    expect(shades.first).to_be_hidden()


def test_another_model_answers_for_the_same_image(page: Page, photos: Path) -> None:
    choose(page, photos / "val" / "red" / "red-0.png")
    expect(results(page)).to_have_count(1)
    switch(page, "colours-onnx", "onnx, float32")
    expect(results(page).get_by_role("listitem").first).to_contain_text("red")
    switch(page, "masked", "pre-trained")
    expect(page.get_by_role("figure")).to_have_count(3)


def test_the_slider_hides_another_share_and_changes_the_reconstruction(
    page: Page, photos: Path
) -> None:
    switch(page, "masked", "pre-trained")
    choose(page, photos / "val" / "red" / "red-0.png")
    expect(page.locator("figcaption")).to_have_text(["Image", "Input", "Reconstruction"])
    expect(page.get_by_label("Show where it looked")).to_be_hidden()
    expect(page.get_by_role("status")).to_have_text("red-0.png: 60 % hidden.")
    pictures = page.locator("figure img")
    before = [pictures.nth(i).get_attribute("src") for i in (1, 2)]
    assert all(source and source.startswith("data:image/png;base64,") for source in before)
    page.get_by_label("Hidden").fill("25")
    expect(page.get_by_role("status")).to_have_text("red-0.png: 25 % hidden.")
    for i, source in zip((1, 2), before, strict=True):
        expect(pictures.nth(i)).not_to_have_attribute("src", source or "")


def test_the_card_shows_hash_and_certificate(page: Page, server: str) -> None:
    card = page.locator("#card")
    card.locator("summary").click()
    expect(card.get_by_text("None. Only exported models are compared")).to_be_visible()
    switch(page, "colours-onnx", "onnx, float32")
    with urlopen(Request(f"{server}v1/models/colours-onnx", headers={"X-API-Key": KEY})) as answer:
        (version,) = json.load(answer)["versions"]
    expect(card.get_by_text(version["sha256"], exact=True)).to_be_visible()
    expect(card.get_by_text("blue, green, red")).to_be_visible()
    expect(card.get_by_text("with PyTorch on 100.00 % of 6 images")).to_be_visible()
    expect(card.get_by_text(re.compile(r"^\d+\.\d\d % \(PyTorch \d+\.\d\d %\)$"))).to_be_visible()
    expect(card.get_by_text(re.compile(r"images/s, .* times PyTorch, on "))).to_be_visible()


def test_a_file_that_is_no_image_gives_a_readable_error(
    page: Page, photos: Path, tmp_path: Path
) -> None:
    text, disguised = tmp_path / "thesis.txt", tmp_path / "thesis.jpg"
    for path in (text, disguised):
        path.write_text("years of work")
    choose(page, text)
    status = page.get_by_role("status")
    expect(status).to_have_text("thesis.txt: is not an image.")
    choose(page, disguised, photos / "val" / "red" / "red-0.png")
    expect(status).to_contain_text(
        "thesis.jpg: is not an image, or of a format that is not read (JPEG, PNG"
    )
    expect(status).to_contain_text("red-0.png: red, ")
    expect(results(page)).to_have_count(1)


def test_the_keyboard_alone_is_enough(page: Page, photos: Path) -> None:
    for _ in ("the model", "its card", "the button"):
        page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Choose files")).to_be_focused()
    assert (
        page.locator("#choose").evaluate("(button) => getComputedStyle(button).outlineWidth")
        == "3px"
    )
    for key in ("Enter", "Space"):
        with page.expect_file_chooser() as chooser:
            page.keyboard.press(key)
        chooser.value.set_files(photos / "val" / "blue" / "blue-0.png")
    expect(results(page)).to_have_count(2)
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Use the camera")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    expect(page.get_by_label("Show where it looked")).to_be_checked()


def test_the_camera_takes_a_picture_and_closes(page: Page) -> None:
    page.get_by_role("button", name="Use the camera").click()
    expect(page.get_by_role("button", name="Take the picture")).to_be_focused()
    page.keyboard.press("Enter")
    expect(results(page).get_by_role("heading")).to_have_text(["camera.jpg"])
    expect(page.get_by_role("button", name="Take the picture")).to_be_hidden()
    assert page.locator("video").evaluate("(video) => video.srcObject === null")


def test_a_key_is_asked_for_where_the_server_wants_one(
    browser: Browser, server: str, photos: Path
) -> None:
    with watched(browser, server, {}) as page:
        field, status = page.get_by_label("API key"), page.get_by_role("status")
        expect(field).to_be_focused()
        field.fill("wrong")
        page.keyboard.press("Enter")
        expect(status).to_have_text("The API key is missing or wrong.")
        field.fill(KEY)
        page.get_by_role("button", name="Use this key").click()
        expect(field).to_be_hidden()
        choose(page, photos / "val" / "green" / "green-1.png")
        expect(results(page).get_by_role("listitem").first).to_contain_text("green")


def test_a_server_that_is_gone_is_said_in_words(page: Page, photos: Path) -> None:
    page.route("**/predict**", lambda route: route.fulfill(status=502, body="<h1>Bad gateway</h1>"))
    choose(page, photos / "val" / "red" / "red-0.png")
    expect(page.get_by_role("status")).to_have_text("red-0.png: The server answered 502.")


def test_an_image_that_the_browser_cannot_show_is_said_so_readably(
    page: Page, photos: Path, tmp_path: Path
) -> None:
    Image.open(photos / "val" / "red" / "red-0.png").save(tmp_path / "red.tiff")
    choose(page, tmp_path / "red.tiff")
    expect(results(page)).to_have_count(1)
    page.get_by_label("Show where it looked").check()
    expect(page.get_by_text("This browser cannot show images of this format.")).to_be_visible()
    expect(page.locator("article canvas")).to_be_hidden()  # it would lie over the sentence


def test_a_file_without_a_model_is_answered_with_a_sentence(
    browser: Browser, server: str, photos: Path
) -> None:
    with watched(browser, server, {"X-API-Key": KEY}) as page:
        page.route(
            "**/v1/models/*", lambda route: route.fulfill(status=502, body="<h1>Bad gateway</h1>")
        )
        page.reload()
        expect(page.get_by_role("status")).to_have_text("The server answered 502.")
        carried = carry(page, payload(photos / "val" / "red" / "red-0.png"))
        page.dispatch_event("body", "drop", {"dataTransfer": carried})
        expect(page.get_by_role("status")).to_contain_text("No model is loaded")


def test_nothing_is_wider_than_a_phone(page: Page, photos: Path) -> None:
    page.set_viewport_size({"width": 320, "height": 640})
    choose(page, photos / "val" / "red" / "red-0.png")
    expect(results(page)).to_have_count(1)
    page.locator("summary").click()
    assert page.evaluate("document.documentElement.scrollWidth") == 320


def test_files_of_many_channels_are_classified_and_named_where_they_cannot_be_shown(
    page: Page, tmp_path: Path
) -> None:
    switch(page, "bands", "classifier, 4 classes")
    page.get_by_text("About the model").click()
    expect(page.locator("#card")).to_contain_text("5, of which 1 to 3 are shown, as RGB")
    np.save(tmp_path / "north.npy", field(0, 1))
    save_tiff(tmp_path / "south.tif", field(1, 2))
    choose(page, tmp_path / "north.npy", tmp_path / "south.tif")
    expect(results(page)).to_have_count(2)
    for article, name in zip(results(page).all(), ("north.npy", "south.tif"), strict=True):
        expect(article.get_by_role("heading")).to_have_text(name)
        expect(article).to_contain_text(f"{name}: this browser cannot show images of this format.")
        expect(article.get_by_role("listitem")).to_have_count(len(CLASSES))
