import re

import pytest
from answers import PREDICT, Serve

pytestmark = pytest.mark.anyio


async def test_other_origins_may_call_only_where_that_is_allowed(
    serve: Serve, images: list[bytes]
) -> None:
    origin = {"Origin": "https://shop.example"}
    preflight = origin | {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "x-api-key",
    }
    closed, opened = (
        await serve(),
        await serve(cors_origins=("https://shop.example",), api_key="secret"),
    )
    assert (await closed.client.options(PREDICT, headers=preflight)).status_code == 405
    assert (
        "access-control-allow-origin"
        not in (await closed.client.get("/healthz", headers=origin)).headers
    )
    asked = await opened.client.options(PREDICT, headers=preflight)
    assert asked.status_code == 200 and asked.headers["access-control-allow-headers"] == "x-api-key"
    for headers, status in (
        (origin, 401),
        (origin | {"X-API-Key": "secret"}, 200),
    ):  # pages may read refusals, too
        response = await opened.client.post(PREDICT, content=images[0], headers=headers)
        assert response.status_code == status
        assert response.headers["access-control-allow-origin"] == "https://shop.example"
    other = await opened.client.get("/healthz", headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in other.headers


async def test_the_page_and_its_files_are_served_and_load_nothing_from_elsewhere(
    serve: Serve,
) -> None:
    server = await serve()
    page = await server.client.get("/")
    assert page.status_code == 200 and page.headers["content-type"].startswith("text/html")
    links = re.findall(r'(?:src|href)="([^"#][^"]*)"', page.text)
    assert {"/page/app.js", "/page/style.css"} <= {
        link if link.startswith("/") else f"/{link}" for link in links
    }
    for path, kind in (
        ("/page/app.js", "javascript"),
        ("/page/style.css", "text/css"),
        ("/", "text/html"),
    ):
        file = await server.client.get(path)
        assert file.status_code == 200 and kind in file.headers["content-type"]
        policy = dict(
            part.strip().split(" ", 1)
            for part in file.headers["content-security-policy"].split(";")
        )
        assert policy["default-src"] == "'self'" and policy["frame-ancestors"] == "'none'"
        assert (
            "unsafe" not in file.headers["content-security-policy"]
            and "http" not in file.headers["content-security-policy"]
        )
        assert (
            file.headers["x-content-type-options"] == "nosniff"
            and file.headers["cache-control"] == "no-cache"
        )
    assert not re.search(
        r"<script(?![^>]*\bsrc=)|\son\w+=|\sstyle=", page.text
    )  # the policy would block it
    assert "content-security-policy" in (await server.client.get("/nowhere")).headers
