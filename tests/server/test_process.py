"""The process that `convnextv2 serve` starts: how it starts, what it says, and how it ends."""

import asyncio
import json
import re
import shutil
import signal
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest
from server_process import Answer, Process, probs
from trees import CLASSES, PREPROCESSING, network, save

from convnextv2.cli import main

pytestmark = pytest.mark.anyio

FIXTURES = Path(__file__).parents[1] / "fixtures"


async def test_it_lives_at_once_and_is_ready_only_when_warm_and_sigterm_loses_no_request(
    weights: Path, images: list[bytes], expected: list[dict[str, float]], tmp_path: Path
) -> None:
    limits = ["--max_batch", "512", "--max_queue", "1000", "--deadline_s", "60"]
    limits += ["--drain_s", "3"]  # the tests' machine may be slow
    large = save(
        network(), tmp_path, preprocessing=PREPROCESSING | {"image_size": [2048, 2048]}
    )  # its warm-up takes a while
    with Process(tmp_path, f"trees={weights}", f"large={large}", *limits) as process:
        await process.lives()
        for status, headers, found in (await process.get("/readyz"), await process.ask(images[0])):
            assert (status, headers["retry-after"], found["error"]["code"]) == (
                503,
                "2",
                "not_ready",
            )
        await process.ready()

        async def check(read: Callable[[], Awaitable[Answer]], i: int) -> dict[str, str]:
            status, headers, found = await read()
            assert status == 200 and probs(found) == pytest.approx(expected[i], abs=1e-5)
            return headers

        which = [i % len(images) for i in range(300)]
        before = [await process.send(images[i]) for i in which]
        process.popen.send_signal(signal.SIGTERM)
        answers = asyncio.gather(*map(check, before, which))
        async with asyncio.timeout(10):
            while (ready := await process.get("/readyz"))[0] == 200:
                await asyncio.sleep(0.01)
        assert ready[0] == 503 and ready[2]["error"]["code"] == "shutting_down"
        late = [
            await process.send(images[i]) for i in which[:50]
        ]  # a load balancer needs some time to look away
        assert {(await check(*pair))["connection"] for pair in zip(late, which, strict=False)} == {
            "close"
        }
        assert len(await answers) == 300
        assert await asyncio.to_thread(process.popen.wait, 20) == 0
        with pytest.raises(OSError):
            await process.connect()
        said = process.log.read_text()
        assert (
            "Finishing the requests that were accepted." in said and not process.errors.read_text()
        )
        assert "  POST images to /v1/models/trees/predict\n" in said


def test_a_port_that_is_taken_is_one_line_and_exit_code_2(
    weights: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", f"trees={weights}", "--port", str(port), "--device", "cpu"]) == 2
    line = capfd.readouterr().err.splitlines()[-1]
    said = f"port = {port}: cannot listen on 127.0.0.1 (Address already in use)."
    assert f"{said} Choose another port or host." in line


def test_a_model_that_does_not_run_ends_the_server_with_one_line(
    artifact: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(artifact, tmp_path / "copy")
    card = json.loads((copy / "artifact.json").read_text())
    card |= {
        "class_names": CLASSES[:2],
        "shapes": card["shapes"] | {"logits": [None, 2]},
    }  # the model has four columns
    (copy / "artifact.json").write_text(json.dumps(card))
    with Process(tmp_path, f"trees={copy}") as process:
        assert process.popen.wait(120) == 2
        (line,) = process.errors.read_text().splitlines()
        assert line.startswith("convnextv2: error: a model does not run: ")


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("deadline_s", "inf", "expected a number > 0"),
        ("deadline_s", "nan", "expected a number > 0"),
        ("drain_s", "-1", "expected a number >= 0"),
        ("max_queue", "0", "expected a whole number > 0"),
        ("max_queue", "1.5", "expected a whole number"),
        ("cors_origins", "shop.example", "expected addresses such as https://example.org"),
        (
            "cors_origins",
            "https://a.example, https://b.example/path",
            "cors_origins = https://b.example/path",
        ),
    ],
)
def test_limits_without_meaning_are_refused(
    weights: Path, option: str, value: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", f"trees={weights}", f"--{option}", value]) == 2
    assert message in capsys.readouterr().err


async def test_https_keys_from_a_file_and_what_systemd_is_told(
    weights: Path, images: list[bytes], tmp_path: Path
) -> None:
    certificate, key = (FIXTURES / "tls" / name for name in ("certificate.pem", "key.pem"))
    (tmp_path / "keys").write_text("old\n")
    told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    told.bind(str(tmp_path / "notify"))
    told.settimeout(60)
    options = [
        "--ssl_certfile",
        str(certificate),
        "--ssl_keyfile",
        str(key),
        "--api_key_file",
        str(tmp_path / "keys"),
    ]
    with (
        told,
        Process(
            tmp_path, f"trees={weights}", *options, NOTIFY_SOCKET=str(tmp_path / "notify")
        ) as process,
    ):
        assert await asyncio.to_thread(told.recv, 1000) == b"READY=1"
        address = f"https://localhost:{process.port}"
        async with httpx.AsyncClient(
            verify=ssl.create_default_context(cafile=certificate), base_url=address
        ) as client:

            async def ask(key: str) -> int:
                path = "/v1/models/trees/predict"
                headers = {"Authorization": f"bearer {key}"}
                return (await client.post(path, content=images[0], headers=headers)).status_code

            assert [await ask("old"), await ask("new")] == [200, 401]
            (tmp_path / "keys").write_text("new\n")
            process.popen.send_signal(signal.SIGHUP)
            assert (await asyncio.to_thread(told.recv, 1000)).startswith(
                b"RELOADING=1\nMONOTONIC_USEC="
            )
            assert (await asyncio.to_thread(told.recv, 1000)).startswith(b"READY=1\nSTATUS=")
            assert [await ask("old"), await ask("new")] == [401, 200]
        assert "API keys: read again, and changed." in process.log.read_text()
        process.popen.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(told.recv, 1000) == b"STOPPING=1"
        assert await asyncio.to_thread(process.popen.wait, 30) == 0
        assert not process.errors.read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--ssl_certfile", "x.pem"],
            "ssl_keyfile is missing: ssl_certfile is given, and HTTPS needs both",
        ),
        (
            ["--ssl_certfile", "x.pem", "--ssl_keyfile", "y.pem"],
            r"x.pem, ssl_keyfile = y.pem: cannot be used \(No such file",
        ),
        (["--api_key_file", "x"], "api_key_file = x: cannot be read"),
        (["--access_log", "loud"], "access_log = loud: expected one of failed, all, json, off"),
    ],
)
def test_files_and_words_that_cannot_be_used_are_one_line(
    options: list[str], message: str, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", f"trees={weights}", *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(message, line)
