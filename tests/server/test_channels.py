"""Images of five bands all the way, from the statistics over training to the server."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fields import KINDS, field, save_tiff, write_fields
from PIL import Image

from convnextv2.cli import main
from convnextv2.errors import DataError, RecipeError
from convnextv2.inference.predictor import Predictor
from convnextv2.verbs.export import export
from convnextv2.verbs.predict import predict
from convnextv2.verbs.statistics import statistics
from convnextv2.verbs.validate import validate
from convnextv2.weights.opened import open_weights
from convnextv2.weights.restore import load_model

pytestmark = pytest.mark.anyio

SMALL = (
    "--model custom --depths 1,1,1,1 --dims 8,16,24,32 --stem_stride 2 --image_size 32 "
    "--batch_size 4 --workers 0 --precision float32 --device cpu --tensorboard False "
    "--epochs 1 --crop_pct 1"
).split()
RANGE = (0.0, 4000.0)


@pytest.fixture(scope="module")
def fields(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_fields(tmp_path_factory.mktemp("fields") / "fields", "tif")


@pytest.fixture(scope="module")
def measured(fields: Path) -> dict[str, Any]:
    return statistics(fields, value_range=RANGE)


@pytest.fixture(scope="module")
def pretrained(fields: Path, measured: dict[str, Any]) -> Path:
    out = fields.parent / "pre"
    knobs = [
        f"--{name}={','.join(map(str, measured[name]))}" for name in ("mean", "std", "value_range")
    ]
    command = [
        "pretrain",
        "--data_dir",
        str(fields),
        "--out",
        str(out),
        "--decoder_dim",
        "16",
        "--in_channels",
        "5",
    ]
    assert main([*command, *knobs, *SMALL]) == 0
    return out


@pytest.fixture(scope="module")
def trained(fields: Path, pretrained: Path) -> Path:
    """Nothing is said of channels and statistics: the pre-trained weights tell them."""
    out = fields.parent / "trained"
    command = [
        "train",
        "--data_dir",
        str(fields),
        "--out",
        str(out),
        "--init",
        str(pretrained),
        "--lr",
        "0.01",
    ]
    assert (
        main(
            [
                *command,
                "--auto_augment",
                "randaug-m9",
                "--erase_prob",
                "0.5",
                "--mixup",
                "0.2",
                *SMALL,
            ]
        )
        == 0
    )
    return out


def by_hand(weights: Path, values: np.ndarray, measured: dict[str, Any]) -> np.ndarray:
    """Probabilities of an image (32, 32, C), which needs neither resizing nor cropping."""
    levels = (
        ((values.astype(np.float64) - RANGE[0]) * (255 / (RANGE[1] - RANGE[0])))
        .round()
        .clip(0, 255)
    )
    images = (levels / 255 - np.array(measured["mean"])) / np.array(measured["std"])
    model = load_model(weights)[0]
    with torch.inference_mode():
        logits = model(torch.from_numpy(images).permute(2, 0, 1)[None].float())
    return logits.softmax(-1)[0].numpy()


def probs(predictions: list[dict[str, Any]]) -> np.ndarray:
    found = {entry["class"]: entry["prob"] for entry in predictions}
    return np.array([found[name] for name in KINDS])


async def ask(server: Any, name: str, body: bytes, **query: Any) -> dict[str, Any]:
    answer = await server.predict(body, name, **query)
    assert answer.status_code == 200, answer.text
    return answer.json()["images"][0]


@pytest.mark.filterwarnings("ignore")  # of exporters
async def test_tiff_files_of_five_bands_from_statistics_to_the_server(
    fields: Path,
    measured: dict[str, Any],
    pretrained: Path,
    trained: Path,
    serve: Callable[..., Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    description = open_weights(trained / "best" / "model.safetensors").description
    assert description.arguments["in_channels"] == 5 and description.preprocessing[
        "value_range"
    ] == list(RANGE)
    assert description.preprocessing["mean"] == pytest.approx(measured["mean"])
    evaluation = validate(trained)
    assert evaluation.images == 6
    report = (trained / "report.html").read_text()
    assert (
        report.count("Channels 1 to 3 of 5 are shown as RGB.") >= 2
    )  # its own examples, and the pre-training's gallery

    values = field(1, 7, side=40)[:32, :32]
    image = tmp_path / "new.tif"
    save_tiff(image, values)
    np.save(tmp_path / "new.npy", values)
    expected = by_hand(trained / "best" / "model.safetensors", values, measured)
    assert np.ptp(expected) > 0.01  # else anything would be equal
    close = {"abs": 1e-5}

    how = {"device": "cpu", "precision": "float32"}
    for given in (image, tmp_path / "new.npy"):
        [found] = predict(trained, given, **how)
        assert probs(found["predictions"]) == pytest.approx(expected, **close)
    capsys.readouterr()
    assert (
        main(
            [
                "predict",
                str(trained),
                str(image),
                "--json",
                "--device",
                "cpu",
                "--precision",
                "float32",
            ]
        )
        == 0
    )
    assert probs(json.loads(capsys.readouterr().out)["predictions"]) == pytest.approx(
        expected, **close
    )
    predictor = Predictor(trained, **how)
    for given in (
        values,
        torch.from_numpy(values.astype(np.int32)).permute(2, 0, 1),
        image.read_bytes(),
    ):
        [found] = predictor(given)
        assert probs(found["predictions"]) == pytest.approx(expected, **close)
    with pytest.raises(DataError, match="has 3 channels, expected 5"):
        predictor(Image.new("RGB", (32, 32)))

    picture = tmp_path / "made.png"
    assert (
        main(["reconstruct", str(pretrained), str(image), "--out", str(picture), "--device", "cpu"])
        == 0
    )
    assert Image.open(picture).mode == "RGB"

    options = {"seconds": 0, "workers": 0, "batch_size": 2}
    artifacts = {
        "onnx": export(trained, format="onnx", out=tmp_path / "onnx", **options),
        "pixels": export(
            trained, format="torch", input="pixels", out=tmp_path / "pixels", **options
        ),
    }
    certificate = json.loads((artifacts["onnx"] / "certificate.json").read_text())
    assert (
        certificate["adversarial"]["images"] >= 6 + 2 + 5
        and certificate["real"]["top1_agreement"] == 1
    )
    assert json.loads((artifacts["onnx"] / "artifact.json").read_text())["shapes"]["images"] == [
        None,
        5,
        32,
        32,
    ]
    for artifact in artifacts.values():
        [found] = predict(artifact, image)
        assert probs(found["predictions"]) == pytest.approx(expected, abs=1e-4)
    again = validate(artifacts["onnx"], data_dir=str(fields))
    assert (again.top1, again.images) == (evaluation.top1, 6)
    with pytest.raises(
        RecipeError, match="value_range = .*: an artifact prepares its images in its own way"
    ):
        validate(artifacts["onnx"], data_dir=str(fields), value_range="0,9")

    sources = [
        f"trained={trained}",
        f"pre={pretrained}",
        *(f"{name}={path}" for name, path in artifacts.items()),
    ]
    server = await serve(*sources)
    for name in ("trained", *artifacts):
        for file in (image, tmp_path / "new.npy"):
            found = await ask(server, name, file.read_bytes(), explanation=True)
            assert probs(found["predictions"]) == pytest.approx(expected, abs=1e-4)
            assert found["explanation"]["seen"] == pytest.approx([0, 0, 1, 1], abs=0.15)
    described = (await server.client.get("/v1/models/trained")).json()["versions"][0]
    assert (
        described["preprocessing"]["value_range"] == list(RANGE)
        and described["preprocessing"]["channels"] == 5
    )
    refused = await server.predict(_jpeg(), "trained")
    assert (
        refused.status_code == 415
        and "has 3 channels, expected 5" in refused.json()["error"]["message"]
    )

    shapes = (await server.client.get("/v2/models/trained")).json()["inputs"]
    assert {"name": "pixels", "datatype": "UINT8", "shape": [-1, 32, 32, 5]} in shapes
    levels = (values.astype(np.float64) * (255 / 4000)).round().clip(0, 255).astype(int)
    tensor = {
        "name": "pixels",
        "shape": [1, 32, 32, 5],
        "datatype": "UINT8",
        "data": levels.flatten().tolist(),
    }
    answer = await server.client.post("/v2/models/trained/infer", json={"inputs": [tensor]})
    assert answer.status_code == 200, answer.text
    outputs = {output["name"]: output["data"] for output in answer.json()["outputs"]}
    assert outputs["probs"] == pytest.approx(expected, **close)

    answer = await server.client.post(
        "/v1/models/pre/reconstruct",
        content=image.read_bytes(),
        headers={"Content-Type": "application/octet-stream"},
    )
    assert answer.status_code == 200 and answer.json()["reconstruction"]


async def test_arrays_are_trained_on_and_served_like_files(
    serve: Callable[..., Any], tmp_path: Path, measured: dict[str, Any]
) -> None:
    root = write_fields(tmp_path / "arrays", "npy", train=3, val=1)
    found = statistics(root)
    knobs = [
        f"--{name}={','.join(map(str, found[name]))}" for name in ("mean", "std", "value_range")
    ]
    command = [
        "train",
        "--data_dir",
        str(root),
        "--out",
        str(tmp_path / "run"),
        "--in_channels",
        "5",
        "--cache_mb",
        "1",
    ]
    assert main([*command, *knobs, *SMALL]) == 0
    assert validate(tmp_path / "run").images == 3
    file = root / "val" / "maize" / "0.npy"
    [expected] = predict(tmp_path / "run", file, device="cpu", precision="float32")
    server = await serve(f"run={tmp_path / 'run'}")
    answer = await ask(server, "run", file.read_bytes())
    assert probs(answer["predictions"]) == pytest.approx(probs(expected["predictions"]), abs=1e-5)


def _jpeg() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (40, 40), "brown").save(file, "JPEG")
    return file.getvalue()
