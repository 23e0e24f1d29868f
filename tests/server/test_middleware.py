"""What every request goes through: ids, keys, HEAD, counts and the log."""

import asyncio
import base64
import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from trees import network, save

from convnextv2.errors import RecipeError, RunError
from convnextv2.server.access_log import AccessLog, request_id
from convnextv2.server.app import build_app
from convnextv2.server.bodies import decode_base64
from convnextv2.server.keys import Keys
from convnextv2.server.limits import Limits
from convnextv2.server.refusal import Refusal
from convnextv2.server.spec import parse_specs

pytestmark = pytest.mark.anyio

PREDICT = "/v1/models/trees/predict"
Serve = Callable[..., Awaitable[Any]]


# ---- HEAD ----


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/page/app.js",
        "/healthz",
        "/readyz",
        "/openapi.json",
        "/v1/models",
        "/v2",
        "/v2/models/trees",
    ],
)
async def test_head_is_get_without_its_body(path: str, serve: Serve) -> None:
    server = await serve()
    head, get = await server.client.head(path), await server.client.get(path)
    assert (head.status_code, head.content) == (200, b"") and get.content
    for name in ("content-type", "content-length"):
        assert head.headers[name] == get.headers[name]


async def test_head_of_metrics_and_of_what_is_not_there(serve: Serve) -> None:
    server = await serve()
    assert (await server.client.head("/metrics")).status_code == 200
    missing = await server.client.head("/nowhere")
    assert (missing.status_code, missing.headers["X-Error-Code"], missing.content) == (
        404,
        "no_such_path",
        b"",
    )
    refused = await server.client.head(PREDICT)
    assert refused.status_code == 405 and refused.headers["Allow"] == "POST"
    assert (await server.client.post("/healthz")).headers["Allow"] == "GET, HEAD"


# ---- keys ----


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEaReR"])
async def test_the_schemes_case_does_not_matter(scheme: str, serve: Serve) -> None:
    server = await serve(api_key="secret")
    for value in (f"{scheme} secret", f"{scheme}  secret ", f" {scheme} secret"):
        assert (
            await server.client.get("/v1/models", headers={"Authorization": value})
        ).status_code == 200
    for value in (
        scheme,
        f"{scheme}secret",
        f"{scheme} Secret",
        f"{scheme} secret secret",
        "secret",
        "",
    ):
        assert (
            await server.client.get("/v1/models", headers={"Authorization": value})
        ).status_code == 401


async def test_a_refusal_for_the_key_says_what_is_asked_for(serve: Serve) -> None:
    """RFC 6750, 3."""
    server = await serve(api_key="secret")
    asked = await server.client.get("/v1/models")
    assert asked.headers["WWW-Authenticate"] == 'Bearer realm="convnextv2"'
    wrong = await server.client.get("/v2/models/trees", headers={"Authorization": "Bearer x"})
    assert wrong.headers["WWW-Authenticate"] == 'Bearer realm="convnextv2", error="invalid_token"'
    assert wrong.json() == {"error": "The API key is missing or wrong."}
    for path in ("/v2", "/openapi.json", "/healthz", "/"):
        assert (await server.client.get(path)).status_code == 200
    assert (await server.client.post("/v2/repository/index")).status_code == 401


def test_a_file_has_several_keys_and_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# the shop\nfirst\n\n  second  \n")
    keys = Keys("given", str(file))

    def known(key: str) -> bool:
        return keys.know({b"x-api-key": key.encode()})

    assert [known(key) for key in ("given", "first", "second", "# the shop", "", "third")] == [
        True
    ] * 3 + [False] * 3
    assert not keys.read()
    file.write_text("third\n")
    assert keys.read() and known("third") and known("given") and not known("first")
    for content in (b"", b"# nothing\n", b"\xff\xfe"):
        file.write_bytes(content)
        with pytest.raises(RecipeError, match="api_key_file = .*Expected a key on each line"):
            keys.read()
        assert known("third")
    file.unlink()
    with pytest.raises(RecipeError, match="cannot be read"):
        Keys("", str(file))
    assert not Keys().are_asked_for


# ---- ids and the log ----


