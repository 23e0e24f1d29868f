"""The models of a server, by name and version."""

from __future__ import annotations

import asyncio
import base64
import io
import os
import re
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor

from convnextv2.data.chance import stream
from convnextv2.data.decode import open_picture
from convnextv2.data.transforms import BatchTransform, EvalTransform
from convnextv2.deploy.artifact import is_artifact, open_artifact
from convnextv2.deploy.scorer import Scorer, open_scorer
from convnextv2.deploy.serve.batcher import Batcher, Queue
from convnextv2.deploy.serve.limits import Limits, Refusal
from convnextv2.deploy.serve.metrics import Metrics
from convnextv2.distributed import available_cores
from convnextv2.errors import DataError, ImageSizeError, RunError
from convnextv2.evaluation.gallery import hide, to_picture, to_pixels
from convnextv2.model.fcmae import FCMAE, draw_masks
from convnextv2.run import find_weights
from convnextv2.weights.load import load_model, open_weights


@dataclass(frozen=True)
class Spec:
    """What is to be served: a model's name, its version, and where it lies."""

    name: str
    version: str
    source: Path


@dataclass(frozen=True)
class Prepared:
    """An image of a request. pixels: uint8 (C, H, W), for the model. seen: see `EvalTransform.seen`. height, width: in px."""

    pixels: Tensor
    seen: tuple[float, float, float, float]
    height: int
    width: int


class Reconstructor:
    """A pre-trained model that shows what it makes of masked images."""

    def __init__(self, weights: Path) -> None:
        model, description = load_model(weights)
        assert isinstance(model, FCMAE)
        self.model = model.eval()
        self.transform = EvalTransform.from_description(description.preprocessing)
        self.sha256 = open_weights(weights).origin.sha256

    def __call__(self, pixels: Tensor, mask_ratio: float, seed: int) -> tuple[str, str]:
        """Base64 PNGs of one image (C, H, W): what the encoder sees, and the reconstruction with the visible tiles in place."""
        mean, std = self.transform.mean, self.transform.std
        batch = pixels[None]
        images = BatchTransform(mean, std).normalise(batch)
        grid = self.model.grid(*self.transform.image_size)
        visible, masked = draw_masks(1, grid, mask_ratio, stream(seed, "reconstruct"))
        with torch.inference_mode():
            made = to_pixels(self.model.reconstruct(images, visible, masked), mean, std)
        return _png(hide(batch, visible, grid, self.model.tile)[0]), _png(made[0])


@dataclass(eq=False)
class Served:
    """One version of a model. Exactly one of scorer (with its batcher) and reconstructor is there."""

    spec: Spec
    fingerprint: tuple[int, ...]
    scorer: Scorer | None
    reconstructor: Reconstructor | None
    batcher: Batcher | None = None
    users: int = 0
    idle: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def transform(self) -> EvalTransform:
        """How its images are prepared."""
        found = self.scorer or self.reconstructor
        assert found is not None
        return found.transform

    @property
    def sha256(self) -> str:
        """Of its weights or artifact."""
        found = self.scorer or self.reconstructor
        assert found is not None
        return found.sha256

    @property
    def engine(self) -> str:
        """What computes."""
        return self.scorer.engine if self.scorer else "PyTorch on cpu, float32"


