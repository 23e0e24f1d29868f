"""The process that `convnextv2 serve` starts: what only sockets and signals can show."""

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from unittest.mock import Mock

import httpx
import pytest
import uvicorn
from trees import CLASSES, PREPROCESSING, network, save

from convnextv2.cli import main
from convnextv2.deploy.formats import installed_formats
from convnextv2.errors import DataError, ServerError
from convnextv2.inference.predictor import Predictor
from convnextv2.server.client import predict_remotely
from convnextv2.server.process import DrainingServer, bind
from convnextv2.server.protocol import TimedProtocol, _Flow

pytestmark = pytest.mark.anyio

FIXTURES = Path(__file__).parents[1] / "fixtures"
Answer = tuple[int, dict[str, str], dict]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


class Process:
    """A server in a process of its own."""

    def __init__(self, folder: Path, *arguments: str, port: int = 0, **environment: str) -> None:
        self.port = port or free_port()
        self.log, self.errors = (folder / f"{self.port}.{kind}" for kind in ("out", "err"))
        exactly = ["--port", str(self.port), "--device", "cpu", "--precision", "float32"]
        command = [sys.executable, "-m", "convnextv2", "serve", *arguments, *exactly]
        with self.log.open("wb") as log, self.errors.open("wb") as errors:
            self.popen = subprocess.Popen(
                command,
                stdout=log,
                stderr=errors,
                env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
            )

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        self.popen.kill()
        self.popen.wait()

    async def takes(self, number: signal.Signals) -> None:
        """Returns as soon as the process has a handler for a signal."""
        async with asyncio.timeout(60):
            while True:
                status = Path(f"/proc/{self.popen.pid}/status").read_text()
                if int(status.partition("SigCgt:")[2].split()[0], 16) >> (number - 1) & 1:
                    return
                await asyncio.sleep(0.002)

    async def said(self, text: str) -> None:
        """Returns as soon as it has printed a text."""
        async with asyncio.timeout(60):
            while text not in self.log.read_text():
                await asyncio.sleep(0.02)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def send(self, image: bytes) -> Callable[[], Awaitable[Answer]]:
        """Ask for a prediction on a new connection; what is returned reads the answer."""
        reader, writer = await self.connect()
        writer.write(head(len(image)) + image)
        await writer.drain()

        async def read() -> Answer:
            try:
                return await read_answer(reader)
            finally:
                await close(writer)

        return read

    async def ask(self, image: bytes) -> Answer:
        return await (await self.send(image))()

    async def get(self, path: str) -> Answer:
        reader, writer = await self.connect()
        writer.write(f"GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode())
        try:
            return await read_answer(reader)
        finally:
            await close(writer)

    async def lives(self) -> None:
        """Returns as soon as it listens."""
        async with asyncio.timeout(60):
            while self.popen.poll() is None:
                try:
                    assert (await self.get("/healthz"))[0] == 200
                    return
                except OSError:
                    await asyncio.sleep(0.02)
        raise AssertionError(self.errors.read_text())

    async def ready(self) -> None:
        """Returns as soon as it is ready."""
        await self.lives()
        async with asyncio.timeout(60):
            while (await self.get("/readyz"))[0] != 200:
                await asyncio.sleep(0.02)


def head(length: int) -> bytes:
    path = "/v1/models/trees/predict?top_k=4"
    return f"POST {path} HTTP/1.1\r\nHost: h\r\nContent-Type: image/jpeg\r\nContent-Length: {length}\r\n\r\n".encode()


async def close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


async def read_answer(reader: asyncio.StreamReader) -> Answer:
    """Status, headers and JSON (or {"text": ...}) of one answer."""
    status, *lines = (
        (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)).decode().strip().split("\r\n")
    )
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    body = await asyncio.wait_for(reader.readexactly(int(headers["content-length"])), 30)
    found = json.loads(body) if "json" in headers["content-type"] else {"text": body.decode()}
    return int(status.split()[1]), headers, found


def probs(answer: dict) -> dict[str, float]:
    return {entry["class"]: entry["prob"] for entry in answer["images"][0]["predictions"]}


