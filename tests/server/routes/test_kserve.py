"""KServe's protocol beyond plain JSON: tensors as bytes, classification, the repository.

The bytes are made by hand here.
"""

import asyncio
import base64
import json
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from trees import CLASSES, network, save

from convnextv2.data.decode import decode
from convnextv2.inference.predictor import Predictor

pytestmark = pytest.mark.anyio

INFER = "/v2/models/trees/infer"
Serve = Callable[..., Awaitable[Any]]
Probs = list[dict[str, float]]


def bytes_tensor(items: list[bytes]) -> bytes:
    return b"".join(struct.pack("<I", len(item)) + item for item in items)


def request(
    name: str, datatype: str, shape: list[int], raw: bytes, **more: Any
) -> tuple[bytes, dict[str, str]]:
    """Body and headers in binary form."""
    tensor = {
        "name": name,
        "datatype": datatype,
        "shape": shape,
        "parameters": {"binary_data_size": len(raw)},
    }
    text = json.dumps({"inputs": [tensor]} | more).encode()
    return text + raw, {
        "Inference-Header-Content-Length": str(len(text)),
        "Content-Type": "application/octet-stream",
    }


def outputs(response: httpx.Response) -> dict[str, np.ndarray]:
    """The outputs of an answer in either form."""
    assert response.status_code == 200, response.text
    length = response.headers.get("Inference-Header-Content-Length")
    body = response.content
    told, rest = (
        (json.loads(body[: int(length)]), body[int(length) :])
        if length
        else (json.loads(body), b"")
    )
    found = {}
    for output in told["outputs"]:
        if size := output.get("parameters", {}).get("binary_data_size"):
            assert "data" not in output
            raw, rest = rest[:size], rest[size:]
            if output["datatype"] == "BYTES":
                values, at = [], 0
                while at < len(raw):
                    (many,) = struct.unpack_from("<I", raw, at)
                    values.append(raw[at + 4 : at + 4 + many].decode())
                    at += 4 + many
            else:
                values = list(struct.unpack(f"<{len(raw) // 4}f", raw))
        else:
            values = output["data"]
        found[output["name"]] = np.array(values).reshape(output["shape"])
    assert not rest
    return found


def check_refused(response: httpx.Response, status: int, code: str) -> str:
    assert (response.status_code, response.headers["X-Error-Code"]) == (status, code), response.text
    assert response.json().keys() == {"error"} and isinstance(response.json()["error"], str)
    return response.json()["error"]


async def test_image_files_as_bytes_give_the_same_as_base64(
    serve: Serve, images: list[bytes], expected: Probs
) -> None:
    server = await serve()
    right = np.array([[one[name] for name in CLASSES] for one in expected])
    body, headers = request("image_files", "BYTES", [len(images)], bytes_tensor(images))
    for form in ({}, {"Content-Type": ""}, {"Content-Type": "application/json"}):
        found = outputs(await server.client.post(INFER, content=body, headers=headers | form))
        np.testing.assert_allclose(found["probs"], right, atol=1e-5)
        assert found["embedding"].shape == (len(images), 48)
    column, headers = request("image_files", "BYTES", [len(images), 1], bytes_tensor(images))
    found = outputs(await server.client.post(INFER, content=column, headers=headers))
    np.testing.assert_allclose(found["probs"], right, atol=1e-5)


async def test_pixels_as_bytes_give_the_same_as_numbers(
    serve: Serve, images: list[bytes], expected: Probs, predictor: Predictor
) -> None:
    server = await serve()
    transform = predictor.scorer.transform
    pixels = torch.stack(
        [transform(decode(image, name="", max_pixels=10**6)) for image in images[:3]]
    ).permute(0, 2, 3, 1)
    body, headers = request(
        "pixels", "UINT8", [3, 64, 64, 3], pixels.contiguous().numpy().tobytes()
    )
    found = outputs(await server.client.post(INFER, content=body, headers=headers))
    np.testing.assert_allclose(
        found["probs"], [[one[name] for name in CLASSES] for one in expected[:3]], atol=1e-5
    )


