"""One image, one answer: whatever it comes as, and whatever computes."""

import asyncio
import io
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from trees import CLASSES, network, photograph, save

from convnextv2 import Predictor, predict
from convnextv2.data.decode import open_picture
from convnextv2.deploy.formats import installed_formats
from convnextv2.errors import ArtifactError, DataError, DeviceError, RecipeError
from convnextv2.inference.scorer import open_scorer

Exported = Callable[..., Path]


def png(image: Image.Image, kind: str = "png", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def odd_images() -> dict[str, bytes]:
    """Images that preprocessing easily gets wrong."""
    picture = Image.fromarray(photograph(1, 120, 70))
    turned = Image.Exif()
    turned[0x0112] = 6
    deep = (np.linspace(0, 65535, 70 * 120).reshape(70, 120)).astype(np.uint16)
    frames = [Image.fromarray(photograph(i)) for i in (2, 3)]
    glass = Image.fromarray(np.dstack([photograph(4), np.full((75, 90), 90, np.uint8)]))
    return {
        "turned.jpg": png(picture, "jpeg", exif=turned),
        "cmyk.jpg": png(picture.convert("CMYK"), "jpeg"),
        "sixteen-bit.png": png(Image.fromarray(deep)),
        "palette.png": png(picture.quantize(17)),
        "grey.png": png(picture.convert("L")),
        "glass.png": png(glass),
        "tiny.png": png(Image.fromarray(photograph(5, 1, 1))),
        "huge.jpg": png(Image.fromarray(photograph(6, 3000, 2000)), "jpeg"),
        "thin.png": png(Image.fromarray(photograph(7, 2000, 2))),
        "animated.gif": png(frames[0], "gif", save_all=True, append_images=frames[1:]),
        "animated.webp": png(frames[0], "webp", save_all=True, append_images=frames[1:]),
    }


@pytest.fixture(scope="module")
def predictor(weights: Path) -> Predictor:
    return Predictor(weights, batch_size=3, precision="float32")


def probabilities(found: dict) -> dict[str, float]:
    return {p["class"]: p["prob"] for p in found["predictions"]}


def test_probabilities_are_those_of_the_model(predictor: Predictor, tmp_path: Path) -> None:
    """The expected ones are computed by Pillow's resize and crop, and in float64."""
    image = (
        Image.fromarray(photograph(9, 146, 146))
        .resize((73, 73), Image.Resampling.BICUBIC)
        .crop((4, 4, 68, 68))
    )
    x = torch.from_numpy(np.asarray(image) / 255.0).permute(2, 0, 1)[None]
    x = (x - torch.tensor([0.5, 0.4, 0.3])[:, None, None]) / torch.tensor([0.2, 0.25, 0.3])[
        :, None, None
    ]
    with torch.no_grad():
        expected = network().double()(x).softmax(-1)[0]
    found = probabilities(predictor(photograph(9, 146, 146))[0])
    assert (
        max(abs(found[name] - float(p)) for name, p in zip(CLASSES, expected, strict=True)) < 5e-3
    )  # one level of 255


def test_every_form_of_an_image_gives_the_same_answer(predictor: Predictor, tmp_path: Path) -> None:
    array = photograph(3)
    image = Image.fromarray(array)
    (tmp_path / "folder").mkdir()
    image.save(tmp_path / "folder" / "a.png")
    path = tmp_path / "folder" / "a.png"
    forms = [
        path,
        str(path),
        path.parent,
        path.read_bytes(),
        image,
        array,
        torch.from_numpy(array).permute(2, 0, 1),
    ]
    answers = [predictor(form) for form in forms]
    assert all(len(answer) == 1 for answer in answers)
    assert all(probabilities(answer[0]) == probabilities(answers[0][0]) for answer in answers)
    together = predictor(forms)
    assert [found["image"] for found in together] == [
        *3 * [str(path)],
        *(f"image {i}" for i in range(3, 7)),
    ]
    for found in together:
        assert probabilities(found) == pytest.approx(probabilities(answers[0][0]), abs=1e-6)


def test_grey_arrays_are_repeated_and_transparent_ones_laid_on_white(predictor: Predictor) -> None:
    grey = photograph(3)[..., 0]
    assert predictor(grey)[0]["predictions"] == predictor(np.dstack(3 * [grey]))[0]["predictions"]
    clear = np.dstack([photograph(3), np.zeros((75, 90), np.uint8)])
    assert (
        predictor(clear)[0]["predictions"]
        == predictor(np.full((75, 90, 3), 255, np.uint8))[0]["predictions"]
    )


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((3, 4)),
        np.zeros((0, 4, 3), np.uint8),
        torch.zeros(5, 4, 4, dtype=torch.uint8),
        7,
        b"x",
    ],
)
def test_what_is_no_image_is_said(bad: object, predictor: Predictor) -> None:
    with pytest.raises(DataError, match="image 0"):
        predictor([bad])


@pytest.mark.parametrize(
    ("bad", "what"),
    [
        (None, "image 0: is of type NoneType. Expected a path, bytes"),
        (7, "image 0: is of type int. Expected a path, bytes"),
        (io.BytesIO(b"first\nsecond"), "image 0: is of type BytesIO. Expected a path, bytes"),
        (Image.new("RGB", (0, 5)), r"image 0: has no pixels \(0 x 5\)"),
    ],
)
def test_a_single_thing_that_is_no_image_is_not_taken_for_several(
    bad: Any, what: str, predictor: Predictor
) -> None:
    with pytest.raises(DataError, match=what):
        predictor(bad)


