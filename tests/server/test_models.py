import asyncio
import re
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from answers import PREDICT, Probs, Serve, check, probs
from trees import network, save

from convnextv2.errors import RunError
from convnextv2.inference.predictor import Predictor
from convnextv2.server.spec import parse_specs

pytestmark = pytest.mark.anyio


async def test_reloading_takes_what_has_changed_and_keeps_what_is_broken(
    serve: Serve, images: list[bytes], expected: Probs, tmp_path: Path
) -> None:
    sources = [save(network(), tmp_path / name) for name in ("trees", "other")]
    server = await serve(*(f"{source.parent.name}={source}" for source in sources))
    assert await server.reload() == []
    save(network(seed=1), tmp_path / "trees")
    (tmp_path / "other" / "model.safetensors").write_bytes(b"broken")
    after = [
        probs(one) for one in Predictor(sources[0], device="cpu", precision="float32")(images[:1])
    ]
    with server.busy():
        old = asyncio.create_task(server.predict(images[0]))
        await server.waiting(1)
        reloading = asyncio.create_task(server.reload())
        await asyncio.sleep(0.1)
        assert not old.done()
    check(await old, expected[:1])
    assert (await old).json()["version"] == "1"
    lines = await reloading
    assert lines[0].startswith("trees@2: PyTorch on cpu") and lines[1].startswith(
        "other@1: is unchanged: "
    )
    new = await server.predict(images[0])
    check(new, after)
    assert new.json()["version"] == "2"
    check(await server.predict(images[0], "other"), expected[:1])
    told = [name for name in await server.figures() if name.startswith("convnextv2_model_info")]
    assert sorted(re.search(r'model="(\w+)",.*version="(\d)"', name).groups() for name in told) == [
        ("other", "1"),
        ("trees", "2"),
    ]


async def test_a_request_that_is_still_being_sent_keeps_its_version(
    serve: Serve, images: list[bytes], expected: Probs, tmp_path: Path
) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield images[0][:100]
        begun.set()
        await go_on.wait()
        yield images[0][100:]

    begun, go_on = asyncio.Event(), asyncio.Event()
    server = await serve(f"trees={save(network(), tmp_path / 'trees')}", deadline_s=2)
    slow = asyncio.create_task(server.client.post(PREDICT, params={"top_k": 4}, content=body()))
    await begun.wait()
    save(network(seed=1), tmp_path / "trees")
    reloading = asyncio.create_task(server.reload())
    async with asyncio.timeout(10):
        while (await server.predict(images[0])).json()["version"] == "1":
            await asyncio.sleep(0.01)
    go_on.set()
    check(await slow, expected[:1])
    assert (await slow).json()["version"] == "1" and len(await reloading) == 1


async def test_a_version_that_was_named_keeps_its_name_when_it_is_reloaded(
    serve: Serve, weights: Path, images: list[bytes], tmp_path: Path
) -> None:
    source = save(network(seed=2), tmp_path / "first")
    server = await serve(f"trees@1={source}", f"trees@2={weights}")
    old = server.models.find("trees", "1").sha256
    save(network(seed=1), tmp_path / "first")
    assert "trees@1: PyTorch on cpu" in (await server.reload())[0]
    versions = (await server.client.get("/v1/models/trees")).json()["versions"]
    assert [version["version"] for version in versions] == ["1", "2"] and versions[0][
        "sha256"
    ] != old
    assert (await server.predict(images[0])).json()["version"] == "2"
    told = [name for name in await server.figures() if name.startswith("convnextv2_model_info")]
    assert len(told) == 2 and not any(old in name for name in told)


async def test_new_versions_of_a_repository_are_found_and_old_ones_go(
    serve: Serve, images: list[bytes], tmp_path: Path
) -> None:
    root = tmp_path / "trees"
    for number in ("2", "10"):
        save(network(seed=int(number)), root / number)
    server = await serve(str(root))

    async def versions() -> list[str]:
        return [
            version["version"]
            for version in (await server.client.get("/v1/models/trees")).json()["versions"]
        ]

    assert await versions() == ["2", "10"]
    save(network(seed=9), root / "9")
    save(network(seed=11), root / "11")
    (root / "12").mkdir()  # still being copied
    lines = await server.reload()
    assert [line.split(":")[0] for line in lines] == [
        "trees@9",
        "trees@11",
        "trees@12",
    ] and "is not served" in lines[2]
    assert await versions() == ["2", "9", "10", "11"]
    assert (await server.predict(images[0])).json()["version"] == "11"
    shutil.rmtree(root / "11")
    shutil.rmtree(root / "12")
    assert await server.reload() == ["trees@11: is gone"]
    assert (await server.predict(images[0])).json()["version"] == "10"
    for number in (2, 9, 10):
        shutil.rmtree(root / str(number))
    (root / "13").mkdir()  # still being copied
    lines = await server.reload()
    assert "is not served" in lines[0] and lines[1:] == ["trees@2: is gone", "trees@9: is gone"]
    assert (await server.predict(images[0])).json()[
        "version"
    ] == "10"  # better an old one than none
    shutil.rmtree(root)
    assert (await server.reload())[0].startswith("Nothing has changed: ")
    assert (await server.predict(images[0])).status_code == 200


async def test_reloads_at_the_same_time_open_a_model_once(serve: Serve, tmp_path: Path) -> None:
    source = save(network(), tmp_path / "trees")
    server = await serve(f"trees={source}")
    save(network(seed=1), tmp_path / "trees")
    lines = await asyncio.gather(server.reload(), server.reload())
    assert sorted(map(len, lines)) == [0, 1]


def test_models_get_the_names_that_they_are_given(weights: Path, tmp_path: Path) -> None:
    for version in ("10", "9", "notes"):
        (tmp_path / "shoes & co" / version).mkdir(parents=True)
    (tmp_path / "a=b").mkdir()
    specs = parse_specs(
        [
            f"a.b-c@v1={weights}",
            f"plain={weights}",
            str(tmp_path / "shoes & co"),
            str(tmp_path / "a=b"),
        ]
    )
    assert [(spec.name, spec.version) for spec in specs] == [
        ("a.b-c", "v1"),
        ("plain", ""),
        ("shoes-co", "9"),
        ("shoes-co", "10"),
        ("a-b", ""),
    ]
    with pytest.raises(RunError, match="nowhere: no such file or folder"):
        parse_specs(["x=nowhere"])


def test_a_version_cannot_be_named_twice(build: Callable[..., Any], weights: Path) -> None:
    with pytest.raises(RunError, match="trees@1: named twice"):
        build(f"trees={weights}", f"trees@1={weights}")