async def test_each_output_comes_in_the_form_that_is_asked_for(
    serve: Serve, images: list[bytes]
) -> None:
    server = await serve()

    async def ask(**more: Any) -> httpx.Response:
        body, headers = request("image_files", "BYTES", [1], bytes_tensor(images[:1]), **more)
        return await server.client.post(INFER, content=body, headers=headers)

    plain = await ask()
    assert (
        "Inference-Header-Content-Length" not in plain.headers
        and plain.headers["content-type"] == "application/json"
    )
    right = outputs(plain)
    binary = {"parameters": {"binary_data": True}}
    for more, is_binary in (
        ({"parameters": {"binary_data_output": True}}, (True, True)),
        ({"outputs": [{"name": "probs"} | binary, {"name": "embedding"}]}, (True, False)),
        ({"outputs": [{"name": "embedding"} | binary, {"name": "probs"} | binary]}, (True, True)),
        (
            {
                "parameters": {"binary_data_output": True},
                "outputs": [
                    {"name": "probs", "parameters": {"binary_data": False}},
                    {"name": "embedding"},
                ],
            },
            (False, True),
        ),
    ):
        answer = await ask(**more)
        assert answer.headers["content-type"] == "application/octet-stream"
        length = int(answer.headers["Inference-Header-Content-Length"])
        told = json.loads(answer.content[:length])
        assert tuple("data" not in output for output in told["outputs"]) == is_binary
        wanted = [
            output["name"]
            for output in more.get("outputs", [{"name": "probs"}, {"name": "embedding"}])
        ]
        assert [output["name"] for output in told["outputs"]] == wanted
        for name, values in outputs(answer).items():
            np.testing.assert_allclose(values, right[name], rtol=1e-6, atol=1e-7)
    as_json = {
        "inputs": [
            {
                "name": "image_files",
                "shape": [1],
                "datatype": "BYTES",
                "data": [base64.b64encode(images[0]).decode()],
            }
        ]
    }
    mixed = await server.client.post(
        INFER, json=as_json | {"parameters": {"binary_data_output": True}}
    )
    np.testing.assert_allclose(outputs(mixed)["probs"], right["probs"], rtol=1e-6)


@pytest.mark.parametrize("is_binary", [False, True])
async def test_class_count_gives_the_best_classes_as_text(
    is_binary: bool, serve: Serve, images: list[bytes], expected: Probs
) -> None:
    server = await serve()

    async def ask(count: Any, name: str = "probs") -> httpx.Response:
        wanted = {"name": name, "parameters": {"classification": count, "binary_data": is_binary}}
        body, headers = request(
            "image_files", "BYTES", [2], bytes_tensor(images[:2]), outputs=[wanted]
        )
        return await server.client.post(INFER, content=body, headers=headers)

    found = outputs(await ask(3))["probs"]
    assert found.shape == (2, 3)
    for row, probs in zip(found, expected, strict=False):
        ranked = sorted(probs, key=lambda name: -probs[name])[:3]
        for text, name in zip(row, ranked, strict=True):
            value, index, label = text.split(":")
            assert (CLASSES[int(index)], label) == (name, name) and float(value) == pytest.approx(
                probs[name], abs=1e-5
            )
    assert outputs(await ask(100))["probs"].shape == (2, 4)
    for wrong in (0, -1, "3", True, 1.5):
        assert "expected a whole number" in check_refused(await ask(wrong), 400, "bad_request")
    assert "has no classes" in check_refused(await ask(3, "embedding"), 400, "bad_request")