class Store:
    """All that is served. Use it inside of one event loop, between `start` and `stop`.

    is_ready: warmed up. is_draining: requests are still answered, but load balancers should send no more."""

    def __init__(self, specs: Sequence[Spec], limits: Limits, metrics: Metrics, *, device: str, precision: str) -> None:
        self.limits, self.metrics, self.device, self.precision = limits, metrics, device, precision
        self.queue = Queue(limits)
        self.decoders: Executor = ThreadPoolExecutor(max(2, available_cores()), thread_name_prefix="decode")
        self.engine: Executor = ThreadPoolExecutor(1, thread_name_prefix="model")  # which has all cores to itself
        self.is_ready = self.is_draining = False
        self._reloading = asyncio.Lock()
        self._models: dict[str, list[Served]] = {}
        for spec in specs:
            versions = self._models.setdefault(spec.name, [])
            if any(served.spec.version == spec.version for served in versions):
                raise RunError(f"{spec.name}@{spec.version}: named twice. Give each model another name or version.")
            versions.append(self._open(spec))

    @property
    def names(self) -> list[str]:
        """Of its models."""
        return list(self._models)

    def versions(self, name: str) -> list[Served]:
        """Of one model, the newest last. Raises Refusal where there is no such model."""
        if name not in self._models:
            raise Refusal(404, "no_such_model", f"There is no model {name[:100]!r}. There are: {', '.join(self._models)}.")
        return self._models[name]

    @asynccontextmanager
    async def use(self, name: str, version: str | None = None) -> AsyncIterator[Served]:
        """A model, which stays until it is no longer used. version: None for the newest."""
        versions = self.versions(name)
        found = [served for served in versions if served.spec.version == version] if version else versions
        if not found:
            there = ", ".join(served.spec.version for served in versions)
            raise Refusal(404, "no_such_version", f"Model {name} has no version {(version or '')[:100]!r}. It has: {there}.")
        served = found[-1]
        served.users += 1
        try:
            yield served
        finally:
            served.users -= 1
            if served.users == 0:
                served.idle.set()

    async def start(self) -> None:
        """Warm up, then be ready."""
        for versions in self._models.values():
            for served in versions:
                await self._begin(served)
        self.is_ready = True

    async def stop(self) -> None:
        """Answer what waits, then end."""
        self.is_ready = False
        for versions in self._models.values():
            for served in versions:
                if served.batcher:
                    await served.batcher.stop()
        self.decoders.shutdown()
        self.engine.shutdown()

    async def reload(self) -> list[str]:
        """Look again where the models lie. What has changed is loaded and warmed up as the next version, then takes the place of
        the old one, which finishes what it was given. Returns lines for people; what cannot be loaded stays as it was."""
        async with self._reloading:
            return [line for name in self._models for line in await self._reload(name)]

    async def _reload(self, name: str) -> list[str]:
        lines, versions = [], self._models[name]
        loop = asyncio.get_running_loop()
        for old in list(versions):
            try:
                if fingerprint(old.spec.source) == old.fingerprint:
                    continue
                numbers = [int(served.spec.version) for served in versions if served.spec.version.isdigit()]
                number = str(max(numbers, default=0) + 1)
                new = await loop.run_in_executor(self.decoders, self._open, Spec(name, number, old.spec.source))
                await self._begin(new)
            except Exception as error:
                lines.append(f"{name}@{old.spec.version}: stays as it was: {error}")
                continue
            versions.remove(old)
            versions.append(new)  # it has the highest number
            lines.append(f"{name}@{number}: {new.engine}, sha256 {new.sha256[:16]}, in place of {old.spec.version}")
            old.idle.clear()
            if old.users:
                await old.idle.wait()
            if old.batcher:
                await old.batcher.stop()
            self.metrics.model.remove(name, old.spec.version, old.sha256, old.engine)
        return lines

    def prepare(self, data: bytes, name: str, transform: EvalTransform) -> Prepared:
        """Decode and prepare one image; for a decoder's thread. Raises Refusal."""
        began = perf_counter()
        try:
            picture = open_picture(data, name=name, channels=transform.channels, max_pixels=self.limits.max_image_pixels)
            pixels = transform(picture.decode())
        except ImageSizeError as error:
            raise Refusal(413, "image_too_large", str(error)) from None
        except DataError as error:
            raise Refusal(415, "not_an_image", str(error)) from None
        self.metrics.decoded.observe(perf_counter() - began)
        return Prepared(pixels, transform.seen(picture.height, picture.width), picture.height, picture.width)

    def _open(self, spec: Spec) -> Served:
        mark = fingerprint(spec.source)
        if not is_artifact(spec.source):
            weights = find_weights(spec.source)
            if open_weights(weights).description.kind == "fcmae":
                return Served(spec, mark, None, Reconstructor(weights))
        return Served(spec, mark, open_scorer(spec.source, device=self.device, precision=self.precision), None)

    async def _begin(self, served: Served) -> None:
        """Warm up on two sizes of batch, so that no request pays for it, then take requests."""
        loop = asyncio.get_running_loop()
        name, scorer = served.spec.name, served.scorer
        transform = served.transform
        grey = torch.full((self.limits.max_batch, transform.channels, *transform.image_size), 128, dtype=torch.uint8)
        if scorer:
            for images in (1, self.limits.max_batch, self.limits.max_batch):
                began = perf_counter()
                await loop.run_in_executor(self.engine, scorer, grey[:images])
            self.queue.finished(self.limits.max_batch, perf_counter() - began)

            def measure(images: int, waits: list[float], seconds: float) -> None:
                self.queue.finished(images, seconds)
                self.metrics.images.labels(name).inc(images)
                self.metrics.batch.labels(name).observe(images)
                self.metrics.scored.labels(name).observe(seconds)
                for wait in waits:
                    self.metrics.waited.observe(wait)

            served.batcher = Batcher(scorer, self.engine, self.limits, measure)
            served.batcher.start()
        else:
            assert served.reconstructor is not None
            await loop.run_in_executor(self.engine, served.reconstructor, grey[0], 0.6, 0)
        self.metrics.model.labels(name, served.spec.version, served.sha256, served.engine).set(1)


def fingerprint(source: Path) -> tuple[int, ...]:
    """Changes with what lies there: time and size of the file that counts."""
    file = open_artifact(source).path / "artifact.json" if is_artifact(source) else find_weights(source)
    found = os.stat(file)
    return found.st_mtime_ns, found.st_size, found.st_ino


def parse_specs(texts: Sequence[str]) -> list[Spec]:
    """`[NAME[@VERSION]=]SOURCE`, each. Without a name it is the last part of the path; a model repository's folder gives all of
    its numbered versions. Raises RunError for a name that could not be part of an address."""
    specs = []
    for text in texts:
        label, given, path = text.partition("=") if re.match(r"[\w.-]+(@[\w.-]+)?=", text) else ("", "", text)
        source = Path(path)
        name, _, version = label.partition("@")
        if not given:
            name = re.sub(r"[^\w.-]+", "-", source.resolve().name) or "model"
        if not source.exists():
            raise RunError(f"{source}: no such file or folder. Expected a run, weights or an artifact, as [NAME[@VERSION]=]PATH.")
        numbered = (
            sorted((entry for entry in source.iterdir() if entry.name.isdigit()), key=lambda entry: int(entry.name))
            if (source.is_dir() and not version)
            else []
        )
        specs += [Spec(name, entry.name, entry) for entry in numbered] or [Spec(name, version or "1", source)]
    return specs


def _png(pixels: Tensor) -> str:
    file = io.BytesIO()
    to_picture(pixels).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
