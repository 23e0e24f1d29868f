"""API keys."""

from pathlib import Path

import pytest
from answers import Serve

from convnextv2.errors import RecipeError
from convnextv2.server.keys import Keys

pytestmark = pytest.mark.anyio


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
    """The header is that of section 3 of RFC 6750."""
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
        return keys.accept({b"x-api-key": key.encode()})

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
    assert not Keys().are_required