@pytest.fixture(scope="module")
def model(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the weights that may be written over."""
    folder = tmp_path_factory.mktemp("served")
    shutil.copytree(weights.parent, folder, dirs_exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def hasty(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A server that waits for half a second for what clients send."""
    with Process(
        tmp_path_factory.mktemp("log"),
        f"trees={model}",
        "--read_timeout_s",
        "0.5",
        "--max_queue",
        "1000",
    ) as process:
        yield process


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
        assert (
            "Finishing what was accepted." in process.log.read_text()
            and not process.errors.read_text()
        )


def test_a_port_that_is_taken_is_one_line_and_exit_code_2(
    weights: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", f"trees={weights}", "--port", str(port), "--device", "cpu"]) == 2
    line = capfd.readouterr().err.splitlines()[-1]
    assert (
        f"port = {port}: cannot listen on 127.0.0.1 (Address already in use). Choose another port or host."
        in line
    )


@pytest.mark.parametrize(
    "begin, drip", [(b"", b""), (b"GET / HTTP/1.1\r\nX: ", b"x")], ids=["silent", "slow"]
)
async def test_a_head_that_does_not_come_is_cut_off(
    hasty: Process, images: list[bytes], begin: bytes, drip: bytes
) -> None:
    await hasty.ready()
    reader, writer = await hasty.connect()
    began = time.monotonic()
    writer.write(begin)
    with suppress(ConnectionError):
        while not reader.at_eof() and time.monotonic() < began + 10:
            writer.write(drip)
            with suppress(TimeoutError):
                async with asyncio.timeout(0.1):
                    assert not await reader.read(1)
    assert 0.3 < time.monotonic() - began < 5
    await close(writer)
    assert (await hasty.ask(images[0]))[0] == 200


async def test_a_slow_body_is_refused(hasty: Process) -> None:
    await hasty.ready()
    reader, writer = await hasty.connect()
    writer.write(head(1000))
    answer = asyncio.create_task(read_answer(reader))
    began = time.monotonic()
    while not answer.done():
        writer.write(b"x")
        await asyncio.wait([answer], timeout=0.1)
    assert time.monotonic() - began < 5
    status, _, found = answer.result()
    assert status == 408 and found["error"]["code"] == "too_slow"
    await close(writer)


async def test_a_connection_that_stays_open_is_not_cut_off_while_it_is_used(
    hasty: Process, images: list[bytes]
) -> None:
    await hasty.ready()
    reader, writer = await hasty.connect()
    for _ in range(4):
        await asyncio.sleep(0.4)  # together longer than a head may take
        writer.write(head(len(images[0])) + images[0])
        assert (await read_answer(reader))[0] == 200
    await close(writer)


async def test_clients_that_leave_in_the_middle_leave_nothing_behind(
    hasty: Process, images: list[bytes]
) -> None:
    await hasty.ready()
    image = images[0]
    for sent in (head(len(image)), head(len(image)) + image[:100], head(len(image)) + image):
        for half in (False, True):
            reader, writer = await hasty.connect()
            writer.write(sent)
            await writer.drain()
            if half:
                writer.write_eof()
                answer = await asyncio.wait_for(
                    reader.read(), 5
                )  # the server does not keep it open
                assert answer[:12] == (b"HTTP/1.1 200" if sent.endswith(image) else b"")
            await close(writer)
    async with asyncio.timeout(10):
        while not {"convnextv2_requests_in_flight 1.0", "convnextv2_queue_images 0.0"} <= set(
            (await hasty.get("/metrics"))[2]["text"].splitlines()
        ):
            await asyncio.sleep(0.02)
    assert (await hasty.ask(image))[0] == 200


async def test_a_client_that_leaves_is_no_error_of_the_server(
    hasty: Process, images: list[bytes]
) -> None:
    await hasty.ready()
    _, writer = await hasty.connect()
    writer.write(head(len(images[0])) + images[0][:100])
    await writer.drain()
    await close(writer)
    async with asyncio.timeout(10):
        while "convnextv2_requests_in_flight 1.0" not in (await hasty.get("/metrics"))[2]["text"]:
            await asyncio.sleep(0.02)
    assert (
        'code="500"' not in (await hasty.get("/metrics"))[2]["text"]
        and not hasty.errors.read_text()
    )


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


async def test_a_client_that_does_not_read_is_cut_off(hasty: Process, images: list[bytes]) -> None:
    await hasty.ready()
    reader, writer = await hasty.connect()
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    some = (
        b"GET /openapi.json HTTP/1.1\r\nHost: h\r\n\r\n" * 10
    )  # fewer than it would refuse at once
    began = time.monotonic()
    with pytest.raises(ConnectionError):
        async with asyncio.timeout(60):
            while True:
                writer.write(some)
                await writer.drain()
                await asyncio.sleep(0.05)
    assert time.monotonic() - began > 0.5  # read_timeout_s
    assert time.monotonic() - began < 30
    await close(writer)
    async with asyncio.timeout(10):
        while "convnextv2_requests_in_flight 1.0" not in (await hasty.get("/metrics"))[2]["text"]:
            await asyncio.sleep(0.02)
    assert (await hasty.ask(images[0]))[0] == 200


async def test_a_client_may_ask_ahead_but_not_without_end(
    hasty: Process, images: list[bytes]
) -> None:
    await hasty.ready()
    reader, writer = await hasty.connect()
    request = b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n"
    for _ in range(3):
        writer.write(request * 90)
        for _ in range(90):
            assert (await read_answer(reader))[0] == 200
    with suppress(ConnectionError):
        writer.write(request * 10_000)
        async with asyncio.timeout(10):
            assert (await reader.read()).count(b"200 OK") < 200
    await close(writer)
    assert (await hasty.ask(images[0]))[0] == 200


async def test_a_head_without_end_is_cut_off_and_an_upgrade_is_none(
    hasty: Process, images: list[bytes]
) -> None:
    await hasty.ready()
    reader, writer = await hasty.connect()
    with pytest.raises(ConnectionError):
        writer.write(b"GET /healthz HTTP/1.1\r\n")
        for _ in range(200):
            writer.write(b"X: " + b"x" * 8000 + b"\r\n")
            await writer.drain()
            await asyncio.sleep(0.001)
    await close(writer)
    reader, writer = await hasty.connect()
    writer.write(
        b"GET /healthz HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
    )
    assert (await read_answer(reader))[0] == 200
    await close(writer)
    assert (await hasty.ask(images[0]))[0] == 200


def test_nothing_is_read_while_requests_of_the_connection_wait() -> None:
    transport, behind = Mock(), [1]
    flow = _Flow(transport, behind)
    flow.pause_reading()
    flow.resume_reading()
    transport.resume_reading.assert_not_called()
    behind.clear()
    flow.resume_reading()
    transport.resume_reading.assert_called_once_with()


async def test_a_client_learns_why_its_large_body_is_refused(
    hasty: Process, tmp_path: Path
) -> None:
    """Ours sends all before it listens, as most do."""
    await hasty.ready()
    large = tmp_path / "large.jpg"
    large.write_bytes(b"x" * 40_000_000)
    with pytest.raises(DataError, match=r"large.jpg: The body is longer than 32 MB"):
        await asyncio.to_thread(
            list, predict_remotely(f"http://127.0.0.1:{hasty.port}", "trees", [large])
        )
    large.write_bytes(b"x" * 30_000_000)
    with pytest.raises(ServerError, match=r"404.: There is no model 'shoes'"):
        await asyncio.to_thread(
            list, predict_remotely(f"http://127.0.0.1:{hasty.port}", "shoes", [large])
        )


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


@pytest.mark.parametrize(
    "seen", [False, True], ids=["not accepted yet", "accepted, its request not read yet"]
)
async def test_who_has_connected_before_it_stops_to_listen_is_answered(seen: bool) -> None:
    """All of it happens in one turn of the event loop, as it does where the loop lags behind its clients."""

    async def app(scope: dict, receive: Callable, send: Callable) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    class Protocol(TimedProtocol):
        timeout_s = 5.0

    bound = bind("127.0.0.1", 0)
    config = uvicorn.Config(app, http=Protocol, lifespan="off", log_level="warning")
    config.load()
    server = DrainingServer(config, Mock(), drain_s=0)
    server.lifespan = config.lifespan_class(config)
    await server.startup([bound])
    with socket.create_connection(bound.getsockname(), timeout=10) as client:
        if seen:
            await asyncio.sleep(0.05)
            assert server.server_state.connections
        client.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        await server.shutdown([bound])
        assert client.recv(100).startswith(b"HTTP/1.1 204")
    with pytest.raises(OSError):
        bound.getsockname()


# ---- signals at any moment ----


async def test_sighup_from_the_first_moment_on_is_a_reload_and_no_end(
    weights: Path, tmp_path: Path
) -> None:
    with Process(tmp_path, f"trees={weights}") as process:
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
    # As extension modules of PyTorch do: they import others and go on when that fails.
    (tmp_path / "fastapi.py").write_text(
        "import signal\ntry:\n    signal.raise_signal(signal.SIGTERM)\nexcept BaseException:\n    pass\n"
    )
    with Process(tmp_path, "trees=nowhere", PYTHONPATH=str(tmp_path)) as process:
        assert await asyncio.to_thread(process.popen.wait, 30) == 0
        assert (
            process.log.read_text() == "Ended before the server had begun.\n"
            and not process.errors.read_text()
        )


@pytest.mark.parametrize("after_s", [0, 0.5, 1, 2])
async def test_sigterm_while_it_starts_ends_it_as_it_should(
    after_s: float, weights: Path, tmp_path: Path
) -> None:
    with Process(tmp_path, f"trees={weights}") as process:
        await process.takes(signal.SIGTERM)
        await asyncio.sleep(after_s)
        process.popen.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.popen.wait, 30) == 0
        assert not process.errors.read_text()
        if after_s == 0:
            assert process.log.read_text() == "Ended before the server had begun.\n"


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
        await process.said("Finishing what was accepted.")
        process.popen.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.popen.wait, 5) == 1
        assert "Ended at once, without finishing." in process.log.read_text()


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


