"""Models that are replaced while the process serves them."""

import asyncio
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from server_process import Process, probs
from trees import network, save

from convnextv2.deploy.formats import installed_formats
from convnextv2.inference.predictor import Predictor

pytestmark = pytest.mark.anyio


async def test_sighup_under_load_brings_the_next_version_and_no_wrong_answer(
    hasty: Process,
    model: Path,
    images: list[bytes],
    expected: list[dict[str, float]],
    tmp_path: Path,
) -> None:
    await hasty.ready()
    save(network(seed=1), tmp_path / "next")
    new = Predictor(
        tmp_path / "next" / "model.safetensors", device="cpu", precision="float32", batch_size=1
    )
    after = [
        {entry["class"]: entry["prob"] for entry in result["predictions"]} for result in new(images)
    ]
    assert all(after[i] != pytest.approx(expected[i], abs=1e-3) for i in range(len(images)))
    seen: list[str] = []

    async def load(worker: int) -> None:
        i = worker
        while seen.count("2") < 100:
            i = (i + 1) % len(images)
            status, _, found = await hasty.ask(images[i])
            assert status == 200
            seen.append(found["version"])
            assert probs(found) == pytest.approx(
                {"1": expected, "2": after}[found["version"]][i], abs=1e-5
            )

    async def renew() -> None:
        while len(seen) < 50:
            await asyncio.sleep(0.01)
        save(network(seed=1), model)
        hasty.popen.send_signal(signal.SIGHUP)

    async with asyncio.timeout(30):
        await asyncio.gather(renew(), *map(load, range(16)))
    assert "trees@2: PyTorch on cpu, float32" in hasty.log.read_text()
    assert seen.count("1") >= 50
    hasty.popen.send_signal(signal.SIGHUP)
    async with asyncio.timeout(10):
        while "Nothing has changed." not in hasty.log.read_text():
            await asyncio.sleep(0.02)
    assert (await hasty.get("/v1/models/trees"))[2]["versions"][0]["version"] == "2"


async def test_an_openvino_artifact_may_be_replaced_in_place_while_it_is_served(
    exported: Callable[..., Path], images: list[bytes], tmp_path: Path
) -> None:
    if "openvino" not in installed_formats():
        pytest.skip("openvino is not installed")
    copy = shutil.copytree(exported("openvino"), tmp_path / "copy")
    with Process(tmp_path, f"trees={copy}") as process:
        await process.ready()
        before = await process.ask(images[0])
        for file in copy.iterdir():
            content = file.read_bytes()
            file.write_bytes(b"")  # as cp does
            assert (await process.ask(images[0]))[2] == before[2]
            file.write_bytes(content)
        process.popen.send_signal(signal.SIGHUP)
        await process.said("trees@2: openvino")
        assert probs((await process.ask(images[0]))[2]) == probs(before[2])