async def test_binary_requests_that_do_not_add_up_are_refused(
    serve: Serve, images: list[bytes]
) -> None:
    server = await serve(max_images=3)
    raw = bytes_tensor(images[:1])

    async def refused(body: bytes, headers: dict[str, str], status: int, code: str) -> str:
        return check_refused(
            await server.client.post(INFER, content=body, headers=headers), status, code
        )

    body, headers = request("image_files", "BYTES", [1], raw)
    for length in ("-1", "1e2", "", "x", str(len(body) + 1), "9" * 30):
        changed = headers | {"Inference-Header-Content-Length": length}
        assert "expected a length within the body" in await refused(
            body, changed, 400, "bad_request"
        )
    await refused(body, headers | {"Inference-Header-Content-Length": "10"}, 422, "invalid_value")
    await refused(body + b"x", headers, 400, "bad_data")
    await refused(body[:-1], headers, 400, "bad_data")
    for wrong in (raw[:3], raw + b"\0\0\0", struct.pack("<I", 2**32 - 1) + images[0]):
        assert "is cut" in await refused(
            *request("image_files", "BYTES", [1], wrong), 400, "bad_data"
        )
    await refused(*request("image_files", "BYTES", [2], raw), 400, "bad_shape")
    await refused(*request("image_files", "BYTES", [0], b""), 400, "no_image")
    await refused(
        *request("image_files", "BYTES", [4], bytes_tensor(images[:1] * 4)), 413, "too_many_images"
    )
    await refused(
        *request("image_files", "BYTES", [1], bytes_tensor([b"no image"])), 415, "not_an_image"
    )
    await refused(*request("image_files", "BYTES", [1], bytes_tensor([b""])), 415, "not_an_image")
    await refused(*request("pixels", "UINT8", [1, 64, 64, 3], b"\0" * 100), 400, "bad_data")
    for size in (-1, "5", True, None, 2.0):
        tensor = {
            "name": "pixels",
            "datatype": "UINT8",
            "shape": [1, 64, 64, 3],
            "parameters": {"binary_data_size": size},
        }
        text = json.dumps({"inputs": [tensor]}).encode()
        await refused(text, {"Inference-Header-Content-Length": str(len(text))}, 400, "bad_data")
    both = {
        "name": "image_files",
        "datatype": "BYTES",
        "shape": [1],
        "data": ["AAAA"],
        "parameters": {"binary_data_size": 0},
    }
    text = json.dumps({"inputs": [both]}).encode()
    assert "both" in await refused(
        text, {"Inference-Header-Content-Length": str(len(text))}, 400, "bad_data"
    )
    shared = {
        "name": "pixels",
        "datatype": "UINT8",
        "shape": [1],
        "parameters": {"shared_memory_region": "x"},
    }
    response = await server.client.post(INFER, json={"inputs": [shared]})
    assert "there is no such extension here" in check_refused(response, 400, "unsupported")
    packed = await server.client.post(
        INFER, content=body, headers=headers | {"Content-Encoding": "gzip"}
    )
    check_refused(packed, 415, "content_encoding")
    assert (await server.figures())["convnextv2_queue_images"] == 0


async def test_a_pretrained_model_is_none_of_this_protocol_wherever_it_is_asked_for(
    serve: Serve, weights: Path, pretrained: Path
) -> None:
    server = await serve(f"trees={weights}", f"pre={pretrained}")
    for path in ("", "/ready", "/config", "/versions/1", "/versions/1/ready"):
        check_refused(await server.client.get(f"/v2/models/pre{path}"), 404, "not_a_classifier")
    listed = (await server.client.post("/v2/repository/index")).json()
    assert [entry["name"] for entry in listed] == ["trees"]


async def test_the_configuration_is_that_of_the_metadata(serve: Serve) -> None:
    server = await serve()
    told = (await server.client.get("/v2/models/trees/config")).raise_for_status().json()
    assert told["name"] == "trees" and told["max_batch_size"] == 64
    assert told["input"][0] == {
        "name": "image_files",
        "data_type": "TYPE_STRING",
        "dims": [1],
        "optional": True,
    }
    assert told["input"][1] == {
        "name": "pixels",
        "data_type": "TYPE_UINT8",
        "dims": [64, 64, 3],
        "optional": True,
    }
    assert told["output"][0] == {"name": "probs", "data_type": "TYPE_FP32", "dims": [4]}
    check_refused(
        await server.client.get("/v2/models/trees/versions/7/config"), 404, "no_such_version"
    )


