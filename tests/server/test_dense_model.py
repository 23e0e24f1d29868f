"""A segmentor and a detector behind the server."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from answers import Serve, check_refused, parts
from dense import PLACES, THINGS, detector, picture, save_dense, segmentor
from PIL import Image
from pycocotools import mask as coco

from convnextv2.inference.dense import open_finder, open_pixel_classifier
from convnextv2.weights.opened import open_weights

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore:__array__ implementation"),  # pycocotools
]

SEGMENT, DETECT = "/v1/models/places/segment", "/v1/models/things/detect"


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_dense(segmentor(), tmp_path_factory.mktemp("places"))


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_dense(detector(), tmp_path_factory.mktemp("things"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("photos")
    return [picture(root / f"{i}.png", i, 130 - 30 * i, 90 + 20 * i) for i in range(3)]


def pixels_of(photo: Path) -> torch.Tensor:
    return torch.from_numpy(np.array(Image.open(photo))).permute(2, 0, 1)


def image_of(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text)))


async def ask(server: Any, path: str, photo: Path, **query: Any) -> dict[str, Any]:
    response = await server.client.post(path, content=photo.read_bytes(), params=query)
    assert response.status_code == 200, response.text
    (image,) = response.json()["images"]
    return image


async def test_the_map_and_the_shares_are_those_of_the_pixel_classifier(
    serve: Serve, places: Path, photos: list[Path]
) -> None:
    server = await serve(f"places={places}")
    pixel_classifier = open_pixel_classifier(
        open_weights(places), device="cpu", precision="float32"
    )
    for photo in photos:
        expected = pixel_classifier(pixels_of(photo)).numpy()
        assert len(np.unique(expected)) > 1
        found = await ask(server, SEGMENT, photo, map="png")
        assert (found["height"], found["width"]) == expected.shape
        assert np.array_equal(np.array(image_of(found["map"]["png"])), expected)
        shares = {each["class"]: each["share"] for each in found["classes"]}
        for k, name in enumerate(PLACES):
            assert shares.get(name, 0) == pytest.approx((expected == k).mean())
        assert list(shares.values()) == sorted(shares.values(), reverse=True)
        runs = await ask(server, SEGMENT, photo, map="rle")
        for each in runs["map"]["rle"]:
            mask = coco.decode({"size": list(expected.shape), "counts": each["counts"]})
            assert np.array_equal(mask > 0, expected == each["index"])
            assert PLACES[each["index"]] == each["class"]


async def test_a_map_can_be_reduced_and_an_overlay_has_the_size_that_the_network_sees(
    serve: Serve, places: Path, photos: list[Path]
) -> None:
    server = await serve(f"places={places}")
    found = await ask(server, SEGMENT, photos[0], map="png", map_side=26, overlay=True)
    assert (found["map"]["width"], found["map"]["height"]) == (26, 18)
    assert image_of(found["map"]["png"]).size == (26, 18)
    assert image_of(found["overlay"]).size == (96, 66)  # 130 x 90 that covers 96 x 64
    assert "overlay" not in await ask(server, SEGMENT, photos[0])


async def test_the_objects_are_those_of_the_finder(
    serve: Serve, things: Path, photos: list[Path]
) -> None:
    server = await serve(f"things={things}")
    finder = open_finder(open_weights(things), device="cpu", precision="float32")
    for photo in photos:
        expected = finder(*finder.transform(pixels_of(photo)))
        found = await ask(server, DETECT, photo, masks="rle")
        assert len(found["objects"]) == len(expected.scores) > 10
        for one, box, score, label, mask in zip(
            found["objects"],
            expected.boxes,
            expected.scores,
            expected.labels,
            expected.masks or (),
            strict=True,
        ):
            assert one["class"] == THINGS[label]
            assert one["score"] == pytest.approx(score, abs=1e-6)
            assert one["box"] == pytest.approx(box, abs=0.011)
            assert one["mask"]["counts"] == mask.counts.decode()
            assert tuple(one["mask"]["size"]) == mask.size
        counts = {each["class"]: each["count"] for each in found["classes"]}
        assert sum(counts.values()) == len(found["objects"])


async def test_a_threshold_leaves_objects_out_and_none_is_an_answer(
    serve: Serve, things: Path, photos: list[Path]
) -> None:
    server = await serve(f"things={things}")
    everything = await ask(server, DETECT, photos[0])
    limit = everything["objects"][5]["score"]
    some = await ask(server, DETECT, photos[0], threshold=limit - 1e-9)
    assert some["objects"] == everything["objects"][: len(some["objects"])]
    assert 6 <= len(some["objects"]) < len(everything["objects"])
    none = await ask(server, DETECT, photos[0], threshold=1)
    assert none["objects"] == none["classes"] == []
    assert "mask" not in everything["objects"][0]


async def test_outlines_cover_what_the_masks_cover(
    serve: Serve, things: Path, photos: list[Path]
) -> None:
    server = await serve(f"things={things}")
    codes = await ask(server, DETECT, photos[0], masks="rle")
    drawn = await ask(server, DETECT, photos[0], masks="polygons")
    compared = 0
    for one, other in zip(codes["objects"], drawn["objects"], strict=True):
        mask = coco.decode(one["mask"])
        if mask.sum() < 200:
            continue
        polygons = [each for each in other["polygons"] if len(each) >= 6]
        parts = coco.frPyObjects(polygons, *mask.shape)
        again = coco.decode(coco.merge(parts))
        # Outlines have no holes and are moved by at most a pixel, and so does COCO's rasteriser.
        near = sum(np.roll(again, (y, x), (0, 1)) for y in range(-2, 3) for x in range(-2, 3)) > 0
        assert near[mask > 0].mean() > 0.97 and again.sum() < 1.5 * mask.sum()
        compared += 1
    assert compared > 5


async def test_masks_of_large_images_are_reduced(
    serve: Serve, things: Path, places: Path, photos: list[Path]
) -> None:
    server = await serve(f"things={things}", f"places={places}", max_map_pixels=3000)
    found = await ask(server, DETECT, photos[0], masks="rle")
    height, width = found["objects"][0]["mask"]["size"]
    assert height * width <= 3000 and width / height == pytest.approx(130 / 90, rel=0.05)
    whole = await ask(server, DETECT, photos[0])
    assert max(one["box"][2] for one in whole["objects"]) > 120  # in pixels of the image
    mapped = await ask(server, SEGMENT, photos[0], map="png")
    assert mapped["map"]["height"] * mapped["map"]["width"] <= 3000
    assert (mapped["height"], mapped["width"]) == (90, 130)


async def test_an_answer_that_is_too_large_is_refused(
    serve: Serve, things: Path, photos: list[Path]
) -> None:
    server = await serve(f"things={things}", max_answer_mb=0.02)
    response = await server.client.post(
        DETECT, content=photos[0].read_bytes(), params={"masks": "rle"}
    )
    check_refused(response, 413, "answer_too_large")
    await ask(server, DETECT, photos[0], threshold=0.9)  # and the next one is answered
    figures = await server.figures()
    assert figures['convnextv2_rejected_total{reason="answer_too_large"}'] == 1


async def test_several_images_come_back_in_their_order(
    serve: Serve, things: Path, photos: list[Path]
) -> None:
    server = await serve(f"things={things}")
    response = await server.client.post(
        DETECT, files=parts([photo.read_bytes() for photo in photos]), params={"overlay": True}
    )
    found = response.json()["images"]
    assert [(each["width"], each["height"]) for each in found] == [(130, 90), (100, 110), (70, 130)]
    figures = await server.figures()
    assert figures['convnextv2_images_total{model="things"}'] == 3
    assert figures['convnextv2_objects_total{model="things"}'] == sum(
        len(each["objects"]) for each in found
    )


async def test_each_kind_of_model_has_its_own_path(
    serve: Serve, weights: Path, places: Path, things: Path, photos: list[Path]
) -> None:
    server = await serve(f"trees={weights}", f"places={places}", f"things={things}")
    body = photos[0].read_bytes()
    codes = {"predict": "not_a_classifier", "segment": "not_a_segmentor"}
    codes |= {"detect": "not_a_detector", "reconstruct": "not_pretrained"}
    right = {"trees": "predict", "places": "segment", "things": "detect"}
    for name, own in right.items():
        for path, code in codes.items():
            response = await server.client.post(f"/v1/models/{name}/{path}", content=body)
            if path == own:
                assert response.status_code == 200
            else:
                check_refused(response, 404, code)
    refused = await server.client.post("/v1/models/things/predict", content=body)
    assert "/v1/models/things/detect" in refused.json()["error"]["message"]
    check_refused(await server.client.get("/v2/models/places"), 404, "not_a_classifier")


async def test_what_a_model_is_asked_for_must_be_what_it_has(
    serve: Serve, tmp_path: Path, photos: list[Path]
) -> None:
    boxes = save_dense(detector(masks=False), tmp_path)
    server = await serve(f"things={boxes}")
    body = photos[0].read_bytes()
    found = await ask(server, DETECT, photos[0], overlay=True)
    assert "mask" not in found["objects"][0]
    assert image_of(found["overlay"]).size == (4 * 92, 4 * 64)  # small pictures are enlarged
    asked = await ask(server, DETECT, photos[0], masks="rle")
    assert asked["objects"] == found["objects"]  # the model finds boxes only
    for wrong in ({"masks": "wrong"}, {"score_threshold": 0.5}, {"map": "png"}):
        refused = await server.client.post(DETECT, content=body, params=wrong)
        check_refused(refused, 422, "invalid_value")


async def test_a_model_says_what_it_is(serve: Serve, places: Path, things: Path) -> None:
    server = await serve(f"places={places}", f"things={things}")
    for name, kind, names in (("places", "segmentation", PLACES), ("things", "detection", THINGS)):
        (version,) = (await server.client.get(f"/v1/models/{name}")).json()["versions"]
        assert (version["kind"], version["class_names"]) == (kind, names)
        json.dumps(version, allow_nan=False)