async def test_each_answer_has_the_requests_id(serve: Serve) -> None:
    server = await serve(api_key="secret")
    for path in ("/healthz", "/v1/models", "/nowhere"):
        mine = await server.client.get(path, headers={"X-Request-ID": "order-7/a:b"})
        assert mine.headers["X-Request-ID"] == "order-7/a:b"
        made = [(await server.client.get(path)).headers["X-Request-ID"] for _ in range(2)]
        assert made[0] != made[1] and all(re.fullmatch("[0-9a-f]{32}", one) for one in made)


@pytest.mark.parametrize("given", [b"", b"two words", b"a\nforged line", b"\xff", b"x" * 129])
def test_an_id_that_could_forge_a_line_is_not_taken_over(given: bytes) -> None:
    assert re.fullmatch("[0-9a-f]{32}", request_id(given))


async def test_the_log_has_a_line_for_what_it_is_told_to(
    serve: Serve, images: list[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    server = await serve()

    async def said(kind: str) -> list[str]:
        app = build_app(server.models, access_log=kind)
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://s"
        ) as client:
            capsys.readouterr()
            await client.post(PREDICT, content=images[0], headers={"X-Request-ID": "good"})
            await client.post(PREDICT, content=b"no image", headers={"X-Request-ID": "bad"})
            await client.get("/v1/models/%0aforged%1b[2K", headers={"X-Request-ID": "odd"})
            server.models.is_ready = False
            await client.get("/readyz")
            server.models.is_ready = True
        return capsys.readouterr().out.splitlines()

    assert await said("off") == []
    bad, odd = await said("failed")
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT[\d:.]+\+00:00 127.0.0.1 POST /v1/models/trees/predict 415 not_an_image "
        r"\d\.\d{4} s id=bad",
        bad,
    )
    assert " GET /v1/models/%0aforged%1b[2K 404 no_such_model " in odd
    assert [line.rpartition("id=")[2] for line in (await said("all"))[:3]] == ["good", "bad", "odd"]
    entries = [json.loads(line) for line in await said("json")]
    assert [(entry["status"], entry["code"]) for entry in entries] == [
        (200, ""),
        (415, "not_an_image"),
        (404, "no_such_model"),
        (503, "not_ready"),
    ]
    assert entries[0].keys() == {
        "time",
        "id",
        "client",
        "method",
        "path",
        "status",
        "code",
        "seconds",
    }


def test_bytes_of_a_path_cannot_forge_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    scope = {"method": "GET", "raw_path": b"/a\x1b[2K\nb\xe9", "client": None}
    AccessLog("failed")(scope, id="i", status=404, code="", seconds=0.5)
    (line,) = capsys.readouterr().out.splitlines()
    assert r" unknown GET /a\x1b[2K\x0ab\xe9 404 - 0.5000 s id=i" in line


# ---- metrics ----


async def test_latency_is_measured_by_route_and_code_and_the_process_is(
    serve: Serve, images: list[bytes]
) -> None:
    server = await serve()
    for body in (*images[:3], b"no image"):
        await server.predict(body)
    figures = await server.figures()
    route = "/v1/models/{name}/predict"
    for code, many in (("200", 3), ("415", 1)):
        labels = f'{{code="{code}",route="{route}"}}'
        assert figures[f"convnextv2_request_seconds_count{labels}"] == many
        assert 0 < figures[f"convnextv2_request_seconds_sum{labels}"] < 60
    assert figures["process_resident_memory_bytes"] > 50e6
    assert figures["process_cpu_seconds_total"] > 0 < figures["process_open_fds"]


# ---- refusals before work ----


async def ask_unread(app: Any, path: str) -> list[Any]:
    """Read the body of a request, or answer with a status before it has come."""
    done: list[Any] = []

    async def receive() -> Any:
        done.append("body")
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            done.append(message["status"])

    headers = [(b"content-type", b"application/json")]
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "path": path,
        "query_string": b"",
        "headers": headers,
    }
    await app(scope, receive, send)
    return done


async def test_a_full_queue_refuses_before_the_body_is_read(
    serve: Serve, images: list[bytes], pretrained: Path, weights: Path
) -> None:
    server = await serve(f"trees={weights}", f"pre={pretrained}", max_queue=2)
    paths = (PREDICT, "/v2/models/trees/infer", "/v1/models/pre/reconstruct")
    with server.busy():
        waiting = [asyncio.create_task(server.predict(image)) for image in images[:2]]
        await server.waiting(2)
        assert [await ask_unread(server.app, path) for path in paths] == [[429]] * 3
    await asyncio.gather(*waiting)
    assert [await ask_unread(server.app, path) for path in paths] == [
        ["body", 499]
    ] * 3  # so it is the queue's doing


