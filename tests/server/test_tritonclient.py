"""NVIDIA's client, which many have, against the server on a socket."""

import base64
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import uvicorn
from trees import CLASSES

from convnextv2.data.decode import decode
from convnextv2.inference.predictor import Predictor

triton = pytest.importorskip("tritonclient.http", reason="tritonclient[http] is not installed")
utils = pytest.importorskip("tritonclient.utils", reason="tritonclient[http] is not installed")

pytestmark = pytest.mark.filterwarnings("ignore")  # gevent's


def key() -> dict[str, str]:
    """Anew each time: the client writes into the headers that it is given."""
    return {"Authorization": "Bearer secret"}


@pytest.fixture
def server(build: Callable[..., Any], weights: Path, pretrained: Path) -> Iterator[Any]:
    served = build(
        f"trees={weights}", f"pre={pretrained}", api_key="secret", max_images=20, max_queue=20
    )
    process = uvicorn.Server(
        uvicorn.Config(served.app, port=0, log_level="critical", lifespan="on")
    )
    thread = threading.Thread(target=process.run)
    thread.start()
    while not (process.started and served.models.is_ready):
        assert thread.is_alive()
        time.sleep(0.01)
    served.address = f"127.0.0.1:{process.servers[0].sockets[0].getsockname()[1]}"
    yield served
    process.should_exit = True
    thread.join()


@pytest.fixture
def client(server: Any) -> Iterator[Any]:
    made = triton.InferenceServerClient(server.address)
    yield made
    made.close()


def files(images: list[bytes], binary: bool) -> Any:
    given = triton.InferInput("image_files", [len(images)], "BYTES")
    content = images if binary else [base64.b64encode(image) for image in images]
    given.set_data_from_numpy(np.array(content, dtype=object), binary_data=binary)
    return given


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "JSON"])
def test_it_gets_what_the_predictor_gives(
    binary: bool,
    client: Any,
    images: list[bytes],
    expected: list[dict[str, float]],
    predictor: Predictor,
) -> None:
    right = [[one[name] for name in CLASSES] for one in expected]
    wanted = [
        triton.InferRequestedOutput(name, binary_data=binary) for name in ("probs", "embedding")
    ]
    transform = predictor.scorer.transform
    array = torch.stack(
        [transform(decode(image, name="", max_pixels=10**6)) for image in images]
    ).permute(0, 2, 3, 1)
    pixels = triton.InferInput("pixels", list(array.shape), "UINT8")
    pixels.set_data_from_numpy(array.contiguous().numpy(), binary_data=binary)
    for given in (files(images, binary), pixels):
        for outputs in (wanted, None):
            answer = client.infer(
                "trees", [given], outputs=outputs, request_id="seven", headers=key()
            )
            np.testing.assert_allclose(answer.as_numpy("probs"), right, atol=1e-5)
            assert answer.as_numpy("embedding").shape == (len(images), 48)
            assert answer.get_response()["id"] == "seven"
    best = triton.InferRequestedOutput("probs", binary_data=binary, class_count=2)
    rows = client.infer("trees", [files(images, binary)], outputs=[best], headers=key()).as_numpy(
        "probs"
    )
    assert rows.shape == (len(images), 2)
    for row, probs in zip(rows, expected, strict=True):
        names = [
            (text.decode() if isinstance(text, bytes) else text).rpartition(":")[2] for text in row
        ]
        assert names == sorted(probs, key=lambda name: -probs[name])[:2]


def test_it_can_print_every_refusal(server: Any, client: Any, images: list[bytes]) -> None:
    def refused(
        status: int, images: list[bytes], model: str = "trees", binary: bool = True, **more: Any
    ) -> str:
        with pytest.raises(utils.InferenceServerException) as error:
            client.infer(model, [files(images, binary)], headers=more.pop("headers", key()), **more)
        assert str(
            error.value
        ) == f"[{status}] {error.value.message()}" and error.value.status() == str(status)
        return error.value.message()

    assert refused(401, images[:1], headers={}) == "The API key is missing or wrong."
    assert refused(404, images[:1], "shoes") == "There is no model 'shoes'. There are: trees, pre."
    assert (
        refused(404, images[:1], model_version="9") == "Model trees has no version '9'. It has: 1."
    )
    assert refused(404, images[:1], "pre").startswith("Model pre is only pre-trained")
    assert refused(415, [b"no image"]).startswith("image 0: is not an image")
    assert refused(413, images[:1] * 21).startswith("More than 20 images.")
    assert refused(413, images[:1] * 21, binary=False).startswith(
        "21 images, but a request may have at most 20."
    )
    assert refused(400, []) == "There is no image in the body."
    assert refused(415, images[:1], request_compression_algorithm="gzip").startswith(
        "Content-Encoding 'gzip'"
    )
    server.models.admission.waiting = 20
    assert refused(429, images[:1]) == "20 images wait, and at most 20 may. Try again later."
    server.models.admission.waiting = 0
    server.models.is_ready = False
    assert refused(503, images[:1]).startswith("The server is starting")
    server.models.is_ready = True


def test_it_sees_what_is_served_and_loads_it_again(client: Any) -> None:
    assert (
        client.is_server_live()
        and client.is_server_ready()
        and client.is_model_ready("trees", headers=key())
    )
    assert not client.is_model_ready("pre", headers=key())
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    assert client.get_model_metadata("trees", headers=key())["inputs"][1]["shape"] == [
        -1,
        64,
        64,
        3,
    ]
    assert client.get_model_config("trees", headers=key())["output"][0]["dims"] == [4]
    (entry,) = client.get_model_repository_index(headers=key())
    assert (entry["name"], entry["state"]) == ("trees", "READY")
    client.load_model("trees", headers=key())
    with pytest.raises(utils.InferenceServerException, match="Models are not unloaded"):
        client.unload_model("trees", headers=key())