def test_arguments_of_another_type_are_refused_in_one_line(
    predictor: Predictor, tmp_path: Path
) -> None:
    weights = save(network(), tmp_path)
    for k in ("3", 2.5, None, True):
        with pytest.raises(RecipeError, match=r"top_k = .*: expected a whole number >= 1\."):
            predictor(photograph(1), top_k=k)
    with pytest.raises(RecipeError, match="precision = fp16: expected one of auto, float32, "):
        Predictor(weights, precision="fp16")
    for source in (None, 5, b"run"):
        with pytest.raises(RecipeError, match="source = .*: expected the path of a run folder"):
            Predictor(source)
    assert Predictor(weights, device=torch.device("cpu")).scorer


def test_top_k_is_at_least_one(predictor: Predictor) -> None:
    assert len(predictor(photograph(1), top_k=2)[0]["predictions"]) == 2
    with pytest.raises(RecipeError, match="top_k = 0"):
        predictor(photograph(1), top_k=0)


def test_threads_may_share_it(predictor: Predictor) -> None:
    images = [photograph(i) for i in range(12)]
    expected = [predictor(image)[0]["predictions"] for image in images]
    found: list = [None] * len(images)

    def work(first: int) -> None:
        for i in range(first, len(images), 4):
            found[i] = predictor(images[i])[0]["predictions"]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == expected


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("format", "input"), [("torch", "pixels"), ("onnx", "images"), ("openvino", "pixels")]
)
def test_an_artifact_predicts_as_the_weights_it_was_made_from(
    format: str, input: str, exported: Exported, predictor: Predictor, tmp_path: Path
) -> None:
    if format not in installed_formats():
        pytest.skip(f"{format} is not installed")
    artifact = Predictor(exported(format, input=input))
    for name, data in odd_images().items():
        assert probabilities(artifact(data)[0]) == pytest.approx(
            probabilities(predictor(data)[0]), abs=1e-5
        ), name


def test_a_model_compiles_after_a_conversion_to_openvino_where_ci_is_set(
    weights: Path, tmp_path: Path
) -> None:
    """OpenVINO registers a decomposition that makes TorchInductor refuse to load if CI is set."""
    if "openvino" not in installed_formats():
        pytest.skip("openvino is not installed")
    program = f"""
import torch
from convnextv2 import export
export({str(weights)!r}, format="openvino", out={str(tmp_path / "out")!r}, images=4, seconds=0)
assert torch.compile(torch.nn.ReLU())(torch.tensor([-1.0, 2.0])).tolist() == [0.0, 2.0]
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"CI": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.filterwarnings("ignore")
def test_predict_validate_artifacts_and_server_prepare_odd_images_alike(
    weights: Path, exported: Exported, tmp_path: Path
) -> None:
    """The tensors that go into the model are equal bit for bit."""
    from convnextv2.data.folders import files, image_folder
    from convnextv2.data.loader import EvaluationLoader
    from convnextv2.server.limits import Limits
    from convnextv2.server.models import Models
    from convnextv2.server.prometheus import Metrics

    models = Models([str(weights)], Limits(), Metrics(), device="cpu", precision="float32")
    of_weights, of_artifact = (
        open_scorer(weights).transform,
        open_scorer(exported("torch")).transform,
    )
    assert of_weights == of_artifact
    for name, data in odd_images().items():
        (tmp_path / name / "class").mkdir(parents=True)
        path = tmp_path / name / "class" / name
        path.write_bytes(data)
        tensors = {
            "server": asyncio.run(models.decoders.prepare(data, name, of_weights)).pixels,
            "bytes": of_artifact(open_picture(data, name=name, max_pixels=10**9).decode()),
        }
        for verb, source in (
            ("predict", files([path])),
            ("validate", image_folder(tmp_path / name)),
        ):
            loader = EvaluationLoader(
                source, of_artifact, batch_size=1, channels=3, workers=0, bad_images="fail"
            )
            tensors[verb] = next(iter(loader)).pixels[0]
        assert all(torch.equal(tensor, tensors["server"]) for tensor in tensors.values()), name
        assert tensors["server"].shape == (3, 64, 64) and tensors["server"].dtype == torch.uint8


@pytest.mark.filterwarnings("ignore")
def test_predict_takes_artifacts_as_it_takes_runs(
    weights: Path, exported: Exported, pictures: Path
) -> None:
    folder = str(pictures / "val" / CLASSES[0])
    ours, theirs = (
        list(predict(source, [folder], workers=0, precision="float32"))
        for source in (weights, exported("torch"))
    )
    assert [found["image"] for found in ours] == [found["image"] for found in theirs]
    for a, b in zip(ours, theirs, strict=True):
        assert probabilities(a) == pytest.approx(probabilities(b), abs=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_an_artifact_keeps_its_own_precision_and_says_what_it_is_not(exported: Exported) -> None:
    with pytest.raises(DeviceError, match="computes in float32. Leave precision out"):
        Predictor(exported("torch"), precision="bfloat16")
    with pytest.raises(ArtifactError, match="returns embedding, but no classes"):
        Predictor(exported("torch", outputs="features"))


def test_channels_of_the_model_decide(tmp_path: Path) -> None:
    from trees import PREPROCESSING

    grey = PREPROCESSING | {"channels": 1, "mean": [0.5], "std": [0.25]}
    predictor = Predictor(
        save(network(in_channels=1), tmp_path, preprocessing=grey), precision="float32"
    )
    colour = photograph(1)
    luma = np.asarray(Image.fromarray(colour).convert("L"))
    assert predictor(colour)[0]["predictions"] == predictor(luma)[0]["predictions"]