async def test_a_compressed_body_is_refused_plainly(serve: Serve, images: list[bytes]) -> None:
    server = await serve()
    for encoding, status in (("gzip", 415), ("br", 415), ("identity", 200)):
        response = await server.client.post(
            PREDICT, content=images[0], headers={"Content-Encoding": encoding}
        )
        assert response.status_code == status
    assert (
        "Content-Encoding 'br': send the body as it is."
        in (
            await server.client.post(PREDICT, content=images[0], headers={"Content-Encoding": "br"})
        ).text
    )


# ---- base64 as people have it ----


def test_wrapped_base64_and_data_uris_are_read(images: list[bytes]) -> None:
    plain = base64.b64encode(images[0]).decode()
    wrapped = base64.encodebytes(images[0]).decode()
    assert wrapped.count("\n") > 10
    texts = [
        plain,
        wrapped,
        wrapped.replace("\n", "\r\n"),
        f" {plain}\t",
        f"data:image/jpeg;base64,{plain}",
    ]
    texts += [f"data:;base64,{plain}", f"DATA:image/jpeg;charset=utf-8;BASE64,{wrapped}"]
    assert [data for _, data in decode_base64(texts, Limits())] == [images[0]] * len(texts)


@pytest.mark.parametrize(
    "text",
    [
        "data:image/jpeg,abcd",
        "data:image/jpeg;base64",
        "AAA",
        "A-_A",
        "AA=A",
        None,
        7,
        ["AAAA"],
        "é",
    ],
)
def test_other_texts_are_refused_with_what_is_expected(text: Any) -> None:
    with pytest.raises(
        Refusal,
        match="image 0: is not base64. Expected the file's bytes so encoded, or a data: URI",
    ):
        decode_base64([text], Limits())


# ---- what is served ----


async def test_the_licence_of_a_pretrained_model_is_told(
    serve: Serve, pretrained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from convnextv2.find import open_run_weights
    from convnextv2.server import served

    def with_notice(path: Path) -> Any:
        from dataclasses import replace

        opened = open_run_weights(path)
        return replace(
            opened, origin=replace(opened.origin, notice="CC-BY-NC 4.0, not for commercial use")
        )

    monkeypatch.setattr(served, "open_run_weights", with_notice)
    server = await serve(f"pre={pretrained}")
    (version,) = (await server.client.get("/v1/models/pre")).json()["versions"]
    assert "Licence: CC-BY-NC 4.0, not for commercial use" in version["notes"]


@pytest.mark.parametrize("odd", ["²", "٣", "9" * 30])
def test_folders_that_only_look_like_versions_are_none(
    odd: str, weights: Path, tmp_path: Path
) -> None:
    root = tmp_path / "trees"
    for name in ("7", odd):
        save(network(), root / name)
    assert [(spec.name, spec.version) for spec in parse_specs([str(root)])] == [("trees", "7")]


def test_a_source_that_cannot_be_looked_at_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot be looked at \\(File name too long\\)"):
        parse_specs(["x" * 5000])


async def test_a_reload_that_fails_for_any_reason_leaves_all_as_it_was(
    serve: Serve, images: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "trees"
    save(network(), root / "1")
    server = await serve(str(root))
    monkeypatch.setattr(
        Path,
        "iterdir",
        lambda self: (_ for _ in ()).throw(PermissionError(13, "Permission denied")),
    )
    (line,) = await server.reload()
    assert line.startswith("All stays as it was: ") and "Permission denied" in line
    assert (await server.predict(images[0])).status_code == 200


def test_a_repository_of_the_hub_is_served_by_its_name(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from convnextv2.server.models import Models
    from convnextv2.server.prometheus import Metrics

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "convnextv2.find.download",
        lambda name: weights if name == "owner/trees" else pytest.fail(name),
    )
    for source, name in (("owner/trees", "trees"), ("mine=owner/trees", "mine")):
        models = Models([source], Limits(), Metrics(), device="cpu", precision="float32")
        assert models.names == [name] and models.find(name).scorer is not None
