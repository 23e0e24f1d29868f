"""The models that are served, and their names."""

from pathlib import Path
from typing import Any

import pytest
from answers import Serve
from trees import network, save

from convnextv2.errors import RunError
from convnextv2.server.limits import Limits
from convnextv2.server.spec import parse_specs

pytestmark = pytest.mark.anyio


async def test_the_licence_of_a_pretrained_model_is_told(
    serve: Serve, pretrained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from convnextv2.inference.opening import open_model
    from convnextv2.server import served

    def with_notice(path: Path) -> Any:
        from dataclasses import replace

        opened = open_model(path)
        return replace(
            opened, origin=replace(opened.origin, notice="CC-BY-NC 4.0, not for commercial use")
        )

    monkeypatch.setattr(served, "open_model", with_notice)
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
    with pytest.raises(RunError, match="cannot be accessed \\(File name too long\\)"):
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
    assert line.startswith("Nothing has changed: ") and "Permission denied" in line
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