async def test_the_index_lists_versions_and_whether_they_answer(
    serve: Serve, weights: Path, tmp_path: Path
) -> None:
    server = await serve(f"trees@1={weights}", f"trees@2={save(network(seed=1), tmp_path)}")
    entry = {"name": "trees", "state": "READY", "reason": ""}
    expected = [entry | {"version": version} for version in ("1", "2")]
    for body in (b"", b"{}", b'{"ready": true}'):
        assert (await server.client.post("/v2/repository/index", content=body)).json() == expected
    check_refused(
        await server.client.post("/v2/repository/index", content=b'{"ready": 7}'),
        422,
        "invalid_value",
    )
    server.models.find("trees", "1").batcher.is_alive = False
    states = [one["state"] for one in (await server.client.post("/v2/repository/index")).json()]
    assert states == ["UNAVAILABLE", "READY"]
    ready = (await server.client.post("/v2/repository/index", json={"ready": True})).json()
    assert [one["version"] for one in ready] == ["2"]
    server.models.find("trees", "1").batcher.is_alive = True


async def test_a_model_is_loaded_again_where_a_key_is_asked_for_and_the_answer_says_how_it_went(
    serve: Serve, tmp_path: Path, weights: Path
) -> None:
    source = save(network(), tmp_path / "trees")
    open_server, server = (
        await serve(f"trees={source}"),
        await serve(f"trees={source}", f"other={weights}", api_key="secret"),
    )
    path, key = "/v2/repository/models/trees/load", {"Authorization": "Bearer secret"}
    assert "SIGHUP" in check_refused(await open_server.client.post(path), 403, "no_api_key")
    check_refused(await server.client.post(path), 401, "unauthorized")

    async def load(name: str = "trees", **more: Any) -> httpx.Response:
        return await server.client.post(f"/v2/repository/models/{name}/load", headers=key, **more)

    assert (await load()).json() == {"name": "trees", "changes": []}
    save(network(seed=1), tmp_path / "trees")
    (change,) = (await load(json={})).raise_for_status().json()["changes"]
    assert change.startswith("trees@2: PyTorch on cpu, float32, sha256 ") and change.endswith(
        "in place of 1"
    )
    (tmp_path / "trees" / "model.safetensors").write_bytes(b"half a file")
    assert "trees@2: is unchanged: " in check_refused(await load(), 400, "not_loaded")
    assert server.models.find("trees").version == "2"
    assert (await load("other")).json() == {"name": "other", "changes": []}
    check_refused(await load("shoes"), 404, "no_such_model")
    check_refused(await load(json={"parameters": {"config": "{}"}}), 400, "unsupported")
    unloaded = await server.client.post("/v2/repository/models/trees/unload", headers=key)
    check_refused(unloaded, 400, "unsupported")


async def test_a_queue_that_fails_is_reported_and_starts_again(
    serve: Serve, images: list[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    server = await serve()
    batcher = server.models.find("trees").batcher
    await server.predict(images[0])  # after which the queue waits

    async def broken() -> None:
        raise ZeroDivisionError("a mistake of ours")

    whole, batcher._collect = batcher._collect, broken
    first = await server.predict(images[0])  # wakes the queue that waits
    refused = await server.predict(images[0])
    assert first.status_code == 200
    assert refused.status_code == 503 and refused.json()["error"]["code"] == "model_failed"
    assert refused.headers["Retry-After"] == "1"
    for path in ("/readyz", "/v2/health/ready", "/v2/models/trees/ready"):
        assert (await server.client.get(path)).headers["X-Error-Code"] == "model_failed"
    assert (await server.client.get("/healthz")).status_code == 200
    batcher._collect = whole
    async with asyncio.timeout(10):
        while (await server.client.get("/readyz")).status_code != 200:
            await asyncio.sleep(0.02)
    assert (await server.predict(images[0])).status_code == 200
    assert (
        "trees@1: its queue has failed (ZeroDivisionError('a mistake of ours'))"
        in capsys.readouterr().out
    )
    assert (await server.figures())['convnextv2_batcher_restarts_total{model="trees"}'] >= 1
