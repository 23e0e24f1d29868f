"""The ids of requests, the log, and the counts by route."""

import json
import re

import httpx
import pytest
from answers import PREDICT, Serve

from convnextv2.server.access_log import AccessLog, request_id
from convnextv2.server.app import build_app

pytestmark = pytest.mark.anyio


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
