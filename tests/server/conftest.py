"""Servers to ask: in this process without sockets, or in a process of their own."""

import asyncio
import io
import shutil
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from server_process import Process
from trees import photograph

from convnextv2.cli import main
from convnextv2.inference.predictor import Predictor
from convnextv2.server.app import build_app
from convnextv2.server.keys import Keys
from convnextv2.server.limits import Limits
from convnextv2.server.models import Models
from convnextv2.server.prometheus import Metrics


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def images() -> list[bytes]:
    """JPEG files that the model judges differently."""
    files = []
    for seed in range(12):
        file = io.BytesIO()
        Image.fromarray(photograph(seed, 90 + seed, 75)).save(file, "JPEG")
        files.append(file.getvalue())
    return files


@pytest.fixture(scope="session")
def predictor(weights: Path) -> Predictor:
    """The model without a server, which says what is expected of one."""
    return Predictor(weights, device="cpu", precision="float32", batch_size=1)


@pytest.fixture(scope="session")
def expected(predictor: Predictor, images: list[bytes]) -> list[dict[str, float]]:
    """The probability of each class, for each image."""
    found = [as_dict(result["predictions"]) for result in predictor(images, top_k=4)]
    assert len(
        {tuple(round(prob, 3) for _, prob in sorted(probs.items())) for probs in found}
    ) == len(images)
    return found


@pytest.fixture(scope="session")
def artifact(exported: Callable[..., Path]) -> Path:
    """The model as an ONNX artifact."""
    return exported("onnx")


@pytest.fixture(scope="session")
def pretrained(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pre-training run of one epoch."""
    out = tmp_path_factory.mktemp("runs") / "pre"
    small = "--model custom --depths 1,1,1,1 --dims 8,16,24,32 --decoder_dim 16 --image_size 64"
    how = (
        "--batch_size 4 --epochs 1 --workers 0 --precision float32 --device cpu --tensorboard False"
    )
    assert (
        main(
            [
                "pretrain",
                "--data_dir",
                str(pictures),
                "--out",
                str(out),
                *small.split(),
                *how.split(),
            ]
        )
        == 0
    )
    return out


def as_dict(predictions: list[dict[str, Any]]) -> dict[str, float]:
    """Return the probability of each class."""
    return {entry["class"]: entry["prob"] for entry in predictions}


class Server:
    """An application, its models and a client, all in this process."""

    def __init__(
        self, sources: tuple[str, ...], api_key: str, cors_origins: tuple[str, ...], **limits: float
    ) -> None:
        self.limits = Limits(**{"max_delay_ms": 0.0} | limits)  # type: ignore[arg-type]
        self.models = Models(sources, self.limits, Metrics(), device="cpu", precision="float32")
        self.app = build_app(
            self.models, keys=Keys(api_key), cors_origins=cors_origins, access_log="off"
        )
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app), base_url="http://server", timeout=30
        )
        self._gate = threading.Event()

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Hold the model, so that nothing is scored within the `with` block."""
        self._gate.clear()
        self.models.model_thread.submit(self._gate.wait)
        try:
            yield
        finally:
            self._gate.set()

    async def predict(self, body: bytes, name: str = "trees", **query: Any) -> httpx.Response:
        """Ask for all four classes of one image, unless the query says otherwise."""
        headers = {"Content-Type": "application/octet-stream"}
        return await self.client.post(
            f"/v1/models/{name}/predict", content=body, params={"top_k": 4} | query, headers=headers
        )

    async def reload(self) -> list[str]:
        """Reload the models, and return what that says."""
        return [change.text for change in await self.models.reload()]

    async def figures(self) -> dict[str, float]:
        """Read /metrics."""
        lines = (await self.client.get("/metrics")).raise_for_status().text.splitlines()
        return {
            name: float(value)
            for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        }

    async def waiting(self, images: int) -> None:
        """Wait until so many images wait in the queue."""
        async with asyncio.timeout(10):
            while self.models.admission.waiting < images:
                await asyncio.sleep(0.001)

    async def ready(self) -> None:
        """Wait until the models are warm."""
        async with asyncio.timeout(30):
            while not self.models.is_ready:
                await asyncio.sleep(0.001)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start the application, and shut it down after the `with` block."""
        told: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        said: asyncio.Queue[Any] = asyncio.Queue()
        life = asyncio.create_task(
            self.app({"type": "lifespan", "asgi": {"version": "3.0"}}, told.get, said.put)
        )  # type: ignore[arg-type]
        for step in ("startup", "shutdown"):
            await told.put({"type": f"lifespan.{step}"})
            assert await said.get() == {"type": f"lifespan.{step}.complete"}
            if step == "startup":
                try:
                    yield
                finally:
                    self._gate.set()
                    await self.client.aclose()
        await life


@pytest.fixture
def build(weights: Path) -> Callable[..., Server]:
    """A function that builds a server without starting it, of one classifier by default.

    It is called as `build(*sources, api_key, cors_origins, **limits)`.
    """

    def build(
        *sources: str, api_key: str = "", cors_origins: tuple[str, ...] = (), **limits: float
    ) -> Server:
        return Server(sources or (f"trees={weights}",), api_key, cors_origins, **limits)

    return build


@pytest.fixture
async def serve(build: Callable[..., Server]) -> AsyncIterator[Callable[..., Awaitable[Server]]]:
    """A function that builds a server, starts it and waits until it is ready.

    The server ends with the test.
    """
    async with AsyncExitStack() as stack:

        async def serve(*sources: str, **options: Any) -> Server:
            server = build(*sources, **options)
            await stack.enter_async_context(server.running())
            await server.ready()
            return server

        yield serve


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