# ---- HTTP as clients speak it ----


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
    ],
)
async def test_what_is_not_http_gets_the_body_of_all_errors(hasty: Process, sent: bytes) -> None:
    await hasty.ready()
    reader, writer = await hasty.connect()
    writer.write(sent)
    status, headers, found = await read_answer(reader)
    assert (status, headers["content-type"], headers["connection"]) == (
        400,
        "application/json",
        "close",
    )
    assert found == {
        "error": {"code": "malformed_http", "message": "What was sent is not a valid HTTP request."}
    }
    assert await reader.read() == b""
    await close(writer)


@pytest.mark.parametrize("form", ["length", "chunked"])
@pytest.mark.parametrize("pieces", [1, 7])
async def test_a_body_is_not_lost_where_http_2_is_offered(
    form: str, pieces: int, hasty: Process, images: list[bytes]
) -> None:
    """As Java's HttpClient does by default with every first request."""
    await hasty.ready()
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\n"
    reader, writer = await hasty.connect()
    for i in range(3):
        start = head(len(images[i])).replace(b"Host: h\r\n", b"Host: h\r\n" + offer)
        body = images[i]
        if form == "chunked":
            start = start.replace(
                f"Content-Length: {len(body)}".encode(), b"Transfer-Encoding: chunked"
            )
            body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
        everything = start + body
        size = -(-len(everything) // pieces)
        for at in range(0, len(everything), size):
            writer.write(everything[at : at + size])
            await writer.drain()
            await asyncio.sleep(0.01 if pieces > 1 else 0)
        status, _, found = await read_answer(reader)
        _, _, plain = await hasty.ask(images[i])  # other tests change the model that is served
        assert status == 200 and probs(found) == pytest.approx(probs(plain), abs=1e-5)
    writer.write(head(len(images[4])) + images[4])  # and the connection is used on
    _, _, plain = await hasty.ask(images[4])
    assert probs((await read_answer(reader))[2]) == pytest.approx(probs(plain), abs=1e-5)
    await close(writer)


async def test_a_form_of_header_lines_does_not_hold_up_others(hasty: Process) -> None:
    """4 MB of them stopped the server for 10 s with python-multipart 0.0.18."""
    await hasty.ready()
    form = b"--b\r\n" + b"X: y\r\n" * 700_000
    start = "POST /v1/models/trees/predict HTTP/1.1\r\nHost: h\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    reader, writer = await hasty.connect()
    writer.write(f"{start}Content-Length: {len(form)}\r\n\r\n".encode() + form)
    answer = asyncio.create_task(read_answer(reader))
    slowest = 0.0
    while not answer.done():
        began = time.monotonic()
        assert (await hasty.get("/healthz"))[0] == 200
        slowest = max(slowest, time.monotonic() - began)
        await asyncio.sleep(0.01)
    assert answer.result()[0] == 400 and slowest < 3
    await close(writer)


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
