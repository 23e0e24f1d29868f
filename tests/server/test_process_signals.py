"""Signals to the process that serves, at any moment of its start."""

import asyncio
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest
from server_process import Process
from trees import PREPROCESSING, network, save

pytestmark = pytest.mark.anyio


async def test_sighup_from_the_first_moment_on_is_a_reload_and_no_end(
    weights: Path, tmp_path: Path
) -> None:
    with Process(tmp_path, f"trees={weights}", anew=True) as process:
        await process.takes(signal.SIGHUP)
        assert not process.log.read_text()  # it has not even been loaded
        process.popen.send_signal(signal.SIGHUP)
        async with asyncio.timeout(60):
            while process.popen.poll() is None:
                process.popen.send_signal(signal.SIGHUP)
                with suppress(OSError):
                    if (await process.get("/readyz"))[0] == 200:
                        break
                await asyncio.sleep(0.05)
        await process.said("Nothing has changed.")
        assert process.popen.poll() is None and not process.errors.read_text()
        process.popen.send_signal(signal.SIGTERM)
        while process.popen.poll() is None:
            process.popen.send_signal(signal.SIGHUP)
            await asyncio.sleep(0.001)
        assert process.popen.returncode == 0


async def test_sigterm_during_an_import_that_drops_exceptions_ends_it_too(tmp_path: Path) -> None:
    # Extension modules of PyTorch do this: they import other modules and go on if that fails.
    (tmp_path / "fastapi.py").write_text(
        "import signal\ntry:\n    signal.raise_signal(signal.SIGTERM)\n"
        "except BaseException:\n    pass\n"
    )
    with Process(tmp_path, "trees=nowhere", anew=True, PYTHONPATH=str(tmp_path)) as process:
        assert await asyncio.to_thread(process.popen.wait, 30) == 0
        assert (
            process.log.read_text() == "Stopped before the server had started.\n"
            and not process.errors.read_text()
        )


@pytest.mark.parametrize("after_s", [0, 0.5, 1, 2])
async def test_sigterm_while_it_starts_ends_it_as_it_should(
    after_s: float, weights: Path, tmp_path: Path
) -> None:
    with Process(tmp_path, f"trees={weights}", anew=True) as process:
        await process.takes(signal.SIGTERM)
        await asyncio.sleep(after_s)
        process.popen.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.popen.wait, 30) == 0
        assert not process.errors.read_text()
        if after_s == 0:
            assert process.log.read_text() == "Stopped before the server had started.\n"


async def test_sigterm_during_the_warm_up_does_not_wait_for_it_and_a_second_one_for_nothing(
    weights: Path, tmp_path: Path
) -> None:
    large = save(network(), tmp_path, preprocessing=PREPROCESSING | {"image_size": [2048, 2048]})
    with Process(tmp_path, *(f"large{i}={large}" for i in range(8))) as process:
        await process.lives()
        began = time.monotonic()
        process.popen.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.popen.wait, 30) == 0
        assert time.monotonic() - began < 15 and not process.errors.read_text()
    with Process(tmp_path, f"trees={weights}", "--drain_s", "600") as process:
        await process.ready()
        process.popen.send_signal(signal.SIGTERM)
        await process.said("Finishing the requests that were accepted.")
        process.popen.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.popen.wait, 5) == 1
        assert "Stopped at once; accepted requests are dropped." in process.log.read_text()
